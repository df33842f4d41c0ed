"""A window's flows, booked at once, against the same done one by one."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.booking import Booked, Told, book
from services.aggregator.totals import Totals
from services.flows import address
from services.flows.delta import COUNTERS, FLOW, Attachment, Batch, Kind, Rows, Window
from services.flows.traffic import ROW_COUNTERS
from tests.support.agents import ScriptedAgent, attachment, flow, window
from tests.support.worlds import directory

FILE = replace(attachment(9, interface="a.pcap"), source="pcap")
POINTS = [attachment(1, "10.1.0.2"), attachment(2, "10.1.0.3"), attachment(3, "fd00:1::2"), attachment(4), FILE]
ROWS = {1: "shop/web", 2: "shop/api", 3: "shop/web", 4: "interface:node-a/veth4"}


def seen(*attachments: Attachment) -> tuple[Totals, Batch]:
    """Totals that know some attachments, and a batch of the same agent."""
    state, agent = Totals(directory(), 0), ScriptedAgent()
    batch = agent.batch(window(attachments))
    state.apply(batch)
    return state, batch


def booked_of(state: Totals, batch: Batch, flows: Rows) -> Booked:
    """What flows of a batch's only window become."""
    [told] = batch.windows
    return book([Told(batch, told, flows)], state.points, state.verdicts, state.backing)


def uid(state: Totals, row: int) -> str:
    return state.rows.by_number[row].identity.uid


def test_in_a_file_the_local_address_tells_whose_a_flow_is() -> None:
    state, agent = Totals(directory(), 0), ScriptedAgent()
    flows = (
        flow(9, "10.2.0.2", tx=1, local="10.1.0.2"),
        flow(9, "10.2.0.2", tx=10, local="fd00:1::2"),
        flow(9, "10.1.0.2", tx=100, rx=5, local="10.2.0.2"),
        flow(9, "1.1.1.1", tx=1000, local="192.0.2.7"),
        flow(9, "", tx=28, kind=Kind.NOT_IP, port=0x0806, protocol=0),
    )
    state.apply(agent.batch(window([FILE], *flows)))
    sent = {uid(state, row.number): sum(c[0] for c in row.totals.values()) for row in state.rows.by_number.values()}
    assert sent == {"shop/web": 11, "data/db": 100, "192.0.2.7": 1000, "interface:node-a/a.pcap": 28}
    locals_ = {peer.local for row in state.rows.by_number for peer in state.peers.of(row)}
    assert locals_ == {"10.1.0.2", "fd00:1::2", "10.2.0.2", "192.0.2.7", ""}


def test_in_a_file_each_packet_counts_once_whoever_sent_it() -> None:
    state, agent = Totals(directory(), 0), ScriptedAgent()
    flows = (
        flow(9, "10.2.0.2", tx=1, rx=20, local="10.1.0.2"),
        flow(9, "10.1.0.2", tx=300, rx=4000, local="10.2.0.2"),
    )
    state.apply(agent.batch(window([FILE], *flows)))
    assert sum(counts[0] + counts[1] for counts in state.cluster.values()) == 4321
    assert (state.overlap_bytes, state.pending_bytes) == (0, 0)


def test_flows_stay_as_they_are() -> None:
    state, batch = seen(*POINTS)
    one = flow(1, "1.1.1.1", tx=5)
    before = one.tobytes()
    booked_of(state, batch, one)
    assert one.tobytes() == before


def test_a_window_without_flows_books_nothing() -> None:
    state, batch = seen(*POINTS)
    for booked in (booked_of(state, batch, np.zeros(0, FLOW)), book([], state.points, state.verdicts, state.backing)):
        pairs, _ = booked.between()
        lengths = [len(some) for some in (booked.by_row().rows, booked.alone(), booked.with_services(), pairs)]
        assert lengths == [0, 0, 0, 0]


PEERS = ["10.1.0.2", "10.1.0.3", "10.2.0.2", "10.96.0.10", "1.1.1.1", "fd00:1::2", "172.17.0.9"]
entry = st.builds(
    flow,
    st.sampled_from([1, 2, 3, 4, 9]),
    st.sampled_from(PEERS),
    tx=st.integers(0, 2**40),
    rx=st.integers(0, 2**40),
    port=st.sampled_from([0, 53, 80]),
    protocol=st.sampled_from([1, 6, 17]),
    kind=st.sampled_from([Kind.IP, Kind.IP, Kind.IP, Kind.NOT_IP, Kind.MALFORMED, Kind.FOLDED]),
    local=st.sampled_from(["10.1.0.2", "10.1.0.3", "192.0.2.7"]),
)


@given(st.lists(entry, max_size=20))
def test_sums_are_those_of_the_flows(listed: list[Rows]) -> None:
    state, batch = seen(*POINTS)
    flows = np.concatenate(listed) if listed else np.zeros(0, FLOW)
    booked = booked_of(state, batch, flows)
    expected: dict[str, list[int]] = defaultdict(lambda: [0] * len(COUNTERS))
    for one in flows:
        owner = ROWS.get(int(one["attachment"])) or _of_file(one)
        for at, name in enumerate(COUNTERS):
            expected[owner][at] += int(one[name])
    sums = booked.by_row()
    got: dict[str, list[int]] = defaultdict(lambda: [0] * len(COUNTERS))
    for row, counts in zip(sums.rows.tolist(), sums.counts.tolist(), strict=True):
        got[uid(state, row)] = [a + b for a, b in zip(got[uid(state, row)], counts, strict=False)]
    assert got == dict(expected)
    pairs, _ = booked.between()
    apart = [
        *booked.alone().values(),
        *(counts for *_, counts in booked.with_services().entries()),
        *(counts for *_, counts in pairs.entries()),
    ]
    for at in range(len(ROW_COUNTERS)):
        total = int(sums.counts[:, at].sum())
        assert sum(counts[at] for counts in apart) == total
    other = ROW_COUNTERS.index("tx_other_bytes")
    plain = sum(int(one["tx_bytes"]) for one in flows if one["kind"] == Kind.IP and one["protocol"] in {6, 17})
    assert sum(counts[other] for counts in apart) == int(flows["tx_bytes"].sum()) - plain


def _of_file(one: np.void) -> str:
    if one["kind"] != Kind.IP:
        return "interface:node-a/a.pcap"
    local = str(address.from_words(int(one["local_hi"]), int(one["local_lo"])))
    return {"10.1.0.2": "shop/web", "10.1.0.3": "shop/api"}.get(local, local)


# An agent reads files or watches interfaces, never both.
@given(st.lists(entry.filter(lambda one: one["attachment"] != 9), max_size=20), st.integers(0, 20))
def test_it_does_not_matter_how_flows_are_cut_into_windows(listed: list[Rows], at: int) -> None:
    states = []
    for parts in ([listed], [listed[:at], listed[at:]]):
        state, agent = Totals(directory(), 0), ScriptedAgent()
        windows: list[Window] = [window(POINTS, *part) for part in parts]
        state.apply(agent.batch(*windows))
        states.append(state)
    one, two = states
    assert {n: row.totals for n, row in one.rows.by_number.items()} == {
        n: row.totals for n, row in two.rows.by_number.items()
    }
    assert one.cluster == two.cluster
    for row in one.rows.by_number:
        assert sorted(map(repr, one.peers.of(row))) == sorted(map(repr, two.peers.of(row)))
