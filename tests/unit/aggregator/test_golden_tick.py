"""One fixed batch, and the tick that it becomes, number by number."""

from __future__ import annotations

from services.aggregator.totals import Totals
from services.flows import traffic, wire
from services.flows.delta import Kind
from services.flows.scope import Scope
from services.flows.traffic import Identity, NodeReport, RowChange, Tick
from tests.support.agents import SECOND, ScriptedAgent, attachment, flow, window
from tests.support.worlds import directory

WEB = attachment(1, "10.1.0.2", "fd00:1::2", first=5000)
BOX = attachment(2, "172.17.0.9", interface="cali77")
FLOWS = (
    flow(1, "10.2.0.2", tx=1200, rx=34500, port=5432),
    flow(1, "10.1.0.3", tx=800, rx=600, port=8080),
    flow(1, "10.96.0.10", tx=100, rx=200, port=53, protocol=17),
    flow(1, "1.1.1.1", tx=300, rx=0, port=0, protocol=1),
    flow(1, "", tx=100, kind=Kind.NOT_IP, port=0x0806, protocol=0),
    flow(2, "10.1.0.2", tx=700, rx=100, port=80, local="172.17.0.9"),
    flow(2, "8.8.8.8", tx=900, rx=1000, port=443, local="172.17.0.9"),
)


def row(tx: int = 0, rx: int = 0, *, tx_other: int = 0, rx_other: int = 0) -> list[int]:
    """Counters of a row; `flow` makes one packet of 100 bytes, and counts nothing else."""
    return [tx, rx, tx // 100, rx // 100, 0, 0, 0, 0, 0, 0, tx_other, rx_other, 0, 0]


EXPECTED = Tick(
    epoch=7,
    n=3,
    at_us=43 * SECOND,
    changes=(
        RowChange(
            1,
            SECOND,
            {
                Scope.CROSS_ZONE: row(1200, 34500),
                Scope.SAME_NODE: row(800, 600),
                Scope.SERVICE: row(100, 200),
                Scope.INTERNET: row(300, tx_other=300),
                Scope.UNKNOWN: row(100, tx_other=100),
            },
        ),
        RowChange(2, SECOND, {Scope.SAME_NODE: row(700, 100), Scope.INTERNET: row(900, 1000)}),
    ),
    identities={
        1: Identity(
            uid="shop/web",
            namespace="shop",
            pod="web",
            node="node-a",
            zone="eu-1a",
            region="eu-1",
            ip="10.1.0.2",
            ips=("10.1.0.2", "fd00:1::2"),
            interface="veth1",
            labels=(("app", "web"),),
            transmit_start_bytes=5000,
            received_start_bytes=5000,
        ),
        2: Identity(
            uid="interface:node-a/cali77",
            namespace="local",
            pod="cali77",
            node="node-a",
            zone="eu-1a",
            region="eu-1",
            ip="172.17.0.9",
            ips=("172.17.0.9",),
            interface="cali77",
        ),
    },
    nodes=(
        NodeReport("node-a", "boot-a", "socket", 42 * SECOND, 43 * SECOND, 2, {"kernel-drop": 4}, {"attachments": 1}),
    ),
    cluster={
        # db and api have no agent: what they sent to web counts there.
        Scope.CROSS_ZONE: row(1200, 34500),
        # What web and the box sent each other counts at its sender: 700 of the box, 800 to api.
        Scope.SAME_NODE: row(1500, 600),
        Scope.SERVICE: row(100, 200),
        Scope.INTERNET: row(1200, 1000, tx_other=300),
        Scope.UNKNOWN: row(100, tx_other=100),
    },
    loss={"kernel-drop": 4},
)


def tick() -> Tick:
    """The tick of the batch, after a way over the wire."""
    state = Totals(directory(), 1000)
    batch = ScriptedAgent().batch(window([WEB, BOX], *FLOWS, second=42, loss=4))
    state.apply(wire.decode(wire.encode(batch)))
    state.settle(43 * SECOND)
    return state.tick(7, 3, 43 * SECOND)


def test_the_tick_is_as_expected() -> None:
    assert tick() == EXPECTED


def test_it_arrives_as_it_was_sent() -> None:
    assert traffic.decode_tick(traffic.encode_tick(tick())) == EXPECTED
