"""`clipseg compare RUN_A RUN_B`: is the difference between runs one?"""

import argparse
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

from clipseg.errors import ClipSegError
from clipseg.files import write_json
from clipseg.measure.alignment import SAMPLE_METRICS, align, load_runs
from clipseg.measure.comparison import (
    GroupComparison,
    RunComparison,
    compare_groups,
    compare_runs,
    comparisons_to_json,
    format_comparisons,
)
from clipseg.measure.statistics.equivalence import check_margin


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = """Compare runs by what their evaluations left on disk. A run is an output folder of evaluate.py, or a
folder of train.py with its eval/<split>.

Two runs: the metric of every sample, aligned by key; paired t-test with d_z, Wilcoxon's test, and an
interval of the mean difference by a bootstrap over images. More runs: each against the first.
Groups of runs with several seeds: Welch's t-test over the runs, what so many seeds could have shown, and an interval for
other seeds on other images. With --margin also whether they are the same: two one-sided tests of a difference that large.
Several comparisons are corrected by Holm's method. Differences are in percentage points."""
    parser.epilog = """examples:
  clipseg compare outputs/pc outputs/pc_plus --metric iou dice
  clipseg compare outputs/pc outputs/pc_again --margin 0.5
  clipseg compare --group pc/0 pc/1 pc/2 --group plus/0 plus/1 plus/2 --metric iou_fg ap"""
    parser.add_argument("runs", metavar="RUN", nargs="*", help="two runs, or more")
    parser.add_argument(
        "--group", nargs="+", action="append", default=[], metavar="RUN", help="the runs of a group; give it twice or more"
    )
    parser.add_argument(
        "--metric",
        nargs="+",
        default=["iou"],
        metavar="M",
        help=f"{', '.join(SAMPLE_METRICS)}; between groups any fraction of metrics.json too (default: iou)",
    )
    parser.add_argument("--split", metavar="S", help="compare this split only (default: all there are)")
    parser.add_argument(
        "--threshold", type=float, metavar="T", help="one of 0.02, 0.04 … 0.98 (default: that of the evaluations)"
    )
    parser.add_argument("--margin", type=float, metavar="POINTS", help="differences below it count as none: test equivalence")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstraps (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")


def run(arguments: argparse.Namespace) -> int:
    """Print every comparison."""
    if arguments.seed < 0:
        raise ClipSegError(f"--seed {arguments.seed}; expected a whole number of at least 0")
    if arguments.margin is not None:
        check_margin(arguments.margin)
    if arguments.group and arguments.runs:
        raise ClipSegError(f"{arguments.runs[0]} beside --group; give either runs or groups of runs")
    comparisons = _between_groups(arguments) if arguments.group else _between_runs(arguments)
    print(format_comparisons(comparisons))
    if arguments.json:
        write_json(arguments.json, comparisons_to_json(comparisons))
    return 0


def _between_runs(arguments: argparse.Namespace) -> list[RunComparison | GroupComparison]:
    names = _distinct(arguments.runs)
    if len(names) < 2:
        raise ClipSegError(f"{len(names)} runs to compare; give two or more, or --group twice")
    rows = align(names, [load_runs(name) for name in names], split=arguments.split)
    return [
        compare_runs((names[0], name), row[0], other, metric=metric, **_options(arguments))
        for row in rows
        for name, other in zip(names[1:], row[1:], strict=True)
        for metric in arguments.metric
    ]


def _between_groups(arguments: argparse.Namespace) -> list[RunComparison | GroupComparison]:
    names = _distinct([name for group in arguments.group for name in group])
    if len(arguments.group) < 2:
        raise ClipSegError("one group of runs; give --group a second time with the runs to compare with")
    starts = [sum(map(len, arguments.group[:number])) for number in range(len(arguments.group) + 1)]
    titles = [f"{group[0]} …" if len(group) > 1 else group[0] for group in arguments.group]
    comparisons: list[RunComparison | GroupComparison] = []
    for row in align(names, [load_runs(name) for name in names], split=arguments.split):
        groups = [row[start:end] for start, end in pairwise(starts)]
        comparisons += [
            compare_groups((titles[0], title), groups[0], group, metric=metric, **_options(arguments))
            for title, group in zip(titles[1:], groups[1:], strict=True)
            for metric in arguments.metric
        ]
    return comparisons


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in ("threshold", "margin", "seed")}


def _distinct(names: list[str]) -> list[str]:
    """The names themselves; a run given twice would be compared with itself or counted as two."""
    seen: set[str] = set()
    for name in names:
        if os.path.realpath(name) in seen:
            raise ClipSegError(f"{name} is given twice; each run counts once")
        seen.add(os.path.realpath(name))
    return names
