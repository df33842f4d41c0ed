"""The demo's world with its pods running: real traffic of every kind, and a clean end whatever happens."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.launcher.demo import pod_process
from services.launcher.demo.pod_process import PodFiles
from services.launcher.demo.session import alive_by, clean_leftovers
from services.launcher.demo.topology import miniature_cluster
from services.launcher.demo.world import JobCycle, World, running
from services.runtime.errors import PodloxxError
from tests.support.demo_world import (
    inside,
    is_running,
    namespaces_left,
    new_session,
    newest_reports,
    octets,
    pids_in,
    reports,
    talks_of,
    transport_of,
)
from tests.support.wait import until, wait_until

ALWAYS_THERE = JobCycle(alive_s=3600.0, away_s=1.0)
ALL_ROLES = len(miniature_cluster().pods) + 3


@pytest.fixture
def report_dir(folder: Path) -> Path:
    path = folder / "reports"
    path.mkdir()
    return path


async def _processes(world: World, number: int) -> set[int]:
    """The pids of all pods, once `number` of them are there."""

    def found() -> set[int]:
        pids = pids_in(namespaces_left(world.session))
        return pids if len(pids) == number else set()

    return await until(found, f"{number} processes", 20)


async def test_every_conversation_of_the_plan_happens(folder: Path, report_dir: Path) -> None:
    async with running(new_session(), folder, job=ALWAYS_THERE, report_dir=report_dir) as world:

        def silent() -> list[str]:
            heard = {
                (said.role, said.peer, said.transport, said.port)
                for said in reports(report_dir)
                if said.side == "client" and said.tx_bytes and (said.rx_bytes or said.transport == "tcp")
            }
            return [
                f"{role}: {talk}"
                for role, talk in talks_of(world)
                if (role, talk.target, transport_of(talk.kind), talk.port) not in heard
            ]

        await until(lambda: not silent(), "every talk of the plan", 45)
    assert silent() == []
    finals = {report.role: report.final for report in newest_reports(report_dir)}
    assert finals == dict.fromkeys(world.plan.parts, True)


async def test_what_a_client_sent_its_server_received(folder: Path, report_dir: Path) -> None:
    """A stream's server reads at most what was written, and no less than what is not on its way."""
    async with running(new_session(), folder, job=ALWAYS_THERE, report_dir=report_dir):
        await until(lambda: len(reports(report_dir)) > 100, "conversations", 30)
        await until(
            lambda: all(
                said.rx_bytes > 1_000_000 for said in reports(report_dir) if (said.port, said.side) == (5433, "server")
            ),
            "a megabyte of replication",
            30,
        )
    said = {(row.local, row.peer, row.port, row.side): row for row in reports(report_dir)}
    for (local, peer, port, side), row in said.items():
        if port == 5433 and side == "client":
            other = said[peer, local, port, "server"]
            assert 0.5 * row.tx_bytes < other.rx_bytes <= row.tx_bytes


async def test_counters_of_every_pod_rise_on_both_families(folder: Path) -> None:
    async with running(new_session(), folder, job=ALWAYS_THERE) as world:
        await _processes(world, ALL_ROLES)
        for pod in world.topology.pods:
            await until(
                lambda role=pod.role: min(octets(inside(world, role))) > 2000,
                f"both ways of both families of {pod.role}",
                30,
            )


NO_PRIVILEGES = {"CapPrm": 0, "CapEff": 0, "CapBnd": 0, "CapAmb": 0, "NoNewPrivs": 1}


def _privileges(pid: int) -> dict[str, int]:
    lines = [line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return {name: int(value, 16) for name, _, value in lines if name in NO_PRIVILEGES}


async def test_pods_have_no_privileges(folder: Path) -> None:
    async with running(new_session(), folder, job=ALWAYS_THERE) as world:
        # A program that drops them is in the namespace first, and becomes the pod.
        for pid in await _processes(world, ALL_ROLES):
            await until(lambda pid=pid: _privileges(pid) == NO_PRIVILEGES, f"process {pid} has none")


async def test_the_batch_pod_comes_and_goes_with_a_new_link(folder: Path) -> None:
    async with running(new_session(), folder, job=JobCycle(alive_s=0.3, away_s=0.05)) as world:
        node, fixed = inside(world, "node-a"), len([p for p in world.topology.fixed_pods() if p.node == "node-a"])
        seen: set[str] = set()
        counts: set[int] = set()

        def come_and_gone() -> bool:
            links = {name for name in node.links() if name.startswith("veth")}
            counts.add(len(links))
            seen.update(links)
            return len(seen) >= fixed + 3

        await until(come_and_gone, "three links of the batch pod", 30)
        assert counts == {fixed, fixed + 1}


async def test_nothing_is_left_at_the_end(folder: Path) -> None:
    session = new_session()
    async with running(session, folder, job=ALWAYS_THERE) as world:
        pids = await _processes(world, ALL_ROLES)
        assert os.getpid() not in pids
    assert [pid for pid in pids if is_running(pid)] == []
    assert namespaces_left(session) == []
    assert list(folder.iterdir()) == []


async def test_the_blocks_own_error_comes_out_as_it_is(folder: Path) -> None:
    session = new_session()
    with pytest.raises(ZeroDivisionError, match="mine"):
        async with running(session, folder):
            raise ZeroDivisionError("mine")
    assert namespaces_left(session) == []


@pytest.mark.parametrize("made", [0, 1, 4, 7, ALL_ROLES])
async def test_nothing_is_left_after_a_cancel_at_any_time(made: int, folder: Path) -> None:
    session = new_session()

    async def demo() -> None:
        async with running(session, folder):
            await asyncio.get_running_loop().create_future()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(demo())
        await until(lambda: len(namespaces_left(session)) >= made, f"{made} namespaces")
        task.cancel()
    assert task.cancelled()
    assert namespaces_left(session) == []
    assert list(folder.iterdir()) == []


async def test_a_pod_that_was_killed_comes_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_process, "RESTART_S", 0.0)
    async with running(new_session(), folder, job=ALWAYS_THERE) as world:
        await _processes(world, ALL_ROLES)
        name = [world.netns_of("web-1").name]
        (before,) = pids_in(name)
        os.kill(before, signal.SIGKILL)
        after = await until(lambda: pids_in(name) - {before}, "another process")
        assert len(after) == 1


async def test_pods_that_keep_dying_end_the_demo_with_one_sentence(
    folder: Path, report_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_process, "RESTART_S", 0.0)
    session = new_session()

    async def demo() -> None:
        async with running(session, folder, job=ALWAYS_THERE, report_dir=report_dir) as world:
            await until(lambda: len(newest_reports(report_dir)) == ALL_ROLES, "pods that have read their plan", 20)
            world.plan_file.write_bytes(b"no plan")
            (pid,) = pids_in([world.netns_of("web-2").name])
            os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(30):
                await asyncio.get_running_loop().create_future()

    with pytest.raises(PodloxxError, match=r"The demo's pod web-2 died 4 times, last with code 2: \S"):
        await demo()
    assert namespaces_left(session) == []


async def test_a_pod_that_ignores_the_polite_signal_is_killed(
    folder: Path, report_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_process, "END_S", 0.2)
    session = new_session()
    async with running(session, folder, job=ALWAYS_THERE, report_dir=report_dir) as world:
        await until(lambda: len(newest_reports(report_dir)) == ALL_ROLES, "pods that handle signals", 20)
        pids = await _processes(world, ALL_ROLES)
        (stubborn,) = pids_in([world.netns_of("cache").name])
        os.kill(stubborn, signal.SIGSTOP)
    assert [pid for pid in pids if is_running(pid)] == []
    assert namespaces_left(session) == []


async def test_another_session_of_the_same_name_is_left_alone(folder: Path) -> None:
    session = new_session()
    async with running(session, folder, job=ALWAYS_THERE) as world:
        before = namespaces_left(session)
        with pytest.raises(PodloxxError, match="is there already"):
            async with running(session, folder):
                pass
        assert set(namespaces_left(session)) >= set(before)
        assert world.directory_file.is_file()


async def test_a_pod_that_cannot_be_started_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(new_session(), folder)
    world.plan_file.touch()
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(PodloxxError, match=r"The demo's pod web-1 cannot be started: .*nsenter"):
        await pod_process.keep("web-1", world.netns_of("web-1"), PodFiles(world.plan_file))


OWNER = """
import asyncio, sys
from pathlib import Path
from services.launcher.demo.world import running

async def main():
    async with running(sys.argv[1], Path(sys.argv[2])):
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()

asyncio.run(main())
"""


def test_after_kill_9_the_pods_end_and_the_rest_is_cleaned(folder: Path) -> None:
    session = new_session()
    arguments = [sys.executable, "-c", OWNER, session, str(folder)]
    alive = alive_by(folder)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as owner:
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == b"ready\n"
            pids = wait_until(lambda: _all_of(session), "the pods", 20)
            assert alive(session)
        finally:
            owner.kill()
    assert not alive(session)
    wait_until(lambda: not [pid for pid in pids if is_running(pid)], "the pods' end without their launcher")
    left = namespaces_left(session)
    assert len(left) >= ALL_ROLES - 1
    assert sorted(clean_leftovers(lambda found: found != session or alive(found), folder)) == left
    assert namespaces_left(session) == []
    assert list(folder.iterdir()) == []


def _all_of(session: str) -> set[int]:
    pids = pids_in(namespaces_left(session))
    return pids if len(pids) >= ALL_ROLES - 1 else set()
