"""The paper's tables with our figures beside them, from results alone; rows that were not run say so.

The published figures come from the `released` definition of the metrics, so ours are compared in it by default.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clipseg.errors import ClipSegError
from clipseg.measure.alignment import check_same_samples
from clipseg.measure.average_precision import Definition
from clipseg.measure.paper import PROMPT_DELTAS, ROWS, PaperRow, is_synthetic, rows_beside
from clipseg.measure.results import Results
from clipseg.measure.significance import Interval, cluster_bootstrap, mean_interval
from clipseg.paper.resampling import percentiles, redrawn
from clipseg.studies.visual_prompts.numbers import PromptDeltas
from clipseg.studies.zero_shot.results import MulticlassResults, check_same_truth

COLUMNS = ("Row", "Figure", "Paper", "Ours", "Difference", "95% interval", "Seeds")
_TITLES = {
    "miou": "mIoU",
    "miou_best": "mIoU, best t",
    "iou_fg": "IoU_FG",
    "iou_fg_best": "IoU_FG, best t",
    "iou_bin": "IoU_BIN",
    "ap": "AP",
    "miou_seen": "mIoU seen",
    "miou_unseen": "mIoU unseen",
    "miou_seen_as_scored": "mIoU seen, as scored",
    "miou_unseen_as_scored": "mIoU unseen, as scored",
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

FOLDS = 4  # of Pascal-5i and COCO-20i

Measured = Results | MulticlassResults
Folds = dict[str, tuple[str, Measured]]  # fold ("" where there are none) -> name and result


@dataclass(frozen=True, kw_only=True)
class Line:
    """One printed figure of the paper and ours, in percent; of Tab. 2 in points.

    Attributes:
        row: the paper's label, and what it is measured on where a table holds several.
        figure: the metric.
        paper: as printed.
        values: ours, one a training seed (the mean over the folds there are); empty where nothing was run.
        interval: 95%, of our mean: over seeds by Student's t, of a single run over its images; None where there is none.
        status: says why there is no value, or what is not whole about it; else empty.
        seeds: whether `values` come from training at all; Tab. 2 studies CLIP alone.
    """

    row: str
    figure: str
    paper: float
    values: tuple[float, ...] = ()
    interval: Interval | None = None
    status: str = ""
    seeds: bool = True

    def cells(self) -> tuple[str, ...]:
        """The texts of `COLUMNS`."""
        if not self.values:
            return (self.row, self.figure, f"{self.paper:.1f}", self.status, "", "", "")
        mean, interval = float(np.mean(self.values)), self.interval
        over = "seeds" if len(self.values) > 1 else "images"
        return (
            self.row,
            self.figure,
            f"{self.paper:.1f}",
            f"{mean:.1f}" + (f" ({self.status})" if self.status else ""),
            f"{mean - self.paper:+.1f}",
            f"{interval.low:.1f} to {interval.high:.1f} ({over})" if interval else "",
            str(len(self.values)) if self.seeds else "",
        )


@dataclass(frozen=True)
class PaperTables:
    """All tables by name, and notes on results that stand in none of them."""

    tables: Mapping[str, Sequence[Line]]
    notes: Sequence[str]
    definition: Definition
    protocol: str

    @property
    def legend(self) -> str:
        """Say what the columns hold."""
        return (
            f"Percent (Tab. 2: points); ours by the {self.definition} definition of the metrics, at the paper's threshold "
            f"where it names one. Interval of our mean: over training seeds by Student's t; of a single run by a bootstrap of "
            f"its images. All of ours are by protocol={self.protocol}, in training and evaluation (docs/paper.md, Sec. 8)."
        )


def paper_tables(
    results: Mapping[str, Measured | PromptDeltas], *, definition: Definition = "released", protocol: str = "released"
) -> PaperTables:
    """Put every result beside the rows of the paper that it reproduces.

    A result's row is found by its `experiment` and `benchmark`; what shares both differs in `training_seed`, or in its fold
    (`pascal5i_pc_plus_fold2`): the paper prints the mean over folds, so ours are averaged for each seed. PhraseCut's rows are
    of its test split.

    Args:
        results: by the name that errors call them.
        definition: of the metrics.
        protocol: of what is shown; results of another are left out, with a note.

    Raises:
        ClipSegError: two results of the same seed, seeds of other samples than one another, or of other folds.
    """
    runs: dict[tuple[str, str], dict[str, Folds]] = defaultdict(lambda: defaultdict(dict))
    studies: dict[str, PromptDeltas] = {}
    notes = []
    for name, result in results.items():
        note = _why_not(result, protocol)
        if note:
            notes.append(note)
        elif isinstance(result, PromptDeltas):
            studies[name] = result
        else:
            experiment, benchmark, fold = _row_and_fold(result)
            seed = str(result.provenance.get("training_seed"))
            of_seed = runs[experiment, benchmark][seed]
            if fold in of_seed:
                raise ClipSegError(
                    f"{of_seed[fold][0]} and {name}: both are {experiment}{f', fold {fold}' if fold else ''}, on {benchmark}, "
                    f"training seed {seed}; give each run once"
                )
            of_seed[fold] = (name, result)
    tables: dict[str, list[Line]] = defaultdict(list)
    tables["Tab. 2"] = _study_lines(studies)
    for row in rows_beside(protocol):
        tables[row.table] += _lines(row, runs.get((row.experiment or "", row.benchmark), {}), definition)
    return PaperTables(dict(sorted(tables.items())), sorted(set(notes)), definition, protocol)


def _why_not(result: Measured | PromptDeltas, protocol: str) -> str:
    """Why a result stands beside no row of the paper; empty where it does."""
    origin = result.provenance
    where = f"experiment {str(origin.get('experiment'))!r} on {origin.get('benchmark')}, split {origin.get('split')}"
    if is_synthetic(origin):
        return f"Not the paper's data but synthetic: {where}."
    if origin.get("protocol") != protocol:
        return f"Measured by protocol={origin.get('protocol')}, not {protocol}: {where}."
    if origin.get("training_protocol", protocol) not in (protocol, None):
        return f"Trained by protocol={origin['training_protocol']}, not {protocol}: {where}."
    if isinstance(result, PromptDeltas):
        return ""
    experiment, benchmark, _ = _row_and_fold(result)
    if not any((row.experiment, row.benchmark) == (experiment, benchmark) for row in ROWS):
        return f"No row of the paper: {where}."
    if benchmark.startswith("phrasecut") and origin.get("split") != "test":
        return f"Not the paper's split: {where}."
    return ""


def _row_and_fold(result: Measured) -> tuple[str, str, str]:
    experiment, benchmark = (str(result.provenance.get(name)) for name in ("experiment", "benchmark"))
    fold = re.search(r"_fold(\d+)", experiment)
    return re.sub(r"_fold\d+", "", experiment), benchmark, fold.group(1) if fold else ""


def _study_lines(studies: Mapping[str, PromptDeltas]) -> list[Line]:
    if len(studies) > 1:
        raise ClipSegError(f"{' and '.join(studies)}: both are studies of visual prompts; give one")
    lines = {name: Line(row=name, figure="ΔP(object)", paper=paper, status="not run") for name, paper in PROMPT_DELTAS.items()}
    for study in studies.values():
        for name, column in zip(study.variants, study.deltas.T, strict=True):
            interval = cluster_bootstrap(column, study.image_key, seed=0)
            if name in lines:
                lines[name] = replace(
                    lines[name],
                    values=(float(column.mean()),),
                    interval=interval if isinstance(interval, Interval) else None,
                    status="",
                    seeds=False,
                )
    return list(lines.values())


def _lines(row: PaperRow, seeds: Mapping[str, Folds], definition: Definition) -> list[Line]:
    """The figures of one row of the paper, beside those of its runs by seed."""
    _check_together(row, seeds)
    of_seeds = [[_figures(row, result, definition) for _, result in folds.values()] for folds in seeds.values()]
    draws = _draws(row, seeds, definition)
    lines = []
    for name, paper in row.values.items():
        line = Line(row=_label(row), figure=_TITLES[name], paper=paper)
        if not seeds or any(name not in figures for folds in of_seeds for figures in folds):
            status = "others' model" if row.experiment is None else "not measured" if seeds else "not run"
            lines.append(replace(line, status=status))
            continue
        values = tuple(100 * float(np.mean([figures[name] for figures in folds])) for folds in of_seeds)
        over_seeds = mean_interval(values)
        interval = percentiles(100 * draws[name]) if name in draws else over_seeds
        lines.append(
            replace(
                line,
                values=values,
                interval=interval if isinstance(interval, Interval) else None,
                status=_missing_folds(seeds),
            )
        )
    return lines


def _check_together(row: PaperRow, seeds: Mapping[str, Folds]) -> None:
    """Raise a ClipSegError unless all seeds have the same folds, and each fold's results the same samples."""
    if not seeds:
        return
    first_seed, first = next(iter(seeds.items()))
    for seed, folds in seeds.items():
        if folds.keys() != first.keys():
            raise ClipSegError(
                f"{row.experiment} on {row.benchmark}: training seed {first_seed} has folds {', '.join(sorted(first))}, seed "
                f"{seed} {', '.join(sorted(folds))}; give the same folds of every seed"
            )
        for fold, (name, result) in folds.items():
            other_name, other = first[fold]
            if isinstance(result, Results) and isinstance(other, Results):
                check_same_samples((other_name, name), other, result)
            elif isinstance(result, MulticlassResults) and isinstance(other, MulticlassResults):
                check_same_truth((other_name, name), other, result)
            else:
                raise ClipSegError(f"{other_name} and {name}: results of two kinds of evaluation; evaluate both by evaluate.py")


def _figures(row: PaperRow, result: Measured, definition: Definition) -> dict[str, float]:
    """Fractions by the names of the paper's row; the classes of Tab. 4 are counted by one definition only."""
    if isinstance(result, MulticlassResults):
        return result.metrics()
    figures = result.metrics(row.threshold)
    prefix = "" if definition == "plain" else f"{definition}/"
    return {name: figures[prefix + name] for name in row.values if prefix + name in figures}


def _draws(row: PaperRow, seeds: Mapping[str, Folds], definition: Definition) -> dict[str, NDArray[np.float64]]:
    """Of a single seed: its figures over drawn sets of images, the mean over its folds; else nothing."""
    results = [result for folds in seeds.values() for _, result in folds.values() if isinstance(result, Results)]
    if len(seeds) != 1 or any(len(np.unique(result.image_key)) < 2 for result in results):
        return {}
    parts = [redrawn(result, definition=definition, threshold=row.threshold) for result in results]
    return {name: np.mean([part[name] for part in parts], axis=0) for name in (parts[0] if parts else ())}


def _missing_folds(seeds: Mapping[str, Folds]) -> str:
    folds = sorted(next(iter(seeds.values())))
    return "" if folds == [""] or len(folds) == FOLDS else f"folds {', '.join(folds)} of {FOLDS}"


def _label(row: PaperRow) -> str:
    unseen = re.search(r"_unseen(\d+)_", row.experiment or "")
    if unseen:
        return f"{row.label}, unseen-{unseen.group(1)}"
    several = len({other.benchmark for other in ROWS if other.table == row.table}) > 1
    return f"{row.label}, {_BENCHMARKS[row.benchmark]}" if several else row.label
