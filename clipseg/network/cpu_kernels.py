"""Linear layers whose weights do not change, as fast as a CPU does them: oneDNN's product with each weight packed once.

torch hands a float32 product on the CPU to a BLAS that packs the weight anew at every call. In a backbone of which nothing else
takes as long, packing once saves a seventh to a quarter of the time, and takes the weight's memory a second time.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

# weight -> (where and in which version it lay when it was packed, the packed copy); an entry goes with its weight.
_packed = WeakTensorKeyDictionary()


def frozen_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As `F.linear`, but without gradients: x `[..., C]`, weight `[D, C]`, bias `[D]` -> `[..., D]`.

    float32 on an x86 CPU takes the packed copy, which is made anew when the weight was changed or moved (not when it is
    written to through `.data`, which torch does not count). All else is `F.linear`: other devices and dtypes, autocast, what
    is compiled or exported, and a torch without oneDNN or with it switched off (`torch.backends.mkldnn.flags`).
    """
    if not _takes_packed(x, weight):
        return F.linear(x, weight, bias)
    state = (weight.data_ptr(), weight._version)
    found = _packed.get(weight)
    if found is None or found[0] != state:
        found = _packed[weight] = (state, torch.ops.mkldnn._reorder_linear_weight(weight.detach()))
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, found[1], bias, "none", [], "")
    return product


def _takes_packed(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not weight.is_inference()  # torch does not count its changes
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined]
        and bool(torch.backends.mkldnn.enabled)
        and _can_pack()
    )


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
