"""What refusals are told as: Kubernetes' own cause, and the next step."""

from __future__ import annotations

import pytest

from services.launcher.refusal import advice, asking
from services.runtime.errors import CredentialsError, PodloxxError, PrivilegeError
from services.runtime.kubernetes_api import ApiError, BrokenAnswer
from services.runtime.proxy import ProxyError

SERVER = "https://lab:6443"


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (
            ApiError(401, "Unauthorized"),
            PrivilegeError,
            "does not accept the credentials (Unauthorized): they may have expired",
        ),
        (
            ApiError(403, 'User "a" cannot create pods'),
            PrivilegeError,
            'refused: User "a" cannot create pods. Next: ask whoever',
        ),
        (ApiError(403, "exceeded quota: small"), PrivilegeError, "Next: a quota forbids it"),
        (ApiError(400, 'admission webhook "x" denied the request: no'), PodloxxError, "Next: a policy of the cluster"),
        (ApiError(409, "object is being terminated"), PodloxxError, "Next: wait until it is gone"),
        (ApiError(500, "etcd is away"), PodloxxError, "refused (500): etcd is away"),
        (BrokenAnswer("no object: b'<html>'"), PodloxxError, "does not answer as an API server does"),
        (
            OSError("Connect call failed"),
            PodloxxError,
            "cannot be reached: Connect call failed. Check that the cluster runs",
        ),
        (TimeoutError(), PodloxxError, "cannot be reached: no answer in time"),
        (CredentialsError("credentials cannot be renewed: exec failed"), PrivilegeError, "Log in again"),
        (
            ProxyError("the proxy http://p (HTTPS_PROXY) does not answer"),
            PodloxxError,
            "does not answer. Name the right one",
        ),
    ],
)
def test_each_has_its_sentence(error: Exception, kind: type[PodloxxError], sentence: str) -> None:
    with pytest.raises(kind) as raised, asking("the pod could not be created", SERVER):
        raise error
    assert str(raised.value).startswith("the pod could not be created: ")
    assert sentence in str(raised.value)


def test_a_security_context_constraint_is_openshifts() -> None:
    assert "OpenShift" in advice("pods is forbidden: unable to validate against any security context constraint: [...]")
    assert advice("something else") == ""
