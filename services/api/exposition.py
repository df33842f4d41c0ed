"""One metric in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})

Labels = dict[str, str]
Sample = tuple[Labels, float]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric with its samples."""

    name: str
    kind: str
    text: str
    samples: Iterable[Sample]

    def lines(self) -> Iterable[str]:
        """The metric as it is exposed."""
        yield f"# HELP {self.name} {self.text}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.samples:
            shown = ",".join(f'{name}="{text.translate(_ESCAPES)}"' for name, text in labels.items())
            # Whole numbers are written whole: who reads them exactly can.
            number = str(value) if isinstance(value, int) else f"{value:.17g}"
            yield f"{self.name}{{{shown}}} {number}" if shown else f"{self.name} {number}"
