"""The optimiser of docs/paper.md, Sec. 2: AdamW, with the weight decay that is asked for."""

import pytest
import torch

from clipseg.network.model import CLIPSeg
from clipseg.run.checkpoint import TrainState
from clipseg.run.settings import TrainingSettings


@pytest.mark.parametrize("decay", [0.0, 0.01, 0.3])
def test_weights_without_a_gradient_shrink_by_rate_times_decay(tiny_model: CLIPSeg, decay: float):
    """Decoupled: of AdamW's kind, not a part of the gradient; for every weight of the decoder and for none of the backbone."""
    state = TrainState(tiny_model, TrainingSettings(lr=0.1, weight_decay=decay))
    own = list(tiny_model.decoder.parameters())
    (group,) = state.optimizer.param_groups
    assert {id(weight) for weight in group["params"]} == {id(weight) for weight in own}
    before = [weight.detach().clone() for weight in own]
    try:
        for weight in own:
            weight.grad = torch.zeros_like(weight)
        state.optimizer.step()
        for weight, old in zip(own, before, strict=True):
            torch.testing.assert_close(weight.detach(), old * (1 - 0.1 * decay))
    finally:
        with torch.no_grad():
            for weight, old in zip(own, before, strict=True):
                weight.copy_(old)
                weight.grad = None
