"""The plan of the demo's traffic as it travels to the pod processes: who serves what, who asks whom.

Only the standard library is imported here: a dozen pod processes read this.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal, get_args

Kind = Literal["http", "dns", "cache", "database", "bulk-tcp", "bulk-udp", "proxy-tcp", "proxy-udp"]
Family = Literal[4, 6]

_KINDS: Final[frozenset[str]] = frozenset(get_args(Kind))


class PlanError(ValueError):
    """A plan that does not say what it should; the message names the part."""


@dataclass(frozen=True, slots=True)
class Serve:
    """A server: its own addresses, its port, and what a proxy stands for."""

    kind: Kind
    addresses: tuple[str, ...]
    port: int
    backends: tuple[str, ...] = ()
    backend_port: int = 0


@dataclass(frozen=True, slots=True)
class Talk:
    """A client's steady conversation with one target address.

    `rate` is exchanges per second at load 1 (bulk kinds: bytes per second), `size` the typical
    answer in bytes (bulk-udp: bytes in one datagram); without `sources` the kernel chooses.
    """

    kind: Kind
    target: str
    port: int
    rate: float
    size: int
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """What one process does."""

    serves: tuple[Serve, ...] = ()
    talks: tuple[Talk, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """All parts by role, the names that DNS knows, and the seed of everything random.

    `started_s` is on the machine's monotonic clock, which all processes share: the load curves
    of a pod that comes late are in step with the others'.
    """

    seed: int
    started_s: float
    names: Mapping[str, tuple[str, str]]  # host name -> (IPv4, IPv6)
    parts: Mapping[str, Part]

    def part(self, role: str) -> Part:
        """The part of `role`; PlanError when there is none."""
        try:
            return self.parts[role]
        except KeyError:
            raise PlanError(f"the plan has no part for the role {role!r}") from None


def family_of(address: str) -> Family:
    """4 or 6."""
    return 6 if ":" in address else 4


def only_ipv4(plan: Plan) -> Plan:
    """The same plan for a kernel that was started without IPv6."""
    return replace(plan, parts={role: _ipv4_part(part) for role, part in plan.parts.items()})


def _ipv4_part(part: Part) -> Part:
    def keep(addresses: Iterable[str]) -> tuple[str, ...]:
        return tuple(address for address in addresses if family_of(address) == 4)

    return Part(
        serves=tuple(
            replace(serve, addresses=keep(serve.addresses), backends=keep(serve.backends)) for serve in part.serves
        ),
        talks=tuple(replace(talk, sources=keep(talk.sources)) for talk in part.talks if family_of(talk.target) == 4),
    )


def encode(plan: Plan) -> bytes:
    """JSON of the whole plan."""
    return json.dumps(
        {
            "seed": plan.seed,
            "started_s": plan.started_s,
            "names": plan.names,
            "parts": {role: asdict(part) for role, part in plan.parts.items()},
        }
    ).encode()


def decode(text: bytes | str) -> Plan:
    """The plan that `encode` wrote; PlanError when something is missing or of another type."""
    try:
        raw = json.loads(text)
        return Plan(
            seed=int(raw["seed"]),
            started_s=float(raw["started_s"]),
            names={str(name): (str(four), str(six)) for name, (four, six) in raw["names"].items()},
            parts={
                str(role): Part(
                    serves=tuple(_serve(row) for row in part["serves"]),
                    talks=tuple(_talk(row) for row in part["talks"]),
                )
                for role, part in raw["parts"].items()
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PlanError(f"the traffic plan is not usable: {error!r}") from error


def _kind(value: object) -> Kind:
    if value not in _KINDS:
        raise PlanError(f"the traffic plan has an unknown kind {value!r}")
    return value  # type: ignore[return-value]  # the line above is the proof


def _serve(row: Mapping[str, object]) -> Serve:
    return Serve(
        kind=_kind(row["kind"]),
        addresses=_strings(row["addresses"]),
        port=_whole(row["port"]),
        backends=_strings(row["backends"]),
        backend_port=_whole(row["backend_port"]),
    )


def _talk(row: Mapping[str, object]) -> Talk:
    rate = row["rate"]
    if not isinstance(rate, (int, float)):
        raise PlanError(f"the traffic plan has the rate {rate!r}")
    return Talk(
        kind=_kind(row["kind"]),
        target=str(row["target"]),
        port=_whole(row["port"]),
        rate=float(rate),
        size=_whole(row["size"]),
        sources=_strings(row["sources"]),
    )


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise PlanError(f"the traffic plan has {value!r} in place of a list")
    return tuple(str(item) for item in value)


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise PlanError(f"the traffic plan has {value!r} in place of a whole number")
    return value
