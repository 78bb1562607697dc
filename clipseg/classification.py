"""CLIP's own zero-shot classification: which of some names fits an image best (Radford et al. 2021), by the backbone alone."""

import functools
import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import get_model_preprocess_cfg
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import center_crop

from clipseg.errors import ClipSegError
from clipseg.image_io import ImageLike, read_image
from clipseg.network.backbone import CLIPBackbone
from clipseg.network.clip_weights import load_backbone
from clipseg.network.model import CLIPSeg
from clipseg.network.preprocess import MEAN, STD
from clipseg.network.weights import trained_model
from clipseg.prompts.text import fill
from clipseg.prompts.text import templates as checked_templates


@torch.no_grad()
def classify(
    image: ImageLike,
    names: Sequence[str],
    *,
    model: CLIPSeg | str | os.PathLike[str] | None = None,
    templates: str | Sequence[str] = "fixed",
) -> dict[str, float]:
    """How well each name fits an image: softmax over CLIP's scaled cosines.

    The image is prepared as CLIP was trained, not as CLIPSeg takes it: its shorter side resampled (bicubic) to CLIP's native
    size, the centre cut out, CLIP's own mean and standard deviation (the bundled CLIP was trained with ImageNet's).

    Args:
        image: path, bytes of a file, PIL image of any mode, array or tensor.
        names: different texts, such as "dog" and "cat".
        model: whose CLIP answers, or what `load` takes; by default OpenAI's ViT-B/16 on the CPU, kept for the next call.
        templates: around every name, as in `Segmenter`; but each embedding is normalised before the mean, as CLIP's authors do.

    Returns:
        name -> probability, in the order of `names`; the sum is 1.

    Raises:
        ClipSegError: an image that cannot be read, no names or one twice, unknown templates, or CLIP's weights cannot be had or
            are damaged.
    """
    if (
        isinstance(names, str)
        or not isinstance(names, Sequence)
        or not names
        or any(not isinstance(name, str) for name in names)
    ):
        raise ClipSegError(f"names={names!r}; expected a list of at least one text")
    if len(set(names)) != len(names):
        raise ClipSegError(f"names={list(names)} holds a name twice; each must differ")
    around = checked_templates(templates)
    pixels = read_image(image)
    backbone = _default_clip() if model is None else trained_model(model).backbone
    texts = F.normalize(backbone.encode_text([fill(template, name) for name in names for template in around]).float(), dim=-1)
    of_names = F.normalize(texts.view(len(names), len(around), -1).mean(dim=1), dim=-1)
    of_image = F.normalize(backbone.encode_image(_prepare(pixels, backbone)).float(), dim=-1)
    clip: Any = backbone.clip
    logits = clip.logit_scale.float().exp() * (of_image @ of_names.T)[0]
    if not logits.isfinite().all():
        raise ClipSegError("CLIP's answers are not finite; its weights are damaged, or its precision is too low")
    return dict(zip(names, logits.softmax(dim=0).tolist(), strict=True))


@functools.cache
def _default_clip() -> CLIPBackbone:
    return load_backbone("ViT-B-16-quickgelu", "openai")


def _prepare(pixels: Tensor, backbone: CLIPBackbone) -> Tensor:
    """uint8 `[3, H, W]` -> normalised `[1, 3, S, S]`."""
    clip: Any = backbone.clip
    if backbone.name == "mini":
        config = PreprocessCfg(size=clip.visual.image_size, mean=MEAN, std=STD)
    else:
        config = PreprocessCfg(**get_model_preprocess_cfg(clip))
    # CLIP sees the central square alone; the ends of a strip would only cost memory when its short side is enlarged.
    height, width = (min(side, 8 * min(pixels.shape[1:])) for side in pixels.shape[1:])
    photo = Image.fromarray(center_crop(pixels, [height, width]).permute(1, 2, 0).numpy())
    return image_transform_v2(config, is_train=False)(photo)[None].to(clip.visual.conv1.weight)
