"""Polygons to masks, as they were really rasterised (golden case 1)."""

import numpy as np
import pytest
from golden_data import arrays, values

from clipseg.data.rasterise import rasterise

CASES = values("01_polygons")
EXPECTED = arrays("01_polygons")


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: f"{number}-{CASES[number]['kind']}")
def test_golden_polygons_are_the_very_pixels(number: int):
    case = CASES[number]
    height, width = case["height"], case["width"]
    mask = rasterise([np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in case["polygons"]], height, width)
    assert np.array_equal(mask, EXPECTED["masks"][number, :height, :width])
    assert mask.sum() == EXPECTED["pixels"][number]
