"""A message as the frames of a WebSocket, made once for all clients that are sent it."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

FRAME_BYTES: Final = 16 * 1024
"""The most of a message in one frame.

Who is sent a frame must have taken most of the one before, so no client has more than about two of
them waiting in our memory, however large the message is and however slowly it reads.
"""
_LAST: Final = 0x80
_TEXT: Final = 0x1
_CONTINUED: Final = 0x0
_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 127

Frames = tuple[bytes, ...]


def text_frames(message: bytes, size: int = FRAME_BYTES) -> Frames:
    """The frames of a text message of a server (RFC 6455, 5.2): not masked, not compressed."""
    starts = [*range(0, len(message), size)] or [0]
    return tuple(
        _head(start == 0, end == len(message), end - start) + message[start:end]
        for start, end in pairwise([*starts, len(message)])
    )


def _head(first: bool, last: bool, length: int) -> bytes:
    code = (_LAST if last else 0) | (_TEXT if first else _CONTINUED)
    if length < _TWO_BYTES:
        return bytes((code, length))
    if length < 1 << 16:
        return bytes((code, _TWO_BYTES)) + length.to_bytes(2)
    return bytes((code, _EIGHT_BYTES)) + length.to_bytes(8)
