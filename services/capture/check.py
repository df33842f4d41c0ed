"""`--check`: what this machine lets the agent do, found by trying it, and what to do about the rest."""

from __future__ import annotations

import platform
import re
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from services.capture import netlink
from services.capture.group_tree import GroupTree
from services.capture.interfaces import LinkMonitor, Selection
from services.capture.sources.cgroup import hierarchy
from services.capture.sources.choice import AUTOMATIC, BEST_FIRST, NEEDS, SOURCES
from services.runtime import store_check
from services.runtime.errors import PodloxxError, UsageError
from services.runtime.findings import Finding, State
from services.runtime.settings import CaptureSettings

_KERNEL: Final = (5, 5)
"""The first one with arrays of the kernel's that a process can map."""
_CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
_FREE_OF_MEMLOCK: Final = (5, 11)
"""From this one on what programs take is the control group's."""
_MEMLOCK_BYTES: Final = 80 << 20
"""What the kernel charges for its tables of `flow_capacity` as it is by default, rounded up."""
_CAPACITY: Final = 1024
_SHOWN: Final = 8


async def check(settings: CaptureSettings, *, with_store: bool) -> list[Finding]:
    """All findings; the store is looked at only on request."""
    release = platform.release()
    held = _effective()
    found = [
        _kernel(release),
        _capabilities(held, "CAP_NET_ADMIN" if settings.capture in {"tcx", "cgroup"} else "CAP_NET_RAW"),
        *_bpf(),
        _memlock(release, resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]),
        *await _sources(settings.capture),
        await (_groups() if settings.capture == "cgroup" else _interfaces(settings)),
    ]
    return [*found, *await store_check.look(settings)] if with_store else found


def _kernel(release: str) -> Finding:
    if _version(release) >= _KERNEL:
        return Finding("kernel", State.OK, f"Linux {release} on {platform.machine()}; it needs no BTF")
    return Finding(
        "kernel",
        State.WARNING,
        f"Linux {release} is older than {_KERNEL[0]}.{_KERNEL[1]}: it cannot count in the kernel",
        "use a newer kernel; until then the source ring copies the packets' headers, and loses some under floods",
    )


def _version(release: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _effective() -> frozenset[str]:
    [mask] = re.findall(r"^CapEff:\s+([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return frozenset(name for name, bit in _CAPABILITIES.items() if int(mask, 16) >> bit & 1)


def _capabilities(held: frozenset[str], to_see: str) -> Finding:
    """`to_see` is the one without which the wanted source sees nothing."""
    needed = (to_see, "CAP_BPF", "CAP_PERFMON")
    missing = [name for name in needed if name not in held and not (name != to_see and "CAP_SYS_ADMIN" in held)]
    text = ", ".join(sorted(held)) or "none"
    if not missing:
        return Finding("capabilities", State.OK, text)
    why = {
        to_see: "packets cannot be seen at all",
        "CAP_BPF": "nothing can be counted in the kernel",
        "CAP_PERFMON": "counting in the kernel is nearly four times as dear",
    }
    return Finding(
        "capabilities",
        State.PROBLEM if to_see in missing else State.WARNING,
        f"{text}; " + "; ".join(f"without {name} {why[name]}" for name in missing),
        "run it as root, or give the container securityContext.capabilities.add: "
        f"[{', '.join(name.removeprefix('CAP_') for name in needed)}]",
    )


def _bpf() -> list[Finding]:
    found = []
    if (switch := _read("/proc/sys/kernel/unprivileged_bpf_disabled")) is not None:
        text = {"0": "everybody may load programs", "1": "only the privileged may load programs, for good"}
        found.append(
            Finding(
                "bpf",
                State.OK,
                text.get(switch, "only the privileged may load programs") + " (unprivileged_bpf_disabled)",
            )
        )
    if "[confidentiality]" in (_read("/sys/kernel/security/lockdown") or ""):
        found.append(
            Finding(
                "lockdown",
                State.WARNING,
                "the kernel is locked down for confidentiality, which may refuse programs",
                "boot with lockdown=integrity or without, if the source ebpf is refused below",
            )
        )
    return found


def _memlock(release: str, most: int) -> Finding:
    """`most` is the hard limit in bytes, up to which the agent raises its own."""
    if _version(release) >= _FREE_OF_MEMLOCK:
        return Finding("memlock", State.OK, f"this kernel does not limit programs by it (from {_dotted()} on)")
    if most == resource.RLIM_INFINITY or most >= _MEMLOCK_BYTES:
        return Finding("memlock", State.OK, "enough memory may be locked")
    return Finding(
        "memlock",
        State.WARNING,
        f"only {most >> 10} KiB may be locked, and before Linux {_dotted()} that bounds what the kernel counts in",
        "raise it: `ulimit -l unlimited` as root, LimitMEMLOCK=infinity in a unit, --ulimit memlock=-1 for a container",
    )


def _dotted() -> str:
    return ".".join(map(str, _FREE_OF_MEMLOCK))


async def _sources(wanted: str) -> list[Finding]:
    """Each source, tried by opening it; and what will be used."""
    refused: dict[str, str] = {}
    for name, source in SOURCES.items():
        try:
            await source(_CAPACITY).close()
        except (PodloxxError, OSError) as error:
            refused[name] = (error.strerror if isinstance(error, OSError) else None) or str(error)
    usable = [name for name in BEST_FIRST if name not in refused]
    needed = usable[0] if wanted == AUTOMATIC and usable else wanted
    found = []
    for name in SOURCES:
        # A source that is not used may fail: tcx is never used unasked.
        better = name in BEST_FIRST and (needed not in BEST_FIRST or BEST_FIRST.index(name) < BEST_FIRST.index(needed))
        if name not in refused:
            found.append(Finding(f"source {name}", State.OK, "works" + (", and is used" if name == needed else "")))
        elif name == needed or better:
            state = State.PROBLEM if name == needed or not usable else State.WARNING
            found.append(Finding(f"source {name}", state, refused[name], f"it needs {NEEDS[name]}"))
        else:
            found.append(Finding(f"source {name}", State.OK, f"not used; it would need {NEEDS[name]}: {refused[name]}"))
    return found


async def _groups() -> Finding:
    try:
        async with GroupTree(hierarchy()) as tree:
            owners = tree.owners()
    except OSError as error:
        return Finding(
            "control groups",
            State.PROBLEM,
            f"they cannot be read: {error.strerror or error}",
            "give it the host's /sys/fs/cgroup to read, with control groups of version 2",
        )
    containers = sum(bool(one.container_id) for one in owners)
    return Finding("control groups", State.OK, f"{containers} of containers, {len(owners) - containers} others")


async def _interfaces(settings: CaptureSettings) -> Finding:
    try:
        async with LinkMonitor(Selection.parse(settings.interface_prefix, settings.interface)) as monitor:
            chosen = sorted(link.name for link in monitor.links())
    except UsageError as error:
        return Finding("interfaces", State.PROBLEM, str(error), "name interfaces that are there: see `ip link`")
    except (PodloxxError, OSError) as error:
        return Finding(
            "interfaces", State.PROBLEM, f"they cannot be read: {error}", "check that netlink is not filtered"
        )
    others = sorted(seen.link.name for seen in await netlink.read_links() if seen.link.name not in chosen)
    if chosen:
        rest = f"; others: {_some(others)}" if others else ""
        return Finding("interfaces", State.OK, f"{len(chosen)} of pods: {_some(chosen)}{rest}")
    wanted = settings.interface_prefix
    none = f"none begins with {wanted.replace('|', ' or ')}" if wanted else "none of a pod's"
    return Finding(
        "interfaces",
        State.WARNING,
        f"{none}; there are {_some(others)}",
        "start a pod or container; if pods' interfaces are among these, name how they begin with --interface-prefix",
    )


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more if listed else "none"


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
