"""Which proxy a server is asked through: as kubectl has it."""

from __future__ import annotations

import pytest

from services.runtime.errors import UsageError
from services.runtime.proxy import chosen

LAB = "https://lab.example.com:6443"
TEN = "https://10.1.2.3:6443"
SIX = "https://[fd00::7]"


@pytest.mark.parametrize(
    ("server", "environ", "url"),
    [
        (LAB, {}, None),
        (LAB, {"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        (LAB, {"https_proxy": "http://p:3128"}, "http://p:3128"),
        (LAB, {"HTTPS_PROXY": "p:3128"}, "http://p:3128"),
        (LAB, {"HTTP_PROXY": "http://p:3128"}, None),
        ("http://lab", {"HTTP_PROXY": "http://p:3128"}, "http://p:3128"),
        # Never what is on this machine: clusters in containers.
        ("https://localhost:6443", {"HTTPS_PROXY": "http://p"}, None),
        ("https://127.0.0.9:6443", {"HTTPS_PROXY": "http://p"}, None),
        ("https://[::1]:6443", {"HTTPS_PROXY": "http://p"}, None),
    ],
)
def test_the_environment_names_it(server: str, environ: dict[str, str], url: str | None) -> None:
    found = chosen(server, None, environ)
    assert (found and found.url) == url


@pytest.mark.parametrize(
    ("server", "excepted", "through"),
    [
        (LAB, "*", False),
        (LAB, "example.com", False),
        (LAB, ".example.com", False),
        (LAB, "*.example.com", False),
        (LAB, "a, LAB.example.com ,b", False),
        (LAB, "lab.example.com:6443", False),
        (LAB, "lab.example.com:443", True),
        (LAB, ".lab.example.com", True),
        (LAB, "ample.com", True),
        (LAB, "", True),
        (LAB, "10.0.0.0/8", True),
        (TEN, "10.0.0.0/8", False),
        (TEN, "10.1.2.3", False),
        (TEN, "10.1.2.3:6443", False),
        (TEN, "10.1.2.3:443", True),
        (TEN, "10.1.2.4,10.2.0.0/16,nonsense/8", True),
        (SIX, "fd00::/8", False),
        (SIX, "fd00::7", False),
        (SIX, "[fd00::7]:443", False),
        (SIX, "[fd00::7]:6443", True),
    ],
)
def test_no_proxy_excepts(server: str, excepted: str, through: bool) -> None:
    assert (chosen(server, None, {"HTTPS_PROXY": "http://p", "NO_PROXY": excepted}) is not None) is through


def test_what_the_kubeconfig_names_goes_before_everything() -> None:
    found = chosen("https://127.0.0.1", "http://q:1", {"HTTPS_PROXY": "http://p", "NO_PROXY": "*"})
    assert found is not None
    assert str(found) == "http://q:1 (proxy-url of the kubeconfig)"


@pytest.mark.parametrize("url", ["socks5://anna:secret@p:1080", "http://", "http://p:port"])
def test_one_of_another_kind_is_refused_without_telling_its_password(url: str) -> None:
    with pytest.raises(UsageError, match=r"\(HTTPS_PROXY\) cannot be used: .* such as http://proxy") as raised:
        chosen(LAB, None, {"HTTPS_PROXY": url})
    assert "secret" not in str(raised.value)
