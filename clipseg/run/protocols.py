"""What each format of `train.py` reads, and what each benchmark of `evaluate.py` measures by: its layout, usual split and
templates, and which keys it takes. Names alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Format:
    """What a training reads.

    Attributes:
        layout: of the data's folder, one of `data/layout.py`.
        train_split: what `data.train_split=auto` means.
        val_split: what `data.val_split=auto` means.
    """

    layout: str
    train_split: str = "train"
    val_split: str = "val"


FORMATS: Mapping[str, Format] = {
    "phrasecut": Format(layout="phrasecut", val_split="miniv"),
    "folder": Format(layout="folder"),
    "coco20i": Format(layout="coco", train_split="train2014", val_split="val2014"),
    "lvis": Format(layout="lvis"),
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A benchmark's rules.

    Attributes:
        layout: of the data's folder, one of `data/layout.py`.
        split: what `split=auto` means.
        templates: what `prompt.templates=auto` means (facts Sec. 2: the bare phrase, "a photo of a {}." on Pascal-5i by text).
        needs: keys without a default.
        takes: keys that may be given; others would reach nothing, and are refused.
    """

    layout: str = "phrasecut"
    split: str = "test"
    templates: str = "plain"
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ("save_predictions", "intensity_tests")


_EPISODES = ("episodes", "save_predictions", "intensity_tests")
_LVIS = Protocol(layout="lvis", split="val")

PROTOCOLS: Mapping[str, Protocol] = {
    "phrasecut": Protocol(),
    "phrasecut_visual": Protocol(),
    "prompt_forms": Protocol(takes=()),
    "visual_prompts": Protocol(takes=()),
    "pascal_zeroshot": Protocol(layout="pascal", split="val", needs=("unseen",), takes=("background_threshold",)),
    "pascal5i_one_shot": Protocol(layout="pascal", split="val", needs=("fold",), takes=_EPISODES),
    "pascal5i_text": Protocol(layout="pascal", split="val", templates="fixed", needs=("fold",)),
    "coco20i_one_shot": Protocol(layout="coco", split="val2014", needs=("fold",), takes=_EPISODES),
    "coco20i_text": Protocol(layout="coco", split="val2014", templates="fixed", needs=("fold",), takes=_EPISODES),
    "lvis_affordances": _LVIS,
    "lvis_attributes": _LVIS,
    "lvis_meronymy": _LVIS,
    "folder": Protocol(layout="folder"),
    "image_size": Protocol(takes=("image_sizes",)),
    "linear_probe": Protocol(takes=("image_sizes",)),
}
OPTIONAL_KEYS = ("fold", "unseen", "episodes", "background_threshold", "save_predictions", "image_sizes", "intensity_tests")
EXAMPLES = {"fold": "fold=0", "unseen": "unseen=10"}
