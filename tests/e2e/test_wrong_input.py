"""Whatever is wrong ends in one clear sentence and the right exit code."""

from __future__ import annotations

import gzip
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.launched import PROGRAM, launched, leftovers, ran, unmeasured
from tests.support.netns import Namespace, namespaces

HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
RECORD = struct.pack("<IIII", 1, 0, 60, 60) + bytes(60)


@pytest.fixture
def node() -> Iterator[Namespace]:
    """A place of its own to capture in."""
    with namespaces("node") as (node,):
        yield node


@pytest.fixture
def files(folder: Path) -> Path:
    """A folder with files of which each is wrong in its way."""
    (folder / "cut.pcap").write_bytes(HEADER + RECORD + RECORD[:30])
    (folder / "text.pcap").write_text("this is no capture")
    (folder / "empty.pcap").write_bytes(b"")
    (folder / "wifi.pcap").write_bytes(HEADER[:20] + struct.pack("<I", 105))
    (folder / "cut.pcap.gz").write_bytes(gzip.compress(HEADER + RECORD * 100)[:-20])
    (folder / "good.pcap").write_bytes(HEADER + RECORD)
    (folder / "bad.json").write_text('{"version": 1, "addresses": {"x": {}}}')
    (folder / "broken.json").write_text("{")
    (folder / "old.json").write_text('{"version": 0}')
    return folder


def assert_one_sentence(done: object, code: int, message: str) -> None:
    """Exit code, one line on standard error, and the words in it."""
    said = done.stderr.splitlines()  # type: ignore[attr-defined]
    assert done.returncode == code, said  # type: ignore[attr-defined]
    assert len(said) == 1, said
    assert said[0].startswith("podloxx: ")
    assert message in said[0]
    assert done.stdout == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.pcap", "missing.pcap: No such file or directory"),
        (".", "Is a directory"),
        ("empty.pcap", "empty.pcap"),
        ("text.pcap", "text.pcap is neither pcap nor pcapng"),
        ("cut.pcap", "cut"),
        ("cut.pcap.gz", "cut"),
        ("wifi.pcap", "link type 105"),
    ],
)
def test_a_file_that_cannot_be_read(files: Path, name: str, message: str) -> None:
    before = leftovers()
    assert_one_sentence(ran("replay", str(files / name), "--json"), 2, message)
    assert leftovers() <= before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bad.json", "is wrong at addresses.x: expected an IPv4 or IPv6 address"),
        ("broken.json", "is not JSON"),
        ("old.json", "is wrong at version: expected the number 1"),
        ("missing.json", "missing.json: No such file or directory"),
    ],
)
def test_an_address_file_that_is_wrong(files: Path, name: str, message: str) -> None:
    done = ran("replay", str(files / "good.pcap"), "--json", f"--directory={files / name}")
    assert_one_sentence(done, 2, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["go"], "invalid choice: 'go'"),
        (["replay"], "the following arguments are required: FILE"),
        (["demo", "--for=soon"], "'soon' is no time such as 30s"),
        (["demo", "--port=http"], "invalid int value: 'http'"),
        (["demo", "--port=70000"], "port"),
        (["demo", "--listen=0.0.0.0"], "give --token-file"),
        (["demo", "--cidr=office"], "NAME=CIDR[:scope]"),
        (["demo", "--cidr=office=10.0.0.0/8:near"], "'near' is no scope"),
        (["demo", "--private-cidr=10.0.0.0/99"], "'10.0.0.0/99' is no address range"),
        (["demo", "--speed=1"], "unrecognized arguments: --speed=1"),
    ],
)
def test_a_command_line_that_is_wrong(node: Namespace, arguments: list[str], message: str) -> None:
    before = leftovers()
    assert_one_sentence(ran(*arguments, inside=node), 2, message)
    assert leftovers() <= before


def test_an_unknown_interface_is_named_with_those_that_are_there(node: Namespace) -> None:
    done = ran("local", "--interface=eth7", "--no-browser", "--port=0", inside=node)
    assert_one_sentence(done, 2, "eth7")
    assert "lo" in done.stderr


@pytest.mark.parametrize("prefix", ["azv||cali", "a/b", "averyverylongprefix"])
def test_a_prefix_that_no_interface_can_have(node: Namespace, prefix: str) -> None:
    done = ran("local", f"--interface-prefix={prefix}", "--no-browser", "--port=0", inside=node)
    assert_one_sentence(done, 2, "prefix")


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for command in (["demo"], ["local"]):
            done = ran(*command, f"--port={port}", "--no-browser")
            assert_one_sentence(done, 2, f"port {port} on 127.0.0.1 cannot be used (Address already in use)")


NOBODY = ["--reuid=65534", "--regid=65534", "--clear-groups"]


@pytest.mark.parametrize(
    ("command", "without"),
    [("local", NOBODY), ("local", ["--bounding-set=-all"]), ("demo", ["--bounding-set=-all"])],
)
def test_missing_privileges(command: str, without: list[str]) -> None:
    argv = ["setpriv", "--no-new-privs", "--inh-caps=-all", *without, str(PROGRAM), command, "--no-browser"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=unmeasured())
    assert_one_sentence(done, 3, "needs root")
    assert f"sudo podloxx-launch {command}" in done.stderr


def test_replay_needs_no_privileges(files: Path) -> None:
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(PROGRAM), "replay", "--json"]
    done = subprocess.run(
        [*argv, str(files / "good.pcap")], capture_output=True, text=True, timeout=60, check=False, env=unmeasured()
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert '"packets":1' in done.stdout


def test_a_wrong_value_in_the_environment_is_wrong_too(node: Namespace) -> None:
    done = ran("demo", inside=node, env={**os.environ, "PODLOXX_PORT": "many"})  # noqa: TID251
    assert_one_sentence(done, 2, "invalid int value: 'many'")


def test_help_has_examples() -> None:
    done = ran("--help")
    assert done.returncode == 0
    assert "podloxx-launch demo" in done.stdout


def test_a_session_ends_after_its_time(node: Namespace) -> None:
    with launched("local", "--for=1s", inside=node) as podloxx:
        assert podloxx.process.wait(timeout=40) == 0
