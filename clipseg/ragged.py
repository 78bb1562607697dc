"""Arrays of many sizes as one: what a batch of photos travels in, from a reader's process to the device by one copy."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Ragged(Sequence[Tensor]):
    """Tensors of one dtype, each a view of the same buffer.

    Args:
        buffer: `[L]`, with at least as many elements behind the last tensor as a row of any has.
        starts: where in it each tensor begins.
        shapes: theirs, `(H, W)` or `(C, H, W)`; all with as many dimensions.
    """

    def __init__(self, buffer: Tensor, starts: Sequence[int], shapes: Sequence[tuple[int, ...]]):
        self.buffer, self.starts, self.shapes = buffer, starts, shapes

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> "Ragged":
        """The tensors, at least one, copied into a buffer; what is ragged stays as it is."""
        return tensors if isinstance(tensors, Ragged) else pack([tensors])[0]

    def __len__(self) -> int:
        return len(self.shapes)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> "Ragged": ...
    def __getitem__(self, index: int | slice) -> "Tensor | Ragged":
        if isinstance(index, slice):
            return Ragged(self.buffer, self.starts[index], self.shapes[index])
        shape, start = self.shapes[index], self.starts[index]
        return self.buffer[start : start + int(np.prod(shape))].view(shape)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def to(self, buffer: Tensor) -> "Ragged":
        """The same tensors in a copy of the buffer, such as one on a device."""
        return Ragged(buffer, self.starts, self.shapes)

    @property
    def sides(self) -> NDArray[np.int64]:
        """Heights and widths, int64 `[2, B]`."""
        return np.array([shape[-2:] for shape in self.shapes], dtype=np.int64).reshape(-1, 2).T

    def rows(self, wanted: NDArray[np.int64]) -> Tensor:
        """K rows of each tensor, `wanted` `[B, K]`, in one copy -> `[B, C, K, W]` (C = 1 for those without channels).

        W is the width of the widest; behind the end of a shorter row lies something else.
        """
        heights, widths = self.sides
        channels = self.shapes[0][0] if len(self.shapes[0]) == 3 else 1
        planes = np.array(self.starts)[:, None] + np.arange(channels) * (heights * widths)[:, None]
        starts = planes[:, :, None] + (wanted * widths[:, None])[:, None]
        windows = self.buffer.unfold(0, int(widths.max()), 1)
        return windows.index_select(0, send(starts.ravel(), self.buffer.device)).view(*starts.shape, -1)


def pack(parts: Sequence[Sequence[Tensor]]) -> list[Ragged]:
    """Each part's tensors, those of all parts in one buffer; what occurs twice lies there once."""
    tensors = {id(tensor): tensor for part in parts for tensor in part}
    ends = np.cumsum([tensor.numel() for tensor in tensors.values()])
    starts = dict(zip(tensors, [0, *ends.tolist()], strict=False))
    widest = max((tensor.shape[-1] for tensor in tensors.values()), default=0)
    flat = [tensor.reshape(-1) for tensor in tensors.values()]
    buffer = torch.cat([*flat, flat[0].new_zeros(widest)]) if flat else torch.empty(0)
    return [Ragged(buffer, [starts[id(tensor)] for tensor in part], [tuple(tensor.shape) for tensor in part]) for part in parts]


def send(values: "NDArray[np.generic] | Tensor", device: torch.device) -> Tensor:
    """Small values to a device; a GPU's work so far is not waited for."""
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
