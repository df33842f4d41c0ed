"""What capture files say, in every format, and what is said of those that are broken."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture import pcap_file
from services.capture.frames import LinkType
from services.capture.pcap_file import Packet, check, packets
from services.runtime.errors import UsageError
from tests.support.capture_files import MICRO, NANO, PCAP_HEADER_BYTES, RECORD_HEADER_BYTES, Pcapng, Record, pcap

AT_US = 1_700_000_000_123_456
RECORDS = [Record(AT_US, b"one"), Record(AT_US + 1, b"second", 1500), Record(AT_US + 2_000_000, b"")]
ORDERS = pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
NG = Pcapng()


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "traffic.pcap"


def read(path: Path, content: bytes) -> list[Packet]:
    path.write_bytes(content)
    return list(packets(path))


def collect(reading: Iterator[Packet], found: list[Packet]) -> None:
    for packet in reading:
        found.append(packet)  # noqa: PERF402 - what was found before an error is wanted


def broken(path: Path, content: bytes) -> tuple[list[Packet], str]:
    """The packets of a file that ends in an error, also those that came before it, and its sentence."""
    path.write_bytes(content)
    found: list[Packet] = []
    with pytest.raises(UsageError) as caught:
        collect(packets(path), found)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2
    return found, str(caught.value)


def of(records: list[Record], *, interface: int = 0, link: LinkType = LinkType.ETHERNET) -> list[Packet]:
    return [Packet(one.time_us, interface, link, one.original_length, one.data) for one in records]


# --- pcap


@ORDERS
@pytest.mark.parametrize("magic", [MICRO, NANO], ids=["micro", "nano"])
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
def test_pcap_in_every_form(path: Path, order: str, magic: int, *, compressed: bool) -> None:
    content = pcap(RECORDS, order=order, magic=magic)
    assert read(path, gzip.compress(content) if compressed else content) == of(RECORDS)


def test_a_file_without_packets_is_whole(path: Path) -> None:
    assert read(path, pcap([])) == []
    check(path)


@pytest.mark.parametrize(
    ("number", "link"), [*((int(one), one) for one in LinkType), (12, LinkType.RAW_IP), (14, LinkType.RAW_IP)]
)
def test_link_types(path: Path, number: int, link: LinkType) -> None:
    assert read(path, pcap(RECORDS, link=number)) == of(RECORDS, link=link)


def test_what_a_pcap_file_says_of_checksums_is_not_part_of_the_link_type(path: Path) -> None:
    assert read(path, pcap(RECORDS, link=0x5400_0001)) == of(RECORDS)


@pytest.mark.parametrize("snap_bytes", [0, 96, 0xFFFFFFFF])
def test_packets_may_be_larger_than_the_header_promised(path: Path, snap_bytes: int) -> None:
    large = [Record(AT_US, bytes(65_600))]
    assert read(path, pcap(large, snap_bytes=snap_bytes)) == of(large)


def test_gzip_in_several_members_is_one_file(path: Path) -> None:
    content = pcap(RECORDS)
    assert read(path, gzip.compress(content[:30]) + gzip.compress(content[30:])) == of(RECORDS)


def test_a_pipe_is_read_once(path: Path) -> None:
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    check(path)
    os.write(writer, pcap(RECORDS))
    found = packets(path)
    first = next(found)
    os.close(writer)
    os.close(reader)
    assert [first, *found] == of(RECORDS)


# --- pcapng


@ORDERS
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
def test_pcapng_with_each_kind_of_packet(path: Path, order: str, *, compressed: bool) -> None:
    ng = Pcapng(order)
    content = (
        ng.section(options=ng.option(4, b"a test"))
        + ng.interface(snap_bytes=9)
        + ng.enhanced(AT_US, b"enhanced", length=60)
        + ng.block(4, b"names, which say nothing here")
        + ng.old_packet(AT_US + 1, b"old")
        + ng.simple(b"simple", length=6)
        + ng.simple(b"cut short", length=1500)
    )
    assert read(path, gzip.compress(content) if compressed else content) == [
        Packet(AT_US, 0, LinkType.ETHERNET, 60, b"enhanced"),
        Packet(AT_US + 1, 0, LinkType.ETHERNET, 3, b"old"),
        # Simple packets have no time of their own.
        Packet(AT_US + 1, 0, LinkType.ETHERNET, 6, b"simple"),
        Packet(AT_US + 1, 0, LinkType.ETHERNET, 1500, b"cut short"),
    ]


def test_interfaces_are_numbered_through_all_sections_of_any_byte_order(path: Path) -> None:
    big = Pcapng(">")
    content = (
        NG.section()
        + NG.interface(1)
        + NG.interface(101)
        + NG.enhanced(AT_US, b"a", interface=1)
        + big.section()
        + big.interface(113)
        + big.enhanced(AT_US + 1, b"b", interface=0)
        + NG.section()
        + NG.interface(276)
        + NG.old_packet(AT_US + 2, b"c", interface=0)
    )
    assert read(path, content) == [
        Packet(AT_US, 1, LinkType.RAW_IP, 1, b"a"),
        Packet(AT_US + 1, 2, LinkType.LINUX_SLL, 1, b"b"),
        Packet(AT_US + 2, 3, LinkType.LINUX_SLL2, 1, b"c"),
    ]


@ORDERS
@pytest.mark.parametrize(
    ("resolution", "ticks"),
    [
        (b"\x06", AT_US),
        (b"\x09", AT_US * 1000 + 999),
        (b"\x03", AT_US // 1000),
        (b"\x00", AT_US // 1_000_000),
        (b"\x8a", AT_US * 1024 // 1_000_000),
    ],
    ids=["micro", "nano", "milli", "seconds", "1024ths"],
)
def test_time_in_every_resolution_and_with_an_offset(path: Path, order: str, resolution: bytes, ticks: int) -> None:
    ng = Pcapng(order)
    options = ng.option(9, resolution) + ng.option(14, struct.pack(order + "q", -3600)) + ng.option(0, b"")
    (packet,) = read(path, ng.section() + ng.interface(options=options) + ng.enhanced(ticks, b"x"))
    per_second = 2**10 if resolution == b"\x8a" else 10 ** resolution[0]
    assert packet.time_us == ticks * 1_000_000 // per_second - 3_600_000_000


@pytest.mark.parametrize(
    ("resolution", "offset_s", "expected_us"),
    [(0, 0, 253_402_300_800_000_000), (0x7F, 0, 0), (0xFF, 0, 0), (6, -(1 << 63), 0), (6, (1 << 63) - 1, 253_402_300_800_000_000)],
)  # fmt: skip
def test_times_out_of_this_world_stay_within_what_can_be_stored(
    path: Path, resolution: int, offset_s: int, expected_us: int
) -> None:
    options = NG.option(9, bytes([resolution])) + NG.option(14, struct.pack("<q", offset_s))
    (packet,) = read(path, NG.section() + NG.interface(options=options) + NG.enhanced((1 << 64) - 1, b"x"))
    assert packet.time_us == expected_us


def test_options_behind_their_end_and_cut_ones_say_nothing(path: Path) -> None:
    after = NG.option(0, b"") + NG.option(9, b"\x00")
    cut = struct.pack("<HH", 9, 200)
    for options in (after, cut, NG.option(9, b""), NG.option(14, b"\1")):
        (packet,) = read(path, NG.section() + NG.interface(options=options) + NG.enhanced(AT_US, b"x"))
        assert packet.time_us == AT_US


# --- Files that are not what they should be


def test_a_missing_file(path: Path) -> None:
    for look in (check, lambda one: list(packets(one))):
        with pytest.raises(UsageError, match=r"cannot read .*traffic.pcap: No such file or directory"):
            look(path)


def test_a_directory(folder: Path) -> None:
    with pytest.raises(UsageError, match="Is a directory"):
        check(folder)


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Inside, root is nobody, who must ask for permission."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def test_a_file_that_may_not_be_read(path: Path, request: pytest.FixtureRequest) -> None:
    path.write_bytes(pcap(RECORDS))
    path.chmod(0)
    request.getfixturevalue("unprivileged")
    with pytest.raises(UsageError, match=r"cannot read .*traffic.pcap: Permission denied"):
        check(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (b"\xa1\xb2", "is neither pcap nor pcapng: it begins with the bytes a1 b2"),
        (b"\x7fELF" + bytes(100), "is neither pcap nor pcapng: it begins with the bytes 7f 45 4c 46"),
        (gzip.compress(b"text, compressed", mtime=0), "is neither pcap nor pcapng: it begins with the bytes 74 65 78 74"),
        (b"\x1f\x8bzzzzzzzzzz", "its compression is broken"),
        (pcap([], version=(3, 0)), "is of version 3.0 of the pcap format; 2.x can be read"),
        (NG.section(major=2), "it is of version 2.0 of the pcapng format, and 1.x can be read"),
        (struct.pack("<III", 0x0A0D0D0A, 28, 7) + bytes(16), "a section header has no byte-order mark"),
        (NG.block(0x0A0D0D0A, struct.pack("<II", 0x1A2B3C4D, 1)), "a section header is too short"),
        (struct.pack("<III", 0x0A0D0D0A, 8, 0x1A2B3C4D) + bytes(16), "it announces a block of 8 bytes"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind(path: Path, content: bytes, sentence: str) -> None:
    found, said = broken(path, content)
    assert (found, sentence in said) == ([], True), said
    with pytest.raises(UsageError):
        check(path)


@pytest.mark.parametrize(("number", "name"), [(105, "105 (802.11)"), (65000, "65000,")])
def test_another_link_type_is_named_with_those_that_can_be_read(path: Path, number: int, name: str) -> None:
    for content in (pcap(RECORDS, link=number), NG.section() + NG.interface(number)):
        _, said = broken(path, content)
        assert f"has the link type {name}" in said
        assert "ethernet 1" in said
        assert "linux sll2 276" in said


# --- Files that end or break in the middle


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
def test_a_cut_file_gives_all_whole_packets_and_says_where_it_ends(path: Path, *, compressed: bool) -> None:
    content = pcap(RECORDS)
    third = PCAP_HEADER_BYTES + 2 * RECORD_HEADER_BYTES + 9
    for end in range(PCAP_HEADER_BYTES, len(content)):
        cut = gzip.compress(content[:end]) if compressed else content[:end]
        if end in {PCAP_HEADER_BYTES, PCAP_HEADER_BYTES + RECORD_HEADER_BYTES + 3, third}:
            assert read(path, cut) == of(RECORDS)[: (end > 24) + (end > 43)]
            continue
        found, said = broken(path, cut)
        assert found == of(RECORDS)[: (end > 43) + (end > third)]
        assert f"is cut: it ends at byte {end}, within the record" in said
        assert said.endswith(f"packets before it that are whole: {len(found)}")


def test_a_cut_file_header(path: Path) -> None:
    for content in (pcap([])[:23], NG.section()[:-1]):
        _, said = broken(path, content)
        assert "is cut: it ends at byte" in said


def test_a_cut_pcapng_file(path: Path) -> None:
    start = NG.section() + NG.interface()
    content = start + NG.enhanced(AT_US, b"whole") + NG.enhanced(AT_US, b"cut")
    second = len(start + NG.enhanced(AT_US, b"whole"))
    for end in range(second + 1, len(content)):
        found, said = broken(path, content[:end])
        assert [one.data for one in found] == [b"whole"]
        assert f"within the record that begins at byte {second};" in said


def test_compression_that_is_cut_gives_what_can_be_unpacked(path: Path) -> None:
    records = [Record(AT_US + number, os.urandom(500)) for number in range(200)]
    packed = gzip.compress(pcap(records))
    found, said = broken(path, packed[: len(packed) // 2])
    assert found == of(records)[: len(found)]
    assert len(found) > 50
    assert "is cut" in said


@pytest.mark.parametrize(("at", "sentence"), [(-5, "CRC check failed"), (-2, "Incorrect length of data")])
def test_compression_with_a_wrong_checksum_gives_all_and_says_so(path: Path, at: int, sentence: str) -> None:
    packed = bytearray(gzip.compress(pcap(RECORDS)))
    packed[at] ^= 0xFF
    found, said = broken(path, bytes(packed))
    assert (found, sentence in said) == (of(RECORDS), True), said


def test_a_packet_of_an_incredible_size(path: Path) -> None:
    whole = pcap(RECORDS[:1])
    for order, size in (("<", 262_145), ("<", 0xFFFFFFFF)):
        found, said = broken(path, whole + struct.pack(order + "IIII", 1, 1, size, size) + bytes(300_000))
        assert found == of(RECORDS[:1])
        assert f"is damaged at byte {len(whole)}: it announces a packet of {size} bytes" in said


START = NG.section() + NG.interface() + NG.enhanced(AT_US, b"whole")


@pytest.mark.parametrize(
    ("rest", "sentence"),
    [
        (struct.pack("<II", 6, 8), "it announces a block of 8 bytes"),
        (struct.pack("<II", 6, 33) + bytes(25), "it announces a block of 33 bytes"),
        (struct.pack("<II", 99, 1 << 31), f"it announces a block of {1 << 31} bytes"),
        (NG.enhanced(AT_US, b"abcd")[:-4] + b"\x30\0\0\0", "a block says 36 bytes at its begin and 48 at its end"),
        (NG.block(6, bytes(16)), "a packet block is too short"),
        (NG.block(3, b""), "a packet block is too short"),
        (NG.block(1, bytes(4)), "an interface description is too short"),
        (NG.enhanced(AT_US, b"x", interface=1), "a packet names interface 1, which is not described"),
        (NG.section() + NG.simple(b"x"), "a packet names interface 0, which is not described"),
        (NG.block(6, struct.pack("<IIIII", 0, 0, 0, 5, 5) + b"four"), "a packet of 5 bytes is longer than its block"),
        (NG.interface() * 4096, "it describes more than 4096 interfaces"),
        (NG.interface(105), "has the link type 105"),
    ],
)
def test_damage_in_pcapng_is_named_after_what_stands_before_it(path: Path, rest: bytes, sentence: str) -> None:
    found, said = broken(path, START + rest)
    assert [one.data for one in found] == [b"whole"]
    assert sentence in said


class FailingDisk(io.BytesIO):
    def read(self, _: int | None = -1, /) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_disk_that_fails() -> None:
    with pytest.raises(UsageError, match=r"cannot read traffic.pcap: Input/output error"):
        pcap_file._Reader("traffic.pcap", FailingDisk()).exactly(4)


# --- Any content


def test_memory_does_not_grow_with_the_file(path: Path) -> None:
    with path.open("wb") as out:
        out.write(pcap([]))
        record = pcap([Record(AT_US, bytes(1000))])[PCAP_HEADER_BYTES:]
        for _ in range(200):
            out.write(record * 100)
    tracemalloc.start()
    try:
        assert sum(1 for _ in packets(path)) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_file_that_nobody_reads_to_its_end_is_closed(path: Path) -> None:
    path.write_bytes(gzip.compress(pcap(RECORDS)))
    opened = open_files()
    reading = packets(path)
    next(reading)
    assert open_files() == opened + 1
    reading.close()
    assert open_files() == opened


WHOLE_FILES = [
    pcap(RECORDS),
    pcap(RECORDS, order=">", magic=NANO),
    START + NG.block(5, bytes(20)) + NG.simple(b"simple") + NG.old_packet(AT_US, b"old"),
    Pcapng(">").section() + Pcapng(">").interface(options=NG.option(9, b"\x09")) + Pcapng(">").enhanced(1, b"x"),
]


@given(
    st.sampled_from([*WHOLE_FILES, *map(gzip.compress, WHOLE_FILES)]),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    st.integers(0, 300),
)
def test_mutated_files_end_or_are_refused_in_a_sentence(
    content: bytes, changes: list[tuple[int, int]], size: int
) -> None:
    changed = bytearray(content[:size])
    for at, value in changes:
        if at < len(changed):
            changed[at] = value
    # Not a temporary file: Hypothesis runs many examples within one test.
    read_fd, write_fd = os.pipe()
    os.write(write_fd, changed)
    os.close(write_fd)
    found: list[Packet] = []
    try:
        with contextlib.suppress(UsageError):
            collect(packets(Path(f"/proc/self/fd/{read_fd}")), found)
    finally:
        os.close(read_fd)
    for packet in found:
        assert packet.time_us >= 0
        assert packet.link_type in LinkType
        assert len(packet.data) <= pcap_file._LARGEST
