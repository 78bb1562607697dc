"""CLIPSeg as three ONNX files, for programs without torch: image encoder, text encoder, decoder.

An image is encoded once and then asked by any number of prompts, as in torch: activations and the prompts' embeddings meet
only in the decoder. What is traced are the modules of `model.py` themselves; nothing of the network is written anew.
"""

import contextlib
import copy
import importlib.util
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from clipseg.errors import ClipSegError
from clipseg.files import write_json
from clipseg.network.formats.tracing import Axes, Graph, write_graph
from clipseg.network.model import CLIPSeg
from clipseg.network.preprocess import MEAN, STD

FORMAT = {"format": "clipseg-onnx", "version": 1}
# The threshold of the paper's tables on PhraseCut (facts Sec. 5).
THRESHOLD = 0.3


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
    """What a program needs that has nothing but the three graphs."""
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
