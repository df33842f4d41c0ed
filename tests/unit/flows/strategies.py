"""Hypothesis strategies for flows, windows and batches."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from services.flows import address
from services.flows.delta import (
    COUNTERS,
    FLOW,
    Attachment,
    Batch,
    Coverage,
    InterfaceCounters,
    Kind,
    Rows,
    Side,
    Window,
)

counts = st.integers(0, 2**63)
small = st.integers(0, 2**40)
words = st.sampled_from([0, 1, 2**32, 2**64 - 1, 0xFFFF_0A00_0001, 0xFFFF_0A00_0002, 0xFD00 << 48])
addresses = st.ip_addresses().map(address.normal)
interface_counters = st.builds(InterfaceCounters, small, small, small, small)

attachments = st.builds(
    Attachment,
    id=st.just(0),
    interface=st.text(max_size=15),
    index=st.integers(1, 2**31 - 1),
    source=st.sampled_from(["socket", "ebpf", "pcap"]),
    attached_us=counts,
    detached_us=st.none() | counts,
    addresses=st.lists(addresses, max_size=3).map(tuple),
    counters=st.none() | interface_counters,
    first_counters=st.none() | interface_counters,
    coverage=st.sampled_from(Coverage),
    passed=interface_counters,
    pod_uid=st.text(max_size=40),
    hidden=st.none() | interface_counters,
)


@st.composite
def flow_rows(draw: st.DrawFn, ids: tuple[int, ...] = (1, 2), most: int = 12) -> Rows:
    """A `FLOW` table whose keys often repeat."""
    count = draw(st.integers(0, most))
    rows = np.zeros(count, FLOW)
    for at in range(count):
        rows[at]["attachment"] = draw(st.sampled_from(ids))
        rows[at]["kind"] = draw(st.sampled_from(Kind))
        rows[at]["protocol"] = draw(st.sampled_from([0, 1, 6, 17]))
        rows[at]["server"] = draw(st.sampled_from(Side))
        rows[at]["port"] = draw(st.sampled_from([0, 53, 80, 65535]))
        for name in ("local_hi", "local_lo", "peer_hi", "peer_lo"):
            rows[at][name] = draw(words)
        for name in COUNTERS:
            rows[at][name] = draw(small)
    return rows


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """A window whose rows name only attachments that it lists."""
    ids = draw(st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=3, unique=True))
    start = draw(st.integers(0, 2**50))
    listed = tuple(
        Attachment(**{**{f: getattr(one, f) for f in Attachment.__slots__}, "id": number})
        for number, one in ((number, draw(attachments)) for number in ids)
    )
    return Window(
        start_us=start,
        end_us=start + draw(st.integers(0, 10_000_000)),
        attachments=listed,
        flows=draw(flow_rows(tuple(ids))),
        loss=draw(st.dictionaries(st.text(max_size=8), st.integers(0, 2**40), max_size=3)),
    )


batches = st.builds(
    Batch,
    node=st.text(max_size=20),
    boot=st.text(max_size=16),
    seq=small,
    offset_us=st.integers(-(2**62), 2**62),
    error_us=small,
    windows=st.lists(windows(), min_size=1, max_size=3).map(tuple),
    gauges=st.dictionaries(st.text(max_size=8), st.floats(0, 1e15), max_size=3),
)
