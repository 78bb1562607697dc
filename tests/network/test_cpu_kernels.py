"""Products with packed weights are those of torch's own linear layer, and follow the weight."""

import gc

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clipseg.network import cpu_kernels as module
from clipseg.network.cpu_kernels import attention, frozen_linear

packs = pytest.mark.skipif(not module._can_pack(), reason="needs an x86 CPU and a torch with oneDNN")


@pytest.fixture
def layer() -> nn.Linear:
    return nn.Linear(24, 40).requires_grad_(False)


def is_the_same(x: torch.Tensor, layer: nn.Linear) -> bool:
    expected = F.linear(x, layer.weight, layer.bias)
    found = frozen_linear(x, layer.weight, layer.bias)
    return found.dtype == expected.dtype and torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(24,), (5, 24), (2, 485, 24), (0, 3, 24)])
def test_any_shape_is_multiplied_as_by_torch(layer: nn.Linear, shape: tuple[int, ...]):
    assert is_the_same(torch.randn(shape), layer)


@torch.no_grad()
def test_strided_inputs_and_no_bias(layer: nn.Linear):
    x = torch.randn(2, 24, 5).mT
    assert is_the_same(x, layer)
    layer.bias = None
    assert is_the_same(x, layer)


@torch.no_grad()
def test_a_changed_weight_is_packed_anew(layer: nn.Linear):
    x = torch.randn(5, 24)
    assert is_the_same(x, layer)
    layer.weight.mul_(2)
    assert is_the_same(x, layer)
    layer.load_state_dict(nn.Linear(24, 40).state_dict())
    assert is_the_same(x, layer)
    layer.weight.data = torch.randn(40, 24)
    assert is_the_same(x, layer)


@packs
@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_written_through_data_is_noticed(layer: nn.Linear, dtype: torch.dtype):
    """torch does not count it: not a whole weight, and neither a row nor a column."""
    x, data = torch.randn(5, 24), layer.weight.data
    writes = (lambda: data.mul_(2), lambda: data[7].fill_(3), lambda: data[:, 3].fill_(-4), lambda: data.copy_(data.flip(0)))
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        for write in (lambda: None, *writes):
            write()
            found = frozen_linear(x, layer.weight, layer.bias).float()
            torch.testing.assert_close(found, F.linear(x, layer.weight, layer.bias).float(), rtol=0.02, atol=0.05)


@torch.no_grad()
def test_attention_in_bfloat16_is_attention():
    q, k, v = torch.randn(3, 2, 4, 50, 16)
    assert torch.equal(attention(q, k, v), F.scaled_dot_product_attention(q, k, v))
    found = attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), F.scaled_dot_product_attention(q, k, v), rtol=0.05, atol=0.03)


@packs
@torch.no_grad()
def test_a_weight_is_packed_once_and_its_copy_goes_with_it(monkeypatch: pytest.MonkeyPatch):
    gc.collect()
    before = len(module._packed)
    layer = nn.Linear(24, 40).requires_grad_(False)
    for _ in range(3):
        frozen_linear(torch.randn(5, 24), layer.weight, layer.bias)
    assert len(module._packed) == before + 1
    del layer
    gc.collect()
    assert len(module._packed) == before


@packs
@pytest.mark.filterwarnings("ignore:TF32")
@torch.no_grad()
def test_only_float32_weights_on_the_cpu_are_packed(layer: nn.Linear):
    gc.collect()
    before, x = len(module._packed), torch.randn(5, 24)
    assert is_the_same(x.double(), layer.double())
    layer.float()
    with torch.autocast("cpu", dtype=torch.float16):
        assert frozen_linear(x, layer.weight, layer.bias).dtype == torch.float16
    with torch.enable_grad():
        x.requires_grad_()
        assert frozen_linear(x, layer.weight, layer.bias).requires_grad, "gradients are torch's business"
    with torch.inference_mode():
        assert is_the_same(torch.randn(5, 24), nn.Linear(24, 40))
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(frozen_linear(x, layer.weight, layer.bias), layer(x))
    assert len(module._packed) == before
