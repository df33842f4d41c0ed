"""What the source makes of capture files: windows in the files' time, and sums that are exact."""

from __future__ import annotations

import gzip
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture.raw_flow import VALUES, Direction, RawRows
from services.capture.sources.pcap import PcapSource
from services.flows import address
from services.flows.delta import Kind, Malformed
from services.runtime.errors import UsageError
from tests.support import generators as make
from tests.support.capture_files import Pcapng, Record, pcap

SECOND_US = 1_000_000
AT_US = 1_700_000_000 * SECOND_US
CLIENT, SERVER = "10.0.0.1", "10.0.0.2"
QUERY = make.ethernet(0x0800, make.ipv4(CLIENT, SERVER, make.UDP, make.udp_datagram(40000, 53, b"query")))
ANSWER = make.ethernet(0x0800, make.ipv4(SERVER, CLIENT, make.UDP, make.udp_datagram(53, 40000, b"an answer")))
Seen = list[tuple[int, int, RawRows]]


def at(*seconds: float, data: bytes = QUERY) -> list[Record]:
    return [Record(AT_US + int(one * SECOND_US), data) for one in seconds]


def queries(*ports: int) -> list[Record]:
    """A second's packets, each of another flow."""
    datagrams = (make.udp_datagram(port, 53, b"query") for port in ports)
    return [Record(AT_US, make.ethernet(0x0800, make.ipv4(CLIENT, SERVER, make.UDP, one))) for one in datagrams]


def write(path: Path, *records: Record) -> Path:
    path.write_bytes(pcap(records))
    return path


def source(*files: Path, speed: float = 0, capacity: int = 1000, clock: Clock | None = None) -> PcapSource:
    clock = clock or Clock()
    return PcapSource(files, speed=speed, capacity=capacity, clock=clock, sleep=clock.sleep)


async def read(one: PcapSource, interval_us: int = SECOND_US) -> Seen:
    return [(start, end, drained.rows) async for start, end, drained in one.windows(interval_us)]


def spans(seen: Seen) -> list[tuple[float, float, int]]:
    """(start, end, packets) of windows, in seconds after `AT_US`."""
    return [
        ((start - AT_US) / SECOND_US, (end - AT_US) / SECOND_US, int(rows["packets"].sum()))
        for start, end, rows in seen
    ]


class Clock:
    """A clock that only sleeping moves; from `end_after` naps on it says that all is to end."""

    def __init__(self, end_after: int | None = None) -> None:
        self.now_us = 5_000
        self.slept_s: list[float] = []
        self._end_after = end_after

    def monotonic_us(self) -> int:
        return self.now_us

    async def sleep(self, seconds: float) -> bool:
        self.slept_s.append(seconds)
        self.now_us += round(seconds * SECOND_US)
        return self._end_after is not None and len(self.slept_s) >= self._end_after


# --- What is counted


async def test_every_packet_is_its_senders_and_counts_with_its_original_length(folder: Path) -> None:
    cut = Record(AT_US, QUERY[:60], 1500)
    ((_, _, rows),) = await read(source(write(folder / "a.pcap", cut, Record(AT_US, ANSWER), cut)))
    assert rows["direction"].tolist() == [Direction.TX] * 2
    assert [str(address.from_words(int(row["local_hi"]), int(row["local_lo"]))) for row in rows] == [CLIENT, SERVER]
    assert rows[["local_port", "peer_port"]].tolist() == [(40000, 53), (53, 40000)]
    assert [rows[name].tolist() for name in VALUES] == [
        [3000, len(ANSWER)],
        [2, 1],
        [2, 1],
        [3000, len(ANSWER)],
        [0, 0],
    ]


async def test_what_is_not_ip_and_what_is_malformed_is_counted_by_its_number(folder: Path) -> None:
    arp = make.ethernet(0x0806, make.arp_request(CLIENT, SERVER))
    path = write(folder / "a.pcap", Record(AT_US, arp), Record(AT_US, QUERY[:20]), Record(AT_US, b""))
    ((_, _, rows),) = await read(source(path))
    assert rows[["kind", "peer_port", "packets", "bytes"]].tolist() == [
        (Kind.NOT_IP, 0x0806, 1, len(arp)),
        (Kind.MALFORMED, Malformed.TRUNCATED_IPV4, 1, 20),
        (Kind.MALFORMED, Malformed.TRUNCATED_LINK, 1, 0),
    ]


async def test_more_flows_than_fit_end_the_window_and_none_is_folded(folder: Path) -> None:
    path = write(folder / "a.pcap", *queries(1, 2, 3, 4, 5))
    seen = await read(source(path, capacity=2))
    assert [rows["local_port"].tolist() for _, _, rows in seen] == [[1, 2], [3, 4], [5]]
    assert spans(seen) == [(0, 0, 2), (0, 0, 2), (0, 0, 1)]
    assert not any((rows["kind"] == Kind.FOLDED).any() for _, _, rows in seen)


# --- Windows


async def test_windows_are_in_the_files_time(folder: Path) -> None:
    path = write(folder / "a.pcap", *at(0, 0.5, 0.999, 1, 1.5, 7200))
    assert spans(await read(source(path))) == [(0, 0.999, 3), (1, 1.5, 2), (7200, 7200, 1)]


async def test_packets_that_overtook_each_other_a_little_stay_in_one_window(folder: Path) -> None:
    path = write(folder / "a.pcap", *at(0.5, 0.4, 0.6, 0.2))
    assert spans(await read(source(path))) == [(0.2, 0.6, 4)]


async def test_time_that_steps_back_begins_another_window(folder: Path) -> None:
    path = write(folder / "a.pcap", *at(100, 100.1, 5, 5.1))
    assert spans(await read(source(path))) == [(100, 100.1, 2), (5, 5.1, 2)]


async def test_a_file_that_is_older_than_the_one_before_it_is_read_all_the_same(folder: Path) -> None:
    files = write(folder / "a.pcap", *at(0.5)), write(folder / "b.pcap", *at(0.6)), write(folder / "c.pcap", *at(0))
    assert spans(await read(source(*files))) == [(0.5, 0.5, 1), (0.6, 0.6, 1), (0, 0, 1)]


async def test_a_file_without_packets_has_no_window(folder: Path) -> None:
    assert await read(source(write(folder / "a.pcap"))) == []


@given(st.lists(st.integers(0, 10 * SECOND_US), max_size=40), st.integers(1, 5 * SECOND_US), st.integers(1, 5))
async def test_whatever_the_times_are_each_window_is_in_order_and_every_packet_in_one(
    times_us: list[int], interval_us: int, capacity: int
) -> None:
    flows = queries(*range(1, 8))
    with tempfile.TemporaryDirectory() as name:
        path = write(Path(name, "a.pcap"), *(Record(one, flows[at % 7].data) for at, one in enumerate(times_us)))
        seen = await read(source(path, capacity=capacity), interval_us)
    assert all(0 <= end - start < interval_us for start, end, _ in seen)
    assert sum(int(rows["packets"].sum()) for _, _, rows in seen) == len(times_us)
    assert all(Kind.FOLDED not in rows["kind"] for _, _, rows in seen)
    assert {time for start, end, _ in seen for time in (start, end)} <= set(times_us)


# --- Observation points


async def test_each_interface_of_each_file_is_an_observation_point(folder: Path) -> None:
    ng = Pcapng()
    first = write(folder / "a.pcap", *at(0))
    second = folder / "b.pcapng"
    second.write_bytes(
        ng.section()
        + ng.interface()
        + ng.interface()
        + ng.enhanced(AT_US + 1, QUERY, interface=1)
        + ng.enhanced(AT_US + 2, QUERY, interface=0)
    )
    one, told = source(first, second), []
    async for _, _, drained in one.windows(SECOND_US):
        told.append([(point.id, point.interface, point.index, point.attached_us) for point in one.attachments])
        assert set(drained.rows["attachment"].tolist()) == {point.id for point in one.attachments}
        assert {point.source for point in one.attachments} == {"pcap"}
    assert told == [
        [(1, "a.pcap", 0, AT_US)],
        [(2, "b.pcapng:1", 1, AT_US + 1), (3, "b.pcapng", 0, AT_US + 2)],
    ]


async def test_files_of_the_same_name_are_apart(folder: Path) -> None:
    (folder / "x").mkdir()
    files = write(folder / "a.pcap", *at(0)), write(folder / "x" / "a.pcap", *at(0))
    seen = await read(source(*files))
    assert [rows["attachment"].tolist() for _, _, rows in seen] == [[1], [2]]


# --- Pace


async def test_at_full_speed_nobody_waits(folder: Path) -> None:
    clock = Clock()
    await read(source(write(folder / "a.pcap", *at(0, 3600)), clock=clock))
    assert clock.slept_s == []


@pytest.mark.parametrize("speed", [1, 4, 0.5])
async def test_a_window_comes_when_its_time_has(folder: Path, speed: float) -> None:
    clock = Clock()
    started, came_s = clock.now_us, []
    one = source(write(folder / "a.pcap", *at(0, 0.5, 2, 10, 10.25)), speed=speed, clock=clock)
    async for _ in one.windows(SECOND_US):
        came_s.append((clock.now_us - started) / SECOND_US)
        clock.now_us += 10_000  # What the reader takes must not add up.
    assert came_s == pytest.approx([0.5 / speed, 2 / speed, 10.25 / speed], abs=0.001)


async def test_neither_time_that_steps_back_nor_time_between_files_is_waited_for(folder: Path) -> None:
    clock = Clock()
    files = write(folder / "a.pcap", *at(50, 51, 3, 4)), write(folder / "b.pcap", *at(9000, 9000.5))
    await read(source(*files, speed=1, clock=clock))
    assert sum(clock.slept_s) == pytest.approx(1 + 1 + 0.5)


async def test_who_lags_behind_does_not_wait(folder: Path) -> None:
    clock = Clock()
    one = source(write(folder / "a.pcap", *at(0, 2, 4)), speed=1, clock=clock)
    async for _ in one.windows(SECOND_US):
        clock.now_us += 3 * SECOND_US
    assert clock.slept_s == []


async def test_an_end_that_comes_while_waiting_ends_the_reading(folder: Path) -> None:
    clock = Clock(end_after=1)
    seen = await read(source(write(folder / "a.pcap", *at(0, 3600)), speed=1, clock=clock))
    assert spans(seen) == [(0, 0, 1)]


async def test_others_have_their_turn_within_a_long_window_and_may_end_it(folder: Path) -> None:
    clock = Clock(end_after=2)
    seen = await read(source(write(folder / "a.pcap", *at(*[0] * 20_000)), clock=clock))
    assert (seen, clock.slept_s) == ([], [0, 0])


# --- Files that are not whole


async def test_all_before_a_cut_is_delivered_and_then_the_cut_is_told(folder: Path) -> None:
    path = folder / "cut.pcap"
    path.write_bytes(pcap(at(0, 0.5, 5, 5.5))[:-1])
    seen: Seen = []
    with pytest.raises(UsageError, match=r"cut\.pcap is cut: .*packets before it that are whole: 3"):
        await _read_into(seen, source(path))
    assert spans(seen) == [(0, 0.5, 2), (5, 5, 1)]


async def _read_into(seen: Seen, one: PcapSource) -> None:
    async for start, end, drained in one.windows(SECOND_US):
        seen.append((start, end, drained.rows))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"GIF89a..", "neither pcap nor pcapng"),
        (pcap(at(0), link=105), "802.11"),
        (gzip.compress(pcap(at(0)), mtime=0)[:30], "is cut"),
    ],
)
async def test_a_file_that_cannot_be_read_is_told_before_the_first_is(
    folder: Path, content: bytes | None, sentence: str
) -> None:
    bad = folder / "bad.pcap"
    if content is not None:
        bad.write_bytes(content)
    seen: Seen = []
    with pytest.raises(UsageError, match=sentence):
        await _read_into(seen, source(write(folder / "a.pcap", *at(0)), bad))
    assert seen == []


async def test_sums_of_a_large_file_are_exact(folder: Path) -> None:
    lengths = [60 + number * 7919 % 1400 for number in range(30_000)]
    records = [
        Record(AT_US + number * 500, (QUERY, ANSWER)[number % 2], length) for number, length in enumerate(lengths)
    ]
    path = folder / "large.pcap.gz"
    path.write_bytes(gzip.compress(pcap(records), 1))
    sums: Counter[int] = Counter()
    for _, _, rows in await read(source(path)):
        for row in rows:
            sums[int(row["local_port"])] += int(row["bytes"])
    assert sums == {40000: sum(lengths[::2]), 53: sum(lengths[1::2])}
