"""The settings of generalised zero-shot segmentation."""

from dataclasses import dataclass

from clipseg.data.classes import unseen_classes
from clipseg.errors import ClipSegError, check_probability


@dataclass
class ZeroShotKeys:
    """The benchmark pascal_zeroshot.

    Attributes:
        unseen: how many classes were left out of training: 2, 4, 6, 8 or 10.
        background_threshold: background is where no class is above it; null: the prompt "background", times 3, as released.
    """

    unseen: int | None = None
    background_threshold: float | None = None

    def check(self, benchmark: str) -> None:
        """Raise `ClipSegError` where a value is missing or cannot be."""
        if self.unseen is None:
            raise ClipSegError(f"benchmark={benchmark} needs unseen; add unseen=10 to the command")
        unseen_classes(self.unseen)
        if self.background_threshold is not None:
            check_probability("background_threshold", self.background_threshold)
