"""One photo, phrase by phrase: IoU, Dice and the intensity tests of the predicted and the true mask, and what is shown of them.

Numbers and pictures come in, a text for the terminal, plain values for JSON, a figure and a page leave.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from clipseg.errors import printable
from clipseg.files import atomic_write
from clipseg.measure.intensity import ALPHA, Difference, IntensityTests, Region
from clipseg.measure.intensity_columns import FAMILIES, FamilyRejections, IntensityColumns
from clipseg.measure.page import write_page
from clipseg.measure.significance import Outcome, TTest, to_json
from clipseg.measure.statistics.corrections import holm_outcomes

_POPULATIONS = {
    "inside": "Welch T Test for two sets of pixel populations both inside of the segmented object",
    "across": "Welch T Test for two sets of pixel populations inside and outside of the segmented object",
}


@dataclass(frozen=True, kw_only=True)
class CaseSettings:
    """How photos are studied.

    Attributes:
        weights: what the model is called.
        threshold: pixels with a probability above it are predicted.
        region, difference, seed: of the intensity tests (`measure/intensity.py`).
    """

    weights: str
    threshold: float = 0.3
    region: Region = "mask"
    difference: Difference = "absolute"
    seed: int = 0

    @property
    def method(self) -> str:
        """How the tests were made, in one line."""
        region = "the mask" if self.region == "mask" else "the mask's bounding box"
        return (
            f"H0: equal means of the {self.difference} differences of gray value between neighbouring pixels; object: {region}"
            f"; α = {ALPHA}, corrected by Holm over the phrases; seed {self.seed}"
        )


@dataclass(frozen=True, kw_only=True)
class PhraseCase:
    """One phrase of a photo; pixels are counted at the photo's own size."""

    key: str
    phrase: str
    intersection: int
    union: int
    predicted: IntensityTests
    truth: IntensityTests

    @property
    def iou(self) -> float | None:
        """In percent; None where prediction and truth do not meet ("No Overlap"). Both empty: 100."""
        if self.union == 0:
            return 100.0
        return 100 * self.intersection / self.union if self.intersection else None

    @property
    def dice(self) -> float | None:
        """As `iou`."""
        if self.union == 0:
            return 100.0
        return 200 * self.intersection / (self.union + self.intersection) if self.intersection else None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One photo with its phrases, and how it was studied; `image_key` as the data set has it."""

    image_key: str
    split: str
    settings: CaseSettings
    phrases: tuple[PhraseCase, ...]

    @property
    def mean_iou(self) -> float:
        """Over phrases, in percent; No Overlap counts 0."""
        return float(np.mean([phrase.iou or 0.0 for phrase in self.phrases]))

    @property
    def mean_dice(self) -> float:
        """Over phrases, in percent; No Overlap counts 0."""
        return float(np.mean([phrase.dice or 0.0 for phrase in self.phrases]))


def rejections(cases: Sequence[Case]) -> list[FamilyRejections]:
    """Count how often H0 is rejected over all phrases of all photos, by family of tests."""
    return IntensityColumns.of([(phrase.truth, phrase.predicted) for case in cases for phrase in case.phrases]).rejections()


def _adjusted(case: Case) -> list[dict[tuple[str, str], tuple[Outcome, float | None]]]:
    """Return for each phrase the test of every family with its p-value, adjusted by Holm over the phrases."""
    tests: list[dict[tuple[str, str], tuple[Outcome, float | None]]] = [{} for _ in case.phrases]
    for mask, test in FAMILIES:
        outcomes = [getattr(getattr(phrase, mask), test) for phrase in case.phrases]
        for of_phrase, outcome, p in zip(tests, outcomes, holm_outcomes(outcomes), strict=True):
            of_phrase[mask, test] = outcome, p
    return tests


def format_case(case: Case) -> str:
    """The photo as text: IoU and Dice a phrase and their means, then both tests a phrase, for both masks."""
    lines = [f"image {case.image_key} of {case.split}, threshold {case.settings.threshold:g}"]
    lines += [f"text prompts : {[printable(phrase.phrase) for phrase in case.phrases]}", ""]
    lines += [
        f"Phrase: {printable(phrase.phrase)}\tIOU = {percent(phrase.iou)}\tDice Coefficient = {percent(phrase.dice)}"
        for phrase in case.phrases
    ]
    lines += [f"Mean IOU: {case.mean_iou:.2f}", f"Mean Dice Coefficient: {case.mean_dice:.2f}", "", case.settings.method]
    for phrase, tests in zip(case.phrases, _adjusted(case), strict=True):
        lines += ["", f"Phrase : {printable(phrase.phrase)}"]
        for (mask, test), (outcome, p) in tests.items():
            title = "predicted" if mask == "predicted" else "true"
            judged = "" if p is None else f"; Holm p = {p:.3g}: H0 {'rejected' if p < ALPHA else 'kept'}"
            lines.append(f"  {title} mask, {_POPULATIONS[test]}: {outcome}{judged}")
    return "\n".join([*lines, "", format_rejections([case])])


def format_rejections(cases: Sequence[Case]) -> str:
    """Return how often H0 is rejected, a line for each family of tests."""
    return "\n".join(f"{family.name}: {family.count}" for family in rejections(cases))


def percent(value: float | None) -> str:
    """A percentage, or "No Overlap"."""
    return "No Overlap" if value is None else f"{value:.2f}"


def case_to_json(case: Case) -> dict[str, Any]:
    """The photo as plain values: percentages (null for No Overlap), and the tests with adjusted p-values."""
    fields = {"image_key": case.image_key, "split": case.split, **asdict(case.settings), "alpha": ALPHA}
    fields |= {"mean_iou": case.mean_iou, "mean_dice": case.mean_dice}
    phrases = []
    for phrase, tests in zip(case.phrases, _adjusted(case), strict=True):
        entry: dict[str, Any] = {name: getattr(phrase, name) for name in ("key", "phrase", "iou", "dice")}
        for (mask, test), (outcome, p) in tests.items():
            adjusted = {} if p is None else {"p_holm": p, "rejected": p < ALPHA}
            entry.setdefault(mask, {})[test] = to_json(outcome) | adjusted
        phrases.append(entry)
    return fields | {"phrases": phrases}


def write_figure(path: Path, case: Case, strips: Sequence[bytes]) -> None:
    """Write the figure: photo, truth, heat map and cut, a row for each phrase; `strips` are of `figures.panel`."""
    pictures = [Image.open(io.BytesIO(strip)) for strip in strips]
    height = max(picture.height / picture.width for picture in pictures)
    figure = Figure(figsize=(9, (9 * height + 0.4) * len(strips)), dpi=100, layout="constrained")
    for axes, phrase, picture in zip(figure.subplots(len(strips), squeeze=False)[:, 0], case.phrases, pictures, strict=True):
        # A phrase may hold dollar signs, which are no formula.
        axes.set_title(f"{printable(phrase.phrase)[:80]}: IoU {percent(phrase.iou)}", fontsize=10, parse_math=False)
        axes.set_axis_off()
        axes.imshow(np.asarray(picture))
    with atomic_write(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a script that the font lacks shows as boxes
        figure.savefig(file, format="png")


def write_case_page(path: Path, case: Case, strips: Sequence[bytes]) -> None:
    """Write the page: one self-contained file with the pictures, the figures and every test."""
    phrases = [
        {
            "phrase": phrase.phrase,
            "key": phrase.key,
            "iou": percent(phrase.iou),
            "dice": percent(phrase.dice),
            "strip": strip,
            "tests": [_cells(FAMILIES[family], *test) for family, test in tests.items()],
        }
        for phrase, tests, strip in zip(case.phrases, _adjusted(case), strips, strict=True)
    ]
    write_page(
        path,
        "studies/case_study/page.html.j2",
        title=f"Image {case.image_key} of {case.split}",
        case=case,
        phrases=phrases,
        rejections=rejections([case]),
    )


def _cells(title: str, outcome: Outcome, adjusted: float | None) -> list[str]:
    if not isinstance(outcome, TTest) or adjusted is None:
        return [title, str(outcome)]
    return [
        title,
        f"{outcome.statistic:.2f}",
        f"{outcome.degrees_of_freedom:.1f}",
        f"{outcome.p_value:.3g}",
        f"{adjusted:.3g}",
        f"{outcome.difference:.2f} [{outcome.low:.2f}, {outcome.high:.2f}]",
        f"{outcome.effect_size:.2f}",
        "rejected" if adjusted < ALPHA else "kept",
    ]
