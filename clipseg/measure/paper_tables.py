"""The paper's tables with our figures beside them, from results alone; rows that were not run say so.

The published figures come from the `released` definition of the metrics, so ours are compared in it by default.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipseg.errors import ClipSegError
from clipseg.files import atomic_write
from clipseg.measure.alignment import check_same_samples
from clipseg.measure.metrics import Definition
from clipseg.measure.page import write_page
from clipseg.measure.paper import ROWS, PaperRow
from clipseg.measure.results import Results
from clipseg.measure.significance import Interval, mean_interval

COLUMNS = ("Row", "Figure", "Paper", "Ours", "Difference", "95% interval", "Seeds")
_TITLES = {
    "miou": "mIoU",
    "miou_best": "mIoU, best t",
    "iou_fg": "IoU_FG",
    "iou_bin": "IoU_BIN",
    "ap": "AP",
    "miou_seen": "mIoU seen",
    "miou_unseen": "mIoU unseen",
}
_BENCHMARKS = {
    "phrasecut": "text",
    "phrasecut_visual": "visual",
    "pascal5i_one_shot": "one-shot",
    "pascal5i_text": "text",
    "coco20i_one_shot": "one-shot",
    "lvis_affordances": "affordances",
    "lvis_attributes": "attributes",
    "lvis_meronymy": "meronymy",
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One printed figure of the paper and ours, in percent.

    Attributes:
        row: the paper's label, and what it is measured on where a table holds several.
        figure: the metric.
        paper: as printed.
        values: ours, one a seed (the mean over the folds there are); empty where nothing was run.
        status: says why there is no value, or what is not whole about it; else empty.
    """

    row: str
    figure: str
    paper: float
    values: tuple[float, ...]
    status: str

    @property
    def interval(self) -> Interval | None:
        """95% interval of our mean over seeds; None for fewer than two."""
        found = mean_interval(self.values)
        return found if isinstance(found, Interval) else None

    def cells(self) -> tuple[str, ...]:
        """The texts of `COLUMNS`."""
        if not self.values:
            return (self.row, self.figure, f"{self.paper:.1f}", self.status, "", "", "")
        mean, interval = float(np.mean(self.values)), self.interval
        return (
            self.row,
            self.figure,
            f"{self.paper:.1f}",
            f"{mean:.1f}" + (f" ({self.status})" if self.status else ""),
            f"{mean - self.paper:+.1f}",
            f"{interval.low:.1f} to {interval.high:.1f}" if interval else "",
            str(len(self.values)),
        )


@dataclass(frozen=True)
class PaperTables:
    """All tables by name, and notes on results that stand in none of them."""

    tables: Mapping[str, Sequence[Line]]
    notes: Sequence[str]
    definition: Definition

    @property
    def legend(self) -> str:
        """What the columns hold."""
        return (
            f"Percent; ours by the {self.definition} definition of the metrics, at the paper's threshold where it names one. "
            f"Interval: of our mean over seeds, by Student's t; empty for a single seed."
        )


def paper_tables(results: Sequence[Results], *, definition: Definition = "released") -> PaperTables:
    """Put every result beside the rows of the paper that it reproduces.

    A result's row is found by its `experiment` and `benchmark`; results that share both are seeds, those of several folds
    (`pascal5i_fold2_pc_plus`) are averaged, since the paper prints the mean over folds. PhraseCut's rows are of its test split.

    Raises:
        ClipSegError: seeds of other samples than one another, or folds with unequal numbers of seeds.
    """
    runs: dict[tuple[str, str], dict[str, list[Results]]] = defaultdict(lambda: defaultdict(list))
    notes = []
    for result in results:
        experiment, benchmark, split = (str(result.provenance.get(name)) for name in ("experiment", "benchmark", "split"))
        fold = re.search(r"_fold(\d+)", experiment)
        row = re.sub(r"_fold\d+", "", experiment), benchmark
        if not any((known.experiment, known.benchmark) == row for known in ROWS):
            notes.append(f"No row of the paper: experiment {experiment!r} on {benchmark}, split {split}.")
        elif benchmark.startswith("phrasecut") and split != "test":
            notes.append(f"Not the paper's split: experiment {experiment!r} on {benchmark}, split {split}.")
        else:
            runs[row][fold.group(1) if fold else ""].append(result)
    tables: dict[str, list[Line]] = defaultdict(list)
    for known in ROWS:
        folds = runs.get((known.experiment or "", known.benchmark), {})
        tables[known.table] += [_line(known, name, folds, definition) for name in known.values]
    return PaperTables(dict(sorted(tables.items())), sorted(set(notes)), definition)


def _line(row: PaperRow, name: str, folds: Mapping[str, Sequence[Results]], definition: Definition) -> Line:
    values = _values(row, name, folds, definition)
    status = f"folds {', '.join(sorted(folds))} of 4" if values and 0 < len(folds) < 4 and "" not in folds else ""
    if not values:
        status = "others' model" if row.experiment is None else "not measured" if folds else "not run"
    return Line(row=_label(row), figure=_TITLES[name], paper=row.values[name], values=values, status=status)


def _label(row: PaperRow) -> str:
    unseen = re.search(r"_unseen(\d+)_", row.experiment or "")
    if unseen:
        return f"{row.label}, unseen-{unseen.group(1)}"
    several = len({other.benchmark for other in ROWS if other.table == row.table}) > 1
    return f"{row.label}, {_BENCHMARKS[row.benchmark]}" if several else row.label


def _values(row: PaperRow, name: str, folds: Mapping[str, Sequence[Results]], definition: Definition) -> tuple[float, ...]:
    """Our figure in percent, one a seed; empty where the results do not hold it."""
    of_folds = []
    for fold, seeds in sorted(folds.items()):
        for other in seeds[1:]:
            label = f"{row.experiment}{f', fold {fold}' if fold else ''}"
            check_same_samples((f"{label}, seed 1", f"{label}, another seed"), seeds[0], other)
        figures = [result.metrics(row.threshold) for result in seeds]
        key = name if definition == "plain" else f"{definition}/{name}"
        of_folds.append([100 * figure[key] for figure in figures if key in figure])
    counts = {len(values) for values in of_folds}
    if len(counts) > 1:
        raise ClipSegError(f"{row.experiment}: folds with {sorted(counts)} seeds; give the same seeds for every fold")
    return tuple(float(np.mean(values)) for values in zip(*of_folds, strict=True))


def to_markdown(tables: PaperTables) -> str:
    """All tables as Markdown."""
    lines = [tables.legend, ""]
    for table, rows in tables.tables.items():
        lines += [f"## {table}", "", _markdown_row(COLUMNS), "|" + "---|" * 2 + "---:|" * (len(COLUMNS) - 2)]
        lines += [*(_markdown_row(row.cells()) for row in rows), ""]
    return "\n".join([*lines, *(f"{_markdown(note)}\n" for note in tables.notes)])


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_markdown, cells)) + " |"


def _markdown(text: str) -> str:
    return re.sub(r"([\\|_*`<>\[\]])", r"\\\1", " ".join(text.split()))


def to_latex(tables: PaperTables) -> str:
    """All tables as LaTeX, each a `table` of a `tabular`, without other packages."""
    lines = [f"% {' '.join(tables.legend.split())}"]
    for table, rows in tables.tables.items():
        lines += [
            r"\begin{table}",
            rf"\caption{{{_latex(table)} of the paper, and ours}}",
            r"\begin{tabular}{ll" + "r" * 5 + "}",
        ]
        lines += [r"\hline", _latex_row(COLUMNS), r"\hline", *(_latex_row(row.cells()) for row in rows), r"\hline"]
        lines += [r"\end{tabular}", r"\end{table}", ""]
    return "\n".join([*lines, *(f"% {' '.join(note.split())}" for note in tables.notes), ""])


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_latex, cells)) + r" \\"


def _latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(letter, rf"\{letter}" if letter in "&%$#_{}" else letter) for letter in text)


def write_tables(folder: Path, tables: PaperTables) -> list[Path]:
    """Write `tables.md`, `tables.tex` and `tables.html` into `folder`; returns their paths."""
    paths = [folder / f"tables.{suffix}" for suffix in ("md", "tex", "html")]
    for path, text in zip(paths, (to_markdown(tables), to_latex(tables)), strict=False):
        with atomic_write(path) as file:
            file.write(text.encode("utf-8", errors="replace"))
    write_page(
        paths[2],
        "tables.html.j2",
        title="The paper's tables and ours",
        legend=tables.legend,
        columns=COLUMNS,
        tables={table: [row.cells() for row in rows] for table, rows in tables.tables.items()},
        notes=tables.notes,
    )
    return paths
