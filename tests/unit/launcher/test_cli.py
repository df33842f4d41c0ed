from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.launcher import cli, local, replay
from services.launcher.cluster_options import COMMANDS
from services.launcher.run import Wanted
from services.runtime.errors import LeftoverError, PodloxxError, PrivilegeError, UsageError
from tests.support.launched import ROOT


@pytest.fixture
def carried_out(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the commands were called with."""
    calls: list[tuple[Any, ...]] = []

    def recorder(name: str) -> Any:
        async def record(*arguments: object, **named: object) -> None:
            calls.append((name, *arguments, named))

        return record

    monkeypatch.setattr(local, "local", recorder("local"))
    monkeypatch.setattr(local, "demo", recorder("demo"))
    monkeypatch.setattr(replay, "replay", recorder("replay"))
    for name in [name for name in os.environ if name.startswith("PODLOXX_")]:  # noqa: TID251
        monkeypatch.delenv(name)
    return calls


def test_local_takes_what_is_captured_and_what_is_shown(carried_out: list[tuple[Any, ...]], folder: Path) -> None:
    (folder / "a.json").write_text("{}")
    given = [
        "--interface-prefix=veth|cali",
        "--node=here",
        "--capture=ring",
        "--no-browser",
        "--for=1.5m",
        "--cidr=x=10.0.0.0/8",
    ]
    assert cli.main(["local", *given, f"--directory={folder}/a.json"]) == 0
    [(name, wanted, [agent], asked, cluster, _)] = carried_out
    assert cluster == b""
    assert name == "local"
    assert {one.name for one in asked} == {"docker", "podman"}
    assert (agent.node, agent.settings) == (
        "here",
        {"interface_prefix": "veth|cali", "node": "here", "capture": "ring"},
    )
    assert wanted == Wanted(
        port=1337,
        listen="127.0.0.1",
        browser=False,
        for_s=90.0,
        verbose=False,
        store_memory="512mb",
        api={},
        aggregator={"cidr": "x=10.0.0.0/8", "directory_file": f"{folder}/a.json"},
    )


def test_demo_takes_a_seed(carried_out: list[tuple[Any, ...]]) -> None:
    assert cli.main(["demo", "--seed=7", "--port=0", "--store-memory=2GB", "--verbose"]) == 0
    [(name, wanted, seed, capture, _)] = carried_out
    assert (name, seed, capture, wanted.port, wanted.store_memory, wanted.verbose) == (
        "demo",
        7,
        "auto",
        0,
        "2GB",
        True,
    )


def test_replay_takes_files_and_a_speed(carried_out: list[tuple[Any, ...]], folder: Path) -> None:
    files = [folder / "one.pcap", folder / "two.pcap"]
    for file in files:
        file.write_bytes(b"")
    assert cli.main(["replay", *map(str, files), "--speed=10", "--json"]) == 0
    [(name, _, paths, speed, named)] = carried_out
    assert (name, paths, speed, named) == ("replay", files, 10.0, {"as_json": True})


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("5m", 300), ("1h", 3600), ("2", 2), ("0.5s", 0.5)])
def test_times_have_units(text: str, seconds: float) -> None:
    assert cli.parser().parse_args(["demo", f"--for={text}"]).for_s == seconds


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--for=1d", "'1d' is no time such as 30s"),
        ("--for=-1s", "'-1s' is no time such as 30s"),
        ("--speed=-1", "'-1' is no speed"),
        ("--speed=nan", "'nan' is no speed"),
        ("--speed=inf", "'inf' is no speed"),
        ("--speed=fast", "'fast' is no speed"),
        ("--store-memory=0mb", "'0mb' is no size such as 512mb"),
        ("--store-memory=5", "'5' is no size such as 512mb"),
        ("--por=1", "unrecognized arguments: --por=1 (see podloxx-launch replay --help)"),
        ("--token-file=/nowhere/token", "cannot read /nowhere/token: No such file or directory"),
        ("--directory=/nowhere/a.json", "cannot read /nowhere/a.json: No such file or directory"),
        ("--directory=/", "cannot read /: Is a directory"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_started(
    carried_out: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str], option: str, message: str
) -> None:
    assert cli.main(["replay", "/dev/null", option]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("podloxx: ")
    assert message in said.err
    assert said.err.count("\n") == 1
    assert (said.out, carried_out) == ("", [])


def test_the_environment_sets_what_is_not_typed(
    carried_out: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PORT": "8080", "NO_BROWSER": "true", "VERBOSE": "0", "FOR": "2s", "SPEED": "3"}.items():
        monkeypatch.setenv(f"PODLOXX_{name}", value)
    assert cli.main(["demo", "--for=4s"]) == 0
    [(_, wanted, *_)] = carried_out
    assert (wanted.port, wanted.browser, wanted.verbose, wanted.for_s) == (8080, False, False, 4.0)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PodloxxError("it is so"), 1),
        (UsageError("it is so"), 2),
        (PrivilegeError("it is so"), 3),
        (LeftoverError("it is so"), 4),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_each_error_is_one_sentence_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: PodloxxError, code: int, nested: bool
) -> None:
    async def fail(*_: object) -> None:
        raise BaseExceptionGroup("", [BaseExceptionGroup("", [error])]) if nested else error

    monkeypatch.setattr(local, "demo", fail)
    assert cli.main(["demo"]) == code
    assert capsys.readouterr().err == "podloxx: it is so\n"


def test_a_defect_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise ExceptionGroup("", [PodloxxError("told"), ZeroDivisionError()])

    monkeypatch.setattr(local, "demo", fail)
    with pytest.raises(ExceptionGroup):
        cli.main(["demo"])


def test_help_shows_every_option_with_a_text() -> None:
    [commands] = [one for one in cli.parser()._actions if isinstance(one, argparse._SubParsersAction)]
    assert list(commands.choices) == [*COMMANDS, "local", "demo", "replay", "doctor", "images", "version"]
    for command in commands.choices.values():
        assert all(action.help for action in command._actions)
        assert command.format_help()


def test_only_files_can_be_read_twice(folder: Path) -> None:
    (folder / "one").write_bytes(b"")
    assert cli._readable([str(folder / "one")]) == [folder / "one"]
    os.mkfifo(folder / "pipe")
    with pytest.raises(UsageError, match="it is no regular file"):
        cli._readable([str(folder / "one"), str(folder / "pipe")])


def test_only_replay_takes_the_time_to_import_numpy() -> None:
    program = "import sys; from services.launcher import cli; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
