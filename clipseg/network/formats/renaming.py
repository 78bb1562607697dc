"""One table a foreign layout: what each of our tensors is called there; read forwards to load, backwards to save."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clipseg.network.tensor_files import check_tensors


@dataclass(frozen=True)
class Rename:
    """One tensor of ours.

    Attributes:
        ours: its key here.
        theirs: its key there; several are stacked here along the first axis (queries, keys, values).
        transposed: whether the matrix lies the other way there.
    """

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False


Table = Sequence[Rename]


def linear(ours: str, *theirs: str) -> Iterator[Rename]:
    """The weight and the bias of one layer (linear, norm or convolution)."""
    for kind in ("weight", "bias"):
        yield Rename(f"{ours}.{kind}", tuple(f"{name}.{kind}" for name in theirs))


def from_theirs(
    state: Mapping[str, Any], table: Table, *, shapes: Mapping[str, torch.Size], dropped: Mapping[str, str], source: object
) -> dict[str, Tensor]:
    """A foreign state dict -> ours, float32.

    Args:
        state: the file's tensors.
        table: covers each key of `shapes` once.
        shapes: our keys and their shapes, which decide the shapes there.
        dropped: beginnings of keys that are left out, with the reason for each.
        source: the file, for errors.

    Raises:
        ClipSegError: missing or unknown keys, wrong shapes, values that are not finite: all listed.
    """
    assert {entry.ours for entry in table} == shapes.keys(), "the renaming table must cover the model"
    kept = {}
    for key, tensor in state.items():
        reason = next((why for start, why in dropped.items() if str(key).startswith(start)), None)
        if reason is None:
            kept[key] = tensor
        else:
            logging.getLogger(__name__).info("%s: %s left out: %s", source, key, reason)
    tensors = check_tensors(kept, _their_shapes(table, shapes), source=source)
    renamed = {}
    for entry in table:
        tensor = torch.cat([tensors[key] for key in entry.theirs]) if len(entry.theirs) > 1 else tensors[entry.theirs[0]]
        renamed[entry.ours] = tensor.T.contiguous() if entry.transposed else tensor
    return renamed


def _their_shapes(table: Table, shapes: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    found: dict[str, torch.Size] = {}
    for entry in table:
        shape = shapes[entry.ours]
        if entry.transposed:
            shape = torch.Size(reversed(shape))
        elif len(entry.theirs) > 1:
            shape = torch.Size((shape[0] // len(entry.theirs), *shape[1:]))
        found |= dict.fromkeys(entry.theirs, shape)
    return found


def to_theirs(state: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """Our state dict -> the foreign one, as float32 copies on the CPU."""
    renamed: dict[str, Tensor] = {}
    for entry in table:
        tensor = state[entry.ours].detach().float().cpu()
        parts = tensor.chunk(len(entry.theirs)) if len(entry.theirs) > 1 else [tensor.T if entry.transposed else tensor]
        renamed |= {
            key: part.clone(memory_format=torch.contiguous_format) for key, part in zip(entry.theirs, parts, strict=True)
        }
    return renamed
