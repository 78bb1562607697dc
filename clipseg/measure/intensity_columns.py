"""The intensity tests of all samples of an evaluation, as columns of numbers, and how often they reject.

Four tests a sample: of the true and of the predicted mask, each inside (1, the control) and across (2); see `intensity.py`.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg.errors import ClipSegError
from clipseg.measure.intensity import ALPHA, FEWEST, IntensityTests, gray_values, intensity_tests
from clipseg.measure.significance import Outcome, Rejections, TTest
from clipseg.measure.statistics.corrections import holm

# By mask and test: what a family of tests is called.
FAMILIES = {
    ("truth", "inside"): "true mask, inside against inside (control)",
    ("truth", "across"): "true mask, inside against across",
    ("predicted", "inside"): "predicted mask, inside against inside (control)",
    ("predicted", "across"): "predicted mask, inside against across",
}
FIGURES = ("statistic", "degrees_of_freedom", "p_value", "difference", "effect_size")
_TESTED = -1


@dataclass(frozen=True, eq=False)
class IntensityColumns:
    """The tests of N samples.

    Attributes:
        values: float64 `[N, 4, 5]`, `FIGURES` of the tests in the order of `FAMILIES`; 0 where a test could not be done.
        reason: int `[N, 4]`, a place in `reasons`; -1 where the test was done.
        reasons: str `[R]`, why a test could not be done.

    Raises:
        ClipSegError: columns that do not fit together, or values that no test gives.
    """

    values: NDArray[np.float64]
    reason: NDArray[np.int32]
    reasons: NDArray[np.str_]

    def __post_init__(self) -> None:
        rows = len(self.values)
        shapes = (self.values.shape, self.reason.shape, self.reasons.shape)
        kinds = self.values.dtype.kind + self.reason.dtype.kind + self.reasons.dtype.kind
        if shapes != ((rows, len(FAMILIES), len(FIGURES)), (rows, len(FAMILIES)), (len(self.reasons),)) or kinds != "fiU":
            raise ClipSegError(f"intensity tests of shapes {shapes} and kinds {kinds}")
        p = self.values[:, :, FIGURES.index("p_value")]
        if not (np.isfinite(self.values).all() and (p >= 0).all() and (p <= 1).all()):
            raise ClipSegError("intensity tests with p outside [0, 1], or with values that are not finite")
        if self.reason.size and not (self.reason.min() >= _TESTED and self.reason.max() < len(self.reasons)):
            raise ClipSegError("intensity tests without a result or a reason")

    def __len__(self) -> int:
        return len(self.values)

    @staticmethod
    def of(tests: Sequence[tuple[IntensityTests, IntensityTests]]) -> "IntensityColumns":
        """The columns of samples whose true and predicted masks were tested."""
        outcomes = [[truth.inside, truth.across, mask.inside, mask.across] for truth, mask in tests]
        values = [[_figures(outcome) for outcome in row] for row in outcomes]
        reasons = sorted({outcome.reason for row in outcomes for outcome in row if not isinstance(outcome, TTest)})
        places = {reason: place for place, reason in enumerate(reasons)}
        reason = [[_TESTED if isinstance(outcome, TTest) else places[outcome.reason] for outcome in row] for row in outcomes]
        return IntensityColumns(
            values=np.array(values, dtype=np.float64).reshape(-1, len(FAMILIES), len(FIGURES)),
            reason=np.array(reason, dtype=np.int32).reshape(-1, len(FAMILIES)),
            reasons=np.array(reasons, dtype=np.str_),
        )

    @classmethod
    def measured(
        cls, images: Sequence[NDArray[np.uint8]], index: Sequence[int], masks: Sequence[Sequence[NDArray[Any]]]
    ) -> "IntensityColumns":
        """Test the true and the predicted mask of N samples, bool or 0 and 1, on RGB photos `[H, W, 3]` that `index` names."""
        gray = [gray_values(image) for image in images]
        pairs = ((gray[place], truth, found) for place, (truth, found) in zip(index, masks, strict=True))
        return cls.of([(intensity_tests(g, truth, seed=0), intensity_tests(g, found, seed=0)) for g, truth, found in pairs])

    def take(self, rows: NDArray[Any]) -> "IntensityColumns":
        """Some of the samples, in the order of `rows`."""
        return IntensityColumns(values=self.values[rows], reason=self.reason[rows], reasons=self.reasons)

    @staticmethod
    def concatenate(parts: Sequence["IntensityColumns"]) -> "IntensityColumns":
        """The samples of all parts, one after the other."""
        reasons, places = np.unique(np.concatenate([part.reasons for part in parts]), return_inverse=True)
        moved, first = [], 0
        for part in parts:
            # Place -1 reads the -1 put behind.
            own = np.append(places[first : first + len(part.reasons)], _TESTED).astype(np.int32)
            moved.append(own[part.reason])
            first += len(part.reasons)
        return IntensityColumns(
            values=np.concatenate([part.values for part in parts]), reason=np.concatenate(moved), reasons=reasons
        )

    def rejections(self) -> list["FamilyRejections"]:
        """How often each family of tests rejects H0, by Holm's correction over all its samples."""
        families = []
        for place, name in enumerate(FAMILIES.values()):
            tested = self.reason[:, place] == _TESTED
            p = self.values[tested, place, FIGURES.index("p_value")]
            rejected = int((np.array(holm(p.tolist())) < ALPHA).sum())
            count = Rejections(
                tested=len(p),
                not_testable=len(self) - len(p),
                rejected_uncorrected=int((p < ALPHA).sum()),
                rejected=rejected,
            )
            kinds = Counter(_kind(str(self.reasons[reason])) for reason in self.reason[~tested, place])
            families.append(FamilyRejections(name=name, count=count, reasons=dict(kinds.most_common())))
        return families


@dataclass(frozen=True, kw_only=True)
class FamilyRejections:
    """One family of tests over a data set: how many reject, and why others could not be done (reason -> samples)."""

    name: str
    count: Rejections
    reasons: Mapping[str, int]


def _figures(outcome: Outcome) -> list[float]:
    return [getattr(outcome, name) for name in FIGURES] if isinstance(outcome, TTest) else [0.0] * len(FIGURES)


def _kind(reason: str) -> str:
    """A reason without its own numbers, so that reasons can be counted."""
    few = re.sub(r"^\d+ (disjoint pairs .*); .*", rf"fewer than {FEWEST} \1", reason)
    return re.sub(r"(constant) \(.*\)", r"\1", few)
