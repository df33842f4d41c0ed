"""How a service ends: by itself, by signals, with errors, too slowly, without its parent."""

from __future__ import annotations

import asyncio
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
from tests.support.wait import wait_until


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
    assert capsys.readouterr().err == f"service: {error}\n"


def test_wrong_settings_are_an_error_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(None, "--shard", "x") == 2
    assert "--shard must be a whole number" in capsys.readouterr().err


def test_a_defect_is_not_hidden() -> None:
    async def run(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(BaseExceptionGroup) as caught:
        main(run)
    assert caught.value.subgroup(ZeroDivisionError)


def test_who_does_not_end_in_time_is_ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(supervise, "_SHUTDOWN_S", 0.05)

    async def run(_: CommonSettings, stop: Stop) -> None:
        stop.request()
        await asyncio.Event().wait()

    assert main(run) == 1
    assert "did not end within" in capsys.readouterr().err


def test_sleep_tells_whether_the_end_was_asked_for() -> None:
    async def run(_: CommonSettings, stop: Stop) -> None:
        assert not await stop.sleep(0.001)
        stop.request()
        assert await stop.sleep(60)

    assert main(run) == 0


def test_a_child_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    child = (
        "import os, sys\n"
        "from services.runtime import supervise\n"
        "from services.runtime.settings import CommonSettings\n"
        "async def run(settings, stop):\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "    await stop.wait()\n"
        f"    open({str(tmp_path / 'ended')!r}, 'w').close()\n"
        "supervise.main('child', CommonSettings, run, ['--parent-pid', str(os.getppid())])\n"
    )
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE) as process:
        wait_until((tmp_path / "pid").exists, "the child runs")
        process.kill()
    wait_until((tmp_path / "ended").exists, "the child has ended")
