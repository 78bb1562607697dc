"""How sure a model is of a phrase, and from which probability on it should be believed: numbers that a small set can tell."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clipseg.errors import ClipSegError


@dataclass(frozen=True)
class Calibration:
    """Of one phrase.

    Attributes:
        temperature: T > 0, by which logits are divided.
        threshold: in (0, 1), of probabilities after that.

    Raises:
        ClipSegError: values outside.
    """

    temperature: float
    threshold: float

    def __post_init__(self) -> None:
        if not (0 < self.temperature < math.inf and 0 < self.threshold < 1):
            raise ClipSegError(f"temperature {self.temperature}, threshold {self.threshold}; expected above 0, within (0, 1)")

    def __call__(self, probabilities: Tensor) -> Tensor:
        """Probabilities of any shape -> those of the logits divided by the temperature."""
        return probabilities.double().logit(eps=1e-12).div(self.temperature).sigmoid().to(probabilities.dtype)


def read_calibration(content: Any, where: Any) -> dict[str, Calibration]:
    """Return what a release keeps under `calibration`: phrase -> its numbers.

    Raises:
        ClipSegError: something else.
    """
    try:
        if not isinstance(content, Mapping):
            raise TypeError(f"a {type(content).__name__}")
        return {str(phrase): Calibration(float(v["temperature"]), float(v["threshold"])) for phrase, v in content.items()}
    except (KeyError, TypeError, ValueError, ClipSegError) as error:
        raise ClipSegError(f"{where}: calibration is damaged ({error}); fetch the file again") from error
