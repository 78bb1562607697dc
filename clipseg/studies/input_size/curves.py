"""Figures over the input size: `metrics.json` (flat, name -> number), `provenance.json`, a table and a page. Needs no torch.

Source: the paper's Fig. 5, which prints a curve and no numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from clipseg.measure.figures import over_input_size
from clipseg.measure.page import page_title, single_values, write_page
from clipseg.measure.results import SavedResults
from clipseg.measure.significance import Interval
from clipseg.measure.tables import monospaced


@dataclass(frozen=True, kw_only=True)
class SizeCurves(SavedResults):
    """Figures measured at several sizes.

    Attributes:
        sizes: S sides of square images in pixels, ascending.
        native: the side the model was made for.
        curves: name of the metric -> S fractions.
        titles: name of the metric -> how people call it.
        intervals: name of the metric -> S 95% intervals of its values, where there are some.
        about: what was measured and how, in sentences.
        samples: how many there were at each size.
        seconds: it took.
        provenance: JSON-able; `benchmark`, `split`, `experiment`, ...
    """

    sizes: tuple[int, ...]
    native: int
    curves: Mapping[str, Sequence[float]]
    titles: Mapping[str, str]
    intervals: Mapping[str, Sequence[Interval]] = field(default_factory=dict)
    about: str
    samples: int
    seconds: float
    provenance: Mapping[str, Any]

    def metrics(self) -> dict[str, float]:
        """Return what `metrics.json` holds: `<metric>@<size>`, with `_low` and `_high` where there are intervals."""
        figures: dict[str, float] = {}
        for name, values in self.curves.items():
            figures |= {f"{name}@{size}": value for size, value in zip(self.sizes, values, strict=True)}
        for name, intervals in self.intervals.items():
            for size, interval in zip(self.sizes, intervals, strict=True):
                figures |= {f"{name}@{size}_low": interval.low, f"{name}@{size}_high": interval.high}
        return figures | {"samples": self.samples, "seconds": self.seconds}

    @property
    def columns(self) -> tuple[str, ...]:
        """The headings of `rows`."""
        intervals = (f"{self.titles[name]}, 95% interval" for name in self.intervals)
        return ("input", *(self.titles[name] for name in self.curves), *intervals)

    def rows(self) -> list[tuple[str, ...]]:
        """The figures as text in percent, a row a size."""
        rows = []
        for place, size in enumerate(self.sizes):
            values = (f"{100 * values[place]:.1f}" for values in self.curves.values())
            ends = (intervals[place] for intervals in self.intervals.values())
            side = f"{size}x{size}" + (" (native)" if size == self.native else "")
            rows.append((side, *values, *(f"{100 * end.low:.1f} to {100 * end.high:.1f}" for end in ends)))
        return rows

    def write(self, folder: Path) -> None:
        """Write `metrics.json`, `provenance.json` and `report.html` into `folder`."""
        self.save(folder)
        chart = over_input_size(
            self.sizes,
            {self.titles[name]: values for name, values in self.curves.items()},
            {self.titles[name]: [(one.low, one.high) for one in intervals] for name, intervals in self.intervals.items()},
            native=self.native,
        )
        write_page(
            folder / "report.html",
            "studies/input_size/page.html.j2",
            title=page_title(self.provenance),
            about=self.about,
            summary=self.summary,
            chart=Markup(chart),
            columns=self.columns,
            rows=self.rows(),
            facts=single_values(self.provenance),
        )

    @property
    def summary(self) -> str:
        """How much was measured."""
        return f"Percent; {self.samples} samples at each size, {self.seconds:.1f} s"


def format_curves(results: SizeCurves) -> str:
    """A plain monospaced table."""
    return "\n".join([monospaced([results.columns, *results.rows()]), results.summary])
