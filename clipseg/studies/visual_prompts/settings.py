"""The settings of the study of visual prompts."""

from dataclasses import dataclass

from clipseg.prompts.attention import choose_variants


@dataclass
class VisualPromptKeys:
    """The benchmark visual_prompts.

    Attributes:
        variant: what is compared to the original, a name as in prompt.visual_prompt, or all.
        image_size: at which CLIP sees the objects, in pixels; null, as released: its native one, 224 for the paper's, and 352
            for attention masks.
    """

    variant: str = "all"
    image_size: int | None = None

    def check(self, benchmark: str) -> None:
        """Raise `ClipSegError` for a variant that does not exist."""
        choose_variants(self.variant)
