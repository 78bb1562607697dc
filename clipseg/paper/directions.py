"""Does a difference between experiments have the paper's direction, and is it one at all?

A row compares two groups of runs that differ in their training seed: a test over seeds says whether they differ, the sign
whether as in the paper. Made from results alone.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from clipseg.measure.alignment import Runs, check_same_samples
from clipseg.measure.average_precision import Definition
from clipseg.measure.results import Results
from clipseg.measure.significance import Interval, NotTestable, Outcome, paired_t, welch
from clipseg.measure.statistics.corrections import holm_outcomes, rate_outcomes
from clipseg.measure.statistics.power import Power, power_of
from clipseg.paper.resampling import percentiles, redrawn

DEFINITION: Definition = "released"  # which made the published figures
THRESHOLD = 0.3  # of Tab. 3
ALPHA = 0.05
NO_DIFFERENCE = 0.5  # points; what the paper prints is one run a row, and less than this between two of them means nothing
LARGE = 2.0  # points; where the paper's difference is at least this, its direction is asked for

Values = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of one experiment, and what it is compared with.

    Attributes:
        label: the experiment, for people.
        ours: in percent, one a training seed; empty where nothing was run. Of Tab. 2: ΔP(object) in points, one value.
        paper: as printed; None where it has no such figure.
        difference, paper_difference: from what the row is compared with; None where there is nothing to compare.
        images: 95% interval of `difference`, these seeds on other images.
        test: of `difference`, over seeds; of Tab. 2 over images. None: the row is not compared.
        p_holm, p_rate: corrected for all rows of the section, by Holm and by Benjamini and Hochberg.
    """

    label: str
    ours: Values
    paper: float | None
    difference: float | None = None
    paper_difference: float | None = None
    images: Interval | None = None
    test: Outcome | None = None
    p_holm: float | None = None
    p_rate: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the difference has the paper's direction, and whether it is significant; empty where none is asked for."""
        if not self.ours:
            return "not run"
        if self.test is None or self.difference is None:
            return ""
        if self.paper_difference is None:
            return "not in the paper"
        if abs(self.paper_difference) < NO_DIFFERENCE:
            return "no difference in the paper"
        if self.difference == 0:
            return "no difference in ours"
        direction = "agrees" if (self.difference > 0) == (self.paper_difference > 0) else "disagrees"
        if self.p_holm is None:
            return f"{direction}, not tested"
        return direction if self.p_holm < ALPHA else f"{direction}, not significant"


@dataclass(frozen=True)
class Panel:
    """Rows that share a figure."""

    title: str
    rows: Sequence[Row]

    @property
    def power(self) -> Power | NotTestable:
        """Return what a comparison of two rows with so many seeds could show."""
        return power_of([row.ours for row in self.rows])


@dataclass(frozen=True)
class Section:
    """Panels that share a question and a correction for the number of its tests."""

    name: str
    panels: Sequence[Panel]

    @property
    def verdicts(self) -> Counter[str]:
        """How often each verdict was reached."""
        return Counter(row.verdict for row in self.rows() if row.verdict)

    @property
    def verdicts_of_large(self) -> Counter[str]:
        """The same of the rows whose difference in the paper is at least `LARGE`."""
        return Counter(row.verdict for row in self._compared() if abs(row.paper_difference or 0) >= LARGE)

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's, of our differences and the paper's; None with fewer than three of them."""
        rows = self._compared()
        if len(rows) < 3:
            return None
        return float(stats.spearmanr([row.difference for row in rows], [row.paper_difference for row in rows]).statistic)

    def rows(self) -> list[Row]:
        """All rows, panel by panel."""
        return [row for panel in self.panels for row in panel.rows]

    def _compared(self) -> list[Row]:
        return [row for row in self.rows() if row.difference is not None and row.paper_difference is not None]


@dataclass(frozen=True)
class Figure:
    """Where a figure of an experiment is found; `paper` is what stands for it there."""

    experiment: str
    benchmark: str
    split: str
    name: str
    paper: float | None


@dataclass(frozen=True)
class Question:
    """A row before it is answered: a figure, compared with another or shown alone."""

    label: str
    figure: Figure
    than: Figure | None = None


class Sweep:
    """The figures of all runs of a sweep, and the same over drawn sets of images.

    Args:
        runs: by experiment and training seed, the results of `alignment.load_runs`.

    Raises:
        ClipSegError: two runs measured other samples on the same benchmark and split.
    """

    def __init__(self, runs: Mapping[tuple[str, int], Runs]):
        self._figures: dict[tuple[str, str, str], list[dict[str, float]]] = defaultdict(list)
        self._results: dict[tuple[str, str, str], list[Results]] = defaultdict(list)
        self._draws: dict[tuple[str, str, str], list[dict[str, NDArray[np.float64]]]] = {}
        first: dict[tuple[str, str], tuple[str, Results]] = {}
        for (experiment, seed), results in sorted(runs.items()):
            for where, result in results.items():
                name = f"{experiment}, seed {seed}"
                other_name, other = first.setdefault(where, (name, result))
                check_same_samples((other_name, name), other, result)
                self._figures[experiment, *where].append(result.metrics(THRESHOLD))
                self._results[experiment, *where].append(result)

    def values(self, figure: Figure) -> Values:
        """In percent, one a seed, in the order of seeds."""
        found = self._figures.get((figure.experiment, figure.benchmark, figure.split), [])
        return tuple(100 * figures[f"{DEFINITION}/{figure.name}"] for figures in found)

    def draws(self, figure: Figure) -> NDArray[np.float64]:
        """In percent, the mean over seeds, for each drawn set of images."""
        where = (figure.experiment, figure.benchmark, figure.split)
        if where not in self._draws:
            self._draws[where] = [
                redrawn(result, definition=DEFINITION, threshold=THRESHOLD) for result in self._results[where]
            ]
        return 100 * np.mean([draws[figure.name] for draws in self._draws[where]], axis=0)

    def answer(self, question: Question) -> Row:
        """The row of a question, without the correction for others beside it."""
        figure, than = question.figure, question.than
        ours = self.values(figure)
        row = Row(label=question.label, ours=ours, paper=figure.paper)
        others = self.values(than) if than else ()
        if than is None or not ours or not others:
            return row
        # The same runs on two splits are pairs; different runs are not.
        paired = figure.experiment == than.experiment and len(ours) == len(others)
        return replace(
            row,
            difference=float(np.mean(ours) - np.mean(others)),
            paper_difference=None if figure.paper is None or than.paper is None else figure.paper - than.paper,
            images=percentiles(self.draws(figure) - self.draws(than)),
            test=paired_t(ours, others) if paired else welch(ours, others),
        )


def corrected(section: Section) -> Section:
    """The section with the corrected p of all its tests."""
    tests = [row.test or NotTestable("not compared") for row in section.rows()]
    corrections = zip(holm_outcomes(tests), rate_outcomes(tests), strict=True)
    panels = [
        Panel(panel.title, [replace(row, p_holm=holm, p_rate=rate) for row, (holm, rate) in zip(panel.rows, corrections)])  # noqa: B905
        for panel in section.panels
    ]
    return Section(section.name, panels)
