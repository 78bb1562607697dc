"""Does a mask follow an edge of the photo? Welch's test on differences of gray value between neighbouring pixels.

For an object: (1) differences inside it against other differences inside it; (2) differences inside it against differences
across its boundary (a pixel inside, its neighbour just outside). H0: the two means are equal. Both samples of (1) come from the
same pixels, so its H0 is true: (1) is the control and rejects about as rarely as α says. Where it rejects far more often, the
differences are too heavy-tailed for such a test, and (2) is to be trusted no more. A rejection of (2) with the smaller mean
inside says that the photo changes more across the boundary than within the object; it does not say that the mask is right.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipseg.measure.significance import NotTestable, Outcome, welch

Region = Literal["mask", "box"]
Difference = Literal["absolute", "signed"]
REGIONS: tuple[Region, ...] = get_args(Region)
DIFFERENCES: tuple[Difference, ...] = get_args(Difference)
ALPHA = 0.001
SAMPLE_SIZE = 100  # pairs a sample, at most: with all pixels of a photo any difference at all would be significant
FEWEST = 10  # pairs a sample
# So many pairs in random order are enough to draw from: 200 pairs drawn rule out themselves and at most 6 others each, 200
# pixels used before at most 4 each: 200 * 7 + 200 * 4.
_ENOUGH = 2200


@dataclass(frozen=True, kw_only=True)
class IntensityTests:
    """Both tests of one object; differences of means are in gray values of 0 to 255, first sample minus second.

    Attributes:
        inside: (1), inside against inside, the control.
        across: (2), inside against across the boundary.
    """

    inside: Outcome
    across: Outcome


def gray_values(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """RGB `[H, W, 3]` -> intensity `[H, W]` in [0, 255], whole numbers, by ITU-R 601 (Pillow's mode L)."""
    return np.asarray(Image.fromarray(image).convert("L"), dtype=np.float64)


def intensity_tests(
    gray: NDArray[np.float64],
    mask: NDArray[Any],
    *,
    seed: int,
    region: Region = "mask",
    difference: Difference = "absolute",
) -> IntensityTests:
    """Test one object of a photo.

    Pairs of neighbours (side by side or one above the other) are drawn at random, no pixel twice, so that the values of the
    samples are independent draws; both samples of a test have the same size, at most 100.

    Args:
        gray: `[H, W]`, of `gray_values`.
        mask: `[H, W]`, bool or 0 and 1.
        seed: of the draws.
        region: the object is the mask, or the whole of its bounding box.
        difference: absolute values, or signed ones: across the boundary inside minus outside, inside in either direction. A
            signed mean is near 0 whatever the edge, where an object has lighter and darker surroundings.

    Returns:
        Both tests; not testable where a sample has fewer than 10 pairs or both are constant.
    """
    assert gray.shape == mask.shape, (gray.shape, mask.shape)
    window, inside_region = _crop(_region(mask.astype(bool), region))
    if not inside_region.any():
        nothing = NotTestable("the mask is empty")
        return IntensityTests(inside=nothing, across=nothing)
    inner, crossing = _neighbours(inside_region)
    generator, used = np.random.default_rng(seed), set[int]()
    # The boundary has fewer pairs, so it chooses first.
    across_pairs = _draw(crossing, SAMPLE_SIZE, used, generator)
    inside_pairs = _draw(inner, 2 * SAMPLE_SIZE, used, generator)
    inside_pairs = np.where(generator.random((len(inside_pairs), 1)) < 0.5, inside_pairs, inside_pairs[:, ::-1])
    inside, across = (_steps(gray[window], drawn, difference) for drawn in (inside_pairs, across_pairs))
    half = min(SAMPLE_SIZE, len(inside) // 2)
    return IntensityTests(
        inside=_test(inside[:half], inside[half : 2 * half], "inside the object in each half"),
        across=_test(inside, across, "across the boundary" if len(across) < len(inside) else "inside the object"),
    )


def _region(mask: NDArray[np.bool_], region: Region) -> NDArray[np.bool_]:
    if region == "mask" or not mask.any():
        return mask
    box = np.zeros_like(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return box


def _crop(region: NDArray[np.bool_]) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """The region with one pixel around it, where the photo has one: all that its pairs lie in."""
    sides = []
    for axis in (1, 0):
        places = np.flatnonzero(region.any(axis=axis))
        sides.append(slice(max(places[0] - 1, 0), places[-1] + 2) if len(places) else slice(0, 0))
    window = (sides[0], sides[1])
    return window, region[window]


def _neighbours(region: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Pairs of neighbours, flat indices `[P, 2]`: all with both pixels in the region, and all with the first alone in it."""
    index = np.arange(region.size, dtype=np.int32).reshape(region.shape)
    inner: list[NDArray[np.int32]] = []
    crossing: list[NDArray[np.int32]] = []
    for one, two in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        here, there = region[one], region[two]
        first, second = index[one], index[two]
        for chosen, pairs in ((here & there, inner), (here & ~there, crossing)):
            pairs.append(np.stack([first[chosen], second[chosen]], axis=1))
        chosen = there & ~here
        crossing.append(np.stack([second[chosen], first[chosen]], axis=1))
    return np.concatenate(inner), np.concatenate(crossing)


def _draw(pairs: NDArray[np.int32], count: int, used: set[int], generator: np.random.Generator) -> NDArray[np.int32]:
    """Up to `count` of `pairs` in random order, none with a pixel in `used`, to which their own pixels are added."""
    few = len(pairs) <= _ENOUGH
    candidates = pairs[generator.permutation(len(pairs)) if few else generator.choice(len(pairs), _ENOUGH, replace=False)]
    drawn: list[int] = []
    for place, (one, two) in enumerate(candidates.tolist()):
        if one not in used and two not in used:
            used.add(one)
            used.add(two)
            drawn.append(place)
            if len(drawn) == count:
                break
    return candidates[drawn]


def _steps(gray: NDArray[np.float64], pairs: NDArray[np.int32], difference: Difference) -> NDArray[np.float64]:
    values = gray.ravel()[pairs[:, 0]] - gray.ravel()[pairs[:, 1]]
    return np.abs(values) if difference == "absolute" else values


def _test(one: NDArray[np.float64], two: NDArray[np.float64], scarce: str) -> Outcome:
    size = min(SAMPLE_SIZE, len(one), len(two))
    if size < FEWEST:
        return NotTestable(f"{size} disjoint pairs of neighbours {scarce}; at least {FEWEST} are needed")
    return welch(one[:size], two[:size])
