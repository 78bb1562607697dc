"""Tests and intervals of means whose values are not independent: they share images, and runs share the images they are over."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from clipseg.measure.significance import CONFIDENCE, Interval, NotTestable, Outcome, TTest


def clustered_t(values: ArrayLike, clusters: Sequence[Any] | NDArray[Any]) -> Outcome:
    """Test "the mean is 0" where values of one cluster are not independent; with a value a cluster, the one-sample t-test.

    The mean is a ratio of sums over clusters; its standard error is that of the linearised ratio, each cluster's part freed of
    what it pulls the mean towards itself (CR2: Bell and McCaffrey 2002). There are C - 1 degrees of freedom where clusters are
    of one size, and fewer where some are much larger: their effective number less 1.

    Args:
        values: N finite numbers, such as differences of pairs.
        clusters: one label a value, C distinct ones.

    Returns:
        The test; its effect size is the mean over the standard deviation that C independent values would need for its error.
    """
    sample = np.asarray(values, dtype=np.float64)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums, sizes = np.bincount(index, weights=sample), np.bincount(index)
    count = len(sums)
    if count < 2:
        return NotTestable(f"{count} image; at least 2 are needed")
    mean = sample.mean()
    leverage = sizes / len(sample)
    error = float(np.sqrt((np.square(sums - mean * sizes) / (1 - leverage)).sum()) / len(sample))
    if error <= 1e-12 * max(abs(mean), 1):
        return NotTestable(f"all {count} images give {mean:g}")
    test = mean / error
    freedom = max(float((leverage**2).sum() ** 2 / (leverage**4).sum()) - 1, 1.0)
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error
    return TTest(
        statistic=float(test),
        degrees_of_freedom=freedom,
        p_value=float(2 * stats.t.sf(abs(test), freedom)),
        difference=float(mean),
        low=float(mean - reach),
        high=float(mean + reach),
        effect_size=float(test / np.sqrt(count)),
        size=count,
    )


def seeds_and_images(
    one: NDArray[np.float64],
    two: NDArray[np.float64],
    images: Sequence[Any] | NDArray[Any],
    *,
    seed: int,
    repeats: int = 4000,
) -> Interval | NotTestable:
    """Return the interval of the difference of two means over seeds and images, as for other seeds on other images.

    Images are drawn as wholes and alike for all runs, which share them; seeds within each group. What S draws of S seeds
    lose of the variance, (S - 1) / S, is given back, and with few seeds the interval is as wide as t's: the degrees of freedom
    are Satterthwaite's over both groups' seeds and the images. Runs enough for both: 3 and more seeds, 20 and more images.

    Args:
        one, two: values `[S, N]` and `[T, N]` of the same N samples, a row a run; the difference is two minus one.
        images: a label a sample.
        seed: of the draws.
        repeats: sets of seeds and images drawn.
    """
    if min(len(one), len(two)) < 2:
        return NotTestable(f"groups of {len(one)} and {len(two)} runs; at least 2 each are needed")
    _, index = np.unique(np.asarray(images), return_inverse=True)
    sizes = np.bincount(index)
    count = len(sizes)
    if count < 2:
        return NotTestable(f"{count} image; at least 2 are needed")
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(count, np.full(count, 1 / count), size=repeats)
    drawn, of_images, parts = np.zeros(repeats), np.zeros(repeats), []
    for sign, runs in ((-1, one), (1, two)):
        sums = np.stack([np.bincount(index, weights=row) for row in runs])
        means = (weights @ sums.T) / (weights @ sizes)[:, None]  # [repeats, S]
        size = len(runs)
        shares = generator.multinomial(size, np.full(size, 1 / size), size=repeats) / size
        middle = means.mean(axis=1)
        drawn += sign * (middle + np.sqrt(size / (size - 1)) * ((shares * means).sum(axis=1) - middle))
        of_images += sign * middle
        parts.append((runs.mean(axis=1).var(ddof=1) / size, size - 1))
    parts.append((of_images.var(), count - 1))
    variance = drawn.var()
    if variance == 0:
        return NotTestable("neither seeds nor images make a difference")
    freedom = sum(part for part, _ in parts) ** 2 / sum(part**2 / degrees for part, degrees in parts)
    difference = float(two.mean() - one.mean())
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(variance))
    return Interval(difference - reach, difference + reach, count)
