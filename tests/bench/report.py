"""What a run of the benches measured: printed, and on request written into the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

BEGIN: Final = "<!-- measured: begin -->"
END: Final = "<!-- measured: end -->"


@dataclass(slots=True)
class Report:
    """Tables in the order in which they were measured, and every goal with what was reached."""

    machine: str
    tables: list[str] = field(default_factory=list)
    goals: list[tuple[str, str, str, str]] = field(default_factory=list)

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """One more table, printed at once."""
        text = "\n".join([f"**{title}**", "", *_table(header, rows)])
        self.tables.append(text)
        print(f"\n{text}", flush=True)

    def goal(self, what: str, value: float, *, at_most: float | None = None, at_least: float | None = None) -> None:
        """What was to be reached, and whether it was."""
        met = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
        aim = f"≤ {at_most:g}" if at_most is not None else f"≥ {at_least:g}"
        self.goals.append((what, aim, f"{value:.3g}", "met" if met else "**missed**"))

    def text(self) -> str:
        """All of it, in Markdown."""
        goals = _table(("goal", "aim", "measured", ""), self.goals)
        return "\n".join([self.machine, "", *goals, "", "\n\n".join(self.tables)])

    def write(self, page: Path) -> None:
        """Replace what stands between the marks of a page."""
        before, rest = page.read_text().split(BEGIN)
        _, after = rest.split(END)
        page.write_text(f"{before}{BEGIN}\n{self.text()}\n{END}{after}")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
