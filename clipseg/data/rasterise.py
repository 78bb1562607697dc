"""Polygons -> masks by two rules: pixel centres, for training and the paper's figures, and PhraseCut's own evaluator's."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Polygons = Sequence[NDArray[Any]]
_NEAR = 1e-6  # of a crossing to a pixel centre: from there on the sign of the exact expression decides


def rasterise(polygons: Polygons, height: int, width: int) -> NDArray[np.uint8]:
    """Draw the union of polygons: pixels whose centre lies inside by the even-odd rule, or on an edge or corner.

    Pixel centres are at integer coordinates. An edge that is passed twice cancels out, so that of two points only the points
    are drawn. Equal to scikit-image's `polygon2mask`, with which the paper's masks were made (docs/paper.md, Sec. 2).

    Args:
        polygons: each `[points, 2]`, x and y in pixels; parts outside the image are cut off.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        uint8 `[height, width]`, 1 inside.
    """
    mask = np.zeros((height, width), dtype=np.uint8)
    for polygon in polygons:
        if len(polygon):
            _fill(mask, np.asarray(polygon, dtype=np.float64))
    return mask


def _fill(mask: NDArray[np.uint8], points: NDArray[np.float64]) -> None:
    """Add one polygon `[points, 2]` to the mask."""
    height, width = mask.shape
    low, high = points.min(axis=0), points.max(axis=0)
    left, top = (max(int(np.ceil(value)), 0) for value in low)
    right, bottom = min(int(np.floor(high[0])), width - 1), min(int(np.floor(high[1])), height - 1)
    if right < left or bottom < top:
        return
    x, y = np.ascontiguousarray(points.T) - np.array([[left], [top]])
    shape = (bottom - top + 1, right - left + 1)
    # Inside, the rays to both sides meet an odd number of edges; on an edge, one of them does.
    inside = _parity(x, y, shape) | _parity(-x, -y, shape, mirrored=True)
    mask[top : bottom + 1, left : right + 1] |= inside
    nearest = np.rint(points)
    corners = nearest[(np.abs(points - nearest) < 1e-12).all(axis=1)].astype(np.int64)
    corners = corners[((corners >= 0) & (corners < (width, height))).all(axis=1)]
    mask[corners[:, 1], corners[:, 0]] = 1


def _parity(
    x: NDArray[np.float64], y: NDArray[np.float64], shape: tuple[int, int], *, mirrored: bool = False
) -> NDArray[np.uint8]:
    """Whether the ray to the right of each pixel centre meets an odd number of edges, uint8 of `shape`.

    `mirrored`: x and y were turned by 180 degrees about pixel (0, 0), so that the ray is the one to the left.
    """
    rows, columns = shape
    # Edge i crosses the rows that lie in [from, to): those at or below one of its ends and above the other.
    x_next, y_next = np.append(x[1:], x[0]), np.append(y[1:], y[0])
    first, last = np.ceil(np.minimum(y, y_next)), np.ceil(np.maximum(y, y_next))
    lowest, highest = (1 - rows, 1) if mirrored else (0, rows)
    first, last = np.clip(first, lowest, highest).astype(np.int64), np.clip(last, lowest, highest).astype(np.int64)
    counts = last - first
    edge = np.repeat(np.arange(len(x)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    start, end, above, under = x[edge], x_next[edge], y[edge] - row, y_next[edge] - row
    crossing = (start * under - end * above) / (under - above)
    ends = np.ceil(crossing)  # the pixels before have the crossing strictly to their right
    doubtful = np.flatnonzero(np.abs(crossing - np.rint(crossing)) < _NEAR)
    if len(doubtful):
        at = np.rint(crossing[doubtful])
        slope = under[doubtful] - above[doubtful]
        ends[doubtful] = at + (((start[doubtful] - at) * under[doubtful] - (end[doubtful] - at) * above[doubtful]) / slope > 0)
    if mirrored:
        row, ends = -row, ends + (columns - 1)
    places = row * (columns + 1) + np.clip(ends, 0, columns).astype(np.int64)
    counted = np.bincount(places, minlength=rows * (columns + 1)).astype(np.uint8).reshape(rows, columns + 1)
    # A pixel sees the crossings that end behind it.
    odd: NDArray[Any] = np.cumsum(counted[:, ::-1], axis=1, dtype=np.uint8)[:, columns - 1 :: -1] & 1
    return odd[:, ::-1] if mirrored else odd


def rasterise_official(polygons: Polygons, height: int, width: int) -> NDArray[np.uint8]:
    """Draw the union of polygons pixel for pixel as PhraseCut's own evaluator does, for its official figures.

    Coordinates are cut to whole numbers, and the outline is filled. Two points are a line, fewer are nothing. Arguments and
    result as in `rasterise`.
    """
    canvas = Image.new("L", (width, height))
    draw = ImageDraw.Draw(canvas)
    for polygon in polygons:
        if len(polygon) >= 2:
            draw.polygon(np.asarray(polygon).astype(np.int32).ravel().tolist(), outline=1, fill=1)
    return np.array(canvas)
