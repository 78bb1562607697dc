"""The forward pass of a step on a GPU that is only pretended: nothing is read back from it, and all meet on one device."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from clipseg.data.sample import Sample, Support, Task, collate
from clipseg.network.model import create_model
from clipseg.run.conditioning import Conditioner
from clipseg.run.settings import PromptSettings
from clipseg.run.training import batch_iou, forward

GPU = torch.device("cuda:0")


def sample(number: int) -> Sample:
    size = (40 + number, 60)
    image, mask = torch.zeros(3, *size, dtype=torch.uint8), torch.ones(size, dtype=torch.uint8)
    support = Support(image=image, mask=mask) if number % 2 else None
    task = Task(key=f"{number}", phrase="a dog", mask=mask, group="", seed=number, support=support)
    return Sample(image_key=f"{number}", image=image, tasks=[task])


@pytest.fixture
def model(monkeypatch):
    model = create_model("mini", None, extract_layers=(1, 2), reduce_dim=16, image_size=64)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)  # the pretence does not know it
    embed_dim = model.backbone.embed_dim
    monkeypatch.setattr(model.backbone, "encode_text", lambda texts: torch.empty(len(texts), embed_dim, device=GPU))
    return model


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_a_step_s_forward_pass_waits_for_nothing(model):
    batch, condition = collate([sample(number) for number in range(4)]), Conditioner(PromptSettings())
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in model.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    there = torch.empty(weight.shape, device=GPU)
                    module._parameters[name] = nn.Parameter(there, requires_grad=weight.requires_grad)
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else torch.empty(buffer.shape, dtype=buffer.dtype, device=GPU)
        batch = batch.to(GPU)
        logits, masks = forward(model, batch, condition)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), masks.float())
        overlap = batch_iou(logits, masks, 0.3)
        assert {tensor.device for tensor in (logits, masks, loss, overlap)} == {GPU}
        with pytest.raises(DataDependentOutputException):
            loss.item()
