"""Attention inside CLIP's image tower held to an object: what becomes of the scores of patches outside its mask (Tab. 2).

The class token's own column is always visible, so that no row is left with nothing to look at.
"""

import functools

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor

from clipseg.errors import ClipSegError, check_one_of
from clipseg.network.backbone import CLIPBackbone
from clipseg.network.blocks import run_block

LAYERS = ("last", "all")
ROWS = ("cls", "all")
HOW = ("mixed_up", "scores_times_mask", "minus_infinity")


@torch.no_grad()
def encode_masked_image(
    backbone: CLIPBackbone,
    images: Tensor,
    masks: Tensor,
    *,
    layers: str = "last",
    rows: str = "cls",
    how: str = "minus_infinity",
) -> Tensor:
    """As `CLIPBackbone.encode_image`, with the attention to patches outside an object's mask held back ("CLIP mask" of Tab. 2).

    The mask comes to the token grid by nearest resampling; the class token is always seen.

    Args:
        backbone: a CLIP of open_clip's plain blocks.
        images: float `[N, 3, H, W]`, normalised.
        masks: `[N, H, W]`, bool or 0 and 1.
        layers: "last" (layer 11 of ViT-B/16) or "all".
        rows: whose attention is held back: "cls", the class token's alone, or "all" tokens'.
        how: "mixed_up", as released, where images get one another's masks; "scores_times_mask", the same with their own; or
            "minus_infinity", as described (`masked_attention`).

    Returns:
        float `[N, E]`, not normalised.
    """
    for name, value, allowed in (("layers", layers, LAYERS), ("rows", rows, ROWS), ("how", how, HOW)):
        check_one_of(f"attention masking: {name}", value, allowed)
    visual = backbone.clip.visual
    blocks = visual.transformer.resblocks
    if not all(isinstance(block, ResidualAttentionBlock) for block in blocks):
        raise ClipSegError(
            f"backbone {backbone.name!r} attends in a way of its own, which cannot be masked; choose another ViT"
        )
    tokens, _ = backbone.embed(images)
    visible = visible_tokens(images, masks, visual.patch_size[0])
    masked = functools.partial(masked_attention, visible=visible, rows=rows, how=how)
    with backbone.in_precision():
        for index, block in enumerate(blocks):
            is_masked = layers == "all" or index == len(blocks) - 1
            tokens = run_block(block, tokens, attend=masked) if is_masked else run_block(block, tokens)
    return backbone.embedding(tokens)


def visible_tokens(images: Tensor, masks: Tensor, patch_size: int) -> Tensor:
    """Which tokens an object's mask leaves visible: the class token, and those of the mask resampled nearest to the token grid.

    Args:
        images: `[B, 3, H, W]`; P divides H and W.
        masks: `[B, H, W]`, bool or 0 and 1.
        patch_size: P.

    Returns:
        bool `[B, 1 + h*w]`.
    """
    if masks.shape != (len(images), *images.shape[2:]):
        raise ClipSegError(f"images {tuple(images.shape)} and masks {tuple(masks.shape)}; expected [B, 3, H, W] and [B, H, W]")
    grid = (masks.shape[1] // patch_size, masks.shape[2] // patch_size)
    patches = F.interpolate(masks[:, None].bool().byte(), size=grid, mode="nearest").flatten(1).bool()
    return torch.cat([patches.new_ones(len(patches), 1), patches], dim=1)


def masked_attention(queries: Tensor, keys: Tensor, values: Tensor, *, visible: Tensor, rows: str, how: str) -> Tensor:
    """Scaled dot-product attention in which some rows see visible tokens only (docs/paper.md, Sec. 3).

    Args:
        queries, keys, values: float `[B, heads, T, C / heads]`.
        visible: bool `[B, T]`, True for the first token.
        rows: "cls", the first token's row alone, or "all".
        how: "scores_times_mask" multiplies the scores by the mask: a hidden token's score is 0, which is no small one; with all
            rows the first token's stays as it is. "mixed_up" does the same, with the masks in another order than the scores,
            as released: score matrix n, of sample n // heads, takes the mask of sample n mod B. "minus_infinity" gives hidden
            tokens no attention at all, in the first token's row too, as the paper describes it.

    Returns:
        float `[B, heads, T, C / heads]`.
    """
    scores = queries @ keys.transpose(-2, -1) / queries.shape[-1] ** 0.5
    batch, heads, tokens, _ = scores.shape
    hidden = ~visible[:, None, None, :]
    if how == "mixed_up":
        hidden = hidden[torch.arange(batch * heads, device=hidden.device) % batch].view(batch, heads, 1, tokens)
    is_cls = (torch.arange(tokens, device=scores.device) == 0)[:, None]
    if rows == "cls":
        hidden = hidden & is_cls
    elif how != "minus_infinity":
        hidden = hidden & ~is_cls
    scores = scores.masked_fill(hidden, float("-inf") if how == "minus_infinity" else 0.0)
    return scores.softmax(dim=-1) @ values
