"""ViTSeg, the paper's baseline without CLIP's eye: activations from an ImageNet ViT of timm, conditions from CLIP (Sec. 5.1).

What the decoder sees of an image has never met language; only the prompts have. timm's `vit_base_patch16_384` is the paper's.

An image comes to the ViT's own size by nearest resampling, normalised as for CLIP, by ImageNet's mean and std (timm's ViTs were
trained with mean and std 0.5). What the decoder makes of it goes back to the image's size nearest.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from clipseg.errors import ClipSegError, one_line
from clipseg.network.backbone import Activations, CLIPBackbone, check_images, weights_checksum
from clipseg.network.tensor_files import check_tensors, quiet_hub, read_folder_weights, read_weights, shapes_of


class ViTBackbone(CLIPBackbone):
    """A frozen CLIP for prompts beside a frozen ViT for images: width, depth and patch size are the ViT's, E is CLIP's.

    Args:
        clip_backbone: encodes texts and prompt images.
        image_tower: a ViT of timm with one class token, which has a position of its own; gives the activations.
        name: what errors call it.
    """

    def __init__(self, clip_backbone: CLIPBackbone, image_tower: VisionTransformer, *, name: str):
        super().__init__(clip_backbone.clip, clip_backbone.tokenizer, name=name)
        _check_kind(image_tower, name)
        self.image_tower = image_tower
        self.width = image_tower.embed_dim
        self.depth = len(image_tower.blocks)
        self.patch_size = image_tower.patch_embed.patch_size[0]
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def activations(self, images: Tensor, layers: Sequence[int]) -> Activations:
        """As `CLIPBackbone.activations`, from the ViT's blocks, whatever the size of the images at the ViT's own."""
        height, width = self.image_tower.patch_embed.grid_size
        tokens = self.read_out(self.image_tower.blocks, self._tokens(images), layers)
        return Activations(tokens, (height, width), (images.shape[2], images.shape[3]))

    @torch.no_grad()
    def class_tokens(self, images: Tensor) -> Tensor:
        """The class token after the last norm, float `[N, C]`, by the whole ViT."""
        (tokens,) = self.read_out(self.image_tower.blocks, self._tokens(images), (self.depth - 1,))
        return self.image_tower.norm(tokens[:, 0])

    def _tokens(self, images: Tensor) -> Tensor:
        """Pixels -> tokens ready for the first block."""
        tower = self.image_tower
        check_images(images, self.patch_size, tower.patch_embed.proj.weight.dtype)
        patches = tower.patch_embed.proj(F.interpolate(images, size=tower.patch_embed.img_size, mode="nearest"))
        patches = tower.patch_embed.norm(patches.flatten(2).transpose(1, 2))
        # As `_check_kind` saw to.
        assert tower.cls_token is not None
        assert tower.pos_embed is not None
        cls = tower.cls_token[0].to(patches.dtype).expand(patches.shape[0], 1, -1)
        return tower.norm_pre(torch.cat([cls, patches], dim=1) + tower.pos_embed)

    def checksum(self) -> str:
        """SHA-256 over the weights of CLIP and of the ViT."""
        return hashlib.sha256(f"{super().checksum()} {weights_checksum(self.image_tower)}".encode()).hexdigest()


def _check_kind(tower: torch.nn.Module, name: str) -> None:
    is_plain = type(tower) is VisionTransformer and isinstance(tower.patch_embed, PatchEmbed)
    if not is_plain or tower.num_prefix_tokens != 1 or tower.pos_embed is None or tower.no_embed_class:
        raise ClipSegError(
            f"image_tower={name!r} is no plain ViT with one class token that has a position; choose vit_base_patch16_384"
        )


def load_image_tower(name: str, pretrained: bool | str | Path, *, seed: int = 0) -> VisionTransformer:
    """A ViT of timm by name, without its classifier.

    Args:
        name: a timm model, with or without a tag, such as "vit_base_patch16_384".
        pretrained: True for timm's own weights, downloaded once; a local file or folder that holds them; False for random ones.
        seed: of the random weights; the global generator is left as it was.

    Raises:
        ClipSegError: no such model, another kind of model, or weights that cannot be had or do not fit.
    """
    if not timm.is_model(name):
        raise ClipSegError(f"image_tower={name!r} is not a timm model; `timm.list_models('vit_*')` names them")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = _build(name)
        if pretrained is True:
            return _with_timms_weights(name)
    if pretrained is not False:
        path = Path(pretrained).expanduser()
        if not os.path.exists(path):
            raise ClipSegError(
                f"image_tower_pretrained={str(pretrained)!r}: no such file or folder; name the weights of {name}, "
                "true for timm's own, or false for random ones"
            )
        _load_strictly(tower, path)
    return tower


def _build(name: str) -> VisionTransformer:
    try:
        tower: Any = timm.create_model(name, pretrained=False, num_classes=0)
    except RuntimeError as error:
        raise ClipSegError(f"image_tower={name!r} cannot be built: {one_line(error)}") from error
    _check_kind(tower, name)
    return tower


def _load_strictly(tower: VisionTransformer, path: Path) -> None:
    state = read_folder_weights(path) if path.is_dir() else read_weights(path)
    if not isinstance(state, dict):
        raise ClipSegError(f"{path}: holds a {type(state).__name__}, not a state dict of named tensors")
    weights = {key: tensor for key, tensor in state.items() if not str(key).startswith("head.")}
    tower.load_state_dict(check_tensors(weights, shapes_of(tower), source=path), strict=True)


def _with_timms_weights(name: str) -> Any:
    entry = timm.get_pretrained_cfg(name)
    source = entry and (f"https://huggingface.co/{entry.hf_hub_id}" if entry.hf_hub_id else entry.url)
    if not source:
        raise ClipSegError(f"timm has no weights of image_tower={name!r}; name a file, or a model or tag that has some")
    try:
        with quiet_hub():
            return timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # huggingface_hub, httpx, urllib and the operating system each raise their own
        raise ClipSegError(
            f"timm's weights of {name} are not cached and cannot be downloaded ({type(error).__name__}): fetch "
            f"model.safetensors from {source} and name the file with model.image_tower_pretrained=PATH "
            "(image_tower_pretrained=PATH in Python)"
        ) from error
