"""Addresses and their words."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.flows import address


@given(st.ip_addresses())
def test_words_and_bytes_round_trip(one: address.Address) -> None:
    normal = address.normal(one)
    assert address.from_words(*address.to_words(one)) == normal
    assert address.from_bytes(address.to_bytes(one)) == normal


def test_a_mapped_address_is_the_ipv4_address() -> None:
    assert address.parse("::ffff:10.0.0.1") == ipaddress.IPv4Address("10.0.0.1")


def test_ipv4_zero_is_not_ipv6_zero() -> None:
    assert address.parse("0.0.0.0") != address.parse("::")
    assert address.to_words(address.parse("0.0.0.0")) != address.to_words(address.parse("::"))


def test_bytes_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes, got 4"):
        address.from_bytes(b"\x0a\x00\x00\x01")
