"""The settings of the prompt laboratory."""

from dataclasses import dataclass

from clipseg.errors import ClipSegError, check_at_least


@dataclass
class LaboratoryKeys:
    """The benchmarks of the laboratory.

    Attributes:
        first_images: of each split; null: all.
        threshold_split: where presence chooses its threshold; auto: miniv, where there is none val.
    """

    first_images: int | None = None
    threshold_split: str = "auto"

    def check(self, benchmark: str) -> None:
        """Raise `ClipSegError` for no images, and for a threshold that is not chosen."""
        if self.first_images is not None:
            check_at_least("first_images", self.first_images, 1)
        if benchmark != "presence" and self.threshold_split != "auto":
            raise ClipSegError(f"threshold_split={self.threshold_split} means nothing to benchmark={benchmark}; leave it out")


@dataclass
class GridKeys:
    """The benchmark prompt_grid.

    Attributes:
        grid_weights: of the text, ascending from 0, the picture alone, to 1, the text alone; null: in tenths.
        grid_templates: each as prompt.templates, of several the mean embedding; null: plain and extended.
        grid_variants: of the picture, as prompt.visual_prompt; null: crop_blur_intensity10 and crop.
    """

    grid_weights: list[float] | None = None
    grid_templates: list[str] | None = None
    grid_variants: list[str] | None = None

    def check(self, benchmark: str) -> None:
        """Raise `ClipSegError` for no grid."""
        weights = self.grid_weights
        if weights is not None and not (
            weights == sorted(set(weights)) and len(weights) > 1 and 0 <= weights[0] <= weights[-1] <= 1
        ):
            raise ClipSegError(f"grid_weights={weights} must be two or more ascending weights within [0, 1]")
        for key in ("grid_templates", "grid_variants"):
            values = getattr(self, key)
            if values is not None and (not values or len(set(values)) < len(values)):
                raise ClipSegError(f"{key}={values} must name one or more, each once")
