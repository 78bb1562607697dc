"""The outlines, named parts and surface patterns of the things in the bundled mini data's scenes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]

# Outlines: the distance in pixels to the border, negative inside, at (x, y) in a frame where the thing stands upright.
Shape = Callable[[Field, Field, float], Field]


def _rectangle(width: float, height: float) -> Shape:
    return lambda x, y, radius: np.maximum(np.abs(x) - width * radius, np.abs(y) - height * radius)


def _ellipse(width: float, height: float) -> Shape:
    return lambda x, y, radius: (np.hypot(x / width, y / height) - radius) * min(width, height)


def _joined(*shapes: Shape) -> Shape:
    return lambda x, y, radius: np.minimum.reduce([shape(x, y, radius) for shape in shapes])


def _moved(shape: Shape, across: float, down: float) -> Shape:
    return lambda x, y, radius: shape(x - across * radius, y - down * radius, radius)


def _waving(x: Field, y: Field, radius: float) -> Field:
    return _rectangle(0.85, 0.45)(x, y - 0.12 * radius * np.sin(x * (3.4 / radius)), radius)


def _pickets(x: Field, y: Field, radius: float) -> Field:
    zigzag = np.abs((x / (0.4 * radius) + 0.5) % 1 - 0.5) * 0.7 * radius
    return np.maximum(_rectangle(1.0, 0.75)(x, y, radius), (zigzag - y - 0.75 * radius) * 0.6)


def _diamond(x: Field, y: Field, radius: float) -> Field:
    return (np.abs(x) / 0.65 + np.abs(y) - 1.05 * radius) * 0.55


def _lobes(x: Field, y: Field, radius: float) -> Field:
    circles = ((-0.55, 0.18, 0.42), (-0.18, -0.2, 0.48), (0.32, -0.12, 0.46), (0.6, 0.22, 0.38), (0.0, 0.25, 0.46))
    return np.minimum.reduce([np.hypot(x - cx * radius, y - cy * radius) - r * radius for cx, cy, r in circles])


class Part(NamedTuple):
    """A part of a thing that has a name of its own."""

    name: str
    outline: Shape


PARTS: dict[str, Part] = {
    "flag": Part("pole", _moved(_rectangle(0.12, 1.0), -0.8, 0.0)),
    "ladybird": Part("head", _moved(_ellipse(0.34, 0.34), -0.65, 0.0)),
}

CATEGORIES: dict[str, Shape] = {
    "flag": _joined(_moved(_waving, 0.1, -0.45), PARTS["flag"].outline),
    "ladybird": _joined(_moved(_ellipse(0.75, 0.6), 0.2, 0.0), PARTS["ladybird"].outline),
    "board": _rectangle(0.8, 0.8),
    "wall": _rectangle(1.05, 0.38),
    "target": _ellipse(0.9, 0.9),
    "fence": _pickets,
    "kite": _diamond,
    "cloud": _lobes,
}


# Surface patterns: 0 where the colour is plain to 1 where it is darkest, at the same coordinates. One patch shows a period.
PERIOD = 8.0


def _stripes(x: Field, y: Field) -> Field:
    return np.clip(0.5 + 1.6 * np.sin(y * (2 * np.pi / PERIOD)), 0, 1)


def _dots(x: Field, y: Field) -> Field:
    row = np.floor(y / PERIOD)
    return np.clip(3.1 - np.hypot((x + row % 2 * PERIOD / 2) % PERIOD - PERIOD / 2, y % PERIOD - PERIOD / 2), 0, 1)


def _chequers(x: Field, y: Field) -> Field:
    return np.clip(0.5 + 2.5 * np.sin(np.pi * x / 4.5) * np.sin(np.pi * y / 4.5), 0, 1)


def _plain(x: Field, y: Field) -> Field:
    return np.zeros_like(x)


PATTERNS: dict[str, Callable[[Field, Field], Field]] = {
    "plain": _plain,
    "striped": _stripes,
    "dotted": _dots,
    "chequered": _chequers,
}
