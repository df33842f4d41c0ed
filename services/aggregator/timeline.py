"""Where Redis's clock, which gives all times, is set: by how much everything that is known must be moved.

Agents tell the offset from their machine's monotonic clock to Redis's. Where that jumps, either
Redis's clock was set, or that machine slept. Our own offset jumps in the first case as well. So a
step is believed when an agent tells of one that we have noticed too, and until then our own times
go on as if there was none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol, Self, TypeVar

from services.runtime.clock import Clock

_SLACK_US: Final = 100_000
"""What is less is no step, but how clocks drift and are corrected."""
_DOUBTED_US: Final = 30_000_000
"""Agents report once a second: a step that none of them has told of by then was none of Redis's clock."""
_MOST_STEPS: Final = 64
_MOST_MACHINES: Final = 20_000


class Offset(NamedTuple):
    """What must be added to one clock to get another one; known to within the error."""

    us: int
    error_us: int

    def plus(self, other: Offset) -> Offset:
        """Both one after the other."""
        return Offset(self.us + other.us, self.error_us + other.error_us)

    def minus(self, other: Offset) -> Offset:
        """What is left of it without another one."""
        return Offset(self.us - other.us, self.error_us + other.error_us)

    @property
    def is_step(self) -> bool:
        """Whether it is more than drift and errors."""
        return abs(self.us) > _SLACK_US + self.error_us


class Timed(Protocol):
    """What somebody sent, with times by his own machine's clock: a batch, or a letter."""

    @property
    def machine(self) -> str:
        """The run of that machine; empty where its times are nobody's clock."""

    @property
    def offset_us(self) -> int:
        """From its clock to Redis's."""

    @property
    def error_us(self) -> int:
        """How well that is known."""

    @property
    def last_us(self) -> int:
        """The latest time in it, in Redis's."""

    def moved(self, step_us: int) -> Self:
        """The same by a clock that was set."""


_T = TypeVar("_T", bound=Timed)
_NONE: Final = Offset(0, 0)


@dataclass(slots=True)
class Timeline:
    """What is known of clocks; all but the steps of the last half minute is one offset per machine."""

    clock: Clock
    _own: Offset | None = None
    """From our clock to Redis's, once that was read."""
    _steps: list[Offset] = field(default_factory=lambda: [_NONE])
    """By how much Redis's clock was set on in all, after each step that we noticed."""
    _believed: int = 0
    """Which of these all that is known goes by."""
    _noticed_us: int = 0
    """When the last one was noticed, by our own clock."""
    _machines: dict[str, Offset] = field(default_factory=dict)
    """From each machine's clock to Redis's, had that never been set."""

    def read(self, redis_us: int, asked_us: int) -> None:
        """Take what Redis's clock said to a question that was asked at `asked_us`, by our own clock."""
        now_us = self.clock.monotonic_us()
        half_us = (now_us - asked_us) // 2
        offset = Offset(redis_us - now_us + half_us, half_us + 1)
        step = offset.minus(self._own) if self._own else _NONE
        if step.is_step:
            self._steps.append(self._steps[-1].plus(step))
            self._noticed_us = now_us
        # An answer that took long says less than the one before.
        if self._own is None or step.is_step or offset.error_us <= max(_SLACK_US, self._own.error_us):
            self._own = offset
        if now_us - self._noticed_us > _DOUBTED_US or len(self._steps) > _MOST_STEPS:
            self._steps, self._believed = [self._steps[self._believed]], 0

    def about_now_us(self) -> int:
        """Redis's time without asking, as if steps that no agent has told of had not been."""
        return self._real_now_us() - self._steps[-1].us + self._steps[self._believed].us

    @property
    def offset(self) -> Offset:
        """From our clock to what `about_now_us` tells."""
        error_us = (self._own or _NONE).error_us
        return Offset(self.about_now_us() - self.clock.monotonic_us(), error_us)

    def place(self, batch: _T, shift: Callable[[int], None]) -> _T:
        """A batch in its place among all others; before that all is moved with `shift` if it tells of a step."""
        if not batch.machine:
            return batch
        told, base = Offset(batch.offset_us, batch.error_us), self._machines.pop(batch.machine, None)
        at = None if base is None else self._after(told.minus(base))
        if at is None:
            # Of its machine nothing is known, or nothing any more since it slept.
            at = self._latest(batch)
            base = None
        if base is None or at == self._believed:
            base = told.minus(self._steps[at])
        if at > self._believed:
            step_us = self._steps[at].us - self._steps[self._believed].us
            self._believed = at
            shift(step_us)
        self._machines[batch.machine] = base
        while len(self._machines) > _MOST_MACHINES:
            del self._machines[next(iter(self._machines))]
        missed_us = self._steps[self._believed].us - self._steps[at].us
        return batch.moved(missed_us) if missed_us else batch

    def _after(self, set_on: Offset) -> int | None:
        """After which step an agent has read Redis's clock, by how much that was set on for it; None where after none."""
        ahead = range(self._believed, len(self._steps))
        behind = range(self._believed - 1, -1, -1)
        return next((at for at in (*ahead, *behind) if not set_on.minus(self._steps[at]).is_step), None)

    def _latest(self, batch: Timed) -> int:
        """The same for one of whose machine nothing is known: it told of what had been shortly before."""
        latest_us = self._real_now_us() + _SLACK_US + batch.error_us
        ends = ((batch.last_us + self._steps[-1].us - step.us, at) for at, step in enumerate(self._steps))
        return max((one for one in ends if one[0] <= latest_us), default=(0, len(self._steps) - 1))[1]

    def _real_now_us(self) -> int:
        return self.clock.monotonic_us() + (self._own or _NONE).us
