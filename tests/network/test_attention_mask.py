"""CLIP's attention held to an object: against a literal loop, whatever the batch, and without effect where all is visible."""

import itertools
import math

import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer

from clipseg.errors import ClipSegError
from clipseg.network.attention_mask import HOW, LAYERS, ROWS, encode_masked_image, masked_attention, visible_tokens
from clipseg.network.backbone import CLIPBackbone

CHOICES = [{"layers": layers, "rows": rows, "how": how} for layers, rows, how in itertools.product(LAYERS, ROWS, HOW)]
OWN_MASKS = [choice for choice in CHOICES if choice["how"] != "mixed_up"]


def make_backbone() -> CLIPBackbone:
    torch.manual_seed(0)
    vision = CLIPVisionCfg(image_size=64, patch_size=16, width=32, layers=3, head_width=8)
    clip = CLIP(24, vision, CLIPTextCfg(width=32, heads=4, layers=1), quick_gelu=True)
    for name, parameter in clip.named_parameters():
        if "in_proj" in name:
            torch.nn.init.normal_(parameter, std=0.4)  # attention that differs from token to token
    return CLIPBackbone(clip, SimpleTokenizer(), name="narrow")


BACKBONE = make_backbone()


def scene(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and masks, each of another object."""
    images = torch.randn(count, 3, 64, 48, generator=torch.Generator().manual_seed(1))
    masks = torch.zeros(count, 64, 48, dtype=torch.bool)
    for index in range(count):
        masks[index, 5 : 20 + 12 * index, 17 : 20 + 9 * index] = True
    return images, masks


def literal_embedding(number, images, masks, *, layers, rows, how):
    """One image's embedding, score by score: block, head, row and column in turn."""
    visual = BACKBONE.clip.visual
    tokens, _ = BACKBONE.embed(images[number, None])
    x = tokens[0]
    for index, block in enumerate(visual.transformer.resblocks):
        is_masked = layers == "all" or index == len(visual.transformer.resblocks) - 1
        y = block.ln_1(x)
        q, k, v = (y @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).split(32, dim=1)
        gathered = torch.zeros_like(x)
        for head in range(4):
            part = slice(8 * head, 8 * head + 8)
            mask = masks[(4 * number + head) % len(masks)] if how == "mixed_up" else masks[number]
            seen = [True, *(bool(mask[y, x]) for y in range(0, 64, 16) for x in range(0, 48, 16))]
            for row in range(len(x)):
                scores = []
                for column in range(len(x)):
                    score = float(q[row, part] @ k[column, part]) / math.sqrt(8)
                    # Multiplied, all rows are all but the class token's.
                    rows_of_mask = {"cls": row == 0, "all": row > 0 or how == "minus_infinity"}
                    if is_masked and not seen[column] and rows_of_mask[rows]:
                        score = -math.inf if how == "minus_infinity" else score * 0
                    scores.append(score)
                total = sum(math.exp(score) for score in scores)
                for column, score in enumerate(scores):
                    gathered[row, part] += math.exp(score) / total * v[column, part]
        x = x + block.attn.out_proj(gathered)
        x = x + block.mlp(block.ln_2(x))
    return visual.ln_post(x[0]) @ visual.proj


def has_effect(choice) -> bool:
    """In the last block the class token's row alone is read, and multiplied scores of all other rows leave it as it is."""
    return (choice["layers"], choice["rows"]) != ("last", "all") or choice["how"] == "minus_infinity"


@pytest.mark.parametrize("choice", CHOICES)
def test_it_is_what_a_literal_loop_computes(choice):
    images, masks = scene()
    with torch.no_grad():
        expected = torch.stack([literal_embedding(number, images, masks, **choice) for number in range(len(images))])
    found = encode_masked_image(BACKBONE, images, masks, **choice)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    if has_effect(choice):
        assert (found - BACKBONE.encode_image(images)).abs().max() > 1e-3, "the mask has no effect"


@pytest.mark.parametrize("choice", OWN_MASKS)
def test_a_batch_equals_its_images_one_by_one(choice):
    images, masks = scene(5)
    together = encode_masked_image(BACKBONE, images, masks, **choice)
    for index in range(5):
        alone = encode_masked_image(BACKBONE, images[index, None], masks[index, None], **choice)
        torch.testing.assert_close(together[index, None], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_mask_of_ones_changes_nothing(choice):
    images, masks = scene()
    found = encode_masked_image(BACKBONE, images, torch.ones_like(masks), **choice)
    torch.testing.assert_close(found, BACKBONE.encode_image(images), rtol=1e-5, atol=1e-5)


def test_the_choices_differ():
    images, masks = scene()
    plain = BACKBONE.encode_image(images)
    found = [encode_masked_image(BACKBONE, images, masks, **choice) for choice in CHOICES]
    for a, b in itertools.combinations(range(len(CHOICES)), 2):
        both_last = CHOICES[a]["layers"] == CHOICES[b]["layers"] == "last"
        both_hide = CHOICES[a]["how"] == CHOICES[b]["how"] == "minus_infinity"  # from the class token's row, whatever the rows
        neither_has_effect = not has_effect(CHOICES[a]) and not has_effect(CHOICES[b])
        assert torch.allclose(found[a], found[b], atol=1e-5) == (both_last and (both_hide or neither_has_effect))
    for choice, embedding in zip(CHOICES, found, strict=True):
        assert torch.allclose(embedding, plain, atol=1e-5) != has_effect(choice)


def test_what_is_hidden_from_all_rows_has_no_influence_at_minus_infinity():
    images, masks = scene()
    hidden = ~visible_tokens(images, masks, 16)[:, 1:].unflatten(1, (4, 3))
    hidden = hidden.repeat_interleave(16, dim=1).repeat_interleave(16, dim=2)
    other = torch.where(hidden[:, None], torch.rand_like(images), images)
    choice = {"layers": "all", "rows": "all"}
    one, two = (encode_masked_image(BACKBONE, pixels, masks, **choice, how="minus_infinity") for pixels in (images, other))
    torch.testing.assert_close(one, two)
    one, two = (encode_masked_image(BACKBONE, pixels, masks, **choice, how="scores_times_mask") for pixels in (images, other))
    assert not torch.allclose(one, two, atol=1e-3), "a score of 0 hides nothing"


def test_a_patch_is_visible_where_its_first_pixel_is_and_the_class_token_always():
    masks = torch.zeros(2, 32, 48, dtype=torch.uint8)
    masks[0, 15, 16] = masks[0, 16, 32] = 1
    visible = visible_tokens(torch.zeros(2, 3, 32, 48), masks, 16)
    assert visible.tolist() == [[True, False, False, False, False, False, True], [True] + [False] * 6]


def test_an_empty_mask_leaves_numbers():
    images, masks = scene()
    for choice in CHOICES:
        assert encode_masked_image(BACKBONE, images, masks & False, **choice).isfinite().all()


def test_scores_are_masked_for_all_heads_of_an_image():
    q, k = torch.randn(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    visible = torch.tensor([[True, True, False, False], [True, False, False, True]])
    found = masked_attention(q, k, torch.eye(4).expand(2, 3, 4, 4), visible=visible, rows="all", how="minus_infinity")
    assert torch.equal(found > 0, visible[:, None, None].expand(2, 3, 4, 4))
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(2, 3, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": "first"}, "layers='first' is unknown; expected one of last, all"),
        ({"rows": "none"}, "rows='none'"),
        ({"how": "zero"}, "how='zero'"),
        ({"masks": torch.ones(2, 64, 48)}, r"masks \(2, 64, 48\)"),
        ({"masks": torch.ones(3, 48, 64)}, r"masks \(3, 48, 64\)"),
    ],
)
def test_what_it_cannot_do_is_one_line(change, message):
    images, masks = scene()
    with pytest.raises(ClipSegError, match=message):
        encode_masked_image(BACKBONE, images, **({"masks": masks} | change))
