"""Average precision: the area under precision over recall, by Simpson's rule of today and of the paper's day."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import simpson

Definition = Literal["plain", "released"]  # see metrics.py


def average_precision(
    precision: NDArray[np.float64], recall: NDArray[np.float64], *, definition: Definition = "plain"
) -> float:
    """Precision over recall, integrated with Simpson's rule.

    One point per threshold at which anything is predicted (NaN elsewhere), in threshold order; fewer than two points enclose no
    area: 0. `plain`: of equal recalls the first counts, and the rule is scipy's. `released`: equal points count once, points of
    equal recall stay in the order of a Python set, and the rule is that of scipy <= 1.10, which differs by up to 0.001.
    """
    predicted = ~np.isnan(precision)
    recall, precision = recall[predicted], precision[predicted]
    if definition == "released":
        points = sorted(set(zip(recall.tolist(), precision.tolist(), strict=True)), key=lambda point: point[0])
        return _old_simpson(*np.array(points, dtype=np.float64).reshape(-1, 2).T)
    distinct_recall, first = np.unique(recall, return_index=True)
    if len(distinct_recall) < 2:
        return 0.0
    return float(simpson(precision[first], x=distinct_recall))


def _old_simpson(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Simpson's rule over unequal spacing as scipy <= 1.10 has it: for an even number of points the mean of two results."""

    def composite(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
        h = np.diff(x)
        h0, h1 = h[0::2], h[1::2]
        both = h0 + h1
        terms = y[:-2:2] * (2 - _divide(1, _divide(h0, h1)))
        terms += y[1:-1:2] * both * _divide(both, h0 * h1) + y[2::2] * (2 - _divide(h0, h1))
        return float((both / 6 * terms).sum())

    if len(x) < 2:
        return 0.0
    if len(x) % 2:
        return composite(x, y)
    ends = [0.5 * (x[1] - x[0]) * (y[0] + y[1]), 0.5 * (x[-1] - x[-2]) * (y[-1] + y[-2])]
    return float(composite(x[:-1], y[:-1]) + composite(x[1:], y[1:]) + sum(ends)) / 2


def _divide(a: NDArray[np.float64] | float, b: NDArray[np.float64]) -> NDArray[np.float64]:
    """a / b, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros_like(b), where=b != 0)
