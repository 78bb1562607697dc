"""Draws the scenes of the bundled mini data: things of 8 categories, 8 colours and 4 patterns on textured backgrounds.

A category is an outline, which takes several patches of 16 pixels to see; its colour and its pattern, in a darker shade of the
colour, are independent of it, and one patch shows them. Specks of all colours lie around. A scene is a pure function of the
generator and the kinds asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from clipseg.data.mini.shapes import CATEGORIES, PARTS, PATTERNS, Field

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 38, 42),
    "orange": (244, 138, 28),
    "yellow": (242, 222, 52),
    "green": (52, 164, 62),
    "cyan": (52, 204, 214),
    "blue": (38, 78, 214),
    "purple": (132, 48, 176),
    "pink": (250, 138, 194),
}
SIZES: dict[str, int] = {"small": 40, "medium": 58, "large": 82}  # the diameter in pixels
RELATIONS = ("left of", "right of", "above", "below")

MIN_DISTANCE = 14  # pixels between two centres, from which on their relation is clear
MIN_VISIBLE = 0.7  # the part of every object that stays uncovered
PLACEMENT_TRIALS = 20
SHADE = 0.42  # brightness of the dark phase of a pattern
RIM_PIXELS = 1.3


class Kind(NamedTuple):
    """A kind of thing: keys of `CATEGORIES`, `COLOURS`, `SIZES` and `PATTERNS`."""

    category: str
    colour: str
    size: str
    pattern: str = "plain"


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One thing of a scene.

    Attributes:
        kind: its category, colour, size and pattern.
        mask: bool `[H, W]`, what is visible of it: in one piece, without holes, at least `MIN_VISIBLE` of the whole.
        box: the visible part's bounding box (x0, y0, x1, y1) in pixels, both ends inside.
        part: bool `[H, W]`, what is visible of the part in `PARTS`, on the same terms as `mask`; None where too little is.
    """

    kind: Kind
    mask: NDArray[np.bool_]
    box: tuple[int, int, int, int]
    part: NDArray[np.bool_] | None = None

    @property
    def centre(self) -> tuple[float, float]:
        """The middle (x, y) of the box."""
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawing: uint8 RGB `[H, W, 3]`, and what is in it from back to front."""

    image: NDArray[np.uint8]
    objects: tuple[SceneObject, ...]


def relation(subject: SceneObject, reference: SceneObject) -> str | None:
    """Where `subject` lies as seen from `reference`: one of `RELATIONS`; None where their centres are too close to say."""
    dx = subject.centre[0] - reference.centre[0]
    dy = subject.centre[1] - reference.centre[1]
    if max(abs(dx), abs(dy)) < MIN_DISTANCE:
        return None
    if abs(dx) >= abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def draw_scene(rng: np.random.Generator, kinds: Sequence[Kind], *, side: int = 176) -> Scene:
    """Draw things at random places, later ones in front of earlier ones.

    Args:
        rng: the source of every choice.
        kinds: what to draw, from back to front. A thing that finds no place without hiding another too much is left out.
        side: height and width in pixels. Things have the same size in pixels in every scene.

    Returns:
        The scene, of `len(kinds)` objects or fewer.
    """
    image = _background(rng, side)
    _add_specks(rng, image)
    owner = np.full((side, side), -1, dtype=np.int8)
    areas: list[int] = []
    drawn: list[Kind] = []
    parts: list[NDArray[np.bool_] | None] = []
    for kind in kinds:
        colours, coverage, is_part = _draw_object(rng, kind)
        shape = _main_piece(coverage >= 0.5)
        height, width = shape.shape
        for _ in range(PLACEMENT_TRIALS):
            top, left = int(rng.integers(0, side - height + 1)), int(rng.integers(0, side - width + 1))
            place = (slice(top, top + height), slice(left, left + width))
            if _keeps_others_visible(owner, areas, place, shape):
                owner[place][shape] = len(drawn)
                image[place] += coverage[..., None] * (colours - image[place])
                areas.append(int(shape.sum()))
                drawn.append(kind)
                parts.append(_placed(shape & is_part, place, side) if is_part is not None else None)
                break
    noise = rng.standard_normal((side, side, 1), dtype=np.float32) * np.float32(rng.uniform(1.0, 5.0))
    pixels = np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
    masks = [owner == index for index in range(len(drawn))]
    things = (
        SceneObject(kind, mask, bounding_box(mask), _visible_part(mask, part))
        for kind, mask, part in zip(drawn, masks, parts, strict=True)
    )
    return Scene(pixels, tuple(things))


def _placed(shape: NDArray[np.bool_], place: tuple[slice, slice], side: int) -> NDArray[np.bool_]:
    mask = np.zeros((side, side), dtype=bool)
    mask[place] = shape
    return mask


def _visible_part(mask: NDArray[np.bool_], part: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    """What of a part is visible, if that is enough of it, in one piece and without holes."""
    if part is None or (part & mask).sum() < MIN_VISIBLE * part.sum() or not _is_whole(part & mask):
        return None
    return part & mask


def _is_whole(mask: NDArray[np.bool_]) -> bool:
    """Whether a mask is in one piece, without holes."""
    x0, y0, x1, y1 = bounding_box(mask)
    around = np.pad(mask[y0 : y1 + 1, x0 : x1 + 1], 1)
    return bool(ndimage.label(around)[1] == 1 and ndimage.label(~around)[1] == 1)


def bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The box (x0, y0, x1, y1) of a mask that is not empty, both ends inside."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def _main_piece(shape: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without single pixels that hang on by a corner, such as the tip of a picket."""
    pieces, count = ndimage.label(shape)
    return shape if count == 1 else pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])


def _keeps_others_visible(
    owner: NDArray[np.int8], areas: Sequence[int], place: tuple[slice, slice], shape: NDArray[np.bool_]
) -> bool:
    """Whether all that lies under `shape` stays in one piece, without holes and visible enough."""
    for index in np.unique(owner[place][shape]):
        if index < 0:
            continue
        visible = owner == index
        visible[place] &= ~shape
        if visible.sum() < MIN_VISIBLE * areas[index] or not _is_whole(visible):
            return False
    return True


def _background(rng: np.random.Generator, side: int) -> Field:
    """A desaturated gray with two of: coarse noise, fine noise, a gradient, soft stripes. float32 [side, side, 3]."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) - side / 2
    angle = rng.uniform(0, 2 * np.pi)
    along = (np.cos(angle) * x + np.sin(angle) * y).astype(np.float32)
    texture = np.zeros((side, side), dtype=np.float32)
    for style in rng.permutation(4)[:2]:
        if style < 2:
            texture += _smooth_noise(rng, side, cells=(5, 28)[style]) * rng.uniform(8, 22)
        elif style == 2:
            texture += along * (rng.uniform(10, 45) / side)
        else:
            # Slow and faint beside the patterns of things: a period of 18 to 40 pixels.
            texture += np.sin(along * (2 * np.pi / rng.uniform(18, 40)), dtype=np.float32) * rng.uniform(6, 16)
    base = rng.uniform(75, 195) + rng.uniform(-11, 11, size=3)
    return (texture[..., None] + base).astype(np.float32)


def _add_specks(rng: np.random.Generator, image: Field) -> None:
    """Draw up to four discs too small to be things, in the colours that things have."""
    side = len(image)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    for _ in range(int(rng.integers(5))):
        top, left = rng.uniform(0, side, size=2)
        coverage = np.clip(rng.uniform(3, 6) + 0.5 - np.hypot(y - top, x - left), 0, 1)[..., None]
        image += coverage * (np.array(COLOURS[str(rng.choice(list(COLOURS)))], dtype=np.float32) - image)


def _smooth_noise(rng: np.random.Generator, side: int, *, cells: int) -> Field:
    grid = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    return np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC))


def _draw_object(rng: np.random.Generator, kind: Kind) -> tuple[Field, Field, NDArray[np.bool_] | None]:
    """Draw one thing alone: its colours float32 [h, w, 3], its antialiased coverage float32 [h, w] in [0, 1], and which pixels
    are its part's, bool [h, w], or None."""
    outline, pattern = CATEGORIES[kind.category], PATTERNS[kind.pattern]
    radius = SIZES[kind.size] / 2 * rng.uniform(0.92, 1.08)
    angle = rng.uniform(-0.16, 0.16)
    half = int(np.ceil(radius * 1.25))
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    u = (np.cos(angle) * x + np.sin(angle) * y).astype(np.float32)
    v = (np.cos(angle) * y - np.sin(angle) * x).astype(np.float32)
    depth = -outline(u, v, radius)
    x0, y0, x1, y1 = bounding_box(depth > -0.5)
    inside = (slice(y0, y1 + 1), slice(x0, x1 + 1))
    u, v, depth = u[inside], v[inside], depth[inside]
    shade = pattern(u + rng.uniform(-2, 2), v + rng.uniform(-2, 2))
    light = 1 - 0.08 * (u + v) / radius
    brightness = light * (1 - (1 - SHADE) * shade) * (1 - 0.5 * np.clip(RIM_PIXELS - depth, 0, 1))
    colour = np.clip(np.array(COLOURS[kind.colour]) + rng.uniform(-12, 12, size=3), 0, 255)
    is_part = PARTS[kind.category].outline(u, v, radius) < 0 if kind.category in PARTS else None
    return (brightness[..., None] * colour).astype(np.float32), np.clip(depth + 0.5, 0, 1).astype(np.float32), is_part
