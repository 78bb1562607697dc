"""ViTSeg's sizes, as it was run: the normalised image to the ViT's size nearest, logits back nearest (golden case 9)."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from golden_data import arrays, look_error
from made_models import narrow_clip
from open_clip.tokenizer import SimpleTokenizer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from clipseg.network.backbone import CLIPBackbone
from clipseg.network.config import ModelConfig
from clipseg.network.model import CLIPSeg
from clipseg.network.vit_tower import ViTBackbone


class Passing(torch.nn.Module):
    """In the place of patches and of the decoder: keeps the image that the ViT sees, and passes its pixels on as logits."""

    def __init__(self, model: CLIPSeg) -> None:
        super().__init__()
        tower: Any = model.backbone.image_tower
        tower.patch_embed.proj.register_forward_pre_hook(lambda module, given: setattr(self, "seen", given[0]))
        self.seen = torch.empty(0)

    def forward(self, activations: Any, condition: Tensor, image_index: Tensor, grid: tuple[int, int]) -> Tensor:
        assert (16 * grid[0], 16 * grid[1]) == self.seen.shape[2:]
        return self.seen.mean(dim=1)[image_index]


def test_golden_sizes_of_vitseg() -> None:
    inputs, expected = arrays("09_vitseg_inputs"), arrays("09_vitseg")
    tower = VisionTransformer(img_size=384, patch_size=16, embed_dim=8, depth=1, num_heads=1, num_classes=0)
    backbone = ViTBackbone(CLIPBackbone(narrow_clip(), SimpleTokenizer(), name="narrow"), tower, name="narrow_vit")
    model = CLIPSeg(backbone, ModelConfig(image_tower="narrow_vit", extract_layers=(0,), reduce_dim=4))
    model.decoder = Passing(model)

    def passed(image: Tensor) -> tuple[np.ndarray, np.ndarray]:
        logits = model(image, torch.zeros(1, backbone.embed_dim))
        return model.decoder.seen.numpy(), logits[:, None].numpy()

    image = F.interpolate(torch.from_numpy(inputs["low"])[None], size=(352, 352), mode="bilinear", align_corners=True)
    assert look_error(image.numpy(), expected, "image") < 1e-5
    _, logits = passed(image)
    assert logits.shape == (1, 1, 352, 352)
    assert look_error(logits, expected, "logits") < 1e-5
    places = torch.arange(352, dtype=torch.float32)
    rows, columns = places[:, None].expand(352, 352), places[None].expand(352, 352)
    seen, back = passed(torch.stack([rows, rows, rows])[None])
    assert np.array_equal(seen[0, 0, :, 0], expected["row_at_384"])
    assert np.array_equal(np.rint(back[0, 0, :, 0]), expected["row_of_logits"])
    seen, back = passed(torch.stack([columns, columns, columns])[None])
    assert np.array_equal(seen[0, 0, 0], expected["column_at_384"])
    assert np.array_equal(np.rint(back[0, 0, 0]), expected["column_of_logits"])
