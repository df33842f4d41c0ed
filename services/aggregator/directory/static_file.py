"""A directory that a JSON file writes down, and that is read again when the file changes."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from services.aggregator.directory import PodDetails
from services.aggregator.directory.endpoints import Endpoints
from services.aggregator.directory.ranges import Network, Ranges, UserRanges
from services.flows import address
from services.flows.address import Address
from services.flows.scope import Named, Place, Pod, Scope
from services.runtime.errors import UsageError
from services.runtime.log import get_logger

_log = get_logger(__name__)

VERSION: Final = 1
_SECTIONS: Final = frozenset(("version", "addresses", "nodes", "services", "cidrs"))


class StaticDirectory:
    """The directory of a file's content; `cidr` and `private_cidr` are the settings of that name.

    Raises UsageError naming the file, the place in it and what is expected there.
    """

    def __init__(self, content: Mapping[str, Any], source: str, *, cidr: str = "", private_cidr: str = "") -> None:
        self._settings = source, cidr, private_cidr
        self._read: tuple[int, int, int] | None = None
        self._version = 0
        self._changed = False
        self.endpoints = Endpoints()
        file = _File(source)
        file.check(content)
        nodes = file.section(content, "nodes")
        pods: dict[str, Pod] = {}
        self._of: dict[str, set[Address]] = {}
        for one, entry, where in file.by_address(content, "addresses"):
            pod = file.pod(entry, where, nodes)
            pods[pod.uid] = file.joined(pods.get(pod.uid, pod), pod, where)
            self._of.setdefault(pod.uid, set()).add(one)
        self._by_uid = pods
        self._pods = {one: pods[uid] for uid, listed in self._of.items() for one in listed}
        self._services = {one: file.named(entry, where) for one, entry, where in file.by_address(content, "services")}
        self._nodes: dict[Address, Named] = {}
        self._places: dict[str, Place] = {}
        self._gateways: dict[Address, Named] = {}
        pod_ranges = []
        for name, entry in nodes.items():
            where = f"nodes.{name}"
            self._places[name] = Place(name, *file.place(entry, {}, where))
            for text in file.strings(entry, "addresses", where):
                self._nodes[file.address(text, f"{where}.addresses")] = Named(name)
            for text in file.strings(entry, "pod_cidrs", where):
                network = file.network(text, f"{where}.pod_cidrs.{text}")
                pod_ranges.append((network, True))
                if network.num_addresses > 1:
                    self._gateways[address.normal(network.network_address + 1)] = Named(name)
        named = [file.cidr(name, entry) for name, entry in file.section(content, "cidrs").items()]
        self._user = UserRanges(cidr, private_cidr, named)
        self._pod_ranges = Ranges(pod_ranges)

    @classmethod
    def read(cls, path: str, *, cidr: str = "", private_cidr: str = "") -> StaticDirectory:
        """The directory in the file `path`; without a path one that knows nobody."""
        if not path:
            return cls({"version": VERSION}, "the empty directory", cidr=cidr, private_cidr=private_cidr)
        state, content = _content(path)
        directory = cls(content, path, cidr=cidr, private_cidr=private_cidr)
        directory._read = state
        return directory

    def refresh(self) -> None:
        """Read the file again if it is another one by now; what is wrong with it is logged, and what was known stays."""
        path, cidr, private_cidr = self._settings
        # Who wrote it takes it along at the end.
        if self._read is None or _state(path) in {self._read, None}:
            return
        try:
            self._read, content = _content(path)
            new = StaticDirectory(content, path, cidr=cidr, private_cidr=private_cidr)
        except UsageError as error:
            _log.warning("directory-unusable", error=str(error), consequence="what was known of addresses stays")
            return
        new._read, new._version, new._changed = self._read, self._version + 1, True
        self.__dict__.update(vars(new))

    def shift(self, step_us: int) -> None:
        """Nothing: a file knows no moments."""

    def at(self, start_us: int, end_us: int) -> None:
        """Nothing: a file's answers are the same for every window, as in all that follows."""

    def version(self, _: Iterable[Address]) -> int:
        return self._version

    def changes(self) -> frozenset[Address] | None:
        changed, self._changed = self._changed, False
        return None if changed else frozenset()

    def settled_us(self, _: Address) -> int:
        return 0

    def is_awaited(self, _: Address) -> bool:
        return False

    def released(self, addresses: Iterable[Address], node: str, at_us: int) -> None:
        """Nothing: who had an address has it still."""

    def place(self, node: str) -> Place:
        return self._places.get(node, Place(node))

    def known(self, pod: Pod) -> Pod | None:
        return self._by_uid.get(pod.uid)

    def owner(self, addresses: Iterable[Address], node: str) -> Pod | None:
        """The pod that has one of `addresses`; None where no pod or several do."""
        found = {pod.uid: pod for one in addresses if (pod := self._pods.get(one)) is not None}
        here = [pod for pod in found.values() if pod.place.node in {"", node}] or list(found.values())
        return here[0] if len(here) == 1 else None

    def addresses(self, pod: Pod) -> frozenset[Address]:
        """All addresses of a pod."""
        return frozenset(self._of.get(pod.uid, ()))

    def behind(self, _: str, __: Named) -> tuple[str, ...]:
        """A file does not say it."""
        return ()

    def details(self, _: Pod) -> PodDetails:
        """A file says no more of a pod."""
        return PodDetails()

    def pod(self, one: Address) -> Pod | None:
        """See `flows.scope.World`, as for all that follows."""
        return self._pods.get(one)

    def service(self, one: Address) -> Named | None:
        return self._services.get(one)

    def is_api_server(self, _: Address) -> bool:
        return False

    def node(self, one: Address) -> Named | None:
        return self._nodes.get(one)

    def node_gateway(self, one: Address) -> Named | None:
        return self._gateways.get(one)

    def user_cidr(self, one: Address) -> tuple[Named, Scope] | None:
        return self._user.named(one)

    def in_cluster_range(self, one: Address) -> bool:
        return self._pod_ranges.find(one) is not None

    def in_private_cidr(self, one: Address) -> bool:
        return self._user.is_private(one)


def _state(path: str) -> tuple[int, int, int] | None:
    """What tells a file from the one that replaces it; None while there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _content(path: str) -> tuple[tuple[int, int, int] | None, Any]:
    """The file's state before it was read, and what is in it; raises UsageError."""
    state = _state(path)
    try:
        return state, json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read the address file {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"the address file {path} is not JSON: {error}") from error
    except RecursionError:
        raise UsageError(f"the address file {path} is not JSON: it is nested too deeply") from None


class _File:
    """Reads values and says where one is wrong."""

    def __init__(self, source: str) -> None:
        self._source = source

    def check(self, content: object) -> None:
        if not isinstance(content, dict):
            raise self._wrong("", "an object")
        version = content.get("version")
        # In Python, true is 1 as well.
        if version is True or version != VERSION:
            raise self._wrong("version", f"the number {VERSION}")
        if unknown := set(content) - _SECTIONS:
            raise self._wrong(min(unknown), f"no such entry; there are {', '.join(sorted(_SECTIONS))}")

    def section(self, content: Mapping[str, Any], name: str) -> dict[str, Any]:
        value = content.get(name, {})
        if not isinstance(value, dict):
            raise self._wrong(name, "an object")
        return value

    def by_address(self, content: Mapping[str, Any], name: str) -> Iterator[tuple[Address, Any, str]]:
        """Address, entry and place of everything in a section whose keys are addresses."""
        seen = set()
        for text, entry in self.section(content, name).items():
            one = self.address(text, name)
            where = f"{name}.{text}"
            if one in seen:
                raise self._wrong(where, "each address once")
            seen.add(one)
            yield one, entry, where

    def address(self, text: str, where: str) -> Address:
        try:
            return address.parse(text)
        except ValueError:
            raise self._wrong(f"{where}.{text}", "an IPv4 or IPv6 address") from None

    def network(self, text: str, where: str) -> Network:
        try:
            return ipaddress.ip_network(text)
        except ValueError:
            raise self._wrong(where, "an address range, for example 10.0.0.0/8") from None

    def place(self, entry: object, node: Mapping[str, Any], where: str) -> tuple[str, str]:
        """Zone and region of an entry, else of its node."""
        fields = {**node, **self._object(entry, where)}
        return self._string(fields, "zone", where, default=""), self._string(fields, "region", where, default="")

    def pod(self, entry: object, where: str, nodes: Mapping[str, Any]) -> Pod:
        fields = self._object(entry, where)
        namespace, name = self._string(fields, "namespace", where), self._string(fields, "pod", where)
        node = self._string(fields, "node", where, default="")
        on = self._object(nodes.get(node, {}), f"nodes.{node}")
        place = Place(node, *self.place(fields, on, where))
        labels = fields.get("labels", {})
        if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
            raise self._wrong(f"{where}.labels", "an object of strings")
        return Pod(f"{namespace}/{name}", namespace, name, place, tuple(sorted(labels.items())))

    def joined(self, one: Pod, other: Pod, where: str) -> Pod:
        """What two entries say of one pod; each may leave out what the other one says."""
        places = [(getattr(one.place, name), getattr(other.place, name), name) for name in ("node", "zone", "region")]
        for before, now, name in places:
            if before and now and before != now:
                raise self._wrong(f"{where}.{name}", f"{before!r} as at another address of pod {one.uid}")
        labels = dict(other.labels) | dict(one.labels)
        place = Place(*(before or now for before, now, _ in places))
        return Pod(one.uid, one.namespace, one.name, place, tuple(sorted(labels.items())))

    def named(self, entry: object, where: str) -> Named:
        fields = self._object(entry, where)
        return Named(self._string(fields, "name", where), self._string(fields, "namespace", where, default=""))

    def cidr(self, name: str, entry: object) -> tuple[Network, tuple[str, Scope]]:
        where = f"cidrs.{name}"
        fields = {"cidr": entry} if isinstance(entry, str) else self._object(entry, where)
        network = self.network(self._string(fields, "cidr", where), f"{where}.cidr")
        scope = self._string(fields, "scope", where, default=Scope.PRIVATE.value)
        if scope not in set(Scope):
            raise self._wrong(f"{where}.scope", f"one of {', '.join(Scope)}")
        return network, (name, Scope(scope))

    def strings(self, entry: object, name: str, where: str) -> list[str]:
        value = self._object(entry, where).get(name, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self._wrong(f"{where}.{name}", "a list of strings")
        return value

    def _object(self, entry: object, where: str) -> dict[str, Any]:
        if not isinstance(entry, dict):
            raise self._wrong(where, "an object")
        return entry

    def _string(self, fields: Mapping[str, Any], name: str, where: str, default: str | None = None) -> str:
        value = fields.get(name, default)
        if default is None and (not isinstance(value, str) or not value):
            raise self._wrong(f"{where}.{name}", "a string that is not empty")
        if not isinstance(value, str):
            raise self._wrong(f"{where}.{name}", "a string")
        return value

    def _wrong(self, where: str, expected: str) -> UsageError:
        return UsageError(f"the address file {self._source} is wrong at {where or 'the top'}: expected {expected}")
