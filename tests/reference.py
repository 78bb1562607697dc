"""The references of parity tests: transformers' CLIPSeg and the authors' decoder, random weights scaled to mean something."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

NARROW_VISION = {"hidden_size": 32, "num_hidden_layers": 12, "num_attention_heads": 4, "intermediate_size": 128}
NARROW_TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
TEXTS = ["a photo of a red flag.", "the sky, 3 cats' tails!"]


def narrow_config(
    *, patch_size: int = 16, image_size: int = 64, hidden_act: str = "quick_gelu", **decoder: Any
) -> CLIPSegConfig:
    """A CLIPSeg of twelve blocks that is 32 wide; `decoder` holds extract_layers, reduce_dim and the like."""
    vision = NARROW_VISION | {"patch_size": patch_size, "image_size": image_size, "hidden_act": hidden_act}
    text = NARROW_TEXT | {"hidden_act": hidden_act}
    return CLIPSegConfig(vision_config=vision, text_config=text, projection_dim=32, **decoder)


def save_reference(config: CLIPSegConfig, folder: Path, *, seed: int = 0, **save: Any) -> CLIPSegForImageSegmentation:
    """Build the reference with scaled random weights and write it to `folder` by its own `save_pretrained`."""
    model = CLIPSegForImageSegmentation(config).eval()
    scale_weights(model, seed)
    model.save_pretrained(folder, **save)
    return model


@torch.no_grad()
def scale_weights(model: torch.nn.Module, seed: int) -> None:
    """Draw every weight anew: as initialised, logits are all near 0, and whatever is computed would agree."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            parameter.uniform_(0.5, 1.5, generator=generator)
        elif parameter.ndim > 1:
            fan_in = parameter.shape[-1] if parameter.ndim == 2 else parameter[0].numel()
            # The refined head is three layers deep, over which a gain multiplies.
            scale = 4.5 if name.endswith("transposed_convolution.weight") else 2.25 if "transposed" in name else 1.0
            parameter.normal_(0, scale / fan_in**0.5, generator=generator)
        elif parameter.ndim == 1:
            parameter.normal_(0, 0.2, generator=generator)


def random_images(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def random_condition(count: int, embed_dim: int, seed: int = 1) -> Tensor:
    return 2 * torch.randn(count, embed_dim, generator=torch.Generator().manual_seed(seed))


def spread(logits: Tensor) -> float:
    """How far logits reach to both sides of 0."""
    return min(logits.max().item(), -logits.min().item())


class AuthorsDecoder(nn.Module):
    """The released decoder as the paper describes it, under the released names; `reduce` is the projection nobody uses."""

    def __init__(self, width: int, embed_dim: int, reduce_dim: int, *, refined: bool, patch_size: int = 16, depth: int = 3):
        super().__init__()
        self.film_mul = nn.Linear(embed_dim, reduce_dim)
        self.film_add = nn.Linear(embed_dim, reduce_dim)
        self.reduce = nn.Linear(width, reduce_dim)
        self.reduces = nn.ModuleList(nn.Linear(width, reduce_dim) for _ in range(depth))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(reduce_dim, nhead=4) for _ in range(depth))
        self.trans_conv: nn.Module = nn.ConvTranspose2d(reduce_dim, 1, patch_size, patch_size)
        if refined:
            self.trans_conv = nn.Sequential(
                nn.Conv2d(reduce_dim, reduce_dim, 3, padding=1),
                nn.ReLU(),
                nn.ConvTranspose2d(reduce_dim, reduce_dim // 2, patch_size // 4, patch_size // 4),
                nn.ReLU(),
                nn.ConvTranspose2d(reduce_dim // 2, 1, patch_size // 4, patch_size // 4),
            )
        scale_weights(self, seed=3)

    def forward(self, activations: list[Tensor], condition: Tensor) -> Tensor:
        """activations `[B, T, C]`, deepest first."""
        a: Any = 0
        for index, (activation, reduce, block) in enumerate(zip(activations, self.reduces, self.blocks, strict=True)):
            a = reduce(activation.transpose(0, 1)) + a
            if index == 0:
                a = self.film_mul(condition) * a + self.film_add(condition)
            a = block(a)
        tokens = a[1:].permute(1, 2, 0)
        side = round(tokens.shape[2] ** 0.5)
        return self.trans_conv(tokens.view(*tokens.shape[:2], side, side))[:, 0]
