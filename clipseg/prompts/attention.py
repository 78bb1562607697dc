"""The variants of Tab. 2 that leave the picture as it is and hold CLIP's attention to the object instead, as plain data.

Named as the rows of the table, in the form that was released (which the published figures come from), where the images of a
batch get one another's masks; with `_scores_times_mask`, the same with their own; and with `_minus_infinity`, as the paper
describes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from clipseg.errors import ClipSegError
from clipseg.prompts.visual import VARIANTS


@dataclass(frozen=True)
class AttentionMasking:
    """Which attention is held to the object, and by what means.

    Attributes:
        layers: "last" (layer 11 of ViT-B/16) or "all".
        rows: the attention of the class token alone ("cls"), or of "all" tokens.
        how: "scores_times_mask" sets the scores of hidden patches to 0; "mixed_up" does so by the masks of other images of the
            batch; "minus_infinity" takes all attention from hidden patches.
    """

    layers: str
    rows: str
    how: str


_ROWS_OF_TABLE = {
    "clip_mask_cls_last": ("last", "cls"),
    "clip_mask_cls_all": ("all", "cls"),
    "clip_mask_tokens_all": ("all", "all"),
}
ATTENTION_VARIANTS: Mapping[str, AttentionMasking] = {
    f"{name}{suffix}": AttentionMasking(*choice, how)
    for suffix, how in (("", "mixed_up"), ("_scores_times_mask", "scores_times_mask"), ("_minus_infinity", "minus_infinity"))
    for name, choice in _ROWS_OF_TABLE.items()
}

# What rows of Tab. 2 are computed as, where that is not what they are called: as released one is not cropped, and the masks of
# a batch are mixed up; by protocol "paper" each image has its own mask.
_COMPUTED_AS = {
    "released": {"crop_intensity10": "blur_intensity10"},
    "paper": {name: f"{name}_scores_times_mask" for name in _ROWS_OF_TABLE},
}

ORIGINAL = "original"  # the image as it is, to which all others are compared
ALL_VARIANTS: tuple[str, ...] = (*VARIANTS, *ATTENTION_VARIANTS)


def computed_as(row: str, protocol: str) -> str:
    """The variant that a row of Tab. 2 shows CLIP by a protocol."""
    return _COMPUTED_AS[protocol].get(row, row)


def choose_variants(choice: str) -> tuple[str, ...]:
    """Name the variants that the study compares to the original: one by its name, or "all", the rows of Tab. 2.

    Raises:
        ClipSegError: there is no such variant.
    """
    names = tuple(name for name in ALL_VARIANTS if name != ORIGINAL)
    if choice not in ("all", *names):
        raise ClipSegError(f"variant={choice!r} is unknown; expected all or one of {', '.join(names)}")
    rows = tuple(name for name in names if not name.startswith("highlight"))
    return rows if choice == "all" else (choice,)
