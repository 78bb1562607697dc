"""The settings of the studies of the input's size."""

from dataclasses import dataclass

from clipseg.errors import ClipSegError


@dataclass
class SizeKeys:
    """The benchmarks image_size and linear_probe.

    Attributes:
        image_sizes: ascending sides in pixels; null: half to twice the native one, in whole patches.
    """

    image_sizes: list[int] | None = None

    def check(self, benchmark: str) -> None:
        """Raise `ClipSegError` for sizes that are not ascending."""
        sizes = self.image_sizes
        if sizes is not None and (not sizes or sizes[0] < 1 or sizes != sorted(set(sizes))):
            raise ClipSegError(f"image_sizes={sizes} must be ascending sides in pixels, each once, such as [224,352]")
