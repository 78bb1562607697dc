"""`clipseg compare-words`: one benchmark of words, of groups of runs that differ in their seed, in one table."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clipseg.errors import ClipSegError
from clipseg.files import read_json
from clipseg.measure.significance import format_p, welch
from clipseg.measure.statistics.corrections import holm_outcomes
from clipseg.measure.tables import monospaced

COUNTED = frozenset(("samples", "images", "threshold", "seconds"))
Figures = dict[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = """Put the figures of evaluate.py benchmark=presence (or counterfactual, paraphrase) into one table: a
column a group of runs that differ in their seed, in percent, mean ± standard deviation. With two or more runs a group each is
tested against the first by Welch's t-test over runs; p is corrected by Holm's method for all tests of the table."""
    parser.epilog = (
        "example: clipseg compare-words --group none/0 none/1 none/2 --group half/0 half/1 half/2 --figure auroc n_acc"
    )
    parser.add_argument(
        "--group", nargs="+", action="append", required=True, type=Path, metavar="OUT", help="folders of evaluate.py"
    )
    parser.add_argument("--figure", nargs="+", metavar="F", help="names in metrics.json (default: all but the controls')")


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    groups = [[_figures(folder) for folder in group] for group in arguments.group]
    asked = {what for group in groups for what, _ in group}
    if len(asked) > 1:
        raise ClipSegError(f"results of {' and of '.join(sorted(asked))}; compare what was asked alike")
    table = [[figures for _, figures in group] for group in groups]
    known = list(dict.fromkeys(name for group in table for figures in group for name in figures))
    names = arguments.figure or [name for name in known if not name.startswith("control/")]
    for name in names:
        if not all(name in figures for group in table for figures in group):
            raise ClipSegError(f"figure {name!r} is not in all results; expected one of {', '.join(known)}")
    titles = [os.path.commonpath(group) if len(group) > 1 else str(group[0]) for group in arguments.group]
    print(f"{asked.pop()}\n{monospaced(rows_of(names, titles, table))}")
    return 0


def _figures(folder: Path) -> tuple[str, Figures]:
    """What was measured there, for people, and its fractions."""
    if not (folder / "words.npz").is_file():
        raise ClipSegError(f"{folder}: no results of words; expected the folder of an evaluate.py benchmark=presence")
    origin, figures = read_json(folder / "provenance.json"), read_json(folder / "metrics.json")
    what = " ".join(str(origin.get(key)) for key in ("benchmark", "split", "protocol"))
    return f"{what}, {figures['samples']:.0f} questions on {figures['images']:.0f} images", {
        name: float(value)
        for name, value in figures.items()
        if name.rpartition("/")[2] not in COUNTED and not name.startswith("chosen_")
    }


def rows_of(names: Sequence[str], titles: Sequence[str], table: Sequence[Sequence[Figures]]) -> list[tuple[str, ...]]:
    """The head and a row a figure: of each group mean ± standard deviation in percent, and p against the first group."""
    values = {name: [[100 * figures[name] for figures in group] for group in table] for name in names}
    tests = [welch(group, values[name][0]) for name in names for group in values[name][1:]]
    corrected = iter(holm_outcomes(tests))
    rows = [("percent", *titles)]
    for name in names:
        cells = [_cell(values[name][0])]
        for group in values[name][1:]:
            p = next(corrected)
            cells.append(_cell(group) + (f" ({format_p(p)})" if p is not None else ""))
        rows.append((name, *cells))
    return rows


def _cell(group: Sequence[float]) -> str:
    return f"{np.mean(group):.1f}" + (f" ± {np.std(group, ddof=1):.1f}" if len(group) > 1 else "")
