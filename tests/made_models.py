"""A CLIP of six narrow blocks with random weights, and noise to look at."""

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

VISION = CLIPVisionCfg(image_size=64, patch_size=16, width=32, layers=6, head_width=8)
TEXT = CLIPTextCfg(width=32, heads=4, layers=2)


def narrow_clip(vision: CLIPVisionCfg = VISION) -> CLIP:
    torch.manual_seed(0)
    clip = CLIP(24, vision, TEXT, quick_gelu=True)
    for parameter in clip.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.3)
    return clip


def images(size: tuple[int, int] = (64, 64), count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))
