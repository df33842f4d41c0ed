"""Named address ranges, of which the most specific one decides."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final, Generic, TypeAlias, TypeVar

from services.flows.address import Address
from services.flows.scope import Named, Scope
from services.runtime.errors import UsageError

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
T = TypeVar("T")
_DEFAULT_SCOPE: Final = Scope.PRIVATE


class Ranges(Generic[T]):
    """A value per network; `find` looks at one dict per prefix length, longest first."""

    def __init__(self, entries: Iterable[tuple[Network, T]] = ()) -> None:
        self._by_length: dict[tuple[int, int], dict[int, T]] = {}
        for network, value in entries:
            prefixes = self._by_length.setdefault((network.version, network.prefixlen), {})
            prefixes[int(network.network_address)] = value
        self._lengths = sorted(self._by_length, key=lambda key: -key[1])

    def find(self, address: Address) -> T | None:
        """The value of the most specific network that holds `address`."""
        number = int(address)
        for version, length in self._lengths:
            if version == address.version:
                shift = address.max_prefixlen - length
                value = self._by_length[version, length].get(number >> shift << shift)
                if value is not None:
                    return value
        return None


class UserRanges:
    """The user's own ranges: the settings `cidr` and `private_cidr`, and `more` named ones; raises UsageError."""

    def __init__(
        self, cidr: str = "", private_cidr: str = "", more: Iterable[tuple[Network, tuple[str, Scope]]] = ()
    ) -> None:
        self._named = Ranges([*more, *parse_named(cidr)])
        self._private = Ranges(parse_plain(private_cidr))

    def named(self, address: Address) -> tuple[Named, Scope] | None:
        """Name and scope of the most specific named range that holds `address`."""
        found = self._named.find(address)
        return None if found is None else (Named(found[0]), found[1])

    def is_private(self, address: Address) -> bool:
        """Whether `address` was declared private without a name."""
        return self._private.find(address) is not None


def parse_network(text: str, where: str) -> Network:
    """The network that `text` writes; raises UsageError naming `where` it stands."""
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError as error:
        raise UsageError(f"{where}: {text!r} is no address range: {error}") from error


def parse_scope(text: str, where: str) -> Scope:
    """The scope that `text` names; raises UsageError naming `where` it stands."""
    try:
        return Scope(text.strip())
    except ValueError:
        known = ", ".join(Scope)
        raise UsageError(f"{where}: {text!r} is no scope; there are {known}") from None


def parse_named(text: str) -> list[tuple[Network, tuple[str, Scope]]]:
    """The ranges of `--cidr NAME=CIDR[:scope],…`; raises UsageError."""
    entries = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, rest = part.partition("=")
        if not (name and equals and rest):
            raise UsageError(f"--cidr: {part!r} is not of the form NAME=CIDR[:scope]")
        # An IPv6 range has colons of its own; a scope stands behind the prefix length.
        prefix, slash, tail = rest.partition("/")
        length, colon, scope = tail.partition(":")
        if not slash:
            raise UsageError(f"--cidr: {part!r} has no prefix length, for example 10.0.0.0/8")
        found = parse_scope(scope, "--cidr") if colon else _DEFAULT_SCOPE
        entries.append((parse_network(f"{prefix}/{length}", "--cidr"), (name, found)))
    return entries


def parse_plain(text: str) -> list[tuple[Network, bool]]:
    """The ranges of `--private-cidr CIDR,…`; raises UsageError."""
    return [(parse_network(part, "--private-cidr"), True) for part in text.split(",") if part.strip()]
