"""What the frozen part gave for texts and for views that come again: it takes longer than all else."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from clipseg.errors import ClipSegError
from clipseg.files import atomic_write, user_cache
from clipseg.network.backbone import weights_checksum
from clipseg.network.cpu_kernels import weight_state
from clipseg.network.model import CLIPSeg

TEXTS_KEPT = 65_536  # embeddings of 2 KB each
TEXTS_AT_ONCE = 64  # memory does not grow with their number
ROOMS = ("network", "prompts")  # of the code that computes features


class TextCache:
    """The embeddings of the last `TEXTS_KEPT` texts, by the text in its template, as long as the backbone's weights stay."""

    def __init__(self) -> None:
        self._embeddings: dict[str, Tensor] = {}
        self._weights: list[nn.Parameter] = []
        self._state: list[tuple[Any, ...]] = []

    def encode(self, model: CLIPSeg, texts: Sequence[str]) -> Tensor:
        """As `model.encode_text`; only texts that are not known pass the tower, each once."""
        self._forget_other_weights(model)
        found = {text: self._embeddings.pop(text, None) for text in dict.fromkeys(texts)}
        missing = [text for text, embedding in found.items() if embedding is None]
        for start in range(0, len(missing), TEXTS_AT_ONCE):
            chunk = missing[start : start + TEXTS_AT_ONCE]
            # A copy each: a view would keep all that it was computed with.
            found |= {text: row.clone() for text, row in zip(chunk, model.encode_text(chunk), strict=True)}
        embeddings = {text: embedding for text, embedding in found.items() if embedding is not None}
        self._embeddings |= embeddings
        for text in list(self._embeddings)[: max(0, len(self._embeddings) - TEXTS_KEPT)]:
            self._embeddings.pop(text, None)
        return torch.stack([embeddings[text] for text in texts])

    def _forget_other_weights(self, model: CLIPSeg) -> None:
        """Drop all where a weight was replaced, moved or written to."""
        weights = list(model.backbone.parameters())
        state = [(id(weight), *weight_state(weight)) for weight in weights]
        if state != self._state:
            # Kept, so that no other weights can lie where these lay.
            self._embeddings, self._weights, self._state = {}, weights, state


def feature_cache(folder: str | None, model: CLIPSeg) -> "FeatureCache | None":
    """The cache that `training.feature_cache` names; of "auto" none on a GPU, which computes faster than files are read.

    Raises:
        ClipSegError: a folder was named, and the model is on a GPU.
    """
    device = next(model.decoder.parameters()).device.type
    if folder is None or (folder == "auto" and device != "cpu"):
        return None
    if device != "cpu":
        raise ClipSegError(f"training.feature_cache={folder} is there for a CPU, and this is {device}; leave it out")
    return FeatureCache(user_cache() / "features" if folder == "auto" else Path(folder).expanduser(), model)


class FeatureCache:
    """Tensors by the pixels that they were computed from, a file a view; nothing is ever taken away.

    Each view is computed alone, so that what is kept does not depend on the batch in which it came first: a run that goes on,
    or that finds all there, has the bits of one that computed everything.

    Args:
        folder: shared by all backbones; made where it is missing.
        model: on the CPU. Its frozen weights, torch's version and the code that computes tell its features from others.

    Attributes:
        computed: the number of views that were not there.
    """

    def __init__(self, folder: Path, model: CLIPSeg):
        digest = hashlib.sha256(f"{torch.__version__} {model.backbone.checksum()}".encode())
        if model.prompt_head is not None:
            digest.update(weights_checksum(model.prompt_head).encode())
        for source in sorted(path for room in ROOMS for path in (Path(__file__).parents[1] / room).glob("*.py")):
            digest.update(source.read_bytes())
        self.folder = folder / digest.hexdigest()[:16]
        self.computed = 0

    def look_up(self, kind: str, compute: Callable[..., Sequence[Tensor]], *inputs: Sequence[Tensor]) -> list[Tensor]:
        """The features of B views.

        Args:
            kind: all that decides them besides weights and inputs.
            compute: lists of length 1, of each input one -> tensors `[1, ...]`.
            inputs: lists of B tensors of uint8: pixels, or pixels and masks.

        Returns:
            As many tensors `[B, ...]`, float32, as `compute` gives.
        """
        views = [self._of_view(kind, compute, view) for view in zip(*inputs, strict=True)]
        return [torch.stack(parts) for parts in zip(*views, strict=True)]

    def _of_view(self, kind: str, compute: Callable[..., Sequence[Tensor]], view: tuple[Tensor, ...]) -> list[Tensor]:
        digest = hashlib.blake2b(kind.encode(), digest_size=16)
        for tensor in view:
            digest.update(f" {list(tensor.shape)} ".encode())
            digest.update(tensor.contiguous().numpy().data)
        path = self.folder / f"{digest.hexdigest()}.safetensors"
        try:
            kept = load_file(path)
            return [kept[str(place)] for place in range(len(kept))]
        except (OSError, SafetensorError, KeyError):  # not there, or damaged
            found = [part[0].float() for part in compute(*([tensor] for tensor in view))]
        with atomic_write(path) as file:
            file.write(save({str(place): part.contiguous() for place, part in enumerate(found)}))
        self.computed += 1
        return found
