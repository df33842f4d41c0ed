"""Messages cut into the frames of a WebSocket."""

from __future__ import annotations

import pytest

from services.api.web_socket_frames import FRAME_BYTES, text_frames
from tests.support.frames import parts, unframed


@pytest.mark.parametrize("length", [0, 1, 125, 126, 16_383, 16_384, 16_385, 65_536, 1_000_000])
def test_what_is_framed_can_be_read(length: int) -> None:
    message = bytes(at % 251 for at in range(length))
    frames = text_frames(message)
    assert unframed(frames) == message
    assert max(len(payload) for _, _, payload in parts(frames)) <= FRAME_BYTES


@pytest.mark.parametrize("length", [65_535, 65_536, 200_000])
def test_large_frames_have_long_lengths(length: int) -> None:
    assert unframed(text_frames(b"x" * length, 1 << 20)) == b"x" * length


def test_a_message_that_fills_its_frames_has_no_empty_one() -> None:
    assert len(text_frames(b"x" * (2 * FRAME_BYTES))) == 2
