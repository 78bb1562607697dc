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
    cluster_means,
    format_p,
    paired_t,
    to_json,
    welch,
    wilcoxon,
)
from clipseg.measure.statistics.clustered import clustered_t, seeds_and_images
from clipseg.measure.statistics.corrections import MANY_TESTS, holm_outcomes, rate_outcomes
from clipseg.measure.statistics.equivalence import Equivalence, equivalence
from clipseg.measure.statistics.power import Power, power_of


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
        equivalence: by standard errors and draws clustered by image; None where no margin was given.
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
    equivalence: Equivalence | NotTestable | None


@dataclass(frozen=True, kw_only=True)
class GroupComparison:
    """One metric of two groups of runs that differ in their seed.

    Attributes:
        names, what, metric: as of `RunComparison`; any fraction of `metrics.json` is a metric too.
        values: in percent, one a run.
        t_test: Welch's, with Hedges' g.
        interval: of the difference, for other seeds on other images; of a metric without values for samples there is none.
        power: what these seeds could have shown.
        equivalence: over seeds; None where no margin was given.
    """

    names: tuple[str, str]
    what: str
    metric: str
    values: tuple[tuple[float, ...], tuple[float, ...]]
    t_test: Outcome
    interval: Interval | NotTestable
    power: Power | NotTestable
    equivalence: Equivalence | NotTestable | None


def compare_runs(
    names: tuple[str, str],
    one: Results,
    two: Results,
    *,
    metric: str,
    threshold: float | None = None,
    margin: float | None = None,
    seed: int = 0,
) -> RunComparison:
    """Compare two runs on the same samples.

    Args:
        names: of the runs.
        one, two: their results; keys, sizes and thresholds have to agree.
        metric: one of `SAMPLE_METRICS`.
        threshold: another than that of the evaluations.
        margin: in points; a difference below it counts as none. None: equality is not asked about.
        seed: of the bootstraps.

    Raises:
        ClipSegError: the results cannot be compared, or have no such metric.
    """
    check_same_samples(names, one, two)
    chosen = common_threshold(names, (one, two), threshold)
    first, second = (sample_values(results, metric, chosen) for results in (one, two))
    difference, images = second - first, one.image_key
    same = margin and equivalence(clustered_t(difference, images), margin, cluster_means(difference, images, seed=seed))
    return RunComparison(
        names=names,
        what=_what(one, chosen),
        metric=metric,
        samples=len(one),
        images=len(np.unique(one.image_key)),
        means=(float(first.mean()), float(second.mean())),
        t_test=paired_t(second, first),
        rank_test=wilcoxon(second, first),
        interval=cluster_bootstrap(difference, images, seed=seed),
        equivalence=same or None,
    )


def compare_groups(
    names: tuple[str, str],
    one: Sequence[Results],
    two: Sequence[Results],
    *,
    metric: str,
    threshold: float | None = None,
    margin: float | None = None,
    seed: int = 0,
) -> GroupComparison:
    """Compare two groups of runs that differ in their seed, all on the same samples.

    Args:
        names: of the groups.
        one, two: the results of the runs.
        metric: one of `SAMPLE_METRICS` (its mean over the samples), or a fraction of `metrics.json`.
        threshold, margin, seed: as in `compare_runs`.

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
    interval: Interval | NotTestable = NotTestable(f"{metric} is one value a run")
    if metric in SAMPLE_METRICS:
        first_runs, second_runs = (
            np.stack([sample_values(results, metric, chosen) for results in runs]) for runs in (one, two)
        )
        interval = seeds_and_images(first_runs, second_runs, one[0].image_key, seed=seed)
    test = welch(second, first)
    return GroupComparison(
        names=names,
        what=_what(everything[0], chosen),
        metric=metric,
        values=(tuple(first), tuple(second)),
        t_test=test,
        interval=interval,
        power=power_of([first, second]),
        equivalence=equivalence(test, margin) if margin else None,
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
    corrected = _corrected(comparisons)
    for comparison, corrections in zip(comparisons, corrected, strict=True):
        first, second = comparison.names
        lines.append(f"{second} − {first}: {comparison.metric} in percent, {comparison.what}")
        lines += _run_lines(comparison) if isinstance(comparison, RunComparison) else _group_lines(comparison)
        same = comparison.equivalence
        if same is not None:
            lines.append(f"  equivalence     {same}" + (f", within ±{same.margin:g}" if isinstance(same, Equivalence) else ""))
        if isinstance(same, Equivalence) and same.share is not None:
            lines.append(f"  within margin   {100 * same.share:.1f}% of draws of the images")
        tested = sum("p_holm" in each for each in corrected)
        if corrections and tested > 1:
            lines.append(f"  Holm            {format_p(corrections['p_holm'])} of the t-test, among {tested} comparisons")
        if "p_benjamini_hochberg" in corrections:
            lines.append(f"  Benjamini-H.    {format_p(corrections['p_benjamini_hochberg'])}, by the rate of false discoveries")
        lines.append("")
    return "\n".join(lines[:-1])


def _corrected(comparisons: Sequence[RunComparison | GroupComparison]) -> list[dict[str, float]]:
    """The adjusted p-values of each t-test, by name: Holm's, and with more than ten tests Benjamini and Hochberg's."""
    tests = [each.t_test for each in comparisons]
    adjusted = {"p_holm": holm_outcomes(tests), "p_benjamini_hochberg": rate_outcomes(tests)}
    if sum(p is not None for p in adjusted["p_holm"]) <= MANY_TESTS:
        del adjusted["p_benjamini_hochberg"]
    return [{name: p for name, values in adjusted.items() if (p := values[row]) is not None} for row in range(len(tests))]


def _run_lines(comparison: RunComparison) -> list[str]:
    first, second = comparison.means
    return [
        f"  means           {first:.2f} and {second:.2f}, over {comparison.samples} samples on {comparison.images} images",
        f"  difference      {second - first:+.2f}, 95% interval {comparison.interval}",
        f"  paired t-test   {comparison.t_test}",
        f"  Wilcoxon        {comparison.rank_test}",
    ]


def _group_lines(comparison: GroupComparison) -> list[str]:
    first, second = comparison.values
    listed = ", ".join(f"{value:.2f}" for value in first), ", ".join(f"{value:.2f}" for value in second)
    return [
        f"  power           {comparison.power}",
        f"  means           {np.mean(first):.2f} and {np.mean(second):.2f}, over {len(first)} runs ({listed[0]}) and "
        f"{len(second)} ({listed[1]})",
        f"  Welch's t-test  {comparison.t_test}",
        f"  seeds × images  95% interval {comparison.interval}",
    ]


def comparisons_to_json(comparisons: Sequence[RunComparison | GroupComparison]) -> list[dict[str, Any]]:
    """All comparisons as plain values; `t_test` has its adjusted p-values too."""
    entries = []
    for comparison, corrections in zip(comparisons, _corrected(comparisons), strict=True):
        fields: dict[str, Any] = {name: getattr(comparison, name) for name in ("names", "what", "metric")}
        if isinstance(comparison, RunComparison):
            fields |= {name: getattr(comparison, name) for name in ("samples", "images", "means")}
            fields |= {"rank_test": to_json(comparison.rank_test)}
        else:
            fields |= {"values": comparison.values, "power": to_json(comparison.power)}
        fields |= {"interval": to_json(comparison.interval), "t_test": to_json(comparison.t_test) | corrections}
        if comparison.equivalence is not None:
            fields["equivalence"] = to_json(comparison.equivalence)
        entries.append(fields)
    return entries
