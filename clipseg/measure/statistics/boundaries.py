"""How well do edges agree? Boundary IoU and normalised surface distance of two masks, in pixels of the masks.

A mask's inner pixels of distance d are those with Euclidean distance of at most d to the nearest pixel outside it; beyond the
picture nothing is outside. Its surface are those of distance 1: pixels that have a side in common with one outside.
Source: Cheng et al. 2021 (Boundary IoU); Nikolov et al. 2021 (surface Dice at a tolerance), here by pixels.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

DIAGONAL_SHARE = 0.02
TOLERANCES = (2, 4)  # pixels

Mask = NDArray[np.bool_]


def boundary_iou(truth: Mask, found: Mask, *, share: float = DIAGONAL_SHARE) -> float:
    """Return the IoU of both masks' inner bands, as wide as a share of the picture's diagonal, at least 1 pixel.

    Args:
        truth, found: bool `[H, W]`.
        share: of the diagonal; the width is rounded.

    Returns:
        in [0, 1]; 1 where neither mask has a boundary.
    """
    width = max(1, round(share * math.hypot(*truth.shape)))
    one, two = band(truth, width), band(found, width)
    union = np.count_nonzero(one | two)
    return np.count_nonzero(one & two) / union if union else 1.0


def surface_distance(truth: Mask, found: Mask, *, tolerance: float) -> float:
    """Return the share of both surfaces' pixels that lie within a Euclidean distance of the other surface.

    Args:
        truth, found: bool `[H, W]`.
        tolerance: in pixels; as near counts.

    Returns:
        in [0, 1]; 1 where neither mask has a surface, and 0 where one has none.
    """
    one, two = band(truth, 1), band(found, 1)
    total = np.count_nonzero(one) + np.count_nonzero(two)
    if not total:
        return 1.0
    if not one.any() or not two.any():
        return 0.0
    near = sum(np.count_nonzero(_distances(to)[of] <= tolerance) for of, to in ((one, two), (two, one)))
    return near / total


def band(mask: Mask, width: float) -> Mask:
    """Return a mask's inner pixels within `width` of the outside, bool `[H, W]`."""
    return mask & (_distances(~mask) <= width) if not mask.all() else np.zeros_like(mask)


def _distances(places: Mask) -> NDArray[np.float64]:
    """To the nearest of `places`, of which there is one."""
    return ndimage.distance_transform_edt(~places)
