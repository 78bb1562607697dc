"""Is one run better than another? Made from results folders alone.

Two runs are compared sample by sample, aligned by key; groups of runs that differ in their seed, one value a run. Differences
are in percentage points, the second minus the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipseg.errors import ClipSegError
from clipseg.measure.alignment import SAMPLE_METRICS, check_same_samples, common_threshold, sample_values
from clipseg.measure.results import Results
from clipseg.measure.significance import (
    Interval,
    NotTestable,
    Outcome,
    RankTest,
    cluster_bootstrap,
    format_p,
    holm_outcomes,
    paired_t,
    to_json,
    welch,
    wilcoxon,
)


@dataclass(frozen=True, kw_only=True)
class RunComparison:
    """One metric of two runs over the same samples.

    Attributes:
        names: of the runs, first and second.
        what: benchmark, split and threshold, for people.
        metric: one of `SAMPLE_METRICS`.
        samples, images: compared.
        means: in percent, over samples, of the first and the second run.
        t_test: of pairs, with d_z; it takes samples for independent.
        rank_test: Wilcoxon's; it takes samples for independent.
        interval: of the mean difference, by a bootstrap clustered by image: phrases of one image are not independent.
    """

    names: tuple[str, str]
    what: str
    metric: str
    samples: int
    images: int
    means: tuple[float, float]
    t_test: Outcome
    rank_test: RankTest | NotTestable
    interval: Interval | NotTestable


@dataclass(frozen=True, kw_only=True)
class GroupComparison:
    """One metric of two groups of runs; `values` in percent, one a run; the test is Welch's, its effect size Hedges' g."""

    names: tuple[str, str]
    what: str
    metric: str
    values: tuple[tuple[float, ...], tuple[float, ...]]
    t_test: Outcome


def compare_runs(
    names: tuple[str, str], one: Results, two: Results, *, metric: str, threshold: float | None = None, seed: int = 0
) -> RunComparison:
    """Compare two runs on the same samples.

    Args:
        names: of the runs.
        one, two: their results; keys, sizes and thresholds have to agree.
        metric: one of `SAMPLE_METRICS`.
        threshold: another than that of the evaluations.
        seed: of the bootstrap.

    Raises:
        ClipSegError: the results cannot be compared, or have no such metric.
    """
    check_same_samples(names, one, two)
    chosen = common_threshold(names, (one, two), threshold)
    first, second = (sample_values(results, metric, chosen) for results in (one, two))
    return RunComparison(
        names=names,
        what=_what(one, chosen),
        metric=metric,
        samples=len(one),
        images=len(np.unique(one.image_key)),
        means=(float(first.mean()), float(second.mean())),
        t_test=paired_t(second, first),
        rank_test=wilcoxon(second, first),
        interval=cluster_bootstrap(second - first, one.image_key, seed=seed),
    )


def compare_groups(
    names: tuple[str, str], one: Sequence[Results], two: Sequence[Results], *, metric: str, threshold: float | None = None
) -> GroupComparison:
    """Compare two groups of runs that differ in their seed, all on the same samples.

    Args:
        names: of the groups.
        one, two: the results of the runs.
        metric: one of `SAMPLE_METRICS` (its mean over the samples), or a fraction of `metrics.json`.
        threshold: another than that of the evaluations.

    Raises:
        ClipSegError: the results cannot be compared, or have no such metric.
    """
    everything = [*one, *two]
    labels = [
        f"{name}, run {number}" for name, runs in zip(names, (one, two), strict=True) for number in range(1, len(runs) + 1)
    ]
    for label, other in zip(labels[1:], everything[1:], strict=True):
        check_same_samples((labels[0], label), everything[0], other)
    chosen = common_threshold(labels, everything, threshold)
    first, second = ([_run_value(results, metric, chosen) for results in runs] for runs in (one, two))
    return GroupComparison(
        names=names,
        what=_what(everything[0], chosen),
        metric=metric,
        values=(tuple(first), tuple(second)),
        t_test=welch(second, first),
    )


def _run_value(results: Results, metric: str, threshold: float) -> float:
    if metric in SAMPLE_METRICS:
        return float(sample_values(results, metric, threshold).mean())
    figures = results.metrics(threshold)
    counted = ("samples", "seconds", "threshold")
    fractions = [name for name in figures if name.split("/")[-1] not in counted and "_threshold" not in name]
    if metric not in fractions:
        raise ClipSegError(f"metric {metric!r} unknown; expected one of {', '.join([*SAMPLE_METRICS, *fractions])}")
    return 100 * figures[metric]


def _what(results: Results, threshold: float) -> str:
    named = [str(results.provenance[name]) for name in ("benchmark", "split") if results.provenance.get(name)]
    return f"{' '.join(named) or 'results'} at threshold {threshold:.2f}"


def format_comparisons(comparisons: Sequence[RunComparison | GroupComparison]) -> str:
    """All comparisons as text, their t-tests corrected for being several."""
    lines = []
    adjusted = holm_outcomes([each.t_test for each in comparisons])
    tested = sum(p is not None for p in adjusted)
    for comparison, p in zip(comparisons, adjusted, strict=True):
        first, second = comparison.names
        lines.append(f"{second} − {first}: {comparison.metric} in percent, {comparison.what}")
        lines += _run_lines(comparison) if isinstance(comparison, RunComparison) else _group_lines(comparison)
        if p is not None and tested > 1:
            lines.append(f"  Holm            {format_p(p)} of the t-test, among {tested} comparisons")
        lines.append("")
    return "\n".join(lines[:-1])


def _run_lines(comparison: RunComparison) -> list[str]:
    first, second = comparison.means
    return [
        f"  means           {first:.2f} and {second:.2f}, over {comparison.samples} samples on {comparison.images} images",
        f"  difference      {second - first:+.2f}, 95% interval by images {comparison.interval}",
        f"  paired t-test   {comparison.t_test}",
        f"  Wilcoxon        {comparison.rank_test}",
    ]


def _group_lines(comparison: GroupComparison) -> list[str]:
    first, second = comparison.values
    listed = ", ".join(f"{value:.2f}" for value in first), ", ".join(f"{value:.2f}" for value in second)
    return [
        f"  means           {np.mean(first):.2f} and {np.mean(second):.2f}, over {len(first)} runs ({listed[0]}) and "
        f"{len(second)} ({listed[1]})",
        f"  Welch's t-test  {comparison.t_test}",
    ]


def comparisons_to_json(comparisons: Sequence[RunComparison | GroupComparison]) -> list[dict[str, Any]]:
    """All comparisons as plain values; `t_test` has `p_holm` too."""
    entries = []
    for comparison, p in zip(comparisons, holm_outcomes([each.t_test for each in comparisons]), strict=True):
        fields: dict[str, Any] = {name: getattr(comparison, name) for name in ("names", "what", "metric")}
        if isinstance(comparison, RunComparison):
            fields |= {name: getattr(comparison, name) for name in ("samples", "images", "means")}
            fields |= {"interval": to_json(comparison.interval), "rank_test": to_json(comparison.rank_test)}
        else:
            fields["values"] = comparison.values
        entries.append(fields | {"t_test": to_json(comparison.t_test) | ({} if p is None else {"p_holm": p})})
    return entries
