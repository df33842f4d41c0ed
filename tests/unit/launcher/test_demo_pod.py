"""The process of one pod: does its part, reports, and ends when it is told to or is alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.launcher.demo import pod
from services.launcher.demo.load import Pace
from services.launcher.demo.plan import Part, Plan, PlanError, Serve, Talk, encode
from services.launcher.demo.tally import Tally
from services.launcher.demo.traffic import DATAGRAM
from tests.support.demo_talk import LOOPBACKS, background, free_port, total
from tests.support.wait import until, wait_until

NAMES = {"a.example": ("192.0.2.1", "2001:db8::1")}
ADDRESS = LOOPBACKS[0]


def _plan(**parts: Part) -> Plan:
    return Plan(seed=1, started_s=time.monotonic(), names=NAMES, parts=parts)


def _everything() -> Plan:
    """A process that speaks every kind with itself, and asks a service through its proxy."""
    ports = {kind: free_port(ADDRESS) for kind in ("http", "cache", "database", "bulk-tcp", "bulk-udp", "dns")}
    front_tcp, front_udp = free_port(ADDRESS), free_port(ADDRESS)
    own = (ADDRESS,)
    return _plan(
        all=Part(
            serves=(
                Serve("http", own, ports["http"]),
                Serve("cache", own, ports["cache"]),
                Serve("database", own, ports["database"]),
                Serve("bulk-tcp", own, ports["bulk-tcp"]),
                Serve("bulk-udp", own, ports["bulk-udp"]),
                Serve("dns", own, ports["dns"]),
                Serve("proxy-tcp", own, front_tcp, own, ports["http"]),
                Serve("proxy-udp", own, front_udp, own, ports["dns"]),
            ),
            talks=(
                Talk("http", ADDRESS, ports["http"], 500.0, 1000),
                Talk("cache", ADDRESS, ports["cache"], 500.0, 100),
                Talk("database", ADDRESS, ports["database"], 500.0, 1000),
                Talk("bulk-tcp", ADDRESS, ports["bulk-tcp"], 100_000.0, 0),
                Talk("bulk-udp", ADDRESS, ports["bulk-udp"], 100_000.0, DATAGRAM),
                Talk("dns", ADDRESS, ports["dns"], 500.0, 0),
                Talk("http", ADDRESS, front_tcp, 500.0, 1000),
                Talk("dns", ADDRESS, front_udp, 500.0, 0),
            ),
        )
    )


async def test_a_process_does_all_of_its_part_until_it_is_stopped() -> None:
    plan, tally, stop = _everything(), Tally(), asyncio.Event()
    async with background(pod.run("all", plan, tally, stop)):
        for talk in plan.parts["all"].talks:
            await until(
                lambda port=talk.port: any(
                    row.tx_bytes for key, row in tally.rows() if (key.port, key.side) == (port, "client")
                ),
                f"bytes of {talk.kind}",
            )
        await until(lambda: total(tally, "server")[0] > 10_000, "answers")
        stop.set()


def test_nobody_talks_as_a_proxy() -> None:
    talk = Talk("proxy-tcp", ADDRESS, 80, 1.0, 0)
    with pytest.raises(PlanError, match="nobody can talk as proxy-tcp"):
        _ = pod.talking(_plan(), talk, Pace(1, "x", 0.0, time.monotonic), Tally())


async def test_an_address_that_is_not_here_is_an_error() -> None:
    plan = _plan(web=Part(serves=(Serve("http", ("192.0.2.77",), 80),)))
    with pytest.raises(ExceptionGroup) as failure:
        await pod.run("web", plan, Tally(), asyncio.Event())
    assert failure.group_contains(OSError)


def _main(folder: Path, plan: Plan, role: str, *options: str) -> int:
    path = folder / "plan.json"
    path.write_bytes(encode(plan))
    return pod.main([role, "--plan", str(path), *options])


@pytest.fixture(autouse=True)
def _the_tests_own_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def test_a_process_whose_parent_is_gone_ends_by_itself(folder: Path) -> None:
    report = folder / "report"
    assert _main(folder, _everything(), "all", "--parent", str(os.getpid()), "--report", str(report)) == 0
    lines = [json.loads(line) for line in report.read_bytes().splitlines()]
    assert lines[-1]["final"]


def test_an_unknown_role_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(folder, _plan(), "nobody") == 2
    assert capsys.readouterr().err == "nobody: the plan has no part for the role 'nobody'\n"


def test_a_missing_plan_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pod.main(["web", "--plan", str(folder / "none")]) == 2
    message = capsys.readouterr().err
    assert "No such file" in message
    assert message.count("\n") == 1


def test_an_unusable_address_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = _plan(web=Part(serves=(Serve("http", ("192.0.2.77",), 80),)))
    assert _main(folder, plan, "web") == 1
    message = capsys.readouterr().err
    assert message.startswith("web: ")
    assert "192.0.2.77" in message
    assert message.count("\n") == 1


@contextlib.contextmanager
def _started(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    report = folder / "report"
    with (folder / "plan.json").open("w+b") as plan:
        plan.write(encode(_everything()))
        plan.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", "services.launcher.demo.pod", "all", "--plan", "/dev/stdin", "--report", report],
            stdin=plan,
            stderr=subprocess.PIPE,
        )
    with process:
        try:
            wait_until(lambda: report.exists() and report.read_bytes().count(b"\n") >= 1, "the first report")
            yield process, report
        finally:
            process.kill()


def test_ctrl_c_is_the_launchers_and_sigterm_ends_with_a_last_report(folder: Path) -> None:
    with _started(folder) as (process, report):
        process.send_signal(signal.SIGINT)
        lines = report.read_bytes().count(b"\n")
        wait_until(lambda: report.read_bytes().count(b"\n") > lines, "life after SIGINT")
        process.terminate()
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, b"")
    written = [json.loads(line) for line in report.read_bytes().splitlines()]
    assert [line["final"] for line in written] == [False] * (len(written) - 1) + [True]
    assert sum(peer["tx_bytes"] for peer in written[-1]["peers"]) > 10_000
