"""The frames of a WebSocket's server, read as RFC 6455 has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

TEXT, CONTINUED = 1, 0


def parts(frames: Iterable[bytes]) -> Iterator[tuple[bool, int, bytes]]:
    """Whether it is the last one, code and payload of each frame."""
    data = b"".join(frames)
    while data:
        last, code, length, start = bool(data[0] & 0x80), data[0] & 0x0F, data[1], 2
        assert not data[0] & 0x70, "reserved bits are not ours"
        assert not length & 0x80, "a server does not mask"
        if length >= 126:
            start = 4 if length == 126 else 10
            length = int.from_bytes(data[2:start])
        assert len(data) >= start + length
        yield last, code, data[start : start + length]
        data = data[start + length :]


def unframed(frames: Iterable[bytes]) -> bytes:
    """The text message that frames carry."""
    read = list(parts(frames))
    assert [code for _, code, _ in read] == [TEXT, *[CONTINUED] * (len(read) - 1)]
    assert [last for last, _, _ in read] == [*[False] * (len(read) - 1), True]
    return b"".join(payload for _, _, payload in read)
