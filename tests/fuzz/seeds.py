"""`python -m tests.fuzz.seeds`: inputs to begin with, added to those that are kept."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from typing import Final

from services.aggregator.letters import Letters, Sender
from services.aggregator.timeline import Offset
from services.aggregator.totals import Totals
from services.capture.frames import LinkType
from services.flows import wire
from services.flows.delta import Coverage, InterfaceCounters, Kind
from tests.fuzz.corpora import keep, kept
from tests.support import generators as make
from tests.support.agents import ScriptedAgent, attachment, detached, flow, window
from tests.support.capture_files import Pcapng, Record, pcap
from tests.support.worlds import directory

_QUERY: Final = make.ethernet(
    0x0800, make.ipv4("10.0.0.1", "10.0.0.2", make.UDP, make.udp_datagram(4000, 53, b"query"))
)
_SYN: Final = make.ipv6("fd00::1", "fd00::2", make.TCP, make.tcp_segment(4000, 443, flags=2))


def frames() -> list[bytes]:
    """Frames of each sort, behind the number of a link type."""
    number = {link: bytes([at]) for at, link in enumerate(LinkType)}
    tagged = make.ethernet(0x86DD, _SYN, (0x8100, 5), (0x88A8, 6))
    cut = make.fragments("10.0.0.1", "10.0.0.2", make.udp_datagram(1, 2, bytes(100)), 48)
    found = [
        number[LinkType.ETHERNET] + one
        for one in (_QUERY, tagged, make.ethernet(0x0806, make.arp_request("10.0.0.1", "10.0.0.2")))
    ]
    found += [number[LinkType.ETHERNET] + make.ethernet(0x0800, one) for one in cut]
    found += [number[LinkType.RAW_IP] + _SYN, number[LinkType.IPV6] + _SYN, number[LinkType.IPV4] + _QUERY[14:]]
    found += [
        number[LinkType.NULL] + struct.pack("<I", 30) + _SYN,
        number[LinkType.LOOP] + struct.pack(">I", 2) + _QUERY[14:],
    ]
    found += [number[LinkType.LINUX_SLL] + bytes(14) + b"\x08\x00" + _QUERY[14:]]
    found += [number[LinkType.LINUX_SLL2] + b"\x86\xdd" + bytes(18) + _SYN]
    return found


def batches() -> list[bytes]:
    """Batches of pods that talk, come and go, as agents of each source send them."""
    agent = ScriptedAgent(machine="machine-a")
    web, db = attachment(1, "10.1.0.2", "fd00:1::2"), attachment(2, "10.2.0.2", first=5)
    read = replace(web, counters=InterfaceCounters(5000, 50, 900, 9), passed=InterfaceCounters(900, 9, 0, 0))
    grouped = replace(
        attachment(3, "10.1.0.3", interface="cri-abc", first=None), source="cgroup", index=77, pod_uid="pod-uid"
    )
    half = replace(
        attachment(4, "10.1.0.4"), source="tcx", coverage=Coverage.EGRESS_ONLY, hidden=InterfaceCounters(0, 0, 700, 7)
    )
    several = [window([web], flow(1, "1.1.1.1", tx=100 * at), second=4 + at) for at in range(1, 4)]
    windows = [
        [window([web], flow(1, "1.1.1.1", tx=900))],
        [window([web, db], flow(1, "10.2.0.2", tx=900, rx=300), flow(2, "10.1.0.2", rx=900, local="10.2.0.2"))],
        [
            window([web], flow(1, "10.96.0.10", tx=200, protocol=17, port=53), second=1, loss=3),
            window([web], second=2),
        ],
        [window([detached(web, 3_500_000)], flow(1, "::1", tx=9, kind=Kind.FOLDED), second=3)],
        [window([read], flow(1, "fd00:1::9", tx=100, rx=700, local="fd00:1::2"), second=3)],
        [window([read], *(flow(1, "::", tx=60, rx=60, kind=kind) for kind in Kind if kind is not Kind.IP))],
        [
            window(
                [grouped],
                flow(3, "10.2.0.2", tx=400, rx=100, local="10.1.0.3"),
                flow(3, "::", rx=9, kind=Kind.NO_SOCKET),
            )
        ],
        [window([half, web], flow(4, "10.1.0.2", tx=400, local="10.1.0.4"), flow(4, "::", rx=500, kind=Kind.HIDDEN))],
        several,
        [window([], second=9)],
    ]
    return [wire.encode(agent.batch(*some)) for some in windows]


def letters() -> list[bytes]:
    """Letters of shards whose agents sent these batches."""
    found = []
    for clear in (False, True):
        totals = Totals(directory(), 10, 3)
        accounts = totals.accounts
        assert isinstance(accounts, Letters)
        accounts.boot = "session"
        for raw in batches():
            totals.apply(wire.decode(raw))
            totals.settle(_AT_US)
            accounts.seal(Sender(1, "machine-a", Offset(5, 9), _AT_US))
            totals.committed()
            found += [one.payload for one in accounts.due()]
            accounts.confirm(len(found) if clear else 0)
    return list(dict.fromkeys(found))


def files() -> list[bytes]:
    """Files of each format and byte order."""
    records = [Record(_AT_US, _QUERY), Record(_AT_US + 5, _QUERY[:60], 1500)]
    section = Pcapng()
    whole = section.section() + section.interface() + section.enhanced(_AT_US, _QUERY)
    other = Pcapng(">")
    found = [
        pcap(records),
        pcap(records, order=">", magic=0xA1B23C4D),
        whole + section.block(5, bytes(20)) + section.simple(b"simple") + section.old_packet(_AT_US, b"old"),
        other.section() + other.interface(options=other.option(9, b"\x09")) + other.enhanced(1, b"x"),
    ]
    # Without the time of day, which would make other inputs each time.
    return [*found, *(gzip.compress(one, mtime=0) for one in found)]


_AT_US: Final = 1_700_000_000_000_000
MESSAGES: Final = (
    '{"ack": 7, "hz": 1.5}',
    '{"watch": "shop/web"}',
    '{"watch": null, "snapshot": true}',
    '{"hz": 0}',
    "[]",
)
OPTIONS: Final = (
    "--namespace=lab\n--ttl=1h\n--capture=tcx",
    "--cidr=office=198.51.100.0/24:internet,vpc=10.0.0.0/8\n--private-cidr=192.0.2.0/24,fd00::/8",
    "--ingress-selector=app=nginx,tier=edge;app=traefik\n--image-prefix=registry.example/podloxx\n--pull-policy=Never",
    "--node-selector=pool=blue,zone=a\n--interface-prefix=veth|cali\n--interface=eth0,eth1\n--port=0",
)


def is_batch(data: bytes) -> bool:
    """Whether it has the layout of today's batches: one that has not is refused before it reaches anything."""
    try:
        wire.decode(data)
    except (wire.WireError, OverflowError):
        return False
    return True


OF_TODAY: Final = {"wire": is_batch}
"""Which of a target's kept inputs still reach something."""


if __name__ == "__main__":
    for name, inputs in (
        ("frames", frames()),
        ("wire", batches()),
        ("letter", letters()),
        ("pcap", files()),
        ("websocket", [one.encode() for one in MESSAGES]),
        ("settings", [one.encode() for one in OPTIONS]),
    ):
        keep(name, [*filter(OF_TODAY.get(name, bool), kept(name)), *inputs])
