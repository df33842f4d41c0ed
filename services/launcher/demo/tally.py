"""What one pod process truly sent and received, per peer, counted at its sockets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

Side = Literal["client", "server"]
Transport = Literal["tcp", "udp"]

MAX_ROWS: Final = 1024
OTHERS: Final = "others"  # the peer under which everything is counted once the table is full


class Key(NamedTuple):
    """A conversation; `port` is the server's, `side` which of the two this process is."""

    local: str
    peer: str
    transport: Transport
    port: int
    side: Side


@dataclass(slots=True)
class Row:
    """Application bytes: handed to the socket, read from the socket."""

    tx_bytes: int = 0
    rx_bytes: int = 0


class Tally:
    """The counters of one process; bounded, the excess is folded into the peer `others`."""

    def __init__(self) -> None:
        self._rows: dict[Key, Row] = {}
        self.failures = 0  # exchanges that ended in an error or a timeout

    def row(self, key: Key) -> Row:
        """The counters of `key`, made when they are not there yet."""
        if key not in self._rows and len(self._rows) >= MAX_ROWS:
            key = Key("", OTHERS, key.transport, 0, key.side)
        return self._rows.setdefault(key, Row())

    def failed(self) -> None:
        """Count one failure."""
        self.failures += 1

    def rows(self) -> list[tuple[Key, Row]]:
        """All counters there are."""
        return list(self._rows.items())

    def report(self, role: str, *, final: bool) -> bytes:
        """One line of JSON.

        `{"role", "final", "failures", "peers": [{"local", "peer", "transport", "port", "side",
        "tx_bytes", "rx_bytes"}]}`
        """
        peers = [{**key._asdict(), "tx_bytes": row.tx_bytes, "rx_bytes": row.rx_bytes} for key, row in self.rows()]
        line = {"role": role, "final": final, "failures": self.failures, "peers": peers}
        return json.dumps(line).encode() + b"\n"
