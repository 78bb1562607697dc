"""Kernels that make a CPU fast, and nothing else: the arithmetic of torch's modules with less memory to move.

torch hands a product on the CPU to a BLAS that packs the weight anew at every call. In a backbone of which nothing else takes
as long, packing once by oneDNN saves a seventh to a quarter of the time, and takes the weight's memory a second time; half of
that in bfloat16, in which processors that have it multiply twice as fast.
"""

import functools
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from clipseg.errors import check_one_of

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}

# weight -> dtype -> (the state it was in when it was packed, the packed copy); an entry goes with its weight.
_packed = WeakTensorKeyDictionary()


def frozen_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As `F.linear`, but without gradients: x `[..., C]`, weight `[D, C]`, bias `[D]` -> `[..., D]`.

    float32 weights on an x86 CPU are taken from the packed copy, under autocast to bfloat16 from one of that dtype, if the
    processor has it. All else is `F.linear`: other devices and dtypes, what is compiled or exported, and a torch without oneDNN
    or with it switched off (`torch.backends.mkldnn.flags`).
    """
    dtype = _packed_dtype(x, weight)
    if dtype is None:
        return F.linear(x, weight, bias)
    copies, state = _packed.setdefault(weight, {}), weight_state(weight)
    found = copies.get(dtype)
    if found is None or found[0] != state:
        found = copies[dtype] = (state, torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype)))
    bias = None if bias is None else bias.to(dtype)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(dtype), found[1], bias, "none", [], "")
    return product


def weight_state(weight: Tensor) -> tuple[Any, ...]:
    """What tells whether a weight is still what it was, in microseconds: where it lies, and torch's count of its changes.

    Of a float32 weight `[D, C]` on the CPU also the sum of one row and one column: torch does not count what is written through
    `.data`, which changes whole rows or columns, if not all. Single elements written that way are not seen.
    """
    state = (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
    if weight.device.type != "cpu" or weight.ndim != 2 or weight.dtype != torch.float32:
        return state
    values = weight.detach().numpy()
    return *state, float(values[len(values) // 2].sum()), float(values[:, -1].sum())


def _packed_dtype(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """Of the packed copy that shall be taken, if any."""
    if not (
        x.device.type == weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not weight.is_inference()  # torch does not count its changes
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined]
        and bool(torch.backends.mkldnn.enabled)
        and _can_pack()
    ):
        return None
    if torch.is_autocast_enabled("cpu"):
        return torch.bfloat16 if torch.get_autocast_dtype("cpu") == torch.bfloat16 and cpu_has_bf16() else None
    return torch.float32 if x.dtype == torch.float32 else None


def attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """As `F.scaled_dot_product_attention`, `[B, heads, T, C / heads]`; for bfloat16 on a CPU in half its time, an image at a
    time. Scores and weights are bfloat16, what the softmax computes between them is not."""
    if queries.dtype != torch.bfloat16 or queries.device.type != "cpu" or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(queries, keys, values)
    parts = (part.split(1) for part in (queries * queries.shape[-1] ** -0.5, keys, values))
    with torch.autocast("cpu", enabled=False):  # which would copy the scores to float32 and back
        return torch.cat([(q @ k.mT).softmax(dim=-1) @ v for q, k, v in zip(*parts, strict=True)])


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """In what the products of the frozen part are computed: "float32", or "bf16" where the device multiplies it faster.

    Elsewhere a warning says so, and it is float32.

    Raises:
        ClipSegError: another name.
    """
    check_one_of("precision", name, tuple(PRECISIONS))
    can = cpu_has_bf16() if device.type == "cpu" else device.type == "cuda" and torch.cuda.is_bf16_supported(False)
    if name == "bf16" and not can:
        what = "this processor has neither AVX512_BF16 nor AMX" if device.type == "cpu" else f"{device} has no bfloat16"
        warnings.warn(f"precision=bf16: {what}; float32 is taken", stacklevel=2)
        return torch.float32
    return PRECISIONS[name]


@functools.cache
def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself; where it does not, oneDNN's way around is slower than float32."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return _can_pack() and any(getattr(torch.cpu, name, bool)() for name in names)


@functools.cache
def _can_pack() -> bool:
    """Whether this torch has the product, and the processor is of a kind that it was tried on.

    torch's own compiler calls it; as it has no public name, a torch without it must do.
    """
    names = ("_linear_pointwise", "_reorder_linear_weight")
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
        and all(hasattr(torch.ops.mkldnn, name) for name in names)
    )


def quick_gelu_(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x) in the memory of x: fresh memory for a step costs the CPU more than its arithmetic.

    silu(y) is y * sigmoid(y), in one pass over the memory.
    """
    return F.silu(x.mul_(1.702), inplace=True).mul_(1 / 1.702)


class Linear(nn.Linear):
    """A linear layer that learns, and of which the packed copy is taken where it does not."""

    def forward(self, x: Tensor) -> Tensor:
        """`[..., C]` -> `[..., D]`."""
        return frozen_linear(x, self.weight, self.bias)


class Dropout(nn.Dropout):
    """Dropout at a quarter of torch's cost on the CPU, where drawing a float for each hidden unit took 40% of a training step.

    There 16 random bits decide on an element: p becomes the next multiple of 1/65536 (0.100006 for 0.1), scaled exactly.
    """

    def forward(self, x: Tensor) -> Tensor:
        """A tensor of any shape, unchanged in evaluation mode."""
        if not self.is_our_own(x):
            return super().forward(x)
        keep, scale = self.draw(x)
        return torch.where(keep, x, 0.0) * scale

    def after_relu_(self, x: Tensor) -> Tensor:
        """Dropout of relu(x) in the memory of x, which is the widest of all: finding new memory would take the CPU longer than
        computing."""
        return _ReluDropout.apply(x, *self.draw(x)) if self.is_our_own(x) else super().forward(x.relu_())

    def is_our_own(self, x: Tensor) -> bool:
        """Whether elements of x are to be dropped, and by this class; torch does it on GPUs and in compiled code."""
        return self.training and x.device.type == "cpu" and not torch.compiler.is_compiling()

    def draw(self, x: Tensor) -> tuple[Tensor, float]:
        """Which elements of x are kept, a bool of its shape, and by what they are multiplied."""
        dropped = round(self.p * 65536)
        # Four elements a draw: random_ over all of int64 fills each of its 16-bit parts evenly.
        bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        return bits[: x.numel()].view(x.shape) >= dropped - 32768, 65536 / (65536 - dropped)


class _ReluDropout(torch.autograd.Function):
    """ReLU and dropout in one: what of the result is above zero is all that the gradient needs to know."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        torch.where(keep, x.relu_(), x.new_zeros(()), out=x).mul_(scale)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        ctx.scale = scale
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (result,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradients[0], result, 0).mul_(ctx.scale), None, None


class Unpatch(nn.ConvTranspose2d):
    """A transposed convolution whose kernel is its stride: each place becomes a patch of its own, by one matrix product.

    On the CPU it takes a tenth of what torch's convolution does.
    """

    def __init__(self, dim: int, channels: int, patch_size: int):
        super().__init__(dim, channels, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """`[N, D, h, w]` -> `[N, C, h*P, w*P]`."""
        _, channels, side, _ = self.weight.shape
        assert self.bias is not None
        patches = F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1).T, self.bias.repeat_interleave(side * side))
        # [N, h, w, C * P * P] -> [N, C, h, P, w, P]
        return patches.unflatten(3, (channels, side, side)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
