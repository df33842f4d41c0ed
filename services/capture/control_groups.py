"""Whose a control group is, by its path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_POD: Final = re.compile(r"(?:.*-)?pod([0-9a-f]{8}[-_][0-9a-f-_]{27}|[0-9a-f]{32})(?:\.slice)?")
"""systemd writes `kubepods-burstable-pod<uid>.slice` with underscores in the uid, cgroupfs `pod<uid>`;
the uid of a static pod is a hash."""
_CONTAINER: Final = re.compile(r"(?:[a-z-]+-)?([0-9a-f]{64})(?:\.scope)?(?:\.service)?")
"""`cri-containerd-<id>.scope`, `crio-<id>.scope`, `docker-<id>.scope`, `libpod-<id>.scope`, or the id alone."""
_UNIT: Final = re.compile(r".+\.(?:service|scope)")
_SHORT: Final = 12


@dataclass(frozen=True, slots=True)
class Owner:
    """Who has a control group: a container, which may be a pod's, or one of the machine's units.

    `name` is what is shown where nobody knows more; what is not known is empty.
    """

    name: str
    container_id: str = ""
    pod_uid: str = ""


def owner_of(path: Sequence[str]) -> Owner:
    """The owner of the group at `path` from the root of all on: the outermost pod and container, else the innermost unit."""
    pod = container = ""
    for part in path:
        if not pod and not container and (found := _POD.fullmatch(part)):
            pod = found[1].replace("_", "-")
        elif not container and (found := _CONTAINER.fullmatch(part)):
            container = found[1]
    if container:
        return Owner(container[:_SHORT], container, pod)
    if pod:
        return Owner(f"pod-{pod}", pod_uid=pod)
    units = [part for part in path if _UNIT.fullmatch(part)]
    return Owner(units[-1] if units else path[0] if path else "kernel-and-root-group")
