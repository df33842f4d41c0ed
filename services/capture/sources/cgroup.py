"""The source that counts what sockets get and send, by their control groups, whatever way it takes to them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from services.capture.bpf.syscall import ProgramType, attach_cgroup
from services.capture.links import Link
from services.capture.sources.kernel import KernelSource
from services.capture.sources.packet_socket import translating

_SIDES: Final = {"cgroup_skb/ingress": 0, "cgroup_skb/egress": 1}
"""The sections of the program, and the kernel's numbers for where they are attached."""
_PLACES: Final = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
"""Version 2 has all of it, or stands beside version 1."""
UNKNOWN: Final = 0
"""No group's id: what found no row is under it where its own group was not attached."""


def hierarchy() -> Path:
    """The root of the host's control groups of version 2; raises OSError where it is not there."""
    for path in _PLACES:
        if (path / "cgroup.controllers").exists():
            # Only the root of all has no type: a group that a namespace shows as the root has one.
            if (path / "cgroup.type").exists():
                raise OSError(errno.ENOENT, f"{path} is this container's control group and not the host's")
            return path
    raise OSError(errno.ENOENT, "there are no control groups of version 2 in /sys/fs/cgroup")


class CgroupSource(KernelSource):
    """Two links at the root of the host's control groups, from Linux 5.8 on.

    Needs CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON. Rows come under the low half of a group's id, which
    is its directory's inode number, from the start and whether it was attached or not: what is
    attached must have that number. To each packet 14 bytes are added, as an interface counts them
    with its link header. Not seen is what no socket gets or sends: ARP, what is forwarded, and
    answers that the kernel makes; left out is loopback.
    """

    name = "cgroup"
    _kind = ProgramType.CGROUP_SKB
    _sections = tuple(_SIDES)

    def __init__(self, capacity: int) -> None:
        root = hierarchy()
        super().__init__(capacity)
        self._groups = {UNKNOWN}
        try:
            self._count_excess(UNKNOWN)
            directory = self._keep(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            for section, side in _SIDES.items():
                self._keep(attach_cgroup(self._programs[section], directory, side))
        except BaseException:
            self._close_maps()
            raise

    async def attach(self, link: Link, attachment: int) -> None:
        """Have what finds no row be the group's own; raises OSError where there is no more room for that."""
        if link.index != attachment:
            raise ValueError(f"a control group is attached under its id {link.index}, not {attachment}")
        with translating():
            self._count_excess(attachment)
        self._groups.add(attachment)

    async def detach(self, attachment: int) -> None:
        """What finds no row is nobody's from now on."""
        self._groups.discard(attachment)

    def _is_held(self, attachment: int) -> bool:
        return attachment in self._groups
