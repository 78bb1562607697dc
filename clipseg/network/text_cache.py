"""Embeddings of texts that were asked before: CLIP's text tower is frozen, and takes longer than all else a prompt needs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clipseg.network.cpu_kernels import weight_state
from clipseg.network.model import CLIPSeg

TEXTS_KEPT = 65_536  # embeddings of 2 KB each
TEXTS_AT_ONCE = 64  # memory does not grow with their number


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
