"""Address ranges, and the settings that name them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.directory.ranges import Ranges, parse_named, parse_plain
from services.flows.scope import Scope
from services.runtime.errors import UsageError

networks = st.builds(
    lambda number, length: ipaddress.ip_network((number, length), strict=False),
    st.integers(0, 255).map(lambda n: n << 24),
    st.integers(0, 32),
)


@given(st.lists(networks), st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address))
def test_the_longest_prefix_is_found(listed: list[ipaddress.IPv4Network], address: ipaddress.IPv4Address) -> None:
    found = Ranges((network, str(network)) for network in listed).find(address)
    holding = [network for network in listed if address in network]
    expected = max(holding, key=lambda network: network.prefixlen, default=None)
    assert found == (None if expected is None else str(expected))


def test_families_are_kept_apart() -> None:
    ranges = Ranges([(ipaddress.ip_network("::/0"), "six"), (ipaddress.ip_network("0.0.0.0/0"), "four")])
    assert ranges.find(ipaddress.ip_address("::1")) == "six"
    assert ranges.find(ipaddress.ip_address("0.0.0.1")) == "four"


def test_named_ranges_have_a_scope() -> None:
    parsed = parse_named(" db=10.0.0.0/8:infra,, v6=2001:db8::/32 ")
    assert parsed == [
        (ipaddress.ip_network("10.0.0.0/8"), ("db", Scope.INFRA)),
        (ipaddress.ip_network("2001:db8::/32"), ("v6", Scope.PRIVATE)),
    ]
    assert parse_named("") == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("10.0.0.0/8", "--cidr: '10.0.0.0/8' is not of the form NAME=CIDR[:scope]"),
        ("=10.0.0.0/8", "--cidr: '=10.0.0.0/8' is not of the form"),
        ("db=", "--cidr: 'db=' is not of the form"),
        ("db=10.0.0.1", "--cidr: 'db=10.0.0.1' has no prefix length, for example 10.0.0.0/8"),
        ("db=10.0.0.1/8", "--cidr: '10.0.0.1/8' is no address range: 10.0.0.1/8 has host bits set"),
        ("db=10.0.0.0/8:near", "--cidr: 'near' is no scope; there are same-pod, same-node"),
    ],
)
def test_a_wrong_setting_is_one_sentence(text: str, why: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_named(text)
    assert str(error.value).startswith(why)


def test_plain_ranges_are_separated_by_commas() -> None:
    assert [str(network) for network, _ in parse_plain("10.0.0.0/8, fd00::/8,")] == ["10.0.0.0/8", "fd00::/8"]
    with pytest.raises(UsageError, match="--private-cidr: 'x' is no address range"):
        parse_plain("10.0.0.0/8,x")
