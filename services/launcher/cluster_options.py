"""The commands that are about a cluster: what can be asked for, and what is done then."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from services.launcher import cluster_doctor, in_cluster, lease, logs, status, top_live
from services.launcher import context as contexts
from services.launcher.context import Context
from services.launcher.filter import FIELDS, unknown_fields
from services.launcher.images import names
from services.launcher.images import options as images
from services.launcher.in_cluster import Plan
from services.launcher.manifests import Chosen
from services.launcher.run import Wanted
from services.launcher.top import SORTS
from services.launcher.top_live import Asked
from services.runtime.errors import UsageError
from services.runtime.findings import as_json, as_lines, is_fine
from services.runtime.settings import MOST_SHARDS

COMMANDS: Final = ("start", "install", "open", "status", "top", "logs", "clean")
_LABEL: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9./_-]*)=([A-Za-z0-9._-]*)")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?")
"""Shorter than Kubernetes allows: the names of cluster roles carry it."""
_LEAST_TTL_S: Final = 30
"""Three renewals."""
_AGENT: Final = ("capture", "interface_prefix", "interface")
_AGGREGATOR: Final = ("cidr", "private_cidr", "ingress_selector")
Add = Callable[[argparse.ArgumentParser], None]


def add(commands: Any, page: Add, interfaces: Add, capture: Add, duration: Callable[[str], float]) -> None:
    """Add the commands; `page`, `interfaces` and `capture` add the options that others have as well."""
    start = commands.add_parser(
        "start", help="deploy to the cluster, show its traffic, and remove all of it at the end"
    )
    install = commands.add_parser("install", help="deploy to the cluster, to stay there")
    attach = commands.add_parser("open", help="show the traffic of a cluster where podloxx runs already")
    state = commands.add_parser(
        "status", help="how podloxx is in a cluster: what each node's agent sees, loses and lags"
    )
    ranked = commands.add_parser("top", help="the ranked table of pods live in the terminal")
    said = commands.add_parser("logs", help="what the services in the cluster say")
    clean = commands.add_parser("clean", help="remove from the cluster what is left of sessions whose launcher is gone")
    for command in (start, install, attach, state, ranked, said, clean):
        command.add_argument("--context", metavar="NAME", help="context of the kubeconfig (default: its current one)")
        command.add_argument(
            "--kubeconfig", metavar="FILE", help="kubeconfig (default: as kubectl, KUBECONFIG or ~/.kube/config)"
        )
    for command in (start, install, attach, state, ranked, said):
        command.add_argument(
            "--namespace",
            default="podloxx",
            type=_namespace,
            metavar="NAME",
            help="namespace of its own (default: podloxx)",
        )
    clean.add_argument(
        "--namespace", type=_namespace, metavar="NAME", help="remove this one, also if its launcher lives"
    )
    clean.add_argument("--all", action="store_true", help="remove all sessions and installations, also those that live")
    for command in (start, install):
        _deployed(command)
        interfaces(command)
        capture(command)
    start.add_argument(
        "--ttl",
        default="5m",
        type=lambda text: _ttl(text, duration),
        metavar="TIME",
        help="it removes itself when this launcher is gone for so long (default: 5m)",
    )
    for command in (start, attach):
        page(command)
    state.add_argument("--json", action="store_true", help="print one JSON object, and end")
    _ranked(ranked, duration)
    said.add_argument("--follow", action="store_true", help="go on with what they say from now on")
    said.add_argument("--tail", default=100, type=int, metavar="N", help="lines of each pod (default: 100)")
    said.add_argument("--component", choices=("agent", "aggregator", "redis", "api"), help="only these pods")


def _ranked(command: argparse.ArgumentParser, duration: Callable[[str], float]) -> None:
    command.add_argument(
        "--filter",
        default="",
        metavar="WORDS",
        help="as on the page: ns: node: label: owner: ip: port: scope:, - leaves out",
    )
    command.add_argument("--sort", default="total", choices=SORTS, help="the column that ranks (default: total)")
    command.add_argument("--url", metavar="URL", help="follow the page of a session that runs, not the cluster")
    command.add_argument("--token-file", metavar="FILE", help="file with the token that clients must send")
    command.add_argument("--once", action="store_true", help="print the table once, and end")
    command.add_argument(
        "--for", dest="for_s", type=duration, metavar="TIME", help="end after that time, for example 30s"
    )


def _deployed(command: argparse.ArgumentParser) -> None:
    images.prefix(command)
    command.add_argument(
        "--shards",
        type=_shards,
        default=1,
        metavar="N",
        help="divide nodes over so many aggregators, and have one more for all (default: 1, enough for 1,000 nodes)",
    )
    command.add_argument(
        "--pull-policy",
        choices=("Always", "IfNotPresent", "Never"),
        help="when nodes pull images (default: IfNotPresent)",
    )
    command.add_argument(
        "--node-selector",
        type=_labels,
        metavar="KEY=VALUE,…",
        help="only nodes with these labels get an agent",
    )
    command.add_argument(
        "--ingress-selector", metavar="LABELS", help="further ingress controllers: KEY=VALUE[,KEY=VALUE…][;…]"
    )
    command.add_argument("--keep", action="store_true", help="leave in the cluster what did not come up, or has ended")
    command.add_argument(
        "--dry-run", action="store_true", help="print the objects that would be created, and create none"
    )
    command.add_argument("--cidr", metavar="NAME=CIDR[:scope],…", help="names for address ranges")
    command.add_argument("--private-cidr", metavar="CIDR,…", help="further private address ranges")


def add_doctor(command: argparse.ArgumentParser) -> None:
    """Add the options with which `doctor` looks at a cluster instead of this machine."""
    command.add_argument("--context", metavar="NAME", help="look at the cluster of this context, not at this machine")
    command.add_argument("--kubeconfig", metavar="FILE", help="… of this kubeconfig")
    command.add_argument(
        "--namespace",
        default="podloxx",
        type=_namespace,
        metavar="NAME",
        help="namespace that podloxx is to have there",
    )


async def doctor(arguments: argparse.Namespace) -> bool:
    """Print what would hinder podloxx in a cluster; whether nothing is a problem."""
    found = await cluster_doctor.look(_context(arguments))
    print(as_json(found) if arguments.json else "\n".join(as_lines(found)))
    return is_fine(found)


def _context(arguments: argparse.Namespace) -> Context:
    # What every other tool for clusters reads, and so is not ours to name.
    given = os.environ  # noqa: TID251
    return contexts.chosen(arguments.kubeconfig or "", arguments.context or "", arguments.namespace or "podloxx", given)


async def carry_out(arguments: argparse.Namespace, wanted: Callable[[argparse.Namespace], Wanted]) -> int:
    """Do what was asked for; the exit code. Raises PodloxxError."""
    if arguments.command == "top" and arguments.url is not None:
        await top_live.of_url(arguments.url, _token(arguments.token_file), _asked(arguments))
        return 0
    about = _context(arguments)
    if arguments.command == "clean":
        await in_cluster.clean(about, arguments.namespace or "", everything=arguments.all)
    elif arguments.command == "logs":
        await logs.logs(about, arguments.component or "", arguments.tail, follow=arguments.follow)
    elif arguments.command == "top":
        await top_live.of_cluster(about, _asked(arguments))
    elif arguments.command == "status":
        return 0 if await status.status(about, as_json=arguments.json) else 1
    elif arguments.command == "open":
        await in_cluster.attach(about, wanted(arguments))
    elif arguments.command == "install":
        await in_cluster.install(_plan(arguments, about, None))
    else:
        await in_cluster.start(_plan(arguments, about, arguments.ttl), wanted(arguments))
    return 0


def _asked(arguments: argparse.Namespace) -> Asked:
    if unknown := unknown_fields(arguments.filter):
        listed = " ".join(f"{name}:" for name in FIELDS)
        raise UsageError(f"--filter: there is no field {unknown[0]}: to look for; fields are {listed}")
    return Asked(arguments.filter, arguments.sort, arguments.for_s, arguments.once)


def _token(path: str | None) -> str:
    if path is None:
        return ""
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise UsageError(f"cannot read --token-file {path}: {error.strerror}") from error


def _plan(arguments: argparse.Namespace, about: Context, ttl_s: int | None) -> Plan:
    chosen = Chosen(
        namespace=about.namespace,
        holder=lease.holder(),
        ttl_s=ttl_s,
        image_prefix=names.checked(arguments.image_prefix),
        pull_policy=arguments.pull_policy or "",
        node_selector=arguments.node_selector or {},
        agent=_given(arguments, _AGENT),
        shards=arguments.shards,
        aggregator=_given(arguments, _AGGREGATOR),
    )
    return Plan(about, chosen, keep=arguments.keep, dry_run=arguments.dry_run)


def _given(arguments: argparse.Namespace, names: tuple[str, ...]) -> Mapping[str, str]:
    found = {name: value for name in names if (value := getattr(arguments, name))}
    for name, value in found.items():
        try:
            value.encode()
        except UnicodeEncodeError:
            # Bytes of a command line that are no UTF-8 come as halves of characters, which JSON cannot hold.
            raise UsageError(f"--{name.replace('_', '-')} {value!a} is no text in UTF-8") from None
    return found


def _namespace(text: str) -> str:
    if _NAMESPACE.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name of a namespace: small letters, digits and dashes, 42 at most"
        )
    return text


def _shards(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_SHARDS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MOST_SHARDS}")
    return int(text)


def _labels(text: str) -> dict[str, str]:
    found = {}
    for one in text.split(","):
        match = _LABEL.fullmatch(one.strip())
        if match is None:
            raise argparse.ArgumentTypeError(f"{one!r} is no label such as pool=blue")
        found[match[1]] = match[2]
    return found


def _ttl(text: str, duration: Callable[[str], float]) -> int:
    seconds = duration(text)
    if seconds < _LEAST_TTL_S:
        raise argparse.ArgumentTypeError(
            f"{text!r} is less than {_LEAST_TTL_S}s, in which the lease is renewed three times"
        )
    return int(seconds)
