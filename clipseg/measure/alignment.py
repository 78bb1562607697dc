"""Which results belong together: what a folder holds, what runs have in common, and whether their samples are the same."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipseg.errors import ClipSegError
from clipseg.measure.metrics import sample_iou, threshold_index
from clipseg.measure.reliability import brier_score, log_loss
from clipseg.measure.results import Results

SAMPLE_METRICS = ("iou", "dice", "released/iou", "official_iou", "brier", "log_loss")

Runs = dict[tuple[str, str], Results]  # by benchmark and split


def load_runs(path: str | Path) -> Runs:
    """The results that a folder holds, by (benchmark, split): a results folder's own, or those of a run folder's `eval/*`.

    Raises:
        ClipSegError: there are none, one is damaged, or two are of the same benchmark and split.
    """
    folder = Path(path)
    folders = [folder] if (folder / Results.FILE).is_file() else [file.parent for file in folder.glob(f"eval/*/{Results.FILE}")]
    if not folders:
        raise ClipSegError(
            f"{folder}: no results; expected {Results.FILE} or eval/<split>/{Results.FILE} in it: run evaluate.py, or name its "
            f"output folder"
        )
    runs: Runs = {}
    for place in sorted(folders):
        results = Results.load(place)
        key = (str(results.provenance.get("benchmark")), str(results.provenance.get("split")))
        if not "".join(key).isprintable():
            raise ClipSegError(f"{place}: benchmark and split are {key}; expected plain words: evaluate again")
        if key in runs:
            raise ClipSegError(f"{folder}: two results of {' '.join(key)}; name one of the folders in {folder / 'eval'}")
        runs[key] = results
    return runs


def align(names: Sequence[str], runs: Sequence[Runs], *, split: str | None = None) -> list[list[Results]]:
    """The results that several runs have in common: for each benchmark and split one row, a `Results` a run.

    Args:
        names: of the runs, for errors.
        runs: of `load_runs`.
        split: compare this one only.

    Raises:
        ClipSegError: a benchmark and split that not all runs have.
    """
    keys = sorted({key for run in runs for key in run if split in (None, key[1])})
    if not keys:
        raise ClipSegError(f"no results of split {split!r} in {names[0]}; it has {_splits(runs[0])}")
    for name, run in zip(names, runs, strict=True):
        missing = [key for key in keys if key not in run]
        if missing:
            raise ClipSegError(
                f"{name}: no results of {' '.join(missing[0])}, only of {_splits(run)}; runs are compared on the same split: "
                f"evaluate it there too, or choose one that all have with --split"
            )
    return [[run[key] for run in runs] for key in keys]


def _splits(run: Runs) -> str:
    return ", ".join(" ".join(key) for key in sorted(run))


def check_same_samples(names: tuple[str, str], one: Results, two: Results) -> None:
    """Raise a ClipSegError unless both hold the same samples, by one protocol: the same keys, with truths of the same size."""
    protocols = [results.provenance.get("protocol") for results in (one, two)]
    if protocols[0] != protocols[1]:
        raise ClipSegError(
            f"{names[0]} is by protocol={protocols[0]}, {names[1]} by protocol={protocols[1]}; evaluate both by one"
        )
    for name, missing in ((names[1], np.setdiff1d(one.key, two.key)), (names[0], np.setdiff1d(two.key, one.key))):
        if len(missing):
            raise ClipSegError(
                f"{name}: {len(missing)} of {len(np.union1d(one.key, two.key))} keys are missing, the first {str(missing[0])!r}"
                f"; evaluate both runs on the same data"
            )
    differing = np.flatnonzero((one.height != two.height) | (one.width != two.width))
    if len(differing):
        raise ClipSegError(
            f"{names[0]} and {names[1]}: key {str(one.key[differing[0]])!r} has truths of different size; "
            f"evaluate both runs on the same data"
        )


def common_threshold(names: Sequence[str], results: Sequence[Results], threshold: float | None) -> float:
    """`threshold`, or where it is None the one that all results were evaluated at; a ClipSegError where they differ."""
    if threshold is not None:
        threshold_index(threshold)
        return threshold
    for name, other in zip(names, results, strict=True):
        if other.threshold != results[0].threshold:
            raise ClipSegError(
                f"{names[0]} was evaluated at threshold {results[0].threshold:g}, {name} at {other.threshold:g}; "
                f"compare at one of them with --threshold"
            )
    return results[0].threshold


def sample_values(results: Results, metric: str, threshold: float) -> NDArray[np.float64]:
    """One of `SAMPLE_METRICS` for each sample, in percent, `[N]`.

    `iou` and `dice` are at the size the model ran at, by the plain definition; `released/iou` adds 1 to the union;
    `official_iou` is at the image's own size. `brier` and `log_loss` (a hundredth of a nat) ask for no threshold, and less is
    better. Empty truth and empty prediction: 100, and 0 in the released definition.

    Raises:
        ClipSegError: another metric, or one that the results do not hold at this threshold.
    """
    if metric == "iou":
        return 100 * sample_iou(results.counts, threshold)
    if metric == "dice":
        iou = sample_iou(results.counts, threshold)
        return 200 * iou / (1 + iou)
    if metric == "released/iou":
        return 100 * sample_iou(results.counts, threshold, definition="released")
    if metric in ("brier", "log_loss"):
        return 100 * (brier_score if metric == "brier" else log_loss)(results.counts)
    if metric != "official_iou":
        raise ClipSegError(
            f"metric {metric!r} has no value for each sample; between two runs choose from {', '.join(SAMPLE_METRICS)}, "
            f"or give groups of several runs"
        )
    if results.official_union is None or results.official_intersection is None or threshold != results.threshold:
        raise ClipSegError(
            f"official_iou is not in the results at threshold {threshold:g}; choose iou, or evaluate on phrasecut at it"
        )
    return 100 * (results.official_intersection + (results.official_union == 0)) / np.maximum(results.official_union, 1)
