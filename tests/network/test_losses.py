"""Each loss against its closed form, and their sum."""

import math

import pytest
import torch

from clipseg.errors import ClipSegError
from clipseg.network.losses import LossSettings, dice_loss, focal_loss

LOGITS = torch.tensor([[[2.0, -1.0], [0.5, -3.0]], [[0.0, 4.0], [-2.0, 1.0]]])
MASKS = torch.tensor([[[1, 0], [1, 0]], [[0, 0], [0, 0]]], dtype=torch.uint8)


def true_probability():
    p = LOGITS.double().sigmoid()
    return torch.where(MASKS.bool(), p, 1 - p)


def test_the_default_is_the_paper_s_cross_entropy():
    assert LossSettings()(LOGITS, MASKS).item() == pytest.approx(-true_probability().log().mean().item(), rel=1e-6)


def test_targets_weigh_more():
    weight = torch.where(MASKS.bool(), 5.0, 1.0)
    expected = -(weight * true_probability().log()).mean().item()
    assert LossSettings(positive_weight=5)(LOGITS, MASKS).item() == pytest.approx(expected, rel=1e-6)


def test_dice_is_1_less_the_overlap_of_each_mask():
    p, m = LOGITS.double().sigmoid(), MASKS.double()
    each = [1 - 2 * ((a * b).sum() + 1) / (a.sum() + b.sum() + 2) for a, b in zip(p, m, strict=True)]
    assert dice_loss(LOGITS, MASKS.float()).item() == pytest.approx(sum(each).item() / 2, rel=1e-6)
    nothing = torch.full((1, 2, 2), -50.0)
    assert dice_loss(nothing, torch.zeros(1, 2, 2)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_the_focal_loss_cares_less_for_what_is_right(gamma):
    p = true_probability()
    expected = (-((1 - p) ** gamma) * p.log()).mean().item()
    assert focal_loss(LOGITS, MASKS.float(), gamma).item() == pytest.approx(expected, rel=1e-5)


def test_terms_are_added_up_by_their_weights():
    parts = [LossSettings(), LossSettings(bce=0, dice=1), LossSettings(bce=0, focal=1)]
    bce, dice, focal = (loss(LOGITS, MASKS).item() for loss in parts)
    total = LossSettings(bce=0.5, dice=2, focal=3)(LOGITS, MASKS).item()
    assert total == pytest.approx(0.5 * bce + 2 * dice + 3 * focal, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "key"), [({"dice": -1}, "loss.dice=-1"), ({"bce": 0}, "all 0"), ({"focal": math.nan}, "nan")]
)
def test_weights_that_cannot_be(options, key):
    with pytest.raises(ClipSegError, match=key):
        LossSettings(**options)
