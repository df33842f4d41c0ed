"""Which addresses and ports stand behind which Service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from services.aggregator.directory.objects import EndpointsObject, Port
from services.flows.address import Address, to_words
from services.flows.scope import Named
from services.flows.table import Words

K = TypeVar("K")
_API_SERVER: Final = Named("kubernetes", "default")
_WORD: Final = (1 << 64) - 1
_HI: Final = 0x9E3779B97F4A7C15
_LO: Final = 0xC2B2AE3D27D4EB4F
_PORT: Final = 0x165667B19E3779F9


class Endpoints:
    """All slices of all Services; `rearranged` is called where the API server's own changed."""

    def __init__(self, rearranged: Callable[[], None] = lambda: None) -> None:
        self._rearranged = rearranged
        self._slices: dict[str, EndpointsObject] = {}
        self._of_service: dict[Named, dict[str, EndpointsObject]] = {}
        self._at: dict[Address, dict[str, EndpointsObject]] = {}
        self._marks: Counter[int] = Counter()

    def put(self, uid: str, one: EndpointsObject) -> None:
        """A slice is new or changed."""
        before = self._slices.get(uid)
        if before == one:
            return
        if before is not None:
            self._take_out(uid, before)
        self._slices[uid] = one
        self._of_service.setdefault(_service(one), {})[uid] = one
        for held in one.addresses:
            self._at.setdefault(held, {})[uid] = one
        self._marks.update(_marks(one))
        self._tell(one)

    def remove(self, uid: str) -> None:
        """A slice is gone."""
        one = self._slices.pop(uid)
        self._take_out(uid, one)
        self._tell(one)

    def api_servers(self) -> frozenset[Address]:
        """The API server's addresses."""
        return frozenset(self.addresses(_API_SERVER))

    def services(self) -> Collection[Named]:
        """All Services with anything behind them."""
        return self._of_service.keys()

    def addresses(self, service: Named) -> Iterator[Address]:
        """The addresses behind a Service."""
        for one in self._of_service.get(service, {}).values():
            yield from one.addresses

    def services_at(self, address: Address, port: Port) -> frozenset[Named]:
        """The Services behind which a port of an address stands."""
        slices = self._at.get(address)
        return frozenset(_service(one) for one in slices.values() if port in one.ports) if slices else frozenset()

    def may_stand_at(self, hi: Words, lo: Words, protocols: Words, ports: Words) -> npt.NDArray[np.bool_]:
        """At which ports of addresses there may be a Service: at no other ones, and at nearly all of these.

        It tells thousands of ports apart while `services_at` looks at one.
        """
        marks = hi * np.uint64(_HI) + lo * np.uint64(_LO) + (protocols << np.uint64(16) | ports) * np.uint64(_PORT)
        known = self._marks
        return np.array([mark in known for mark in marks.tolist()] if known else np.zeros(len(marks)), np.bool_)

    def services_of(self, address: Address) -> frozenset[Named]:
        """The Services behind which any port of an address stands."""
        return frozenset(map(_service, self._at.get(address, {}).values()))

    def joined(self, service: Named) -> tuple[set[Named], set[Address]]:
        """The Service with all that share an endpoint with it, and all of their addresses."""
        found, addresses, todo = {service}, set[Address](), [service]
        while todo:
            for one in self._of_service.get(todo.pop(), {}).values():
                addresses.update(one.addresses)
                sharing = {
                    other for held in one.addresses for port in one.ports for other in self.services_at(held, port)
                }
                todo += sharing - found
                found |= sharing
        return found, addresses

    def _take_out(self, uid: str, one: EndpointsObject) -> None:
        _drop(self._of_service, _service(one), uid)
        for held in one.addresses:
            _drop(self._at, held, uid)
        for mark in _marks(one):
            self._marks[mark] -= 1
            if not self._marks[mark]:
                del self._marks[mark]

    def _tell(self, one: EndpointsObject) -> None:
        if _service(one) == _API_SERVER:
            self._rearranged()


def _marks(one: EndpointsObject) -> list[int]:
    """A number for each address and port, in which two of them seldom agree."""
    words = [to_words(held) for held in one.addresses]
    ports = [(protocol << 16 | port) * _PORT for protocol, port in one.ports]
    return [(hi * _HI + lo * _LO + port) & _WORD for hi, lo in words for port in ports]


def _drop(table: dict[K, dict[str, EndpointsObject]], key: K, uid: str) -> None:
    del table[key][uid]
    if not table[key]:
        del table[key]


def _service(one: EndpointsObject) -> Named:
    return Named(one.service, one.namespace)
