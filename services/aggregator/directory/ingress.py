"""Which pods bring traffic in from outside the cluster: ingress controllers and gateways, by their labels."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from services.runtime.errors import UsageError

Selector = frozenset[tuple[str, str | None]]
"""Labels that a pod must have; None stands for any value."""

_NAME: Final = "app.kubernetes.io/name"
_COMPONENT: Final = "app.kubernetes.io/component"
_SELECTORS: Final[tuple[Selector, ...]] = tuple(
    frozenset(labels.items())
    for labels in (
        {_NAME: "ingress-nginx", _COMPONENT: "controller"},
        {_NAME: "nginx-ingress"},
        {_NAME: "traefik"},
        {_NAME: "kubernetes-ingress"},
        {_NAME: "haproxy-ingress"},
        {"run": "haproxy-ingress"},
        {_NAME: "contour", _COMPONENT: "envoy"},
        {"istio": "ingressgateway"},
        {_NAME: "envoy", _COMPONENT: "proxy", "app.kubernetes.io/managed-by": "envoy-gateway"},
        {"gateway.networking.k8s.io/gateway-name": None},
    )
)
"""As the charts and manifests of ingress-nginx, NGINX, Traefik, HAProxy, HAProxy Ingress, Contour, Istio, Envoy Gateway
and implementations of the Gateway API label their pods."""
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?")


class Ingress:
    """The known selectors and the user's, as `--ingress-selector` writes them; raises UsageError."""

    def __init__(self, selectors: str = "") -> None:
        self._selectors = (*_SELECTORS, *parse(selectors))

    def has(self, labels: Iterable[tuple[str, str]]) -> bool:
        """Whether a pod with these labels is one."""
        exact = set(labels)
        if not exact:
            return False
        keys = {key for key, _ in exact}
        return any(
            all(key in keys if value is None else (key, value) in exact for key, value in selector)
            for selector in self._selectors
        )


def parse(text: str) -> tuple[Selector, ...]:
    """The selectors of `KEY=VALUE,KEY;KEY=VALUE`: commas say "and", semicolons "or"; raises UsageError."""
    return tuple(
        frozenset(_requirement(part.strip()) for part in one.split(",")) for one in text.split(";") if one.strip()
    )


def _requirement(text: str) -> tuple[str, str | None]:
    key, equals, value = text.partition("=")
    if not _LABEL.fullmatch(key) or (value and not _LABEL.fullmatch(value)):
        raise UsageError(
            f"--ingress-selector: {text!r} is not of the form KEY=VALUE or KEY, for example app=my-gateway"
        )
    return key, value if equals else None
