"""Pods that bring traffic in from outside the cluster are known by their labels."""

from __future__ import annotations

import pytest

from services.aggregator.directory.ingress import Ingress, parse
from services.runtime.errors import UsageError

NAME = "app.kubernetes.io/name"
COMPONENT = "app.kubernetes.io/component"


@pytest.mark.parametrize(
    "labels",
    [
        {NAME: "ingress-nginx", COMPONENT: "controller", "pod-template-hash": "7d4b9"},
        {NAME: "nginx-ingress"},
        {NAME: "traefik", "helm.sh/chart": "traefik-30"},
        {NAME: "kubernetes-ingress"},
        {NAME: "haproxy-ingress"},
        {"run": "haproxy-ingress"},
        {NAME: "contour", COMPONENT: "envoy"},
        {"istio": "ingressgateway", "app": "istio-ingressgateway"},
        {NAME: "envoy", COMPONENT: "proxy", "app.kubernetes.io/managed-by": "envoy-gateway"},
        {"gateway.networking.k8s.io/gateway-name": "public"},
    ],
)
def test_what_charts_and_manifests_deploy_is_known(labels: dict[str, str]) -> None:
    assert Ingress().has(labels.items())


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"app": "web"},
        {NAME: "ingress-nginx", COMPONENT: "admission-webhook"},
        {NAME: "contour", COMPONENT: "contour"},
        {NAME: "envoy", COMPONENT: "proxy"},
        {"istio": "egressgateway"},
        {"run": "traefik"},
    ],
)
def test_others_are_not(labels: dict[str, str]) -> None:
    assert not Ingress().has(labels.items())


def test_users_have_their_own() -> None:
    known = Ingress("app=edge, tier=front ;role")
    assert known.has({"app": "edge", "tier": "front", "x": "y"}.items())
    assert not known.has({"app": "edge"}.items())
    assert known.has({"role": "anything"}.items())
    assert known.has({NAME: "traefik"}.items())


def test_an_empty_value_is_a_value() -> None:
    known = Ingress("edge=")
    assert known.has([("edge", "")])
    assert not known.has([("edge", "yes")])


@pytest.mark.parametrize("text", ["=x", "app=a b", "app==x", "-app=x", "app=x,,y", "app=x, ;y"])
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--ingress-selector: .* is not of the form KEY=VALUE or KEY"):
        parse(text)
