"""Losses of the decoder: the paper's binary cross-entropy, and what people add to it on small sets of their own."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clipseg.errors import ClipSegError, check_at_least


@dataclass
class LossSettings:
    """Weights of the terms that are added up; by default the binary cross-entropy alone, which is the paper's.

    Attributes:
        bce: of the binary cross-entropy, the mean over pixels.
        positive_weight: by which the pixels of targets count more in it; targets that are small want more than 1.
        dice: of 1 - Dice, the mean over masks.
        focal: of the focal loss (Lin et al. 2017), the mean over pixels.
        focal_gamma: how little it cares for pixels that are right already; 0 is the cross-entropy.

    Raises:
        ClipSegError: a negative value, or no term at all.
    """

    bce: float = 1.0
    positive_weight: float = 1.0
    dice: float = 0.0
    focal: float = 0.0
    focal_gamma: float = 2.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_at_least(f"training.loss.{name}", value, 0)
        if not self.bce + self.dice + self.focal > 0:
            raise ClipSegError("training.loss: bce, dice and focal are all 0; give one of them a weight, such as bce=1")

    def __call__(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Float logits and masks of 0 and 1, both `[N, H, W]` -> the loss, a float scalar."""
        logits, masks = logits.float(), masks.float()
        terms = []
        if self.bce:
            weigh = self.positive_weight != 1
            weight: dict[str, Any] = {"pos_weight": logits.new_full((), self.positive_weight)} if weigh else {}
            terms.append(self.bce * F.binary_cross_entropy_with_logits(logits, masks, **weight))
        if self.dice:
            terms.append(self.dice * dice_loss(logits, masks))
        if self.focal:
            terms.append(self.focal * focal_loss(logits, masks, self.focal_gamma))
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0]


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - 2 (sum p m + 1) / (sum p + sum m + 2), sums over the pixels of a mask, the mean over masks; both `[N, H, W]`.

    The ones make it 0 where nothing is there and nothing is found.
    """
    probabilities = logits.sigmoid()
    overlap = (probabilities * masks).sum((1, 2))
    return (1 - 2 * (overlap + 1) / (probabilities.sum((1, 2)) + masks.sum((1, 2)) + 2)).mean()


def focal_loss(logits: Tensor, masks: Tensor, gamma: float) -> Tensor:
    """(1 - p_true)^gamma times the cross-entropy of a pixel, p_true the probability of what it is; the mean over pixels."""
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    return ((1 - torch.exp(-entropy)) ** gamma * entropy).mean()
