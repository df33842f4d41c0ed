"""The command line: what can be asked for, and how."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import services
from services.launcher import local, replay
from services.launcher.local import Agent
from services.launcher.run import Wanted
from services.runtime import log
from services.runtime.errors import PodloxxError, UsageError
from services.runtime.settings import PREFIX

_EXAMPLES: Final = """examples:
  podloxx-launch demo                            live traffic of a miniature cluster on this machine
  podloxx-launch local                           live traffic of this machine's containers
  podloxx-launch local --interface-prefix veth   … of the interfaces that begin with veth
  podloxx-launch replay capture.pcapng --json    who talked with whom in a file, as JSON

Every option can be set in the environment too: PODLOXX_PORT=8080 is --port 8080.
"""
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)?")
_MEMORY: Final = re.compile(r"[1-9]\d{0,6}[mg]b", re.IGNORECASE)
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        # What is short today is ambiguous when the next option comes.
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    main = _Parser(
        prog="podloxx-launch",
        description="The skinny live traffic viewer for Kubernetes.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = main.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    here = commands.add_parser("local", help="show the traffic of this machine's containers")
    here.add_argument(
        "--interface-prefix", metavar="A|B", help="capture the interfaces that begin so, not those detected"
    )
    here.add_argument("--interface", metavar="NAME,…", help="capture these interfaces, not those detected")
    here.add_argument("--node", metavar="NAME", help="name of this machine (default: its host name)")
    mini = commands.add_parser("demo", help="show a miniature cluster with real traffic, made for it")
    mini.add_argument("--seed", default=1, type=int, metavar="N", help="of the traffic's ups and downs (default: 1)")
    files = commands.add_parser("replay", help="show capture files, or print their sums")
    files.add_argument("files", nargs="+", metavar="FILE", help="pcap or pcapng, also compressed with gzip")
    files.add_argument(
        "--speed", default=0.0, type=_speed, metavar="X", help="1 is real time (default: as fast as possible)"
    )
    files.add_argument("--json", action="store_true", help="print one object with all sums, and end")
    for command in (here, mini, files):
        _common(command)
    for command in (here, files):
        command.add_argument("--directory", metavar="FILE", help="JSON file that says which pod has which address")
    commands.add_parser("version", help="print the version")
    return main


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--port", default=1337, type=int, metavar="N", help="of the page (default: 1337; 0: a free one)"
    )
    command.add_argument(
        "--listen", default="127.0.0.1", metavar="ADDRESS", help="address to listen on (default: 127.0.0.1)"
    )
    command.add_argument("--token-file", metavar="FILE", help="file with the token that clients must send")
    command.add_argument("--allowed-hosts", metavar="NAME,…", help="host names under which the page may be called")
    command.add_argument("--cidr", metavar="NAME=CIDR[:scope],…", help="names for address ranges")
    command.add_argument("--private-cidr", metavar="CIDR,…", help="further private address ranges")
    command.add_argument("--no-browser", action="store_true", help="do not open the page")
    command.add_argument(
        "--for", dest="for_s", type=_duration, metavar="TIME", help="end after that time, for example 30s"
    )
    command.add_argument(
        "--store-memory",
        default="512mb",
        type=_memory,
        metavar="SIZE",
        help="what the totals may take at most (default: 512mb)",
    )
    command.add_argument(
        "--verbose", action="store_true", help="say more on standard error, also what the services say"
    )


def main(argv: Sequence[str]) -> int:
    """Carry out a command line; its exit code."""
    try:
        arguments = parser().parse_args(_with_environment(list(argv)))
        if arguments.command == "version":
            print(f"podloxx {services.__version__}")
            return 0
        log.configure("launcher", "info" if arguments.verbose else "warning", "auto")
        asyncio.run(_carry_out(arguments))
    except BrokenPipeError:
        # Who reads our output has seen enough; the interpreter's last flush must not fail on it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except PodloxxError as error:
        return _say(error)
    except BaseExceptionGroup as group:
        ours, others = group.split(PodloxxError)
        if ours is None or others is not None:
            raise
        return _say(_first(ours))
    return 0


async def _carry_out(arguments: argparse.Namespace) -> None:
    wanted = _wanted(arguments)
    if arguments.command == "demo":
        await local.demo(wanted, arguments.seed)
    elif arguments.command == "replay":
        await replay.replay(wanted, replay.readable(arguments.files), arguments.speed, as_json=arguments.json)
    else:
        given = {name: getattr(arguments, name) for name in ("interface_prefix", "interface", "node")}
        settings = {name: value for name, value in given.items() if value is not None}
        await local.local(wanted, [Agent(arguments.node or "local", settings)])


def _wanted(arguments: argparse.Namespace) -> Wanted:
    directory = getattr(arguments, "directory", None)
    replay.readable([name for name in (directory, arguments.token_file) if name])
    about = {"cidr": arguments.cidr, "private_cidr": arguments.private_cidr, "directory_file": directory}
    api = {"token_file": arguments.token_file, "allowed_hosts": arguments.allowed_hosts}
    return Wanted(
        port=arguments.port,
        listen=arguments.listen,
        browser=not arguments.no_browser,
        for_s=arguments.for_s,
        verbose=arguments.verbose,
        store_memory=arguments.store_memory,
        api={name: value for name, value in api.items() if value},
        aggregator={name: value for name, value in about.items() if value},
    )


def _with_environment(argv: list[str]) -> list[str]:
    """The command line with options from `PODLOXX_…` put before those that were typed."""
    if not argv or argv[0].startswith("-"):
        return argv
    choices = parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr] # noqa: SLF001
    command = (choices or {}).get(argv[0])  # type: ignore[union-attr]
    if command is None:
        return argv
    found = []
    for action in command._actions:  # noqa: SLF001
        flag = next((one for one in action.option_strings if one.startswith("--")), "")
        value = os.environ.get(PREFIX + flag[2:].replace("-", "_").upper())  # noqa: TID251
        if not flag or value is None or flag == "--help":
            continue
        if action.nargs == 0:
            found += [flag] if value.lower() in {"1", "true", "yes"} else []
        else:
            found.append(f"{flag}={value}")
    return [argv[0], *found, *argv[1:]]


def _duration(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 30s, 5m or 1h")
    return float(match[1]) * _SECONDS[match[2] or ""]


def _speed(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) < float("inf"):
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is no speed: 1 is real time, 10 is ten times as fast, 0 is full speed")


def _memory(text: str) -> str:
    if _MEMORY.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 512mb or 2gb")
    return text


def _say(error: PodloxxError) -> int:
    print(f"podloxx: {error}", file=sys.stderr)
    return error.exit_code


def _first(group: BaseExceptionGroup[PodloxxError]) -> PodloxxError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
