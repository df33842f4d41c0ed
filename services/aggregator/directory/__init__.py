"""Who has which address: what every directory can tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from services.flows.address import Address
from services.flows.scope import Pod, World


@dataclass(frozen=True, slots=True)
class PodDetails:
    """What is shown of a pod besides what classification needs; empty where not known."""

    owner_kind: str = ""
    owner_name: str = ""
    container_id: str = ""
    started_us: int = 0


class Directory(World, Protocol):
    """A world that can also say whose an interface is."""

    @property
    def generation(self) -> int:
        """Changes whenever an earlier answer may be another one now."""

    def owner(self, addresses: Iterable[Address], node: str) -> Pod | None:
        """The pod on `node` that has one of `addresses`; None where no pod or several do."""

    def addresses(self, pod: Pod) -> frozenset[Address]:
        """All addresses of a pod."""

    def details(self, pod: Pod) -> PodDetails:
        """What else is known of a pod."""
