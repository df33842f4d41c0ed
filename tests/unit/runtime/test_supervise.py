"""How a service ends: by itself, by signals, with errors, too slowly, without its parent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.runtime import supervise
from services.runtime.errors import PodloxxError, PrivilegeError, UsageError
from services.runtime.settings import CommonSettings
from services.runtime.supervise import Stop
from tests.support.launched import alive
from tests.support.wait import until, wait_until


def main(run: object, *argv: str) -> int:
    """Run `run` as a service."""
    return supervise.main("service", CommonSettings, run, argv)  # type: ignore[arg-type]


def test_a_service_that_returns_ends_with_0() -> None:
    async def run(settings: CommonSettings, stop: Stop) -> None:
        assert not stop.requested
        assert settings.log_level == "info"

    assert main(run) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_end(number: signal.Signals) -> None:
    async def run(_: CommonSettings, stop: Stop) -> None:
        os.kill(os.getpid(), number)
        await stop.wait()
        assert stop.requested

    assert main(run) == 0


@pytest.mark.parametrize("error", [PodloxxError("no store"), UsageError("bad flag"), PrivilegeError("no right")])
def test_an_error_is_one_sentence_and_its_exit_code(error: PodloxxError, capsys: pytest.CaptureFixture[str]) -> None:
    async def run(*_: object) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())

    async def fail() -> None:
        raise error

    assert main(run) == error.exit_code
    assert capsys.readouterr().err.splitlines()[1:] == [f"service: {error}"], "after the line that says it started"


def test_wrong_settings_are_an_error_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(None, "--parent-pid", "x") == 2
    assert "--parent-pid must be a whole number" in capsys.readouterr().err


def test_a_defect_is_not_hidden() -> None:
    async def run(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(BaseExceptionGroup) as caught:
        main(run)
    assert caught.value.subgroup(ZeroDivisionError)


def test_who_does_not_end_in_time_is_ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(supervise, "_SHUTDOWN_S", 0.05)

    async def run(_: CommonSettings, stop: Stop) -> None:
        stop.request("a test")
        await asyncio.Event().wait()

    assert main(run) == 1
    log, sentence = capsys.readouterr().err.splitlines()[-2:]
    [hung] = json.loads(log)["waiting"]
    assert hung.startswith("service: ")
    assert hung.endswith("run > Event.wait")
    assert sentence == "service: did not end within 0 s of being asked to (a test)"


def test_who_cannot_even_be_cancelled_is_ended_all_the_same() -> None:
    child = (
        "import asyncio, sys\n"
        "from services.runtime import supervise\n"
        "from services.runtime.settings import CommonSettings\n"
        "supervise._SHUTDOWN_S = supervise._ABORT_S = 0.05\n"
        "async def run(settings, stop):\n"
        "    stop.request()\n"
        "    while True:\n"
        "        try:\n"
        "            await asyncio.Event().wait()\n"
        "        except asyncio.CancelledError:\n"
        "            pass\n"
        "supervise.main('child', CommonSettings, run, [])\n"
    )
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("nor when it was cancelled")


def test_the_start_is_logged_with_every_setting_but_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    async def run(*_: object) -> None:
        """End at once."""

    assert main(run, "--redis-url", "redis://agent:hidden@10.0.0.1/0") == 0
    started, ended = capsys.readouterr().err.splitlines()
    assert json.loads(started)["settings"]["redis_url"] == "redis://***@10.0.0.1/0"
    assert "hidden" not in started
    assert json.loads(ended).items() >= {"event": "ended", "reason": "done"}.items()


def test_the_first_reason_to_end_counts() -> None:
    async def run(_: CommonSettings, stop: Stop) -> None:
        stop.request("first")
        stop.request("second")
        assert stop.reason == "first"

    assert main(run) == 0


def test_who_ends_no_longer_looks_after_its_parent() -> None:
    async def run(_: CommonSettings, stop: Stop) -> None:
        await until(watched, "a task that watches the parent")
        stop.request()
        await until(lambda: not watched(), "that task's end")

    def watched() -> bool:
        return any(task.get_name() == "parent" for task in asyncio.all_tasks())

    assert main(run, "--parent-pid", str(os.getppid())) == 0


def test_a_child_whose_parent_is_gone_does_not_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(None, "--parent-pid", "4194305") == 1
    assert capsys.readouterr().err.startswith("service: process 4194305 (--parent-pid)")


async def test_sleep_tells_whether_the_end_was_asked_for() -> None:
    stop = Stop()
    assert not await stop.sleep(0.001)
    async with asyncio.TaskGroup() as tasks:
        sleepers = [tasks.create_task(stop.sleep(60)) for _ in range(3)]
        await until(lambda: len(stop._sleepers) == 3, "three sleepers")
        stop.request()
    assert [sleeper.result() for sleeper in sleepers] == [True] * 3
    assert await stop.sleep(60), "who asks later does not sleep at all"


async def test_a_sleep_can_be_cancelled() -> None:
    stop = Stop()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await stop.sleep(60)
    assert not stop._sleepers
    stop.request()


async def test_who_was_woken_twice_wakes_once() -> None:
    stop = Stop()
    async with asyncio.TaskGroup() as tasks:
        sleeper = tasks.create_task(stop.sleep(60))
        await until(lambda: stop._sleepers, "the sleeper")
        stop.request()
        stop.request()
    assert sleeper.result()


def test_a_child_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    child = (
        "import os, sys\n"
        "from services.runtime import supervise\n"
        "from services.runtime.settings import CommonSettings\n"
        "supervise._PARENT_POLL_S = 0.001\n"
        "async def run(settings, stop):\n"
        f"    open({str(tmp_path / 'new')!r}, 'w').write(str(os.getpid()))\n"
        f"    os.rename({str(tmp_path / 'new')!r}, {str(tmp_path / 'pid')!r})\n"
        "    await stop.wait()\n"
        f"    open({str(tmp_path / 'ended')!r}, 'w').close()\n"
        "supervise.main('child', CommonSettings, run, ['--parent-pid', str(os.getppid())])\n"
    )
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE) as process:
        wait_until((tmp_path / "pid").exists, "the child runs")
        process.kill()
    wait_until((tmp_path / "ended").exists, "the child was asked to end")
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not alive(pid), "the child has ended")
