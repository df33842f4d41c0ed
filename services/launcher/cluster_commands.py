"""The commands that are about a cluster: what is done, once it is known what was asked for.

Apart from their options, because all that speaks with Kubernetes takes a second to import.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from services.launcher import cluster_doctor, in_cluster, lease, logs, status, top_live
from services.launcher import context as contexts
from services.launcher.context import Context
from services.launcher.images import names
from services.launcher.in_cluster import Plan
from services.launcher.manifests import Chosen
from services.launcher.run import Wanted
from services.launcher.top_live import Asked
from services.runtime.errors import UsageError
from services.runtime.findings import as_json, as_lines, is_fine

_AGENT: Final = ("capture", "interface_prefix", "interface")
_AGGREGATOR: Final = ("cidr", "private_cidr", "ingress_selector")


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
