"""Attention held to an object as it was really computed (golden case 10)."""

import numpy as np
import pytest
import torch
from golden_data import arrays
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import QuickGELU, ResidualAttentionBlock

from clipseg.network.attention_mask import encode_masked_image, masked_attention, visible_tokens
from clipseg.network.backbone import CLIPBackbone
from clipseg.network.blocks import run_block
from clipseg.network.preprocess import normalise

INPUTS, EXPECTED = arrays("10_attention_inputs"), arrays("10_attention")
HEADS = len(EXPECTED["block_all_first_alone_weights"])
ROWS = {"cls_token": "cls", "all": "all"}
MASKINGS = {"cls_last": ("last", "cls"), "cls_all": ("all", "cls"), "all_all": ("all", "all")}
WHICH = {"first_alone": slice(0, 1), "second_alone": slice(1, 2), "batch_of_2": slice(0, 2)}


def weights(prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): torch.from_numpy(value).float() for name, value in INPUTS.items() if name.startswith(prefix)
    }


@pytest.fixture(scope="module")
def block() -> ResidualAttentionBlock:
    made = ResidualAttentionBlock(INPUTS["x"].shape[-1], HEADS, act_layer=QuickGELU)
    made.load_state_dict(weights("block."))
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def backbone() -> CLIPBackbone:
    state = weights("tower.")
    width, _, patch, _ = state["conv1.weight"].shape
    layers = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("transformer.resblocks."))
    side = patch * round((len(state["positional_embedding"]) - 1) ** 0.5)
    vision = CLIPVisionCfg(image_size=side, patch_size=patch, width=width, layers=layers, head_width=width // HEADS)
    clip = CLIP(state["proj"].shape[1], vision, CLIPTextCfg(width=32, heads=4, layers=1), quick_gelu=True)
    clip.visual.load_state_dict(state)
    return CLIPBackbone(clip, SimpleTokenizer(), name="golden")


def scenes() -> tuple[torch.Tensor, torch.Tensor]:
    masks = torch.from_numpy(np.unpackbits(INPUTS["masks"], axis=-1))
    photos = torch.from_numpy(INPUTS["photos"]).permute(0, 3, 1, 2) / 255
    repeat = masks.shape[1] // photos.shape[2]
    return normalise(photos.repeat_interleave(repeat, dim=2).repeat_interleave(repeat, dim=3)), masks


def test_golden_masks_come_to_the_tokens(backbone):
    images, masks = scenes()
    found = visible_tokens(images, masks, backbone.patch_size)[:, 1:]
    assert np.array_equal(found.numpy(), EXPECTED["tokens_of_masks"].reshape(len(masks), -1))


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("kind", ROWS)
def test_golden_block(block, kind, which):
    x = torch.from_numpy(INPUTS["x"]).float()[:, WHICH[which]].transpose(0, 1)
    mask = torch.from_numpy(INPUTS["mask"])[WHICH[which]].bool()
    visible = torch.cat([torch.ones(len(mask), 1, dtype=torch.bool), mask], dim=1)
    seen = []

    def attend(q, k, v):
        options = {"visible": visible, "rows": ROWS[kind], "how": "mixed_up"}
        seen.append(masked_attention(q, k, torch.eye(q.shape[2]).expand(*q.shape[:2], -1, -1), **options))
        return masked_attention(q, k, v, **options)

    found = run_block(block, x, attend=attend).transpose(0, 1)
    assert np.abs(found.numpy() - EXPECTED[f"block_{kind}_{which}"]).max() < 1e-4
    assert np.abs(seen[0].flatten(0, 1).numpy() - EXPECTED[f"block_{kind}_{which}_weights"]).max() < 1e-4


def test_golden_block_without_a_mask(block):
    x = torch.from_numpy(INPUTS["x"]).float().transpose(0, 1)
    assert np.abs(run_block(block, x).transpose(0, 1).numpy() - EXPECTED["block_none_batch_of_2"]).max() < 1e-4


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("masking", MASKINGS)
def test_golden_tower(backbone, masking, which):
    images, masks = (value[WHICH[which]] for value in scenes())
    layers, rows = MASKINGS[masking]
    found = encode_masked_image(backbone, images, masks, layers=layers, rows=rows, how="mixed_up")
    assert np.abs(found.numpy() - EXPECTED[f"tower_{masking}_{which}"]).max() < 1e-4


@pytest.mark.parametrize("masking", MASKINGS)
def test_golden_tower_with_each_image_s_own_mask(backbone, masking):
    """Done right, a batch gives what was run gives for its images one by one."""
    layers, rows = MASKINGS[masking]
    found = encode_masked_image(backbone, *scenes(), layers=layers, rows=rows, how="scores_times_mask")
    alone = np.concatenate([EXPECTED[f"tower_{masking}_{which}"] for which in ("first_alone", "second_alone")])
    assert np.abs(found.numpy() - alone).max() < 1e-4


def test_golden_tower_without_a_mask(backbone):
    assert np.abs(backbone.encode_image(scenes()[0]).numpy() - EXPECTED["tower_none"]).max() < 1e-4
