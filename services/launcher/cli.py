"""The command line: what can be asked for, and how."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import os
import re
import socket
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import services
from services.launcher import cluster_options, doctor, kubeconfig, local
from services.launcher.containers import engines
from services.launcher.images import options as images
from services.launcher.local import Agent
from services.launcher.run import Wanted
from services.runtime import log
from services.runtime.errors import PodloxxError, UsageError
from services.runtime.plain import plain
from services.runtime.settings import PREFIX, CommonSettings

_EXAMPLES: Final = """examples:
  podloxx-launch start                           live traffic of the cluster that kubectl points to; CTRL+C removes all
  podloxx-launch start --context lab --ttl 1h    … of another one, whose agents outlive this machine for an hour
  podloxx-launch install                         deploy it to stay; `open` shows it, `clean --namespace podloxx` removes it
  podloxx-launch top --filter ns:shop            its ranked table in the terminal
  podloxx-launch demo                            live traffic of a miniature cluster on this machine
  podloxx-launch local                           live traffic of this machine's containers
  podloxx-launch local --interface-prefix veth   … of the interfaces that begin with veth
  podloxx-launch replay capture.pcapng --json    who talked with whom in a file, as JSON
  podloxx-launch doctor                          what would hinder it here, and what to do
  podloxx-launch doctor --context lab            what would hinder it in that cluster

Every option can be set in the environment too: PODLOXX_PORT=8080 is --port 8080.
"""
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)?")
_MEMORY: Final = re.compile(r"[1-9]\d{0,6}[mg]b", re.IGNORECASE)
_ENGINES: Final = ("DOCKER_HOST", "XDG_RUNTIME_DIR")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        # What is short today is ambiguous when the next option comes.
        super().__init__(allow_abbrev=False, **options)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As always, but what no command knows is explained by the command's help, not by that of all."""
        given, unknown = self.parse_known_args(args, namespace)
        if unknown:
            raise UsageError(f"unrecognized arguments: {' '.join(unknown)} (see {self.prog} {given.command} --help)")
        return given

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
    cluster_options.add(commands, _page, _interfaces, _capture, _duration)
    here = commands.add_parser("local", help="show the traffic of this machine's containers")
    _interfaces(here)
    here.add_argument("--node", metavar="NAME", help="name of this machine (default: its host name)")
    here.add_argument(
        "--kubeconfig", metavar="FILE", help="learn names from the cluster of this kubeconfig, deploying nothing"
    )
    here.add_argument("--context", metavar="NAME", help="context of the kubeconfig (default: its current one)")
    here.add_argument(
        "--ingress-selector", metavar="LABELS", help="further ingress controllers: KEY=VALUE[,KEY=VALUE…][;…]"
    )
    here.add_argument("--no-docker", action="store_true", help="do not ask Docker and Podman for containers' names")
    mini = commands.add_parser("demo", help="show a miniature cluster with real traffic, made for it")
    mini.add_argument("--seed", default=1, type=int, metavar="N", help="of the traffic's ups and downs (default: 1)")
    files = commands.add_parser("replay", help="show capture files, or print their sums")
    files.add_argument("files", nargs="+", metavar="FILE", help="pcap or pcapng, also compressed with gzip")
    files.add_argument(
        "--speed", default=0.0, type=_speed, metavar="X", help="1 is real time (default: as fast as possible)"
    )
    files.add_argument("--json", action="store_true", help="print one JSON object, and end")
    look = commands.add_parser("doctor", help="say what would hinder podloxx on this machine, and what to do")
    look.add_argument("--json", action="store_true", help="print one JSON object, and end")
    look.add_argument("--port", default=1337, type=int, metavar="N", help="the port to look at (default: 1337)")
    look.add_argument("--redis-url", metavar="URL", help="look at this Redis as well, as a store for agents")
    look.add_argument("--redis-user", metavar="NAME", help="ACL user in that Redis")
    look.add_argument("--redis-password-file", metavar="FILE", help="file with that user's password")
    _interfaces(look)
    cluster_options.add_doctor(look)
    for command in (here, look):
        _capture(command)
    # Its pods are namespaces, and no control groups.
    _capture(mini, by_group=False)
    for command in (here, mini, files):
        _page(command)
        _common(command)
    for command in (here, files):
        command.add_argument("--directory", metavar="FILE", help="JSON file that says which pod has which address")
    images.add(commands.add_parser("images", help="build the container images, bring them into a cluster or registry"))
    commands.add_parser("version", help="print the version")
    return main


def _interfaces(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--interface-prefix", metavar="A|B", help="capture the interfaces that begin so, not those detected"
    )
    command.add_argument("--interface", metavar="NAME,…", help="capture these interfaces, not those detected")


def _capture(command: argparse.ArgumentParser, *, by_group: bool = True) -> None:
    command.add_argument(
        "--capture",
        default="auto",
        choices=("auto", "ebpf", "ring", "socket", "tcx", *(("cgroup",) if by_group else ())),
        help="how to see packets (default: auto, the best of ebpf, ring and socket that works)",
    )


def _page(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--port", default=1337, type=int, metavar="N", help="of the page (default: 1337; 0: a free one)"
    )
    command.add_argument(
        "--listen", default="127.0.0.1", metavar="ADDRESS", help="address to listen on (default: 127.0.0.1)"
    )
    command.add_argument("--token-file", metavar="FILE", help="file with the token that clients must send")
    command.add_argument("--allowed-hosts", metavar="NAME,…", help="host names under which the page may be called")
    command.add_argument("--no-browser", action="store_true", help="do not open the page")
    command.add_argument(
        "--for", dest="for_s", type=_duration, metavar="TIME", help="end after that time, for example 30s"
    )
    command.add_argument(
        "--verbose", action="store_true", help="say more on standard error, also what the services say"
    )


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--cidr", metavar="NAME=CIDR[:scope],…", help="names for address ranges")
    command.add_argument("--private-cidr", metavar="CIDR,…", help="further private address ranges")
    command.add_argument(
        "--store-memory",
        default="512mb",
        type=_memory,
        metavar="SIZE",
        help="what the totals may take at most (default: 512mb)",
    )


def main(argv: Sequence[str]) -> int:
    """Carry out a command line; its exit code."""
    try:
        arguments = parser().parse_args(_with_environment(list(argv)))
        log.configure("launcher", "info" if getattr(arguments, "verbose", False) else "warning", "auto")
        if arguments.command == "demo" and os.geteuid() != 0:
            # Only here: it is Linux through and through.
            from services.launcher.demo import rootless

            rootless.enter(argv)
        if arguments.command == "version":
            print(f"podloxx {services.__version__}")
        elif arguments.command == "images":
            images.carry_out(arguments)
        else:
            return asyncio.run(_carry_out(arguments))
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


async def _carry_out(arguments: argparse.Namespace) -> int:
    if arguments.command in cluster_options.COMMANDS:
        return await cluster_options.carry_out(arguments, _wanted)
    if arguments.command == "doctor":
        return 0 if await _doctor(arguments) else 1
    wanted = _wanted(arguments)
    if arguments.command == "demo":
        await local.demo(wanted, arguments.seed, arguments.capture)
    elif arguments.command == "replay":
        # Only here: its numpy takes all other commands a quarter of their start.
        from services.launcher import replay

        await replay.replay(wanted, _readable(arguments.files), arguments.speed, as_json=arguments.json)
    else:
        settings = _given(arguments, "interface_prefix", "interface", "node", "capture")
        # What every other tool for containers reads, and so is not ours to name.
        cluster = _cluster(arguments)
        asked = [] if arguments.no_docker or cluster else engines(*(os.environ.get(name, "") for name in _ENGINES))  # noqa: TID251
        await local.local(wanted, [Agent(arguments.node or socket.gethostname(), settings)], asked, cluster)
    return 0


async def _doctor(arguments: argparse.Namespace) -> bool:
    """Whether nothing is a problem: on this machine, or in the cluster that is named."""
    if (arguments.context or arguments.kubeconfig) is not None:
        return await cluster_options.doctor(arguments)
    settings = _given(arguments, "interface_prefix", "interface", "capture")
    return await doctor.doctor(settings, arguments.port, json=arguments.json, named=_named_store(arguments))


def _given(arguments: argparse.Namespace, *names: str) -> dict[str, str]:
    """The options of these names that were given."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def _named_store(arguments: argparse.Namespace) -> CommonSettings | None:
    """The store that `doctor` is to look at."""
    given = _given(arguments, "redis_url", "redis_user", "redis_password_file")
    if given and "redis_url" not in given:
        raise UsageError("--redis-user and --redis-password-file need --redis-url: without it no Redis is asked")
    return CommonSettings(**given) if given else None  # type: ignore[arg-type]


def _cluster(arguments: argparse.Namespace) -> bytes:
    """The kubeconfig with which addresses are learnt; empty where none is asked for."""
    if arguments.kubeconfig is None:
        for option, value in (("context", arguments.context), ("ingress-selector", arguments.ingress_selector)):
            if value is not None:
                raise UsageError(f"--{option} needs --kubeconfig: without it no cluster is asked")
        return b""
    if arguments.directory is not None:
        raise UsageError("--kubeconfig and --directory exclude each other: addresses are learnt from one of them")
    return kubeconfig.flattened(arguments.kubeconfig, arguments.context or "")


def _wanted(arguments: argparse.Namespace) -> Wanted:
    directory = getattr(arguments, "directory", None)
    _readable([name for name in (directory, arguments.token_file) if name])
    about = {
        "cidr": getattr(arguments, "cidr", None),
        "private_cidr": getattr(arguments, "private_cidr", None),
        "directory_file": directory,
        "ingress_selector": getattr(arguments, "ingress_selector", None),
    }
    api = {"token_file": arguments.token_file, "allowed_hosts": arguments.allowed_hosts}
    return Wanted(
        port=arguments.port,
        listen=arguments.listen,
        browser=not arguments.no_browser,
        for_s=arguments.for_s,
        verbose=arguments.verbose,
        store_memory=getattr(arguments, "store_memory", ""),
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


def _readable(names: Sequence[str]) -> list[Path]:
    """The files as paths; raises UsageError for one that cannot be read."""
    for name in names:
        try:
            # A pipe without a writer would block.
            descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise UsageError(f"cannot read {name}: {error.strerror}") from error
        try:
            mode = os.fstat(descriptor).st_mode
        finally:
            os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise UsageError(f"cannot read {name}: {os.strerror(errno.EISDIR)}")
        if not stat.S_ISREG(mode):
            raise UsageError(f"cannot read {name}: it is no regular file, save what comes out of it first")
    return [Path(name) for name in names]


def _say(error: PodloxxError) -> int:
    sentence = "\n".join(map(plain, str(error).split("\n")))
    print(f"podloxx: {sentence}", file=sys.stderr)
    return error.exit_code


def _first(group: BaseExceptionGroup[PodloxxError]) -> PodloxxError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
