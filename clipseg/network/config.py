"""All that decides a model but its trained weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from clipseg.errors import ClipSegError, check_one_of
from clipseg.network.decoder import HEADS

# Far above whatever was trained; they keep a damaged file or a typing error from filling the memory.
LARGEST_REDUCE_DIM, LARGEST_IMAGE_SIZE = 4096, 8192


@dataclass(kw_only=True)
class ModelConfig:
    """All that decides a model but its trained weights: the keys `model.…` of a config, and stored with every checkpoint.

    The defaults are the paper's. Hydra cannot override what is frozen, so this is not; nothing changes it later.

    Attributes:
        backbone: an open_clip ViT, or "mini", the bundled one.
        pretrained: an open_clip tag, a local weights file or folder, or None for random weights.
        extract_layers: the blocks whose output the decoder reads, ascending 0-based indices.
        reduce_dim: D, the decoder's width, a multiple of 4.
        head: "plain" or "refined".
        decoder: "clipseg", or "deconv", the baseline without attention.
        image_size: the square size in pixels to which images are squashed for training and evaluation.
        seed: of the decoder's initial weights, and of a random backbone's.
        image_tower: a ViT of timm that gives the activations in place of CLIP's own image tower, which then serves prompt
            images only: "vit_base_patch16_384" is the paper's ViTSeg.
        image_tower_pretrained: True for timm's own weights, a local file or folder with them, or False for random ones.
        image_prompts: what embeds prompt images beside an image_tower: "clip", or "image_tower", and then a random Linear that
            is never trained, as released. None: what train.py's protocol says, else CLIP.
    """

    backbone: str = "ViT-B-16-quickgelu"
    pretrained: str | None = "openai"
    extract_layers: tuple[int, ...] = (3, 7, 9)
    reduce_dim: int = 64
    head: str = "plain"
    decoder: str = "clipseg"
    image_size: int = 352
    seed: int = 0
    image_tower: str | None = None
    image_tower_pretrained: bool | str = True
    image_prompts: str | None = None

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(ModelConfig).items():
            value = _plain(getattr(self, name))
            if not _is_of(value, kind):
                raise ClipSegError(
                    f"{name}={value!r:.80} is of the wrong kind; expected {kind if get_args(kind) else kind.__name__}"
                )
            setattr(self, name, value)
        if self.image_tower is None and self.image_tower_pretrained is not True:
            raise ClipSegError(
                f"image_tower_pretrained={self.image_tower_pretrained!r} without an image_tower; name one, or leave it out "
                "(pretrained is for CLIP's weights)"
            )
        if self.image_tower is None and self.image_prompts == "image_tower":
            raise ClipSegError("image_prompts=image_tower without an image_tower; name one, or leave it out")
        check_one_of("image_prompts", self.image_prompts or "clip", ("clip", "image_tower"))
        check_one_of("head", self.head, tuple(HEADS))
        check_one_of("decoder", self.decoder, ("clipseg", "deconv"))
        if not 4 <= self.reduce_dim <= LARGEST_REDUCE_DIM or self.reduce_dim % 4:
            raise ClipSegError(
                f"reduce_dim={self.reduce_dim} cannot be shared by 4 attention heads; choose a multiple of 4, at most "
                f"{LARGEST_REDUCE_DIM}"
            )
        if not 1 <= self.image_size <= LARGEST_IMAGE_SIZE:
            raise ClipSegError(f"image_size={self.image_size}; expected a side of 1 to {LARGEST_IMAGE_SIZE} pixels")
        if not -(2**63) <= self.seed < 2**63:
            raise ClipSegError(f"seed={self.seed}; expected one of 64 bits")
        layers = list(self.extract_layers)
        if not layers or layers != sorted(set(layers)) or layers[0] < 0:
            raise ClipSegError(f"extract_layers={tuple(layers)} must be ascending 0-based block indices, each once")
        if self.decoder == "deconv" and (len(layers) != 1 or self.head != "plain"):
            raise ClipSegError(
                f"decoder=deconv takes one read-out and the plain head, not extract_layers={tuple(layers)}, head={self.head}"
            )


def _plain(value: Any) -> Any:
    """Return what a checkpoint can keep of a setting: numpy's values as Python's, a path as a text, a list as a tuple."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple, range)):
        return tuple(_plain(part) for part in value)
    return str(value) if isinstance(value, Path) else value


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of the kind that an annotation names; no bool is an int."""
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_of(part, get_args(kind)[0]) for part in value)
    return type(value) in (get_args(kind) or (kind,))
