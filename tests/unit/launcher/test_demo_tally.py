"""The truth counters of a pod process: bounded, and complete in the report."""

from __future__ import annotations

import json

from services.launcher.demo.tally import MAX_ROWS, OTHERS, Key, Tally


def test_a_report_holds_every_row() -> None:
    tally = Tally()
    tally.row(Key("10.0.0.1", "10.0.0.2", "tcp", 80, "client")).tx_bytes += 5
    tally.row(Key("10.0.0.1", "10.0.0.2", "tcp", 80, "client")).rx_bytes += 7
    tally.row(Key("10.0.0.1", "10.0.0.3", "udp", 53, "server")).rx_bytes += 9
    tally.failures = 2
    line = tally.report("web", final=True)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "role": "web",
        "final": True,
        "failures": 2,
        "peers": [
            {
                "local": "10.0.0.1",
                "peer": "10.0.0.2",
                "transport": "tcp",
                "port": 80,
                "side": "client",
                "tx_bytes": 5,
                "rx_bytes": 7,
            },
            {
                "local": "10.0.0.1",
                "peer": "10.0.0.3",
                "transport": "udp",
                "port": 53,
                "side": "server",
                "tx_bytes": 0,
                "rx_bytes": 9,
            },
        ],
    }


def test_the_excess_of_peers_is_folded_with_its_bytes() -> None:
    tally = Tally()
    for peer in range(MAX_ROWS + 50):
        tally.row(Key("a", str(peer), "tcp", 80, "server")).rx_bytes += 1
    rows = tally.rows()
    assert sum(row.rx_bytes for _, row in rows) == MAX_ROWS + 50
    assert len(rows) == MAX_ROWS + 1
    assert dict(rows)[Key("", OTHERS, "tcp", 0, "server")].rx_bytes == 50
