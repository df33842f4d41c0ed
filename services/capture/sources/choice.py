"""Which source is used: the best one that works here, and why not a better one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from services.capture.sources import Source
from services.capture.sources.cgroup import CgroupSource
from services.capture.sources.ebpf import EbpfSource
from services.capture.sources.ring import RingSource
from services.capture.sources.socket import SocketSource
from services.capture.sources.tcx import TcxSource
from services.runtime.errors import PodloxxError, PrivilegeError
from services.runtime.log import get_logger

_log = get_logger(__name__)

AUTOMATIC: Final = "auto"
SOURCES: Final[dict[str, Callable[..., Source]]] = {
    "ebpf": EbpfSource,
    "ring": RingSource,
    "socket": SocketSource,
    "tcx": TcxSource,
    "cgroup": CgroupSource,
}
"""All that see packets live."""
BEST_FIRST: Final = ("ebpf", "ring", "socket")
"""Those that need no right beyond looking; tcx and cgroup are to be asked for."""
NEEDS: Final = {
    "ebpf": "CAP_BPF and CAP_NET_RAW (CAP_SYS_ADMIN before Linux 5.8), and a kernel from 5.5 on",
    "tcx": "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and a kernel from 6.6 on",
    "cgroup": "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, the host's control groups (version 2), and a kernel from 5.8 on",
    "ring": "CAP_NET_RAW, and memory that may be locked",
    "socket": "CAP_NET_RAW",
}


def opened(name: str, capacity: int) -> Source:
    """The source called `name`, or for `auto` the best that works; the log says what was passed over.

    Raises PrivilegeError or PodloxxError with the kernel's reason where none does.
    """
    names = BEST_FIRST if name == AUTOMATIC else (name,)
    for one in names:
        try:
            source = SOURCES[one](capacity)
        except PrivilegeError:
            raise
        except OSError as error:
            reason = f"the kernel refused it: {error.strerror or error}; it needs {NEEDS[one]}"
            if one == names[-1]:
                kind = PrivilegeError if isinstance(error, PermissionError) else PodloxxError
                raise kind(f"cannot capture with the source {one}: {reason}") from error
            _log.warning("source-passed-over", source=one, reason=reason)
        else:
            _log.info("source-chosen", source=one)
            return source
    raise AssertionError("there is always a last source")
