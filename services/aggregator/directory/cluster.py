"""The directory of a Kubernetes cluster, kept by reflectors: who had which address at which moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from services.aggregator.directory import PodDetails
from services.aggregator.directory.endpoints import Endpoints
from services.aggregator.directory.ingress import Ingress
from services.aggregator.directory.objects import (
    NodeObject,
    PodObject,
    RangeObject,
    ServiceObject,
)
from services.aggregator.directory.ranges import Ranges, UserRanges
from services.aggregator.directory.tenures import KEPT_US, Tenures
from services.flows import address
from services.flows.address import Address
from services.flows.scope import Ambiguous, Named, Place, Pod, Scope

_SKEW_US: Final = 1_000_000
"""Nodes write whole seconds of their own clocks, and Redis has another one."""
_BLOCK: Final = {4: 8, 6: 64}
"""Low bits of addresses that a network plugin gives to the pods of one node."""

_SWEEP_US: Final = 60_000_000

T = TypeVar("T")


class ClusterDirectory:
    """What reflectors told; `now_us` gives Redis's time, `user` are the user's own ranges, `ingress` his selectors.

    Who a pod's address belongs to is answered for the window that `at` named last; all else is
    answered as it is known now.
    """

    def __init__(self, now_us: Callable[[], int], user: UserRanges, ingress: Ingress) -> None:
        self._now_us = now_us
        self._user = user
        self._ingress = ingress
        self._window = 0, 0
        self._swept_us = 0
        self._tenures = Tenures()
        self._objects: dict[str, PodObject] = {}
        """All pods, and those that ended for as long as anybody may ask."""
        self._pods: dict[str, Pod] = {}
        self._on_node: dict[str, set[str]] = {}
        """The pods in the network of each node."""
        self._versions: dict[Address, int] = {}
        self._version = 0
        self._rearranged = 0
        self._arrangement: _Arrangement | None = None
        self._changed: set[Address] | None = None
        self._blocks: set[tuple[int, int]] = set()
        self.pods = _Pods(self)
        self.nodes: Table[NodeObject] = Table(self._rearrange)
        self.services: Table[ServiceObject] = Table(self._rearrange)
        self.endpoints = Endpoints(self._rearrange)
        self.ranges: Table[RangeObject] = Table(self._rearrange)

    # What reflectors tell.

    def put_pod(self, one: PodObject) -> None:
        """A pod is new or changed."""
        before = self._objects.get(one.uid)
        if before == one:
            return
        self._objects[one.uid] = one
        self._pods.pop(one.uid, None)
        if one.host_network:
            on_node = self._on_node.setdefault(one.node, set())
            (on_node.discard if one.ended else on_node.add)(_full_name(one))
        now = self._now_us()
        had, has = _held(before) if before else set(), _held(one)
        # Of one that ended while nobody watched the last packets may still come.
        late = _held(one._replace(ended=False)) if before is None and one.ended_us > now - KEPT_US else set()
        for new in (has | late) - had:
            # Where Redis's clock is behind, it has the address by now all the same.
            self._tenures.begin(new, one.uid, min(one.began_us or now, now) - _SKEW_US)
            self._blocks.add(_block(new))
        for gone in (had | late) - has:
            self._tenures.end(gone, one.uid, one.ended_us + _SKEW_US if one.ended_us else now)
        self._touch(had | has | late)

    def remove_pod(self, uid: str) -> None:
        """A pod is gone; what is known of it is kept for late batches."""
        one = self._objects.get(uid)
        if one is None:
            return
        self._on_node.get(one.node, set()).discard(_full_name(one))
        for held in one.addresses:
            self._tenures.end(held, uid, self._now_us())
        self._touch(set(one.addresses))
        if not any(held in self._tenures for held in one.addresses):
            self._forget(uid)

    def released(self, addresses: Iterable[Address], node: str, at_us: int) -> None:
        """The interface behind which a pod of `node` had these addresses ended."""
        for one in addresses:
            for tenure in self._tenures.now(one):
                if self._objects[tenure.uid].node == node and tenure.from_us < at_us:
                    self._tenures.end(one, tenure.uid, at_us)
                    self._touch({one})

    def shift(self, step_us: int) -> None:
        self._tenures.shift(step_us)
        self._swept_us += step_us
        self._rearrange()

    def refresh(self) -> None:
        if self._now_us() < self._swept_us + _SWEEP_US:
            return
        self._swept_us = self._now_us()
        for uid in self._tenures.forget(self._now_us() - KEPT_US):
            self._forget(uid)

    # What the aggregator asks.

    def at(self, start_us: int, end_us: int) -> None:
        """From now on answers are about this window."""
        self._window = start_us, end_us

    def version(self, addresses: Iterable[Address]) -> int:
        """Changes whenever an answer about one of these may be another one."""
        return max((self._versions.get(one, 0) for one in addresses), default=0) + self._rearranged

    def changes(self) -> set[Address] | None:
        """The addresses whose answers may have changed since the last call; None for all."""
        changed, self._changed = self._changed, set()
        return changed

    def settled_us(self, one: Address) -> int:
        """From when on a window gets the same answer as every later one, until something changes."""
        return self._tenures.settled_us(one)

    def is_awaited(self, one: Address) -> bool:
        """Whether nobody is known to have an address that somebody may have got just now."""
        if self._tenures.now(one) or self._tenures.holders(one, *self._window):
            return False
        now = self._arranged
        if any(one in known for known in (now.services, now.nodes, now.gateways, now.api_servers)):
            return False
        return _block(one) in self._blocks or self.in_cluster_range(one)

    def place(self, node: str) -> Place:
        found = self._arranged.nodes_by_name.get(node)
        return Place(node, found.zone, found.region) if found else Place(node)

    def owner(self, addresses: Iterable[Address], node: str) -> Pod | None:
        found = set()
        for one in addresses:
            held = self._tenures.holders(one, *self._window)
            found |= {uid for uid in held if self._objects[uid].node in {"", node}} or held
        return self._pod(found.pop()) if len(found) == 1 else None

    def known(self, pod: Pod) -> Pod | None:
        return self._pod(pod.uid) if pod.uid in self._objects else None

    def addresses(self, pod: Pod) -> frozenset[Address]:
        one = self._objects.get(pod.uid)
        return frozenset(one.addresses) if one and not one.host_network else frozenset()

    def behind(self, what: str, name: Named) -> set[str]:
        if what == "node":
            return self._on_node.get(name.name, set())
        held = [tenure for one in self.endpoints.addresses(name) for tenure in self._tenures.now(one)]
        return {_full_name(self._objects[tenure.uid]) for tenure in held}

    def details(self, pod: Pod) -> PodDetails:
        one = self._objects.get(pod.uid)
        if one is None:
            return PodDetails()
        return PodDetails(one.owner_kind, one.owner_name, one.container_id, one.started_us)

    def pod(self, one: Address) -> Pod | None:
        uids = self._tenures.holders(one, *self._window)
        if len(uids) > 1:
            raise Ambiguous
        return self._pod(uids.pop()) if uids else None

    def service(self, one: Address) -> Named | None:
        return self._arranged.services.get(one)

    def is_api_server(self, one: Address) -> bool:
        return one in self._arranged.api_servers

    def node(self, one: Address) -> Named | None:
        return self._arranged.nodes.get(one)

    def node_gateway(self, one: Address) -> Named | None:
        return self._arranged.gateways.get(one)

    def user_cidr(self, one: Address) -> tuple[Named, Scope] | None:
        return self._user.named(one)

    def in_cluster_range(self, one: Address) -> bool:
        return self._arranged.ranges.find(one) is not None

    def in_private_cidr(self, one: Address) -> bool:
        return self._user.is_private(one)

    def _pod(self, uid: str) -> Pod:
        pod = self._pods.get(uid)
        if pod is None:
            one = self._objects[uid]
            place, ingress = self.place(one.node), self._ingress.has(one.labels)
            pod = self._pods[uid] = Pod(uid, one.namespace, one.name, place, one.labels, ingress)
        return pod

    def _touch(self, addresses: set[Address]) -> None:
        self._version += 1
        self._versions.update(dict.fromkeys(addresses, self._version))
        if self._changed is not None:
            self._changed |= addresses

    def _forget(self, uid: str) -> None:
        one = self._objects.pop(uid, None)
        self._pods.pop(uid, None)
        for held in one.addresses if one and not one.host_network else ():
            if held not in self._tenures:
                self._versions.pop(held, None)

    def _rearrange(self) -> None:
        """Something else than a pod changed: every verdict may be another one."""
        self._arrangement = None
        self._pods.clear()
        self._version += 1
        self._rearranged = self._version
        self._changed = None

    @property
    def _arranged(self) -> _Arrangement:
        """Everything but pods; put in order when it is asked for, as a first list brings thousands at once."""
        if self._arrangement is None:
            self._arrangement = _arrangement(
                self.nodes.all(), self.services.all(), self.endpoints.api_servers(), self.ranges.all()
            )
        return self._arrangement


@dataclass(frozen=True, slots=True)
class _Arrangement:
    """Nodes, Services and ranges by what they are asked for."""

    nodes_by_name: dict[str, NodeObject]
    nodes: dict[Address, Named]
    gateways: dict[Address, Named]
    services: dict[Address, Named]
    api_servers: frozenset[Address]
    ranges: Ranges[bool]


def _arrangement(
    nodes: list[NodeObject],
    services: list[ServiceObject],
    api_servers: frozenset[Address],
    ranges: list[RangeObject],
) -> _Arrangement:
    cidrs = [(network, one.name) for one in nodes for network in one.pod_cidrs]
    return _Arrangement(
        nodes_by_name={one.name: one for one in nodes},
        nodes={held: Named(one.name) for one in nodes for held in one.addresses},
        gateways={
            address.normal(network.network_address + 1): Named(name)
            for network, name in cidrs
            if network.num_addresses > 1
        },
        services={held: Named(one.name, one.namespace) for one in services for held in one.addresses},
        api_servers=api_servers,
        ranges=Ranges(
            (network, True)
            for network in [
                *(network for network, _ in cidrs),
                *(network for one in ranges for network in one.networks),
            ]
        ),
    )


class Table(Generic[T]):
    """A reflector's sink that holds objects by uid and says when one changed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._objects: dict[str, T] = {}
        self._announce = changed

    def all(self) -> list[T]:
        """All objects."""
        return list(self._objects.values())

    def put(self, uid: str, one: T) -> None:
        before = self._objects.get(uid)
        self._objects[uid] = one
        if before != one:
            self._announce()

    def remove(self, uid: str) -> None:
        del self._objects[uid]
        self._announce()


class _Pods:
    """The sink of pods."""

    def __init__(self, directory: ClusterDirectory) -> None:
        self._directory = directory

    def put(self, _: str, one: PodObject) -> None:
        self._directory.put_pod(one)

    def remove(self, uid: str) -> None:
        self._directory.remove_pod(uid)


def _held(one: PodObject) -> set[Address]:
    """The addresses that a pod has for itself; one in its node's network has none."""
    return set() if one.host_network or one.ended else set(one.addresses)


def _full_name(one: PodObject) -> str:
    return f"{one.namespace}/{one.name}"


def _block(one: Address) -> tuple[int, int]:
    return one.version, int(one) >> _BLOCK[one.version]
