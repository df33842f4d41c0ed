"""The source that counts in links of tcx on both sides of an interface, where it costs least."""

from __future__ import annotations

import os

from services.capture.bpf.syscall import ProgramType, attach_tcx
from services.capture.links import Link
from services.capture.sources.kernel import KernelSource, Release

_SIDES = {"tcx/ingress": 46, "tcx/egress": 47}
"""The sections of the program, and the kernel's numbers for where they are attached."""


class TcxSource(KernelSource):
    """Two links of tcx per interface, from Linux 6.6 on. Needs CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON.

    To be asked for by name, because CAP_NET_ADMIN allows far more than to look. An attachment
    takes the kernel some 10 ms, in which no other interface can be set up.
    """

    name = "tcx"
    _kind = ProgramType.SCHED_CLS
    _sections = tuple(_SIDES)

    def _hook(self, link: Link) -> Release:
        held: list[int] = []

        def release() -> None:
            while held:
                os.close(held.pop())

        try:
            for section, side in _SIDES.items():
                held.append(attach_tcx(self._programs[section], link.index, side))
        except BaseException:
            release()
            raise
        return release
