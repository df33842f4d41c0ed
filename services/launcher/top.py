"""`podloxx-launch top`: the ranked table of pods live in the terminal, with the page's columns."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.flows.live_message import PROTOCOL, SCOPE_NAMES, RowColumns, Snapshot
from services.flows.scope import COLUMN_OF, Scope
from services.runtime.plain import plain

SORTS: Final = ("total", "local", "cross", "private", "internet", "other", "syn")
_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")
_HEAD: Final = (
    "pod",
    "node",
    "total/s",
    "local/s",
    "cross/s",
    "private/s",
    "internet/s",
    "other/s",
    "syn/s",
    "since start",
)
_NAME_MOST: Final = 48
PATH: Final = f"/traffic/ws?v={PROTOCOL}"
PORTS_PATH: Final = "/traffic/ports"


@dataclass(frozen=True, slots=True)
class Row:
    """A pod: how it is called and where, and its rates in bytes a second (None: its node's agent is silent)."""

    ns: str
    name: str
    node: str
    zone: str
    owner: str
    owner_kind: str
    labels: tuple[str, ...]
    ips: tuple[str, ...]
    scopes: frozenset[str]
    rates: dict[str, int | None]
    bytes: int
    interface: str = ""

    @property
    def key(self) -> str:
        """`namespace/pod`."""
        return f"{self.ns}/{self.name}"

    @property
    def text(self) -> str:
        """What a bare word is looked for in."""
        listed = (self.key, self.node, self.zone, self.owner, self.interface, *self.ips, *self.labels)
        return " ".join(listed).lower()

    def values(self, field: str) -> list[str]:
        """What it has for a field of the filter; raises KeyError for one that no message tells."""
        return {
            "ns": [self.ns],
            "node": [self.node, self.zone],
            "owner": [self.owner, f"{self.owner_kind}/{self.owner}"],
            "label": [part for label in self.labels for part in (label, label.partition("=")[0])],
            "scope": sorted(self.scopes),
            "ip": list(self.ips),
        }[field]


def rows(message: Snapshot) -> list[Row]:
    """Every pod of a snapshot."""
    words, pods, numbers = message["words"], message["pods"], message["rows"]
    at = {number: place for place, number in enumerate(message["i"])}
    found = []
    for place, number in enumerate(pods["id"]):
        where = at.get(number)
        rate = _rates(numbers, where)
        names = [SCOPE_NAMES[bit] for bit in range(len(SCOPE_NAMES)) if pods["scopes"][place] >> bit & 1]
        found.append(
            Row(
                words[pods["ns"][place]],
                pods["name"][place],
                words[pods["node"][place]],
                words[pods["zone"][place]],
                words[pods["owner"][place]],
                words[pods["owner_kind"][place]],
                tuple(words[word] for word in pods["labels"][place]),
                tuple(pods["ips"][place]),
                frozenset([*names, *(COLUMN_OF.get(Scope(name), "other") for name in names)]),
                rate,
                0 if where is None else numbers["total"][where],
                pods["iface"][place],
            )
        )
    return found


def _rates(numbers: RowColumns, where: int | None) -> dict[str, int | None]:
    """The rates of a row by what it is ranked by; None for what nobody knows."""
    if where is None:
        return dict.fromkeys(SORTS)
    plain = {name: numbers[name][where] for name in ("local", "cross", "private", "other", "syn")}
    internet = _sum(numbers["internet_tx"][where], numbers["internet_rx"][where])
    return {**plain, "internet": internet, "total": _sum(numbers["tx"][where], numbers["rx"][where])}


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def table(message: Snapshot, found: Iterable[Row], sort: str, most: int) -> list[str]:
    """The ranked table, at most `most` lines of it, under a line about the whole."""
    fitting = sorted(found, key=lambda row: (-(row.rates[sort] or 0), -row.bytes, row.key))
    reporting, nodes = message["reporting"]
    head = f"{len(fitting)} of {len(message['pods']['id'])} pods, {reporting}/{nodes} nodes report, by {sort}"
    if message["problem"]:
        head += f" | not current: {message['problem']}"
    cells = [list(_HEAD), *(_cells(row) for row in fitting[: max(most - 2, 1)])]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    lines = [head]
    for line in cells:
        names = [line[at].ljust(widths[at]) for at in (0, 1)]
        lines.append("  ".join([*names, *(line[at].rjust(widths[at]) for at in range(2, len(_HEAD)))]).rstrip())
    return [plain(line) for line in lines]


def _cells(row: Row) -> list[str]:
    key = plain(row.key)
    key = key if len(key) <= _NAME_MOST else f"{key[: _NAME_MOST - 1]}…"
    rates = [human(row.rates[name]) for name in ("total", "local", "cross", "private", "internet", "other")]
    syn = row.rates["syn"]
    return [key, plain(row.node) or "-", *rates, "-" if syn is None else str(syn), human(row.bytes)]


def human(count: int | None) -> str:
    """Bytes with at most three digits; `-` for what nobody knows."""
    if count is None:
        return "-"
    size, unit = float(count), 0
    # 999.5 would be written as 1000.
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if size >= 99.95 or unit == 0 else f"{size:.1f} {_UNITS[unit]}"


class Screen:
    """Shows tables one after the other in the same place, or below each other where no terminal is."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()

    @property
    def lines(self) -> int:
        """How many fit."""
        return shutil.get_terminal_size().lines - 1 if self._terminal else sys.maxsize

    def show(self, listed: Sequence[str]) -> None:
        """Replace what is shown."""
        if not self._terminal:
            print("\n".join([*listed, ""]), flush=True)
            return
        columns = shutil.get_terminal_size().columns
        drawn = "\r\n".join(f"{line[: columns - 1]}\x1b[K" for line in listed)
        sys.stdout.write(f"\x1b[H{drawn}\x1b[J")
        sys.stdout.flush()

    def begin(self) -> None:
        """Take the whole terminal; what was there comes back at the end."""
        if self._terminal:
            sys.stdout.write("\x1b[?1049h\x1b[?25l")

    def end(self) -> None:
        """Give it back."""
        if self._terminal:
            sys.stdout.write("\x1b[?25h\x1b[?1049l")
            sys.stdout.flush()


def read(message: dict[str, Any]) -> Snapshot | None:
    """A message as a snapshot; None where it is another one."""
    return message if message.get("t") == "snapshot" else None  # type: ignore[return-value]
