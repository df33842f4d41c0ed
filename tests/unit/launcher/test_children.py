from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.launcher.child import User
from services.launcher.children import Child, ChildError, Children
from services.runtime.errors import PodloxxError
from tests.support.wait import until

SAME = User(None, None)
LONG = ["sleep", "600"]
SIGNS_OUT = """
import signal, sys

def end(*_):
    with open(sys.argv[1], "a") as order:
        order.write(sys.argv[2] + " ")
    sys.exit()

signal.signal(signal.SIGTERM, end)
print("up", flush=True)
signal.pause()
"""


@pytest.fixture
async def children(folder: Path) -> AsyncIterator[Children]:
    """Children that are ended after the test."""
    some = Children(folder, os.getpid())
    yield some
    some.kill()
    await some.end()


def python(text: str) -> list[str]:
    """The command line that runs `text`."""
    return [sys.executable, "-c", text]


async def forever() -> None:
    await asyncio.Event().wait()


async def failure_of(children: Children, child: Child, but: Child | None = None) -> ChildError:
    """What the end of `child` is reported as."""
    with pytest.raises(ChildError) as caught:
        async with asyncio.timeout(20):
            await children.unless_one_ends(forever(), but=but)
    assert child.process.returncode is not None
    return caught.value


async def test_work_is_done_while_all_live(children: Children) -> None:
    await children.start("one", LONG, SAME)
    assert await children.unless_one_ends(asyncio.sleep(0, "done")) == "done"


async def test_the_error_of_the_work_comes_out(children: Children) -> None:
    async def work() -> None:
        raise PodloxxError("it cannot be done")

    with pytest.raises(ExceptionGroup) as caught:
        await children.unless_one_ends(work())
    assert str(caught.value.exceptions[0]) == "it cannot be done"


async def test_the_last_sentence_and_code_of_a_service_are_its_failure(children: Children) -> None:
    text = "import sys; print('capture: no such interface', file=sys.stderr); sys.exit(2)"
    child = await children.start("capture-node-a", python(text), SAME, service="capture")
    failure = await failure_of(children, child)
    assert (str(failure), failure.exit_code) == ("no such interface", 2)


async def test_who_leaves_no_sentence_is_quoted(children: Children) -> None:
    child = await children.start("api", python("print('\\n'.join(map(str, range(9)))); raise SystemExit(7)"), SAME)
    failure = await failure_of(children, child)
    assert str(failure) == "api ended with exit code 7; the last that it said:\n  4\n  5\n  6\n  7\n  8"
    assert failure.exit_code == 1


async def test_who_was_killed_without_a_word_is_named(children: Children) -> None:
    child = await children.start("redis", LONG, SAME)
    child.process.send_signal(signal.SIGKILL)
    assert str(await failure_of(children, child)) == "redis ended by signal 9"


async def test_files_are_called_as_the_user_called_them(children: Children, folder: Path) -> None:
    children.lent[str(folder / "lent-x.json")] = "../x.json"
    child = await children.start("aggregator", python(f"print('aggregator: {folder}/lent-x.json is wrong')"), SAME)
    assert str(await failure_of(children, child)) == "../x.json is wrong"


async def test_one_may_end_if_all_went_well(children: Children) -> None:
    child = await children.start("capture", ["true"], SAME)
    assert await child.wait() == 0
    assert await children.unless_one_ends(asyncio.sleep(0.05, "done"), but=child) == "done"


async def test_who_may_end_may_not_fail(children: Children) -> None:
    child = await children.start("capture", ["false"], SAME)
    assert str(await failure_of(children, child, but=child)) == "capture ended with exit code 1"


async def test_a_request_to_end_ends_the_waiting(children: Children) -> None:
    await children.start("one", LONG, SAME)
    asked = asyncio.Event()
    asked.set()
    async with asyncio.timeout(5):
        await children.unless_one_ends(forever(), end_requested=asked)


async def test_they_end_in_order_the_store_last(children: Children, folder: Path) -> None:
    for name in ("redis", "aggregator", "api", "capture"):
        child = await children.start(name, [*python(SIGNS_OUT), str(folder / "order"), name], SAME)
        await until(lambda child=child: child.log.lines, f"{name} is up")
    await children.end(first=("capture", "aggregator", "api"))
    assert (folder / "order").read_text() == "capture aggregator api redis "
    assert not children.running


async def test_who_does_not_end_is_killed(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.launcher.children._END_S", 0.2)
    text = "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    child = await children.start("api", python(text), SAME)
    await until(lambda: child.log.lines, "it is up")
    await children.end()
    assert child.process.returncode == -signal.SIGKILL


async def test_each_line_is_passed_on_with_a_name(folder: Path) -> None:
    heard: list[str] = []
    children = Children(folder, os.getpid(), heard.append)
    child = await children.start("api", ["echo", "hello"], SAME)
    await child.wait()
    await children.end()
    assert heard == ["api: hello"]


async def test_the_last_words_of_all_are_told(children: Children) -> None:
    for name in ("one", "two"):
        child = await children.start(name, ["echo", f"I am {name}"], SAME)
        await child.wait()
    assert children.last_words == "\n  one: I am one\n  two: I am two"


async def test_they_are_forked_by_the_main_thread(children: Children) -> None:
    # The kernel kills a child when the thread ends that forked it, not when the process does.
    assert threading.current_thread() is threading.main_thread()
    child = await children.start("one", LONG, SAME)
    parents = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert str(child.process.pid) in parents


async def test_a_program_that_is_missing_leaves_nothing_open(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.launcher.children.command", lambda *_, **__: ["/nowhere/program"])
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(FileNotFoundError):
        await children.start("one", LONG, SAME)
    await until(lambda: set(Path("/proc/self/fd").iterdir()) <= before, "all is closed again")
    assert not children.running


async def test_a_service_is_told_who_its_parent_is(children: Children) -> None:
    child = await children.service("capture", {"interface": "none-such"}, SAME, label="capture-x")
    command = Path(f"/proc/{child.process.pid}/cmdline")
    await until(lambda: f"--parent-pid={os.getpid()}" in command.read_text() or child.process.returncode, "it runs")
    assert (child.name, child.service) == ("capture-x", "capture")
