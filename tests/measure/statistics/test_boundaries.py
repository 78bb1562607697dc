"""Edges: against brute force over all pairs of pixels, on masks of all kinds."""

import math

import numpy as np
import pytest

from clipseg.measure.statistics.boundaries import boundary_iou, surface_distance


def nearest(of: np.ndarray, to: np.ndarray) -> np.ndarray:
    """The distance of each pixel of one set, `[n, 2]`, to the nearest of another, which has some."""
    return np.sqrt(np.square(of[:, None] - to[None]).sum(axis=2)).min(axis=1)


def inner(mask: np.ndarray, width: float) -> set[tuple[int, int]]:
    inside, outside = np.argwhere(mask), np.argwhere(~mask)
    if not len(inside) or not len(outside):
        return set()
    return {tuple(pixel) for pixel in inside[nearest(inside, outside) <= width].tolist()}


def by_force(truth: np.ndarray, found: np.ndarray, tolerance: float) -> tuple[float, float]:
    width = max(1, round(0.02 * math.hypot(*truth.shape)))
    one, two = inner(truth, width), inner(found, width)
    boundary = len(one & two) / len(one | two) if one | two else 1.0
    surfaces = [np.array(sorted(inner(mask, 1))).reshape(-1, 2) for mask in (truth, found)]
    total = sum(map(len, surfaces))
    if not all(map(len, surfaces)):
        return boundary, float(total == 0)
    near = sum((nearest(surfaces[side], surfaces[1 - side]) <= tolerance).sum() for side in (0, 1))
    return boundary, near / total


def test_a_thousand_random_masks_equal_brute_force() -> None:
    rng = np.random.default_rng(0)
    kinds = set()
    for number in range(1000):
        shape = tuple(rng.integers(1, 15, 2).tolist()) if number % 250 else (90, 60)
        truth, found = np.zeros((2, *shape), dtype=bool)
        for mask in (truth, found):
            kind = int(rng.integers(5))
            kinds.add(kind)
            top, left = (int(rng.integers(side)) for side in shape)
            if kind == 0:
                mask[:] = rng.random(shape) < 0.5
            elif kind < 4:
                mask[top : top + int(rng.integers(1, shape[0] + 1)), left : left + int(rng.integers(1, shape[1] + 1))] = True
            else:
                mask[:] = rng.random() < 0.5
        for tolerance in (2, 4):
            boundary, surface = by_force(truth, found, tolerance)
            assert boundary_iou(truth, found) == pytest.approx(boundary)
            assert surface_distance(truth, found, tolerance=tolerance) == pytest.approx(surface)
    assert kinds == set(range(5))


def test_edges_by_hand() -> None:
    truth = np.zeros((60, 80), dtype=bool)  # a diagonal of 100: bands of 2 pixels
    truth[10:50, 10:50] = True
    assert (boundary_iou(truth, truth), surface_distance(truth, truth, tolerance=2)) == (1, 1)
    moved = np.roll(truth, 3, axis=1)
    assert surface_distance(truth, moved, tolerance=4) == 1
    assert surface_distance(truth, moved, tolerance=2) < 1
    assert boundary_iou(truth, moved) < 0.6
    nothing = np.zeros_like(truth)
    assert (boundary_iou(truth, nothing), surface_distance(truth, nothing, tolerance=4)) == (0, 0)
    assert (boundary_iou(nothing, nothing), surface_distance(nothing, nothing, tolerance=4)) == (1, 1)
