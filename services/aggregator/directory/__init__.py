"""Who has which address: what every directory can tell."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from services.aggregator.directory.endpoints import Endpoints
from services.flows.address import Address
from services.flows.scope import Named, Place, Pod, World


@dataclass(frozen=True, slots=True)
class PodDetails:
    """What is shown of a pod besides what classification needs; empty where not known."""

    owner_kind: str = ""
    owner_name: str = ""
    container_id: str = ""
    started_us: int = 0


class Directory(World, Protocol):
    """A world in which addresses change hands, and that can also say whose an interface is.

    Who had a pod's address is answered for the window that `at` named last.
    """

    endpoints: Endpoints

    def shift(self, step_us: int) -> None:
        """Redis's clock was set: moments that were are others by it."""

    def refresh(self) -> None:
        """Take what changed, and forget what nobody can ask about any more."""

    def at(self, start_us: int, end_us: int) -> None:
        """From now on answers are about this window, in Redis microseconds."""

    def version(self, addresses: Iterable[Address]) -> int:
        """Changes whenever an answer about one of these may be another one than before."""

    def changes(self) -> Collection[Address] | None:
        """The addresses of which that is so since the last call; None for all."""

    def settled_us(self, address: Address) -> int:
        """From when on a window gets the same answer as every later one, until something changes."""

    def is_awaited(self, address: Address) -> bool:
        """Whether nobody is known to have had an address that somebody may have got just now."""

    def released(self, addresses: Iterable[Address], node: str, at_us: int) -> None:
        """An agent of `node` saw the interface of whoever had these addresses end."""

    def known(self, pod: Pod) -> Pod | None:
        """A pod as it is known by now; None where it is not."""

    def place(self, node: str) -> Place:
        """Where a node is, as far as that is known."""

    def owner(self, addresses: Iterable[Address], node: str) -> Pod | None:
        """The pod on `node` that had one of `addresses`; None where no pod or several had."""

    def addresses(self, pod: Pod) -> frozenset[Address]:
        """All addresses of a pod."""

    def behind(self, what: str, name: Named) -> Iterable[str]:
        """`namespace/pod` of those behind the addresses of a `service` or `node` just now."""

    def details(self, pod: Pod) -> PodDetails:
        """What else is known of a pod."""
