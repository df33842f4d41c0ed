"""What a cluster's refusal means to whoever asked for it: Kubernetes' own cause, and the next step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from services.runtime.errors import CredentialsError, PodloxxError, PrivilegeError
from services.runtime.kubernetes_api import ApiError, BrokenAnswer
from services.runtime.proxy import ProxyError

_BY_WORDS: Final = (
    ("exceeded quota", "a quota forbids it: ask for more, or choose other nodes with --node-selector"),
    (
        "unable to validate against any security context constraint",
        "OpenShift needs a security context constraint for it: docs/kubernetes.md names which",
    ),
    (
        "gke warden",
        "GKE Autopilot lets no agents run, which need their node's network and to count in its kernel: choose a standard cluster",
    ),
    (
        "violates podsecurity",
        "Pod Security forbids it: agents need the level privileged, which whoever runs the cluster can grant",
    ),
    ("admission webhook", "a policy of the cluster forbids it: ask whoever runs it for an exception"),
    # Of a ValidatingAdmissionPolicy.
    ("denied request", "a policy of the cluster forbids it: ask whoever runs it for an exception"),
    ("denied the request", "a policy of the cluster forbids it: ask whoever runs it for an exception"),
    ("being terminated", "wait until it is gone, or choose another one with --namespace"),
)


def advice(message: str) -> str:
    """The next step after an API server's message; empty where it says nothing that we know."""
    lowered = message.lower()
    return next((step for words, step in _BY_WORDS if words in lowered), "")


@contextlib.contextmanager
def asking(what: str, server: str) -> Iterator[None]:
    """Turn what `KubernetesApi` raises into one sentence about `what`, which could not be done."""
    try:
        yield
    except ApiError as error:
        raise _translated(what, error) from error
    except BrokenAnswer as error:
        raise PodloxxError(f"{what}: {server} does not answer as an API server does ({error}): is it one?") from error
    except CredentialsError as error:
        raise PrivilegeError(f"{what}: {error}. Log in again; `kubectl get nodes` shows the same") from error
    except ProxyError as error:
        raise PodloxxError(
            f"{what}: {server} is asked through a proxy, and {error}. Name the right one, or except the API server with NO_PROXY; "
            "`kubectl version` shows the same"
        ) from error
    except (OSError, TimeoutError) as error:
        why = " ".join(str(error).split()) or "no answer in time"
        raise PodloxxError(
            f"{what}: the API server at {server} cannot be reached: {why}. Check that the cluster runs, that a VPN it needs "
            "is up, and that HTTPS_PROXY and NO_PROXY are right; `kubectl version` shows the same"
        ) from error


def _translated(what: str, error: ApiError) -> PodloxxError:
    step = advice(str(error))
    if error.status == 401:
        return PrivilegeError(
            f"{what}: the API server does not accept the credentials ({error}): they may have expired. Log in again; "
            "`kubectl get nodes` shows the same"
        )
    if error.status == 403:
        step = (
            step
            or "ask whoever runs the cluster for that right; `podloxx-launch doctor --context` lists all that are needed"
        )
        return PrivilegeError(f"{what}: the API server refused: {error}. Next: {step}")
    return PodloxxError(
        f"{what}: the API server refused ({error.status}): {error}" + (f". Next: {step}" if step else "")
    )
