"""Metrics as Prometheus reads them: in its text format, and as OpenMetrics where it asks for that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class Sums(NamedTuple):
    """A summary without quantiles: what was measured in all, and how often."""

    total: float
    times: float


Labels = dict[str, str]
Sample = tuple[Labels, float | Sums]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric with its samples; `kind` is counter, gauge, summary (of `Sums`) or info."""

    name: str
    kind: str
    text: str
    samples: Iterable[Sample]

    def lines(self, *, openmetrics: bool = False) -> Iterable[str]:
        """The metric as it is exposed."""
        name, kind = self.name, self.kind
        if openmetrics:
            # There the suffix belongs to the sample, not to the metric.
            name = name.removesuffix({"counter": "_total", "info": "_info"}.get(kind, ""))
        elif kind == "info":
            kind = "gauge"
        yield f"# HELP {name} {self.text}"
        yield f"# TYPE {name} {kind}"
        for labels, value in self.samples:
            if isinstance(value, Sums):
                yield _line(f"{self.name}_sum", labels, value.total)
                yield _line(f"{self.name}_count", labels, value.times)
            else:
                yield _line(self.name, labels, value)


def written(metrics: Iterable[Metric], accept: str = "") -> tuple[str, str]:
    """All metrics and their content type, as the header `Accept` of a scrape wants them."""
    openmetrics = "application/openmetrics-text" in accept.lower()
    lines = [line for metric in metrics for line in metric.lines(openmetrics=openmetrics)]
    if openmetrics:
        lines.append("# EOF")
    return "".join(f"{line}\n" for line in lines), OPENMETRICS if openmetrics else TEXT


def _line(name: str, labels: Labels, value: float) -> str:
    shown = ",".join(f'{label}="{text.translate(_ESCAPES)}"' for label, text in labels.items())
    # Whole numbers are written whole: who reads them exactly can.
    number = str(value) if isinstance(value, int) else f"{value:.17g}"
    return f"{name}{{{shown}}} {number}" if shown else f"{name} {number}"
