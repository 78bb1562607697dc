"""One torch module -> one ONNX file whose sizes stay free; what the tensors and their axes are called is up to the caller."""

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim

# Tensor name -> its axes: a word is a size that stays free, a number one that does not.
Axes = Mapping[str, Sequence[str | int]]


@dataclass(frozen=True)
class Graph:
    """A module in evaluation mode (float32, CPU), and the tensors that go in, in the order of its arguments, and come out.

    Free sizes are "batch", "prompts", "height", "width" (pixels) and "tokens"; the tensors named in `integers` are int64.
    """

    name: str
    module: nn.Module
    inputs: Axes
    outputs: Axes
    integers: tuple[str, ...] = ()


def write_graph(graph: Graph, path: Path, *, patch_size: int, native_grid: tuple[int, int]) -> None:
    """Trace the module and write it; weights of more than 1.5 GB go to a second file beside `path`.

    Args:
        graph: what to write.
        path: the file.
        patch_size: P, which divides height and width.
        native_grid: (h, w) of CLIP's own positions.
    """
    examples, shapes = _examples(graph, patch_size, native_grid)
    inputs, outputs = list(graph.inputs), list(graph.outputs)
    with torch.no_grad(), _quiet_exporter():
        traced = torch.export.export(graph.module, examples, dynamic_shapes=shapes)
        program = torch.onnx.export(traced, input_names=inputs, output_names=outputs, dynamo=True, verbose=False)
    assert program is not None
    _tidy(program, graph)
    program.save(str(path))


def _examples(graph: Graph, patch_size: int, native_grid: tuple[int, int]) -> tuple[tuple[torch.Tensor, ...], dict[str, Any]]:
    """A tensor an input, and which of its sizes are free, nested as the module's arguments are."""
    # Another grid than CLIP's own, at which no interpolation would be traced. Sizes of 0 and 1 would be taken to be fixed.
    rows, columns = native_grid[0] + 1, native_grid[1] + 2
    sizes = {
        "batch": (2, Dim("batch")),
        "prompts": (3, Dim("prompts")),
        "height": (patch_size * rows, patch_size * Dim("rows")),
        "width": (patch_size * columns, patch_size * Dim("columns")),
        "tokens": (1 + rows * columns, Dim("tokens", min=3)),
    }
    examples, free = [], []
    for name, axes in graph.inputs.items():
        shape = [sizes[axis][0] if isinstance(axis, str) else axis for axis in axes]
        examples.append(torch.ones(shape, dtype=torch.int64 if name in graph.integers else torch.float32))
        free.append({position: sizes[axis][1] for position, axis in enumerate(axes) if isinstance(axis, str)})
    return tuple(examples), inspect.signature(graph.module.forward).bind(*free).arguments


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns of its own workings, which are no concern of the user's."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _tidy(program: Any, graph: Graph) -> None:
    """Drop the exporter's notes, which quote source files of this machine, and call free sizes by name instead of s81."""
    from onnxscript import ir

    for part in (program.model, program.model.graph, *program.model.graph.all_nodes()):
        part.metadata_props.clear()
    for node in program.model.graph.all_nodes():
        for value in node.outputs:
            value.shape = None
    for values, tensors in ((program.model.graph.inputs, graph.inputs), (program.model.graph.outputs, graph.outputs)):
        for value, axes in zip(values, tensors.values(), strict=True):
            value.shape = ir.Shape(axes)
