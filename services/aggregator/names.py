"""Numbers for the uids of pods, so that they stand in columns."""

from __future__ import annotations


class Names:
    """A number never changes its meaning; 0 is nobody."""

    def __init__(self) -> None:
        self.known: list[str] = [""]
        self._numbers: dict[str, int] = {"": 0}

    def number(self, uid: str) -> int:
        """The number of a uid."""
        number = self._numbers.get(uid)
        if number is None:
            number = self._numbers[uid] = len(self.known)
            self.known.append(uid)
        return number
