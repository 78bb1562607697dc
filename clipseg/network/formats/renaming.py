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


@dataclass(frozen=True)
class DecoderNames:
    """The names of the decoder's parts in a foreign layout; `{}` is the number of a block, the deepest first as ours."""

    film: str
    reduction: str
    block: str
    qkv: tuple[str, ...]  # one tensor, or one each for queries, keys and values
    expand: str
    contract: str
    norms: tuple[str, str]
    head: str


AUTHORS = DecoderNames(
    film="film_",
    reduction="reduces.{}",
    block="blocks.{}",
    qkv=("self_attn.in_proj_",),
    expand="linear1",
    contract="linear2",
    norms=("norm1", "norm2"),
    head="trans_conv",
)
TRANSFORMERS = DecoderNames(
    film="decoder.film_",
    reduction="decoder.reduces.{}",
    block="decoder.layers.{}",
    qkv=("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."),
    expand="mlp.fc1",
    contract="mlp.fc2",
    norms=("layer_norm1", "layer_norm2"),
    head="decoder.transposed_convolution",
)


def decoder_table(depth: int, head: str, names: DecoderNames = TRANSFORMERS) -> Table:
    """Our decoder's keys beside theirs."""
    table = [*linear("film.scale", f"{names.film}mul"), *linear("film.shift", f"{names.film}add")]
    for index in range(depth):
        ours, theirs = f"blocks.{index}", names.block.format(index)
        table += linear(f"reductions.{index}", names.reduction.format(index))
        for kind in ("weight", "bias"):
            table.append(Rename(f"{ours}.qkv.{kind}", tuple(f"{theirs}.{part}{kind}" for part in names.qkv)))
        table += linear(f"{ours}.project", f"{theirs}.self_attn.out_proj")
        table += linear(f"{ours}.expand", f"{theirs}.{names.expand}")
        table += linear(f"{ours}.contract", f"{theirs}.{names.contract}")
        table += linear(f"{ours}.norm1", f"{theirs}.{names.norms[0]}")
        table += linear(f"{ours}.norm2", f"{theirs}.{names.norms[1]}")
    for part in [""] if head == "plain" else [".0", ".2", ".4"]:
        table += linear(f"head{part}", f"{names.head}{part}")
    return table


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
