"""Who had which address when: addresses are used again within seconds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from services.flows.address import Address

KEPT_US: Final = 600_000_000
"""How long it is remembered who had an address before: batches may be as late as that."""


@dataclass(slots=True)
class Tenure:
    """One pod's time with an address, in Redis microseconds.

    `from_us` is no later than its first use, `to_us` no earlier than its last one (None: it has it).
    """

    uid: str
    from_us: int
    to_us: int | None = None

    def touches(self, start_us: int, end_us: int) -> bool:
        """Whether it may have used the address in a window."""
        return self.from_us < end_us and (self.to_us is None or max(start_us, self.from_us) < self.to_us)


@dataclass(slots=True)
class Tenures:
    """All addresses' holders; what ended is kept for `KEPT_US`."""

    _of: dict[Address, list[Tenure]] = field(default_factory=dict)

    def begin(self, one: Address, uid: str, from_us: int) -> None:
        """A pod has an address."""
        held = self._of.setdefault(one, [])
        if not any(tenure.uid == uid and tenure.to_us is None for tenure in held):
            held.append(Tenure(uid, from_us))

    def end(self, one: Address, uid: str, to_us: int) -> None:
        """A pod has an address no more; of two ends the earlier one counts."""
        for tenure in self._of.get(one, ()):
            if tenure.uid == uid:
                tenure.to_us = max(tenure.from_us, to_us if tenure.to_us is None else min(tenure.to_us, to_us))

    def drop(self, one: Address, uid: str) -> bool:
        """Forget that a pod ever had an address; whether it was known to."""
        held = self._of.get(one, [])
        left = [tenure for tenure in held if tenure.uid != uid]
        if left:
            self._of[one] = left
        else:
            self._of.pop(one, None)
        return len(left) < len(held)

    def holders(self, one: Address, start_us: int, end_us: int) -> set[str]:
        """The uids of all pods that may have used an address in a window."""
        return {tenure.uid for tenure in self._of.get(one, ()) if tenure.touches(start_us, end_us)}

    def now(self, one: Address) -> list[Tenure]:
        """The tenures of an address that last: two, while one pod is coming and another one going."""
        return [tenure for tenure in self._of.get(one, ()) if tenure.to_us is None]

    def settled_us(self, one: Address) -> int:
        """From when on a window's answer is the one for every later window, unless something changes."""
        ends = [tenure.from_us if tenure.to_us is None else tenure.to_us for tenure in self._of.get(one, ())]
        return max(ends, default=0)

    def shift(self, step_us: int) -> None:
        """Redis's clock was set."""
        for tenure in (tenure for held in self._of.values() for tenure in held):
            tenure.from_us += step_us
            tenure.to_us = None if tenure.to_us is None else tenure.to_us + step_us

    def forget(self, before_us: int) -> list[str]:
        """Drop what ended before; the uids that have no address any more."""
        gone: set[str] = set()
        left: set[str] = set()
        for one, held in list(self._of.items()):
            kept = [tenure for tenure in held if tenure.to_us is None or tenure.to_us >= before_us]
            gone.update(tenure.uid for tenure in held)
            left.update(tenure.uid for tenure in kept)
            if kept:
                self._of[one] = kept
            else:
                del self._of[one]
        return sorted(gone - left)

    def __contains__(self, one: object) -> bool:
        return one in self._of

    def known(self) -> Collection[Address]:
        """All addresses that somebody has or had."""
        return self._of.keys()
