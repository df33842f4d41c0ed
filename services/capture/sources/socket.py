"""The source that reads every frame of a link from a packet socket."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from services.capture import captured
from services.capture.captured import PACKET_OUTGOING, VNET
from services.capture.flow_table import FlowTable
from services.capture.frames import LinkType
from services.capture.links import Link
from services.capture.sources import Drained, classic
from services.capture.sources.classic import attach_filter
from services.capture.sources.packet_socket import SOL_PACKET, bind, link_type, senders, translating, unbound
from services.runtime.errors import PodloxxError
from services.runtime.log import get_logger

_log = get_logger(__name__)

_PACKET_STATISTICS: Final = 6
_PACKET_AUXDATA: Final = 8
_PACKET_VNET_HDR: Final = 15
_SO_RCVBUFFORCE: Final = 33
_TP_STATUS_VLAN_VALID: Final = 0x10

_AUXDATA: Final = struct.Struct("=IIIHHHH")
"""tpacket_auxdata: status, length on the wire, captured length, offsets, VLAN tag and its type."""
_CONTROL_BYTES: Final = socket.CMSG_SPACE(_AUXDATA.size)
_STATISTICS: Final = struct.Struct("=II")

_RECEIVE_BUFFER_BYTES: Final = 8 << 20
"""Asked for per link; the kernel doubles it. Room for 20,000 small frames, so a tenth of a second
at the pace at which they can be read; only taken up while frames wait."""
_FRAMES_PER_TURN: Final = 256
"""Frames of one link that are read before others have their turn: about a millisecond."""
_TURNS_PER_DRAIN: Final = 128
"""More than the buffer holds, so that a drain takes all that had arrived, and ends."""
_CLOSERS: Final = 4


@dataclass(slots=True)
class _Tap:
    """The packet socket on one link."""

    link: Link
    attachment: int
    socket: socket.socket
    link_type: LinkType
    vnet_bytes: int = VNET.size
    """Length of the segmentation header before each frame; 0 once the kernel could not write it."""
    failure: OSError | None = None


class SocketSource:
    """Counts the frames that the kernel hands to packet sockets, one per link.

    `capacity` bounds the flows kept apart between two drains. Bytes and packets are those of the
    interface's counters wherever the kernel dropped none for want of buffer space
    (`kernel-drop` in the loss). Known deviations: a frame to the pod that the veth itself then
    drops is seen here and not counted there; a VLAN tag which a VLAN device in the pod added is
    counted here and not there; with GRO turned on at a veth, frames are merged between its
    counters and the socket. Raises PrivilegeError where packet sockets are not allowed.
    """

    name = "socket"

    def __init__(self, capacity: int, *, receive_buffer_bytes: int = _RECEIVE_BUFFER_BYTES) -> None:
        with translating():
            unbound().close()
        self._table = FlowTable(capacity)
        self._receive_buffer_bytes = receive_buffer_bytes
        self._taps: dict[int, _Tap] = {}
        self._loss: Counter[str] = Counter()
        self._frame = bytearray(VNET.size + classic.SNAP_BYTES)
        self._view = memoryview(self._frame)
        self._closers = ThreadPoolExecutor(_CLOSERS, thread_name_prefix="close")
        self._small_buffer_told = False

    async def attach(self, link: Link, attachment: int) -> None:
        """Count the link's frames from now on.

        Raises OSError where the link is gone, PodloxxError where the process has too many files
        open or the link's frames cannot be read.
        """
        with translating():
            tap = self._open(link, attachment)
        self._taps[attachment] = tap
        asyncio.get_running_loop().add_reader(tap.socket, self._on_readable, tap)

    async def detach(self, attachment: int) -> None:
        """Stop; counts everything up to now."""
        tap = self._taps.pop(attachment)
        # Closing waits for the kernel to finish with the socket; up to then it would take in
        # frames that nobody reads.
        attach_filter(tap.socket, classic.NOTHING)
        await self._drain(tap)
        self._close(tap)

    async def drain(self) -> Drained:
        """What was counted since the last drain, with all that had arrived when it began."""
        for tap in list(self._taps.values()):
            await self._drain(tap)
            if tap.failure is not None:
                raise PodloxxError(f"cannot read the packets of {tap.link.name}: {tap.failure}") from tap.failure
        rows = self._table.take()
        loss, self._loss = self._loss, Counter()
        return Drained(rows, dict(loss), senders(rows))

    async def close(self) -> None:
        """Close every socket; what was not drained is dropped."""
        for tap in self._taps.values():
            self._close(tap)
        self._taps.clear()
        await asyncio.to_thread(self._closers.shutdown)

    def _open(self, link: Link, attachment: int) -> _Tap:
        packets = unbound()
        try:
            self._bind(packets, link)
            return _Tap(link, attachment, packets, link_type(link))
        except BaseException:
            packets.close()
            raise

    def _bind(self, packets: socket.socket, link: Link) -> None:
        packets.setblocking(False)
        packets.setsockopt(SOL_PACKET, _PACKET_AUXDATA, 1)
        packets.setsockopt(SOL_PACKET, _PACKET_VNET_HDR, 1)
        self._enlarge(packets)
        attach_filter(packets, classic.HEADERS)
        bind(packets, link)

    def _enlarge(self, packets: socket.socket) -> None:
        wanted = self._receive_buffer_bytes
        try:
            packets.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
        except PermissionError:
            packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
            got = packets.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
            if got < wanted and not self._small_buffer_told:
                self._small_buffer_told = True
                _log.warning(
                    "small-receive-buffer", bytes=got, wanted=wanted, raise_with=f"sysctl net.core.rmem_max={wanted}"
                )

    def _close(self, tap: _Tap) -> None:
        asyncio.get_running_loop().remove_reader(tap.socket)
        self._closers.submit(tap.socket.close)

    def _on_readable(self, tap: _Tap) -> None:
        self._read(tap)
        if tap.failure is not None:
            asyncio.get_running_loop().remove_reader(tap.socket)

    async def _drain(self, tap: _Tap) -> None:
        for _ in range(_TURNS_PER_DRAIN):
            if self._read(tap) < _FRAMES_PER_TURN:
                break
            await asyncio.sleep(0)
        if tap.failure is not None:
            return
        _, dropped = _STATISTICS.unpack(tap.socket.getsockopt(SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size))
        if dropped:
            self._loss["kernel-drop"] += dropped

    def _read(self, tap: _Tap) -> int:
        """Count up to `_FRAMES_PER_TURN` frames; returns how many there were."""
        receive, buffers = tap.socket.recvmsg_into, [self._view]
        for count in range(_FRAMES_PER_TURN):
            try:
                size, control, _, sender = receive(buffers, _CONTROL_BYTES)
            except BlockingIOError:
                return count
            except OSError as error:
                self._on_error(tap, error)
                if tap.failure is not None:
                    return count
            else:
                self._count(tap, size, control[0][2], outgoing=sender[2] == PACKET_OUTGOING)
        return _FRAMES_PER_TURN

    def _on_error(self, tap: _Tap, error: OSError) -> None:
        if error.errno == errno.EINVAL and tap.vnet_bytes:
            # The kernel has no number for this kind of segmentation (SCTP), and drops the frame.
            # Without the header all frames come, only not how many segments they are.
            self._loss["unknown-segmentation"] += 1
            tap.socket.setsockopt(SOL_PACKET, _PACKET_VNET_HDR, 0)
            tap.vnet_bytes = 0
        elif error.errno != errno.ENETDOWN:
            # ENETDOWN is told once, when the link goes down; should it come up again frames
            # arrive again, and should it be removed the socket is detached.
            tap.failure = error

    def _count(self, tap: _Tap, size: int, auxdata: bytes, *, outgoing: bool) -> None:
        status, length, *_ = _AUXDATA.unpack(auxdata)
        captured.add(
            self._table,
            tap.attachment,
            tap.link,
            tap.link_type,
            self._view[:size],
            start=tap.vnet_bytes,
            length=length,
            tagged=bool(status & _TP_STATUS_VLAN_VALID),
            outgoing=outgoing,
        )
