"""What `podloxx-launch replay` prints and shows is what is in the files."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import generators as make
from tests.support.capture_files import Record, pcap
from tests.support.launched import alive, children_of, command, launched, leftovers, ours, ran
from tests.support.netns import namespaces, run, veth
from tests.support.truth import wait_for_total
from tests.support.wait import wait_until

POD, HOST, POD6, HOST6 = "10.9.0.2", "10.9.0.1", "fd09::2", "fd09::1"
CLIENT, SERVER = "10.0.0.2", "10.0.0.3"
LAST: Final = b"this is the last datagram"
SYN, SYN_ACK = 0x02, 0x12
Sums = dict[str, Any]


def sums(*arguments: str | Path) -> Sums:
    """The object that `replay --json` prints."""
    done = ran("replay", "--json", *map(str, arguments))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    found: Sums = json.loads(done.stdout)
    assert_adds_up(found)
    return found


def assert_adds_up(found: Sums) -> None:
    """Every frame is in just one place."""
    for unit in ("packets", "bytes"):
        groups = [entry[unit] for group in ("not_ip", "malformed") for entry in found[group].values()]
        ways = [entry[f"{way}_{unit}"] for entry in found["peers"] for way in ("tx", "rx")]
        assert sum(groups) + sum(ways) == found[unit]


def pairs(found: Sums) -> Counter[tuple[str, str, str]]:
    """Packets and bytes from each address to each."""
    counted: Counter[tuple[str, str, str]] = Counter()
    for entry in found["peers"]:
        for unit in ("packets", "bytes"):
            counted[entry["local"], entry["peer"], unit] += entry[f"tx_{unit}"]
            counted[entry["peer"], entry["local"], unit] += entry[f"rx_{unit}"]
    return +counted


def of_tshark(path: Path) -> tuple[Counter[tuple[str, str, str]], int, int]:
    """The same as tshark counts it by the outermost addresses; and packets and bytes of all frames."""
    fields = ("frame.len", "frame.protocols", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst")
    options = [part for field in fields for part in ("-e", field)]
    said = run("tshark", "-r", str(path), "-T", "fields", "-E", "occurrence=f", "-E", "separator=;", *options)
    counted: Counter[tuple[str, str, str]] = Counter()
    lines = [line.split(";") for line in said.splitlines()]
    for length, protocols, source, target, source6, target6 in lines:
        layers = [layer for layer in protocols.split(":") if layer in {"ip", "ipv6"}]
        if layers:
            pair = (source, target) if layers[0] == "ip" else (source6, target6)
            counted[*pair, "packets"] += 1
            counted[*pair, "bytes"] += int(length)
    return counted, len(lines), sum(int(line[0]) for line in lines)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What tcpdump recorded of real connections and of frames that no socket sends."""
    path = tmp_path_factory.mktemp("recorded") / "eth0.pcap"
    with namespaces("node", "pod") as (node, pod):
        veth(node, "veth0", pod, f"{POD}/24", f"{POD6}/64")
        node.ip(f"addr add {HOST}/24 dev veth0", f"addr add {HOST6}/64 dev veth0 nodad")
        # Its own buffer of 2 MB has room for 32 packets of the largest size: too few on a busy machine.
        options = ("-Z", "root", "-U", "--immediate-mode", "-B", "65536", "-n", "-i", "eth0", "-w", str(path))
        recorder = pod.command("tcpdump", *options)
        with subprocess.Popen(recorder, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                assert next(line for line in process.stderr if "listening on" in line)
                make.tcp(pod, node, HOST, 5001, size=500_000)
                make.tcp(node, pod, POD6, 5002, size=200_000)
                with make.udp_sink(node, HOST, 7000), make.udp_sink(node, HOST6, 7000):
                    make.udp(pod, HOST, 7000, count=40, size=700)
                    make.udp(pod, HOST6, 7000, count=20, size=1300)
                packet = make.ipv4(POD, HOST, make.UDP, make.udp_datagram(1, 53, b"inside"))
                vxlan = bytes.fromhex("0800000000002a00") + make.ethernet(0x0800, packet)
                frames = [
                    make.ethernet(0x0806, make.arp_request(POD, HOST)),
                    make.ethernet(0x88CC, bytes(46)),
                    make.ethernet(0x0800, packet, (0x88A8, 5), (0x8100, 6)),
                    make.ethernet(
                        0x0800, make.ipv4("192.0.2.1", "192.0.2.2", make.UDP, make.udp_datagram(50000, 4789, vxlan))
                    ),
                    *(
                        make.ethernet(0x0800, one)
                        for one in make.fragments(POD, HOST, make.udp_datagram(50000, 6000, bytes(4000)), 1480)
                    ),
                    make.ethernet(0x0800, make.ipv4(POD, HOST, make.UDP, make.udp_datagram(9, 9, LAST))),
                ]
                make.inject(pod, "eth0", frames)
                wait_until(lambda: LAST in path.read_bytes(), "all is recorded")
            finally:
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=10)
        assert re.search(r"^0 packets dropped by kernel", said, re.MULTILINE), said
    path.parent.chmod(0o755)
    return path


def test_what_tcpdump_recorded_has_tsharks_sums(recorded: Path) -> None:
    found = sums(recorded)
    counted, packets, size = of_tshark(recorded)
    assert pairs(found) == counted
    assert (found["packets"], found["bytes"]) == (packets, size)
    assert {"arp", "lldp"} <= set(found["not_ip"])
    assert found["malformed"] == {}
    by_port = {(entry["local"], entry["peer"], entry["port"]): entry for entry in found["peers"]}
    assert by_port[POD, HOST, 5001]["tx_bytes"] > 500_000
    assert by_port[HOST6, POD6, 5002]["tx_bytes"] > 200_000
    assert by_port[POD, HOST, 7000]["tx_packets"] == 40
    assert by_port["192.0.2.1", "192.0.2.2", 4789]["tx_packets"] == 1
    assert (POD, HOST, 6000) in by_port


def test_all_files_are_one_object(recorded: Path, folder: Path) -> None:
    packed = folder / "again.pcap.gz"
    packed.write_bytes(gzip.compress(recorded.read_bytes()))
    once, twice = sums(recorded), sums(recorded, packed)
    assert (twice["packets"], twice["bytes"]) == (2 * once["packets"], 2 * once["bytes"])
    assert pairs(twice) == Counter({key: 2 * count for key, count in pairs(once).items()})


def tcp_frame(source: str, target: str, ports: tuple[int, int], payload: int, flags: int = 0x10) -> bytes:
    """A TCP segment with so many bytes."""
    return make.ethernet(
        0x0800, make.ipv4(source, target, make.TCP, make.tcp_segment(*ports, bytes(payload), flags=flags))
    )


def conversation() -> list[Record]:
    """A connection, a datagram in two fragments, and what is no IP or cut."""
    there, back = (40000, 443), (443, 40000)
    frames = [
        tcp_frame(CLIENT, SERVER, there, 0, SYN),
        tcp_frame(SERVER, CLIENT, back, 0, SYN_ACK),
        tcp_frame(CLIENT, SERVER, there, 100),
        tcp_frame(SERVER, CLIENT, back, 1000),
        *(
            make.ethernet(0x0800, one)
            for one in make.fragments(CLIENT, SERVER, make.udp_datagram(40001, 53, bytes(1600)), 1480)
        ),
        make.ethernet(0x0806, make.arp_request(CLIENT, SERVER)),
        make.ethernet(0x1234, bytes(50)),
    ]
    records = [Record(1_700_000_000_000_000 + number, frame) for number, frame in enumerate(frames)]
    # Of the last only the link header and half of the IP header were captured.
    return [*records, Record(1_700_000_000_000_100, tcp_frame(CLIENT, SERVER, there, 0)[:24], length=1514)]


def entry(local: str, peer: str, protocol: str, port: int, counts: tuple[int, int, int, int]) -> dict[str, Any]:
    """A peer between private addresses; `counts` are packets and bytes sent, then received."""
    names = ("tx_packets", "tx_bytes", "rx_packets", "rx_bytes")
    who = {"local": local, "peer": peer, "protocol": protocol, "port": port}
    return {**who, **dict(zip(names, counts, strict=True)), "scope": "private", "rule": "private-range"}


@pytest.fixture
def talk(folder: Path) -> Path:
    """The conversation in a file."""
    path = folder / "talk.pcap"
    path.write_bytes(pcap(conversation()))
    return path


def test_the_object_is_as_documented(talk: Path) -> None:
    assert sums(talk) == {
        "packets": 9,
        "bytes": 54 + 54 + 154 + 1054 + 1514 + 162 + 42 + 64 + 1514,
        "not_ip": {"0x1234": {"packets": 1, "bytes": 64}, "arp": {"packets": 1, "bytes": 42}},
        "malformed": {"truncated-ipv4": {"packets": 1, "bytes": 1514}},
        "peers": [
            entry(CLIENT, SERVER, "tcp", 443, (2, 208, 2, 1108)),
            # A fragment after the first has no port.
            entry(CLIENT, SERVER, "udp", 0, (1, 162, 0, 0)),
            entry(CLIENT, SERVER, "udp", 53, (1, 1514, 0, 0)),
        ],
    }


@pytest.mark.parametrize(
    ("known", "local"), [([], CLIENT), ([SERVER], SERVER), ([CLIENT], CLIENT), ([CLIENT, SERVER], CLIENT)]
)
def test_local_is_who_the_file_knows_else_the_client(talk: Path, known: list[str], local: str) -> None:
    pods = {one: {"namespace": "shop", "pod": f"pod-{one[-1]}", "node": "here"} for one in known}
    directory = talk.with_name("addresses.json")
    # Not open to the services' users: it is lent to them.
    directory.touch(mode=0o600)
    directory.write_text(json.dumps({"version": 1, "addresses": pods, "nodes": {"here": {}}}))
    found = [one for one in sums(talk, f"--directory={directory}")["peers"] if one["protocol"] == "tcp"]
    [(one)] = found
    assert one["local"] == local
    counts = (one["tx_packets"], one["tx_bytes"], one["rx_packets"], one["rx_bytes"])
    assert counts == ((2, 208, 2, 1108) if local == CLIENT else (2, 1108, 2, 208))
    assert one["scope"] == ("same-node" if len(known) == 2 else "private")


def test_time_is_the_files_own_and_may_go_back(folder: Path) -> None:
    frame = tcp_frame(CLIENT, SERVER, (40000, 443), 100)
    times = [1_700_000_000, 0, 4_000_000_000, 1_700_000_001, 1_600_000_000]
    (folder / "times.pcap").write_bytes(pcap(Record(at * 1_000_000, frame) for at in times))
    assert sums(folder / "times.pcap")["packets"] == len(times)


def test_a_file_without_packets_has_no_sums(folder: Path) -> None:
    (folder / "none.pcap").write_bytes(pcap([]))
    assert sums(folder / "none.pcap") == {"packets": 0, "bytes": 0, "not_ip": {}, "malformed": {}, "peers": []}


def many_flows(folder: Path, flows: int) -> Path:
    """A file with a packet to each of so many peers, all at once."""
    frames = (
        make.ethernet(0x0800, make.ipv4(CLIENT, f"11.{n >> 16}.{n >> 8 & 255}.{n & 255}", 47, bytes(4)))
        for n in range(flows)
    )
    path = folder / "many.pcap"
    path.write_bytes(pcap(Record(1_700_000_000_000_000, frame) for frame in frames))
    return path


def test_nothing_of_a_file_with_very_many_flows_is_folded(folder: Path) -> None:
    # More than fits into one batch.
    flows = 60_000
    found = sums(many_flows(folder, flows))
    assert found["packets"] == len(found["peers"]) == flows


def test_files_that_only_their_owner_may_read_are_read(talk: Path) -> None:
    home = talk.parent / "home"
    home.mkdir(mode=0o700)
    os.chown(home, 65534, 65534)
    (home / "mine.pcap").write_bytes(talk.read_bytes())
    (home / "mine.pcap").chmod(0o600)
    os.chown(home / "mine.pcap", 65534, 65534)
    talk.chmod(0o600)
    assert sums(home / "mine.pcap", talk)["packets"] == 18


def test_a_name_may_have_the_time_of_day_in_it_and_be_relative(talk: Path) -> None:
    named = talk.rename(talk.with_name("talk 12:30:00.pcap"))
    argv = command("replay", "--json", named.name)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=named.parent, check=True)
    assert json.loads(done.stdout)["packets"] == 9
    named.write_bytes(named.read_bytes()[:-1])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=named.parent, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"podloxx: {named.name} is cut")


@contextlib.contextmanager
def slowly(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A replay that takes a hundred seconds, once its agent runs."""
    frame = tcp_frame(CLIENT, SERVER, (40000, 443), 100)
    (folder / "slow.pcap").write_bytes(pcap(Record(at * 1_000_000, frame) for at in range(100)))
    argv = command("replay", "--json", "--speed=1", str(folder / "slow.pcap"), *arguments)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        ours(process.pid)
        try:
            # redis-server, the aggregator and the agent
            wait_until(lambda: process.poll() is not None or len(children_of(process.pid)) == 3, "it runs")
            yield process
        finally:
            process.kill()


def test_who_interrupts_it_gets_no_sums(folder: Path) -> None:
    before = leftovers()
    with slowly(folder) as process:
        children = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        output, said = process.communicate(timeout=40)
    assert (process.returncode, output) == (1, "")
    assert said == "podloxx: replay ended, because it was asked to, before the files were read: there are no sums\n"
    assert not [pid for pid in children if alive(pid)]
    assert leftovers() <= before


def test_when_its_time_is_over_there_are_no_sums(folder: Path) -> None:
    with slowly(folder, "--for=1s") as process:
        output, said = process.communicate(timeout=40)
    assert (process.returncode, output) == (1, "")
    assert "the time of --for is over" in said


def test_a_store_that_is_too_small_is_named(folder: Path) -> None:
    done = ran("replay", "--json", str(many_flows(folder, 5000)), "--store-memory=1mb")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "podloxx: the totals need more than 1mb: allow more with --store-memory\n"


def test_who_stops_reading_the_object_ends_it_quietly(talk: Path) -> None:
    argv = command("replay", "--json", str(talk))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(timeout=40) == 1


def test_who_wants_to_know_hears_what_the_services_say(talk: Path) -> None:
    done = ran("replay", "--json", "--verbose", str(talk))
    assert done.returncode == 0
    assert json.loads(done.stdout)["packets"] == 9
    said = done.stderr.splitlines()
    assert {"aggregator:", "capture:", "redis:"} <= {line.split()[0] for line in said}
    assert "password_file" in done.stderr


def test_the_totals_of_files_stay_on_the_page(talk: Path) -> None:
    with launched("replay", str(talk)) as podloxx:
        total = wait_for_total(podloxx, len, "the pods are there")
        assert {pod["ip"] for pod in total.values()} >= {CLIENT}
        assert podloxx.process.poll() is None
        assert podloxx.end() == 0


def test_a_file_can_be_shown_at_its_own_pace(folder: Path) -> None:
    frame = tcp_frame(CLIENT, SERVER, (40000, 443), 946)
    (folder / "pace.pcap").write_bytes(pcap(Record(at * 100_000, frame) for at in range(600)))

    def shown() -> int:
        found: int = podloxx.get("/traffic/overview")["packetsSum"]
        return found

    with launched("replay", "--speed=1", str(folder / "pace.pcap")) as podloxx:
        first = wait_until(shown, "the first packets are shown")
        began = time.monotonic()
        wait_until(lambda: shown() >= first + 30, "three more seconds are shown", timeout_s=20)
        # Windows of a second come when their last packet's time has come.
        assert time.monotonic() - began >= 1.5
        assert shown() < 600
