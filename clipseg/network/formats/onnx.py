"""CLIPSeg as three ONNX files, for programs without torch: image encoder, text encoder, decoder.

An image is encoded once and then asked by any number of prompts, as in torch: activations and the prompts' embeddings meet
only in the decoder. What is traced are the modules of `model.py` themselves; nothing of the network is written anew.
"""

import contextlib
import copy
import importlib.util
import inspect
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn
from torch.export import Dim

from clipseg.errors import ClipSegError
from clipseg.files import write_json
from clipseg.network.model import CLIPSeg
from clipseg.network.preprocess import MEAN, STD

FORMAT = {"format": "clipseg-onnx", "version": 1}
# The threshold of the paper's tables on PhraseCut (docs/paper.md, Sec. 5).
THRESHOLD = 0.3
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


def export_onnx(model: CLIPSeg, folder: str | Path) -> None:
    """Write `image_encoder.onnx`, `text_encoder.onnx`, `decoder.onnx`, and `config.json`, which says how to feed them.

    * image encoder: `pixels` float32 `[B, 3, H, W]`, normalised -> for each read-out `activation_<block>` `[B, 1 + h*w, C]`;
    * text encoder: `tokens` int64 `[N, L]`, where L is CLIP's context length -> `condition` `[N, E]`;
    * decoder: `condition` `[N, E]`, `image_index` int64 `[N]` (the image that each prompt asks about), `grid` int64 `[2]`,
      which is (h, w) = (H / P, W / P), and the activations -> `logits` `[N, H, W]`.

    B, N, H and W are free, as long as the patch size P divides H and W. Weights are float32.

    Args:
        model: stays as it is; a copy on the CPU is exported, in evaluation mode.
        folder: new or empty; it appears when all files are written.

    Raises:
        ClipSegError: the packages of the extra `onnx` are missing, the folder holds files or cannot be written, or the text
            tower or tokenizer is not CLIP's own.
    """
    _check_packages()
    backbone = model.backbone
    if model.config.image_tower is not None:
        raise ClipSegError(f"image_tower={model.config.image_tower}: only models on CLIP's own image tower are exported")
    if not backbone.has_plain_text_tower or not isinstance(backbone.tokenizer, SimpleTokenizer):
        raise ClipSegError(
            f"backbone {backbone.name!r}: only CLIP's own text tower and tokenizer are exported; choose a plain CLIP"
        )
    with _new_folder(Path(folder)) as staging:
        graphs = graphs_of(copy.deepcopy(model).cpu().float().eval())
        for graph in graphs:
            path = staging / f"{graph.name}.onnx"
            write_graph(graph, path, patch_size=backbone.patch_size, native_grid=backbone.clip.visual.grid_size)
        write_json(staging / "config.json", _config(model, graphs))


def _check_packages() -> None:
    missing = " and ".join(name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None)
    if missing:
        raise ClipSegError(f"export to ONNX needs {missing}, which the extra onnx brings: pip install 'clipseg[onnx]'")


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill; it is put in the place of `folder` only when the block ends without an error."""
    parent = None
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ClipSegError(f"{folder}: exists and is not an empty folder; choose a new one, or delete it")
        folder.parent.mkdir(parents=True, exist_ok=True)
        parent = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        # A folder inside, since mkdtemp makes folders private to the user.
        staging = parent / "export"
        staging.mkdir()
        yield staging
        staging.replace(folder)
    except OSError as error:
        raise ClipSegError(f"{folder}: cannot be written ({error.strerror}); free the space or choose another") from error
    finally:
        if parent is not None:
            shutil.rmtree(parent, ignore_errors=True)


def graphs_of(model: CLIPSeg) -> tuple[Graph, Graph, Graph]:
    """The model cut into image encoder, text encoder and decoder; outputs have the names of the inputs they go to."""
    backbone = model.backbone
    activations: Axes = {f"activation_{layer}": ("batch", "tokens", backbone.width) for layer in model.config.extract_layers}
    tokens: Axes = {"tokens": ("prompts", backbone.clip.context_length)}
    condition: Axes = {"condition": ("prompts", backbone.embed_dim)}
    questions: Axes = {**condition, "image_index": ("prompts",), "grid": (2,), **activations}
    logits: Axes = {"logits": ("prompts", "height", "width")}
    return (
        Graph("image_encoder", ImageEncoder(model), {"pixels": ("batch", 3, "height", "width")}, activations),
        Graph("text_encoder", TextEncoder(model), tokens, condition, integers=("tokens",)),
        Graph("decoder", PromptDecoder(model), questions, logits, integers=("image_index", "grid")),
    )


class ImageEncoder(nn.Module):
    """Normalised pixels `[B, 3, H, W]` -> the activations, shallow to deep; blocks behind the deepest read-out are left out."""

    def __init__(self, model: CLIPSeg):
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.activations(pixels))


class TextEncoder(nn.Module):
    """int64 tokens `[N, L]` -> CLIP's embedding `[N, E]`, not normalised."""

    def __init__(self, model: CLIPSeg):
        super().__init__()
        self.backbone = model.backbone

    def forward(self, tokens: Tensor) -> Tensor:
        return self.backbone.encode_tokens(tokens)


class PromptDecoder(nn.Module):
    """The decoder with the grid as a tensor, int64 `[2]`: a graph takes nothing but tensors."""

    def __init__(self, model: CLIPSeg):
        super().__init__()
        self.decoder = model.decoder

    def forward(self, condition: Tensor, image_index: Tensor, grid: Tensor, *activations: Tensor) -> Tensor:
        height, width = grid.tolist()
        # What tracing cannot know of numbers that arrive as data.
        torch._check(height > 0)
        torch._check(width > 0)
        torch._check(height * width == activations[0].shape[1] - 1)
        return self.decoder(activations, condition, image_index, (height, width))


def _config(model: CLIPSeg, graphs: Sequence[Graph]) -> dict[str, Any]:
    """Return what a program needs that has nothing but the three graphs."""
    backbone, size = model.backbone, model.config.image_size
    assert isinstance(backbone.tokenizer, SimpleTokenizer)
    return {
        **FORMAT,
        "backbone": backbone.name,
        "extract_layers": list(model.config.extract_layers),
        "patch_size": backbone.patch_size,
        "image_size": size,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "context_length": backbone.clip.context_length,
        "start_token": backbone.tokenizer.sot_token_id,
        "end_token": backbone.tokenizer.eot_token_id,
        "threshold": THRESHOLD,
        "steps": {
            "pixels": f"RGB / 255, resized to {size}x{size} (bilinear, corners aligned) or any size that patch_size divides, "
            "minus image_mean, over image_std",
            "tokens": "CLIP's byte-pair encoding of the text in lower case: start_token, the text's tokens, end_token, then "
            "zeros up to context_length; a longer text is cut so that end_token comes last",
            "image_index": "for each prompt the number of the image it asks about",
            "grid": "height and width of the pixels, over patch_size",
            "logits": "probability = sigmoid(logits), mask = probability > threshold",
        },
        "graphs": {graph.name: {"inputs": _shapes(graph.inputs), "outputs": _shapes(graph.outputs)} for graph in graphs},
    }


def _shapes(tensors: Axes) -> dict[str, list[str | int]]:
    return {name: list(axes) for name, axes in tensors.items()}


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
