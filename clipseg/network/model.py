"""CLIPSeg: a frozen CLIP, a small decoder, and a prompt that tells the decoder what to segment (paper Fig. 2).

An image passes CLIP once and leaves its activations after the blocks named by `extract_layers`. A prompt - a text, an
engineered image, or a mix of both - becomes one CLIP embedding, the condition. The decoder turns activations and condition
into one logit a pixel.
"""

import copy
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipseg.errors import ClipSegError
from clipseg.network.backbone import Activations, CLIPBackbone, check_dtype, compiled
from clipseg.network.clip_weights import load_backbone
from clipseg.network.config import ModelConfig
from clipseg.network.cpu_kernels import choose_precision
from clipseg.network.decoder import RandomHead, build_decoder
from clipseg.network.tensor_files import plain_defaults

if TYPE_CHECKING:
    from clipseg.network.calibration import Calibration

PROMPTS_AT_ONCE = 8  # decoded without gradients: memory does not grow with the number of prompts but for their maps


class CLIPSeg(nn.Module):
    """A backbone and a decoder, and how they meet.

    `calibration` holds the temperature and the threshold of phrases that it was fine-tuned for (`clipseg finetune`).

    Shapes: B images, N prompts, E embedding width, H x W pixels, both multiples of the patch size.
    """

    def __init__(self, backbone: CLIPBackbone, config: ModelConfig):
        super().__init__()
        if config.extract_layers[-1] >= backbone.depth:
            raise ClipSegError(f"extract_layers={config.extract_layers}: {backbone.name} has blocks 0 to {backbone.depth - 1}")
        _check_image_size(config.image_size, backbone)
        self.config = config
        self.calibration: dict[str, Calibration] = {}
        self.backbone = backbone
        self.decoder = build_decoder(
            config.decoder,
            width=backbone.width,
            embed_dim=backbone.embed_dim,
            patch_size=backbone.patch_size,
            depth=len(config.extract_layers),
            reduce_dim=config.reduce_dim,
            head=config.head,
            seed=config.seed,
        )
        self.prompt_head: RandomHead | None = None
        if config.image_prompts == "image_tower":
            # Kept with the decoder, and so in every file that holds one.
            self.prompt_head = self.decoder.prompt_head = RandomHead(backbone.width, backbone.embed_dim, seed=config.seed)

    def at_size(self, image_size: int) -> "CLIPSeg":
        """This model, its weights shared and not copied, with images squashed to another square size in pixels.

        Raises:
            ClipSegError: the patch size does not divide it.
        """
        resized = copy.copy(self)
        resized.config = replace(self.config, image_size=image_size)
        _check_image_size(resized.config.image_size, self.backbone)
        return resized

    def at_precision(self, precision: str) -> "CLIPSeg":
        """This model, its weights shared and not copied, with the frozen part's products in "float32" or "bf16".

        Sums, norms and softmax stay in float32, and so does the decoder. On a device without bfloat16 a warning says that it
        is float32.

        Raises:
            ClipSegError: another precision.
        """
        changed, backbone = copy.copy(self), copy.copy(self.backbone)
        backbone.precision = choose_precision(precision, next(self.decoder.parameters()).device)
        changed._modules = {**self._modules, "backbone": backbone}
        return changed

    def compile_parts(self) -> None:
        """Have torch.compile fuse the image tower's blocks and the decoder; for batches of one shape, as training's are."""
        self.backbone.compile_blocks()
        self.decoder = compiled(self.decoder, next(self.decoder.parameters()).device)

    def forward(self, images: Tensor, cond: Tensor | Sequence[str]) -> Tensor:
        """One prompt an image: normalised float `[B, 3, H, W]` and a `[B, E]` condition or B texts -> logits `[B, H, W]`."""
        condition = cond if isinstance(cond, Tensor) else self.encode_text(cond)
        if isinstance(images, Tensor) and condition.ndim and len(condition) != len(images):
            raise ClipSegError(
                f"{len(condition)} conditions for {len(images)} images; `decode` takes any number of prompts an image"
            )
        return self.decode(self.activations(images), condition)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """N texts -> CLIP's embeddings, float `[N, E]`, not normalised."""
        return self.backbone.encode_text(texts)

    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised pixels `[N, 3, H, W]` -> embeddings, float `[N, E]`, not normalised; the whole of a tower runs, CLIP's or
        the one that `config.image_prompts` names."""
        tower: Any = self.backbone
        return tower.encode_image(images) if self.prompt_head is None else self.prompt_head(tower.class_tokens(images))

    def activations(self, images: Tensor) -> Activations:
        """Normalised pixels `[B, 3, H, W]` -> a `[B, 1 + h*w, C]` a read-out, shallow to deep, CLS first."""
        return self.backbone.activations(images, self.config.extract_layers)

    def decode(self, acts: Sequence[Tensor], cond: Tensor, image_index: Tensor | Sequence[int] | None = None) -> Tensor:
        """Answer N prompts over B encoded images.

        Args:
            acts: what `activations` returned (a plain tuple of tensors must come from square images).
            cond: float `[N, E]`, not normalised.
            image_index: int64 `[N]` or a list, the image in `acts` each prompt asks about; by default prompt n asks image n.

        Returns:
            logits `[N, H, W]` of the images' size.
        """
        if cond.ndim != 2 or cond.shape[1] != self.backbone.embed_dim or not cond.is_floating_point():
            raise ClipSegError(f"condition {cond.dtype} {list(cond.shape)}; expected float [N, {self.backbone.embed_dim}]")
        if len(acts) != len(self.config.extract_layers):
            raise ClipSegError(f"{len(acts)} activations; expected those after the blocks {self.config.extract_layers}")
        check_dtype("condition", cond, acts[0].dtype)
        image_index = _checked_index(image_index, cond, images=len(acts[0]))
        grid = acts.grid if isinstance(acts, Activations) else _square_grid(acts[0].shape[1])
        if torch.is_grad_enabled():
            logits = self.decoder(acts, cond, image_index, grid)
        else:
            logits = torch.cat([self.decoder(acts, *part, grid) for part in _blocks(cond, image_index)])
        if not isinstance(acts, Activations) or logits.shape[1:] == acts.size:
            return logits
        return F.interpolate(logits[:, None], size=acts.size, mode="nearest")[:, 0]

    @torch.no_grad()
    def probabilities(self, acts: Sequence[Tensor], cond: Tensor, image_index: Tensor) -> Iterator[Tensor]:
        """Answer as `decode`, in blocks of prompts: float32 probabilities `[n, H, W]`, n of the N prompts in turn."""
        for part in _blocks(cond, image_index):
            yield self.decode(acts, *part).float().sigmoid()


def _blocks(cond: Tensor, image_index: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(cond.split(PROMPTS_AT_ONCE), image_index.split(PROMPTS_AT_ONCE), strict=True)


def _checked_index(image_index: Tensor | Sequence[int] | None, cond: Tensor, *, images: int) -> Tensor:
    """The image that each of N conditions asks about, int64 `[N]`; on a GPU, for which all would wait, values pass unread."""
    if image_index is None:
        image_index = torch.arange(len(cond), device=cond.device)
    if isinstance(image_index, Tensor):
        index = image_index
    else:
        try:
            index = torch.tensor([operator.index(image) for image in image_index], dtype=torch.int64, device=cond.device)
        except TypeError as error:
            raise ClipSegError(f"image_index={image_index!r:.80}; expected whole numbers") from error
    if index.shape != (len(cond),):
        raise ClipSegError(f"image_index {list(index.shape)} for {len(cond)} conditions; expected the image of each")
    if len(index) and (
        index.dtype not in (torch.int64, torch.int32) or (index.is_cpu and not set(index.tolist()) <= set(range(images)))
    ):
        raise ClipSegError(f"image_index names images that are not there; expected whole numbers from 0 to {images - 1}")
    return index.long()


def _check_image_size(image_size: int, backbone: CLIPBackbone) -> None:
    if image_size < 1 or image_size % backbone.patch_size:
        raise ClipSegError(f"image_size={image_size} is not a multiple of {backbone.name}'s patch size {backbone.patch_size}")


def _square_grid(tokens: int) -> tuple[int, int]:
    side = math.isqrt(tokens - 1)
    if side * side != tokens - 1:
        raise ClipSegError(
            f"{tokens} tokens are no square grid and a class token; pass what `activations` returned, which knows its grid"
        )
    return side, side


@plain_defaults()
def create_model(
    backbone: str = ModelConfig.backbone, pretrained: str | Path | None = ModelConfig.pretrained, **options: Any
) -> CLIPSeg:
    """Build a model with a fresh decoder.

    Args:
        backbone: any open_clip ViT ("ViT-B-16-quickgelu" is the paper's), or "mini", the bundled one.
        pretrained: an open_clip tag, a local weights file or folder, or None for random weights. "mini" has weights of its
            own only, which the default means there.
        options: the other fields of `ModelConfig`: extract_layers, reduce_dim, head, decoder, image_size, seed, image_tower,
            image_tower_pretrained, image_prompts.

    Raises:
        ClipSegError: an option or a value that does not exist or does not fit, or weights that cannot be had.
    """
    if backbone == "mini" and pretrained == "openai":
        pretrained = "mini"
    known = [field.name for field in fields(ModelConfig)]
    if unknown := sorted(options.keys() - set(known)):
        raise ClipSegError(f"create_model takes no {unknown[0]!r}; expected {', '.join(known)}")
    config = ModelConfig(**{"backbone": backbone, "pretrained": pretrained} | options)
    return CLIPSeg(build_backbone(config), config)


def build_backbone(config: ModelConfig) -> CLIPBackbone:
    """The frozen part that a config names: a CLIP, or a CLIP beside an image tower of timm."""
    backbone = load_backbone(config.backbone, config.pretrained, seed=config.seed)
    if config.image_tower is None:
        return backbone
    from clipseg.network.vit_tower import ViTBackbone, load_image_tower  # timm is imported by those who need it

    tower = load_image_tower(config.image_tower, config.image_tower_pretrained, seed=config.seed)
    return ViTBackbone(backbone, tower, name=config.image_tower)
