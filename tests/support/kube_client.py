"""Requests to an API server as a test makes them: JSON over TLS, by the standard library alone."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

Object = dict[str, Any]
"""An object as the API server writes it."""

_ANSWER_S: Final = 15.0
"""A loaded machine's API server has taken five."""
_CLUSTER_SCOPED: Final = {
    *("Namespace", "Node", "ClusterRole", "ClusterRoleBinding", "ServiceCIDR"),
    *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
}
_PLURALS: Final = {
    "NetworkPolicy": "networkpolicies",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
}


class Refused(Exception):  # noqa: N818  # the server did as it should
    """The API server said no: its status, reason (`Forbidden`, `NotFound` …) and message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


def path_of(one: Object) -> str:
    """Where objects of this one's kind and namespace are."""
    version, kind = one["apiVersion"], one["kind"]
    base = f"/api/{version}" if "/" not in version else f"/apis/{version}"
    inside = "" if kind in _CLUSTER_SCOPED else f"/namespaces/{one['metadata']['namespace']}"
    return f"{base}{inside}/{_PLURALS.get(kind, kind.lower() + 's')}"


@dataclass(frozen=True, slots=True)
class KubeClient:
    """Requests to the API server at `host` as one user: whom `tls` carries, or who has the `token`.

    Every method raises Refused where the server says no, and OSError where there is none.
    """

    port: int
    tls: ssl.SSLContext
    token: str = ""
    host: str = "127.0.0.1"

    def get(self, path: str, **query: str) -> Object:
        """The object or list at `path`."""
        return self.request("GET", f"{path}?{urlencode(query)}" if query else path)

    def create(self, one: Object) -> Object:
        """The object as it is now; a `status` is given to it as well, which creation alone leaves out."""
        made = self.request("POST", path_of(one), one)
        return self.set_status(made, one["status"]) if "status" in one else made

    def set_status(self, one: Object, status: Object) -> Object:
        """Give an object that exists another status, as its kubelet or controller would."""
        return self.request("PATCH", f"{path_of(one)}/{one['metadata']['name']}/status", {"status": status})

    def patch(self, one: Object, change: Object) -> Object:
        """Merge `change` into an object that exists."""
        return self.request("PATCH", f"{path_of(one)}/{one['metadata']['name']}", change)

    def delete(self, one: Object) -> None:
        """Remove an object at once: no kubelet is there to say that a pod has ended."""
        self.request("DELETE", f"{path_of(one)}/{one['metadata']['name']}", {"gracePeriodSeconds": 0})

    def request(self, method: str, path: str, body: Object | None = None) -> Object:
        """Any request; a PATCH is a merge."""
        with self._asked(method, path, body) as answer:
            found = json.loads(answer.read())
        assert isinstance(found, dict), found
        return found

    def plain(self, path: str) -> str:
        """The text at `path`, such as `/readyz`."""
        with self._asked("GET", path) as answer:
            return answer.read().decode()

    @contextlib.contextmanager
    def watch(self, path: str, version: str) -> Iterator[Callable[[], tuple[str, Object]]]:
        """What yields the next change (`ADDED` …, the object) after `version`; raises OSError when none comes."""
        with self._asked("GET", f"{path}?watch=1&resourceVersion={version}") as answer:

            def following() -> tuple[str, Object]:
                event = json.loads(answer.readline())
                return event["type"], event["object"]

            yield following

    @contextlib.contextmanager
    def _asked(self, method: str, path: str, body: Object | None = None) -> Iterator[http.client.HTTPResponse]:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=_ANSWER_S, context=self.tls)
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            with connection.getresponse() as answer:
                if answer.status >= 300:
                    raise _refusal(answer)
                yield answer


def _refusal(answer: http.client.HTTPResponse) -> Refused:
    text = answer.read().decode(errors="replace")
    try:
        status = json.loads(text)
        return Refused(answer.status, status.get("reason", ""), status.get("message", ""))
    except ValueError:
        return Refused(answer.status, answer.reason, text)
