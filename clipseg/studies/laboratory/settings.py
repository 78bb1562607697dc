"""The settings of the prompt laboratory."""

from dataclasses import dataclass

from clipseg.errors import check_at_least


@dataclass
class FirstImages:
    """The benchmarks of the laboratory.

    Attributes:
        first_images: of each split; null: all.
    """

    first_images: int | None = None

    def check(self, benchmark: str) -> None:
        """Raise `ClipSegError` for no images."""
        if self.first_images is not None:
            check_at_least("first_images", self.first_images, 1)


@dataclass
class PresenceKeys:
    """The benchmark presence.

    Attributes:
        threshold_split: on which the threshold of presence is chosen; auto: miniv, where there is none val.
    """

    threshold_split: str = "auto"

    def check(self, benchmark: str) -> None:
        """Take all values; which splits there are the data tell."""
