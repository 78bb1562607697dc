"""The reference of parity tests: transformers' CLIPSeg with random weights, scaled so that its logits mean something."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
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
