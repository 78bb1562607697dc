"""Results of the questions about words: a row a question asked, and the figures made of them, with intervals over images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from clipseg.errors import ClipSegError
from clipseg.measure.results import SavedResults
from clipseg.measure.significance import CONFIDENCE, Interval, NotTestable

ALL, CONTROL = "all", "control/"
REPEATS = 2000
_LABELS = ("key", "image_key", "kind", "phrase", "asked")

Weights = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Line:
    """The figures of one kind of question, fractions, with 95% intervals by a bootstrap clustered by image."""

    kind: str
    rows: int
    images: int
    figures: Mapping[str, tuple[float, Interval | NotTestable]]


@dataclass(frozen=True, eq=False, kw_only=True)
class WordResults(SavedResults):
    """Rows of a study, sorted by key and kind, whatever order they are made in.

    Attributes:
        key: str `[N]`, the task that was asked about.
        image_key: str `[N]`, its image.
        kind: str `[N]`, of the question; controls are `control/<name>`.
        phrase: str `[N]`, as annotated.
        asked: str `[N]`, what stood in its place.
        values: name -> float `[N]`.
        threshold: of the masks.
        seconds: the study took.
        provenance: JSON-able.

    Raises:
        ClipSegError: no rows, or columns that do not belong together.
    """

    FILE = "words.npz"
    MADE_BY = "evaluate.py benchmark=presence, counterfactual or paraphrase"
    COLUMNS: ClassVar[tuple[str, ...]] = ()  # the names of `values`
    FIGURES: ClassVar[Mapping[str, str]] = {}  # name -> what it is, for people; the first stands in the chart

    key: NDArray[np.str_]
    image_key: NDArray[np.str_]
    kind: NDArray[np.str_]
    phrase: NDArray[np.str_]
    asked: NDArray[np.str_]
    values: Mapping[str, NDArray[np.float64]]
    threshold: float
    seconds: float
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        columns = {name: np.asarray(getattr(self, name)) for name in _LABELS} | dict(self.values)
        if set(self.values) != set(self.COLUMNS):
            raise ClipSegError(f"columns {', '.join(self.values)}; expected {', '.join(self.COLUMNS)}: measure again")
        if not len(self.key) or any(column.shape != self.key.shape for column in columns.values()):
            raise ClipSegError("no rows, or columns of different lengths; measure again")
        if not all(np.isfinite(self.values[name]).all() for name in self.COLUMNS):
            raise ClipSegError("values that are not finite; measure again")
        order = np.lexsort((self.kind, self.key))
        for name in _LABELS:
            object.__setattr__(self, name, columns[name][order])
        object.__setattr__(self, "values", {name: columns[name][order] for name in self.COLUMNS})

    def __len__(self) -> int:
        return len(self.key)

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, Any]], **others: Any) -> Self:
        """Make the columns of rows, each with the labels and `values` by name."""
        if not rows:
            raise ClipSegError("no question could be asked of this split; its phrases have no parts to exchange")
        labels: dict[str, Any] = {name: np.array([row[name] for row in rows]) for name in _LABELS}
        values = {name: np.array([row[name] for row in rows], dtype=np.float64) for name in cls.COLUMNS}
        return cls(**labels, values=values, **others)

    def figures(self, rows: NDArray[np.intp], image: NDArray[np.intp], weights: Weights) -> dict[str, NDArray[np.float64]]:
        """Return the figures of `FIGURES` over drawn sets of images, float64 `[R]` each.

        Args:
            rows: n of the N rows.
            image: `[n]`, the number of each one's image, below I.
            weights: `[R, I]`, how often each draw holds each image; of no draw with none.
        """
        return {name: weighted_mean(self.values[name][rows], image, weights) for name in self.FIGURES}

    def lines(self, *, seed: int = 0) -> list[Line]:
        """Return all kinds of questions together, but for controls, then each on its own, and the controls last."""
        kinds = sorted(set(self.kind.tolist()), key=lambda kind: (kind.startswith(CONTROL), kind))
        controls = np.char.startswith(self.kind, CONTROL)
        chosen = {ALL: ~controls} | {kind: self.kind == kind for kind in kinds}
        return [self._line(kind, np.flatnonzero(rows), seed) for kind, rows in chosen.items() if rows.any()]

    def _line(self, kind: str, rows: NDArray[np.intp], seed: int) -> Line:
        _, image = np.unique(self.image_key[rows], return_inverse=True)
        count = int(image.max()) + 1
        found = self.figures(rows, image, np.ones((1, count)))
        intervals: dict[str, Interval | NotTestable] = dict.fromkeys(found, NotTestable("1 image; at least 2 are needed"))
        if count > 1:
            weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=REPEATS).astype(np.float64)
            for name, draws in self.figures(rows, image, weights).items():
                low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
                intervals[name] = Interval(float(low), float(high), count)
        figures = {name: (float(values[0]), intervals[name]) for name, values in found.items()}
        return Line(kind=kind, rows=len(rows), images=count, figures=figures)

    def metrics(self) -> dict[str, float]:
        """Return what `metrics.json` holds: fractions of all by name, `<kind>/<name>` and `control/<name>/<figure>`."""
        flat: dict[str, float] = {}
        for line in self.lines():
            prefix = "" if line.kind == ALL else f"{line.kind}/"
            flat |= {prefix + name: value for name, (value, _) in line.figures.items()}
            flat[f"{prefix}samples"] = line.rows
        return flat | {"images": len(np.unique(self.image_key)), "threshold": self.threshold, "seconds": self.seconds}

    def arrays(self) -> dict[str, Any]:
        """Return the columns by name."""
        labels = {name: getattr(self, name) for name in _LABELS}
        return labels | dict(self.values) | {"threshold": np.float64(self.threshold), "seconds": np.float64(self.seconds)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]], provenance: Mapping[str, Any]) -> Self:
        """Return the results that `arrays` came of."""
        return cls(**cls.columns_of(arrays), provenance=provenance)

    @classmethod
    def columns_of(cls, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Return all arguments but the provenance."""
        labels = {name: arrays[name] for name in _LABELS}
        numbers = {name: arrays[name].item() for name in ("threshold", "seconds")}
        return labels | numbers | {"values": {name: arrays[name] for name in cls.COLUMNS}}


def weighted_mean(values: NDArray[Any], image: NDArray[np.intp], weights: Weights) -> NDArray[np.float64]:
    """Return means over drawn sets of images, float64 `[R]`; arguments as in `WordResults.figures`."""
    count = weights.shape[1]
    sums, sizes = np.bincount(image, weights=values, minlength=count), np.bincount(image, minlength=count)
    return (weights @ sums) / (weights @ sizes)
