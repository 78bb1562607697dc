"""The effect of showing an object to CLIP: its name's probability per object and variant on disk, and the figures made of it.

A results folder holds `prompt_deltas.npz` (all of `PromptDeltas`; enough for every table, test and chart without model or
images), `metrics.json` (flat, name -> number) and `provenance.json`. Needs no torch. Source: the paper's Tab. 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg.errors import ClipSegError
from clipseg.measure.paper import PROMPT_DELTAS
from clipseg.measure.results import SavedResults
from clipseg.measure.significance import NotTestable, Outcome, paired_t
from clipseg.measure.statistics.corrections import holm_outcomes, rate_outcomes
from clipseg.measure.tables import monospaced

COLUMNS = ("variant", "mean, points", "95% interval", "t", "p", "p, Holm", "p, B.-H.", "objects", "paper")
_COLUMNS = ("key", "image_key", "name", "choices", "original", "engineered")


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One variant's: mean of ΔP(object) in points, the paired t-test against no change, its corrected p, the paper's mean."""

    variant: str
    delta: float
    test: Outcome
    p_holm: float | None
    p_rate: float | None
    paper: float | None


@dataclass(frozen=True, eq=False)
class PromptDeltas(SavedResults):
    """The probabilities of one study, a row an object; always sorted by key, whatever order it is made in.

    Attributes:
        key: str `[N]`, unique and the same in every run.
        image_key: str `[N]`, the image the object is in.
        name: str `[N]`, the object's.
        choices: int `[N]`, among how many names the probability is.
        original: float `[N]`, the probability of the object's name given the image as it is.
        variants: V names.
        engineered: float `[N, V]`, the same with the object shown by each variant.
        seconds: the study took.
        provenance: JSON-able.

    Raises:
        ClipSegError: no objects, a key twice, or probabilities that are none.
    """

    FILE = "prompt_deltas.npz"
    MADE_BY = "evaluate.py benchmark=visual_prompts"

    key: NDArray[np.str_]
    image_key: NDArray[np.str_]
    name: NDArray[np.str_]
    choices: NDArray[np.int64]
    original: NDArray[np.float64]
    variants: tuple[str, ...]
    engineered: NDArray[np.float64]
    seconds: float
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        rows = len(self.key)
        if rows == 0:
            raise ClipSegError("no object to study: none on an image with at least three names has a mask")
        if not 0 <= self.seconds < float("inf") or not isinstance(self.provenance, Mapping):
            raise ClipSegError(f"{self.seconds} seconds, provenance {type(self.provenance).__name__}; expected both")
        kinds = {name: getattr(self, name).dtype.kind for name in _COLUMNS}
        if "".join(kinds.values()) != "UUUiff" or not all(isinstance(name, str) for name in self.variants):
            raise ClipSegError(f"columns of kinds {kinds}; expected texts, whole numbers and probabilities")
        if self.engineered.shape != (rows, len(self.variants)) or any(
            column.shape != (rows,) for column in (self.key, self.image_key, self.name, self.choices, self.original)
        ):
            raise ClipSegError(f"columns of different lengths; expected {rows} objects and {len(self.variants)} variants")
        if not all(((column >= 0) & (column <= 1)).all() for column in (self.original, self.engineered)):
            raise ClipSegError("a probability outside [0, 1] or not a number; are the backbone's weights whole?")
        self._sort_rows(*_COLUMNS)

    def __len__(self) -> int:
        return len(self.key)

    @property
    def deltas(self) -> NDArray[np.float64]:
        """ΔP(object) in points, `[N, V]`."""
        return 100 * (self.engineered - self.original[:, None])

    def effects(self) -> list[Effect]:
        """Each variant's effect; Holm's correction, and Benjamini and Hochberg's of the rate, are over the variants."""
        tests = [paired_t(100 * self.engineered[:, column], 100 * self.original) for column in range(len(self.variants))]
        means = self.deltas.mean(axis=0).tolist()
        rows = zip(self.variants, means, tests, holm_outcomes(tests), rate_outcomes(tests), strict=True)
        return [
            Effect(variant=variant, delta=delta, test=test, p_holm=p_holm, p_rate=p_rate, paper=PROMPT_DELTAS.get(variant))
            for variant, delta, test, p_holm, p_rate in rows
        ]

    def metrics(self) -> dict[str, float]:
        """Return `metrics.json`: `delta/<variant>` in points, with `_low`, `_high`, `_p` and `_p_holm` where testable."""
        figures: dict[str, float] = {}
        for effect in self.effects():
            figures[f"delta/{effect.variant}"] = effect.delta
            if not isinstance(effect.test, NotTestable) and effect.p_holm is not None:
                values = {"low": effect.test.low, "high": effect.test.high, "p": effect.test.p_value, "p_holm": effect.p_holm}
                figures |= {f"delta/{effect.variant}_{name}": value for name, value in values.items()}
        images = len(np.unique(self.image_key))
        original = float(self.original.mean())
        return figures | {"probability_original": original, "samples": len(self), "images": images, "seconds": self.seconds}

    def arrays(self) -> dict[str, Any]:
        """Return what `prompt_deltas.npz` holds beside the provenance."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _COLUMNS}
        return arrays | {"variants": np.array(self.variants), "seconds": np.float64(self.seconds)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]], provenance: Mapping[str, Any]) -> "PromptDeltas":
        """The inverse of `arrays`."""
        columns: dict[str, Any] = {name: arrays[name] for name in _COLUMNS}
        variants, seconds = tuple(arrays["variants"].tolist()), arrays["seconds"].item()
        return cls(**columns, variants=variants, seconds=seconds, provenance=provenance)


def table_cells(results: PromptDeltas) -> list[tuple[str, ...]]:
    """The study as text, a row a variant, in the order of `COLUMNS`."""
    rows: list[tuple[str, ...]] = []
    for effect in results.effects():
        paper = "" if effect.paper is None else f"{effect.paper:.2f}"
        test = effect.test
        if isinstance(test, NotTestable) or effect.p_holm is None:
            cells = (str(test), "", "", "", "")
        else:
            cells = (
                f"[{test.low:.2f}, {test.high:.2f}]",
                f"{test.statistic:.2f}",
                f"{test.p_value:.2g}",
                f"{effect.p_holm:.2g}",
                f"{effect.p_rate:.2g}",
            )
        rows.append((effect.variant, f"{effect.delta:.2f}", *cells, str(len(results)), paper))
    return rows


def format_deltas(results: PromptDeltas) -> str:
    """A plain monospaced table of the study."""
    figures = results.metrics()
    footer = f"{len(results)} objects in {figures['images']} images, {results.seconds:.1f} s"
    return "\n".join([monospaced([COLUMNS, *table_cells(results)]), footer])
