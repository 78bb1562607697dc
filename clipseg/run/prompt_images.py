"""An object shown to CLIP, by the name of the way: pixels changed, or attention held to it (Tab. 2)."""

from torch import Tensor

from clipseg.network.backbone import CLIPBackbone
from clipseg.network.preprocess import normalise
from clipseg.prompts.attention import ATTENTION_VARIANTS
from clipseg.prompts.visual import VARIANTS, engineer


def embed_prompt_images(backbone: CLIPBackbone, images: Tensor, masks: Tensor, variant: str) -> Tensor:
    """CLIP's embeddings of objects.

    Args:
        backbone: whose image tower embeds.
        images: float `[N, 3, H, W]` in [0, 1], not yet normalised.
        masks: `[N, H, W]`, bool or 0 and 1; none empty.
        variant: one of `prompts.attention.ALL_VARIANTS`.

    Returns:
        float `[N, E]`, not normalised.
    """
    masking = ATTENTION_VARIANTS.get(variant)
    if masking is None:
        return backbone.encode_image(engineer(images, masks, VARIANTS[variant], normalise=normalise)[0])
    return backbone.encode_masked_image(normalise(images), masks, layers=masking.layers, rows=masking.rows, how=masking.how)
