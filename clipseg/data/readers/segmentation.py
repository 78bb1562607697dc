"""COCO's and LVIS's ways to write a mask - polygons, run lengths, run lengths as text - decoded by pycocotools.

What pycocotools takes on trust is checked here first: a size that is not the image's, coordinates that would fill the memory,
run lengths that do not fill the image: its C code writes beyond its memory with some of them.
"""

import importlib.util
import re
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg.errors import ClipSegError

# Five bits a character from "0" on, the sixth bit saying that another follows; seven characters hold any count.
_COMPRESSED = re.compile(r"(?:[P-o]{0,6}[0-O])+")
# Image sides: polygons are drawn at five times their size before they are cut off, each point of the outline in memory.
_FARTHEST = 10
_LONGEST_OUTLINE = 400


def require_pycocotools() -> None:
    """Say at once, rather than at the first mask, that the package is missing.

    Raises:
        ClipSegError: it is not installed.
    """
    if importlib.util.find_spec("pycocotools") is None:
        raise ClipSegError("COCO's and LVIS's masks need pycocotools; install it with: pip install 'clipseg[coco]'")


def decode_segmentation(segmentation: Any, height: int, width: int, *, where: str) -> NDArray[np.uint8]:
    """The field `segmentation` of an annotation as a mask.

    Args:
        segmentation: polygons `[[x0, y0, x1, y1, ...], ...]`, of which those of less than three points enclose nothing; or
            `{"size": [H, W], "counts": ...}` with a list of run lengths (crowds) or text.
        height: of the image, in pixels.
        width: of the image, in pixels.
        where: how errors call the annotation.

    Returns:
        uint8 `[height, width]`, 1 inside.

    Raises:
        ClipSegError: something else, a size that is not the image's, or damaged.
    """
    from pycocotools import mask as pycoco

    if isinstance(segmentation, list):
        polygons = [_polygon(polygon, max(height, width), where) for polygon in segmentation]
        polygons = [polygon for polygon in polygons if len(polygon) >= 6]
        encoded = pycoco.frPyObjects(polygons, height, width) if polygons else []
    else:
        encoded = [_run_lengths(segmentation, height, width, where)]
    if not encoded:
        return np.zeros((height, width), dtype=np.uint8)
    return np.ascontiguousarray(pycoco.decode(pycoco.merge(encoded)), dtype=np.uint8)


def _polygon(polygon: Any, side: int, where: str) -> list[float]:
    is_flat = isinstance(polygon, list) and all(type(value) in (int, float) for value in polygon)
    if not is_flat or len(polygon) % 2:
        raise ClipSegError(f"{where}: polygon {reprlib.repr(polygon)}; expected x and y in turn, [x0, y0, x1, y1, ...]")
    # NaN fails the comparison too.
    if not all(abs(value) <= _FARTHEST * side for value in polygon):
        raise ClipSegError(f"{where}: a polygon far outside its image; expected pixel coordinates")
    x, y = (np.array(polygon[start::2], dtype=np.float64) for start in (0, 1))
    if np.abs(np.diff(x)).sum() + np.abs(np.diff(y)).sum() > _LONGEST_OUTLINE * side:
        raise ClipSegError(f"{where}: a polygon whose outline crosses the image hundreds of times; expected that of an object")
    return [float(value) for value in polygon]


def _run_lengths(segmentation: Any, height: int, width: int, where: str) -> dict[str, Any]:
    """Run lengths as pycocotools takes them: compressed."""
    from pycocotools import mask as pycoco

    if not isinstance(segmentation, dict) or segmentation.keys() != {"size", "counts"}:
        raise ClipSegError(
            f"{where}: segmentation {reprlib.repr(segmentation)}; expected polygons, or an RLE of size and counts"
        )
    size, counts = segmentation["size"], segmentation["counts"]
    if size != [height, width]:
        raise ClipSegError(f"{where}: an RLE of size {reprlib.repr(size)}, but its image is [{height}, {width}] (H, W)")
    if isinstance(counts, str) and _COMPRESSED.fullmatch(counts):
        counts = _from_text(counts)
    if not _is_whole(counts) or sum(counts) != height * width:
        raise ClipSegError(f"{where}: RLE counts {reprlib.repr(counts)}; expected run lengths that sum to {height * width}")
    return dict(pycoco.frPyObjects({"size": size, "counts": counts}, height, width))


def _from_text(text: str) -> list[int]:
    """Run lengths from their text: five bits a character, the lowest first; from the third on less the one before last."""
    counts: list[int] = []
    value = shift = 0
    for bits in (ord(character) - ord("0") for character in text):
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (1 << shift) * bool(bits & 0x10)  # the sign
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def _is_whole(counts: Any) -> bool:
    return isinstance(counts, Sequence) and all(type(value) is int and value >= 0 for value in counts)
