"""One block of a vision or text transformer, by open_clip's own modules, for what takes no gradients."""

import functools
from collections.abc import Callable

import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

from clipseg.network.cpu_kernels import attention, frozen_linear, quick_gelu_

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
causal_attention: Attention = functools.partial(F.scaled_dot_product_attention, is_causal=True)


def run_block(block: nn.Module, x: Tensor, *, attend: Attention = attention) -> Tensor:
    """One pre-norm transformer block on tokens `[B, T, C]`; open_clip's by its own modules, attention without the detours.

    Takes no gradients: what a step has computed is overwritten by the next (x itself never is).
    `attend` takes queries, keys and values `[B, heads, T, C / heads]` and returns what each token gathers, in the same shape.
    """
    if not isinstance(block, ResidualAttentionBlock):
        assert attend is attention, "only open_clip's plain blocks attend as they are told"
        return block(x)
    heads = block.attn
    b, t, c = x.shape
    qkv = frozen_linear(block.ln_1(x), heads.in_proj_weight, heads.in_proj_bias)
    q, k, v = qkv.view(b, t, 3, heads.num_heads, c // heads.num_heads).permute(2, 0, 3, 1, 4)
    mixed = attend(q, k, v).transpose(1, 2).reshape(b, t, c)
    x = _added(x, block.ls_1(frozen_linear(mixed, heads.out_proj.weight, heads.out_proj.bias)))
    expand, contract = block.mlp.c_fc, block.mlp.c_proj
    hidden = _linear(expand, block.ln_2(x))
    hidden = quick_gelu_(hidden) if isinstance(block.mlp.gelu, QuickGELU) else block.mlp.gelu(hidden)
    return _added(x, block.ls_2(_linear(contract, hidden)))


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer's product; what torch put in its place, such as a quantised one, computes in a way of its own."""
    return frozen_linear(x, layer.weight, layer.bias) if isinstance(layer, nn.Linear) else layer(x)


def _added(x: Tensor, update: Tensor) -> Tensor:
    """x + update, in the memory of `update`; under autocast the sum stays as precise as x."""
    return update.add_(x) if update.dtype == x.dtype else x + update
