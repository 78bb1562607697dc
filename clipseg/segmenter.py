"""From a picture and prompts to probabilities: the model for people, who have photos of any size and know nothing of tensors.

An image passes the backbone once, whatever the number of prompts; text embeddings are kept. Knows network and prompts, but no
data set.
"""

import math
import numbers
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipseg.errors import ClipSegError, one_line
from clipseg.image_io import ImageLike, read_image
from clipseg.network.backbone import Activations
from clipseg.network.config import LARGEST_IMAGE_SIZE
from clipseg.network.feature_cache import TextCache
from clipseg.network.model import CLIPSeg
from clipseg.network.preprocess import normalise, prepare_images, resize_images, resize_objects, resize_probabilities
from clipseg.network.weights import trained_model
from clipseg.prompts.support import Mix, Prompt, VisualPrompt
from clipseg.prompts.text import fill
from clipseg.prompts.text import templates as checked_templates
from clipseg.prompts.visual import DEFAULT_VARIANT, VARIANTS, engineer

CHUNK = 32  # prompt images embedded at once: memory does not grow with their number


@dataclass(frozen=True)
class _EncodedImage:
    activations: Activations
    size: tuple[int, int]  # of the image itself


class Segmenter:
    """Answers prompts about images.

    Args:
        model: on the device that is to do the work; put into evaluation mode. Or what `load` takes, such as "mini".
        size: to which the whole image is squashed: None, the model's own square, as the paper evaluates; an integer for another
            square; or (H, W). Multiples of the patch size.
        keep_aspect: instead of squashing, keep the image's shape at about as many pixels as the square has (sides rounded to
            whole patches, and never beyond four times the square's).
        templates: put around every text: a named set, one template or a list (`clipseg.prompts.text.templates`). A phrase's
            embedding is the plain mean over them, not normalised, as the decoder takes it.

        precision: as `load` takes it; None: the model's own.

    Raises:
        ClipSegError: no model, a size that the patch size does not divide, unknown templates or precision.
    """

    def __init__(
        self,
        model: CLIPSeg | str | os.PathLike[str],
        *,
        size: int | tuple[int, int] | None = None,
        keep_aspect: bool = False,
        templates: str | Sequence[str] = "plain",
        precision: str | None = None,
    ):
        model = trained_model(model)
        self.model = model = model if precision is None else model.at_precision(precision)
        self._size = _checked_size(model.config.image_size if size is None else size, model.backbone.patch_size, keep_aspect)
        self._keep_aspect = keep_aspect
        self._templates = checked_templates(templates)
        self._texts = TextCache()
        self._image: _EncodedImage | None = None

    def __call__(self, image: ImageLike, prompts: Sequence[Prompt] | Prompt) -> Tensor:
        """Segment an image by prompts.

        Args:
            image: path, bytes of a file, PIL image of any mode, array or tensor (`clipseg.image_io.read_image`).
            prompts: texts, `VisualPrompt`s, `Mix`es of the two, and embeddings, float `[E]`, not normalised, in any mixture.

        Returns:
            Probabilities, float32 `[N, H, W]` on the CPU, at the size of the image, upright as its EXIF orientation says.

        Raises:
            ClipSegError: an image that cannot be read, no prompts, one of another kind, or probabilities that are not finite.
        """
        conditions = self.embed(prompts)
        return self.calibrated(self._answer(self._encode(image), conditions), prompts)

    def set_image(self, image: ImageLike) -> None:
        """Pass an image through the backbone and keep it, for any number of calls of `predict`."""
        self._image = None  # where this one fails, no answer may be about the one before
        self._image = self._encode(image)

    def predict(self, prompts: Sequence[Prompt] | Prompt) -> Tensor:
        """As `__call__`, about the image of the last `set_image`."""
        if self._image is None:
            raise ClipSegError("no image to ask about; call set_image(image) before predict(prompts)")
        return self.calibrated(self._answer(self._image, self.embed(prompts)), prompts)

    def calibrated(self, maps: Tensor, prompts: Sequence[Prompt] | Prompt) -> Tensor:
        """Apply to the maps `[N, H, W]` of texts, in place, the temperatures that the model knows of; return all maps."""
        known = self.model.calibration
        for place, prompt in enumerate(_as_list(prompts) if known else ()):
            if isinstance(prompt, str) and prompt in known:
                maps[place] = known[prompt](maps[place])
        return maps

    @torch.no_grad()
    def embed(self, prompts: Sequence[Prompt] | Prompt) -> Tensor:
        """N prompts -> conditions, float `[N, E]` on the model's device; prompts themselves, to be used on many images."""
        reference = next(self.model.decoder.parameters())
        prompts = [_checked_prompt(prompt, self.model.backbone.embed_dim, reference) for prompt in _as_list(prompts)]
        pairs = [(prompt.text, prompt.visual) if isinstance(prompt, Mix) else (prompt,) for prompt in prompts]
        parts = [part for pair in pairs for part in pair]
        texts = self._embed_texts([part for part in parts if isinstance(part, str)])
        visuals = self._embed_visuals([part for part in parts if isinstance(part, VisualPrompt)])
        return torch.stack([_condition(prompt, texts, visuals).to(reference) for prompt in prompts])

    def _embed_texts(self, phrases: Sequence[str]) -> dict[str, Tensor]:
        """The mean embedding of each phrase over the templates."""
        phrases = list(dict.fromkeys(phrases))
        if not phrases:
            return {}
        filled = [fill(template, phrase) for phrase in phrases for template in self._templates]
        means = self._texts.encode(self.model, filled).view(len(phrases), len(self._templates), -1).mean(dim=1)
        return dict(zip(phrases, means, strict=True))

    def _embed_visuals(self, prompts: Sequence[VisualPrompt]) -> dict[VisualPrompt, Tensor]:
        """Each prompt's engineered image, embedded: the paper's choice of operations, at the model's own square (Sec. 4)."""
        size = (self.model.config.image_size, self.model.config.image_size)
        reference = next(self.model.decoder.parameters())
        embedded: dict[VisualPrompt, Tensor] = {}
        for start in range(0, len(prompts), CHUNK):
            chunk = prompts[start : start + CHUNK]
            images = resize_images([prompt.image.to(reference.device) for prompt in chunk], size)
            masks = resize_objects([prompt.mask.to(reference.device) for prompt in chunk], size)
            shown, _ = engineer(images, masks, VARIANTS[DEFAULT_VARIANT], normalise=normalise)
            embedded |= dict(zip(chunk, self.model.encode_image(shown.to(reference)), strict=True))
        return embedded

    @torch.no_grad()
    def _encode(self, image: ImageLike) -> _EncodedImage:
        reference = next(self.model.decoder.parameters())
        pixels = read_image(image)
        own_size = (pixels.shape[1], pixels.shape[2])
        size = _same_aspect(own_size, self._size, self.model.backbone.patch_size) if self._keep_aspect else self._size
        prepared = prepare_images([pixels.to(reference.device)], size).to(reference)
        return _EncodedImage(self.model.activations(prepared), own_size)

    @torch.no_grad()
    def _answer(self, image: _EncodedImage, conditions: Tensor) -> Tensor:
        self.model.eval()  # no dropout, should the model be in training between two calls
        try:
            answer = torch.empty(len(conditions), *image.size, dtype=torch.float32, device="cpu")
        except RuntimeError as error:
            height, width = image.size
            raise ClipSegError(
                f"no memory for {len(conditions)} maps of {width}x{height} pixels; ask less at once, or shrink the image"
            ) from error
        index, done = torch.zeros(len(conditions), dtype=torch.int64, device=conditions.device), 0
        for maps in self.model.probabilities(image.activations, conditions, index):
            if not maps.isfinite().all():
                raise ClipSegError(
                    "the model's probabilities are not finite; its weights are damaged, its precision is too low, or an "
                    "embedding is too large"
                )
            answer[done : done + len(maps)] = resize_probabilities(maps, image.size)
            done += len(maps)
        return answer


def _checked_size(size: int | tuple[int, int], patch_size: int, keep_aspect: bool) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2 or any(
        not isinstance(side, numbers.Integral) or side < patch_size or side % patch_size for side in sides
    ):
        raise ClipSegError(f"size={size} must be an integer or (H, W), multiples of the patch size {patch_size}")
    if max(sides) > LARGEST_IMAGE_SIZE:
        raise ClipSegError(f"size={size} is more than {LARGEST_IMAGE_SIZE} pixels a side")
    if keep_aspect and sides[0] != sides[1]:
        raise ClipSegError(f"size={size} and keep_aspect: give one integer, the side of a square with as many pixels")
    return int(sides[0]), int(sides[1])


def _same_aspect(own_size: tuple[int, int], square: tuple[int, int], patch_size: int) -> tuple[int, int]:
    """The size in whole patches with the image's aspect and about the square's area."""
    height, width = own_size
    patches = square[0] / patch_size
    stretch = min(max(math.sqrt(height / width), 0.25), 4.0)
    return max(round(patches * stretch), 1) * patch_size, max(round(patches / stretch), 1) * patch_size


def _as_list(prompts: Sequence[Prompt] | Prompt) -> list[Prompt]:
    """A single prompt is a list of one."""
    if isinstance(prompts, (str, VisualPrompt, Mix)) or (isinstance(prompts, Tensor) and prompts.ndim < 2):
        prompts = [prompts]
    if not isinstance(prompts, (Sequence, Tensor)):
        raise ClipSegError(f"prompts of type {type(prompts).__name__}; expected a list")
    if len(prompts) == 0:
        raise ClipSegError("no prompts; pass at least one text, VisualPrompt, Mix or embedding")
    return list(prompts)


def _checked_prompt(prompt: Prompt, embed_dim: int, reference: Tensor) -> Prompt:
    """A prompt as it is; an embedding as the model takes it."""
    if isinstance(prompt, Tensor):
        kind = f"embedding {prompt.dtype}, {prompt.layout}"
        try:
            found = prompt.to_dense().to(reference) if prompt.is_floating_point() and not prompt.is_meta else None
        except RuntimeError as error:
            raise ClipSegError(f"{kind}: cannot be read ({one_line(error)[:120]})") from error
        if found is None or found.shape != (embed_dim,) or not found.isfinite().all():
            raise ClipSegError(f"{kind} {list(prompt.shape)}; expected finite float [{embed_dim}]")
        return found
    if not isinstance(prompt, (str, VisualPrompt, Mix)):
        raise ClipSegError(f"prompt of type {type(prompt).__name__}; expected a text, VisualPrompt, Mix or embedding")
    text = prompt.text if isinstance(prompt, Mix) else prompt
    # What a shell passes on of a text in another encoding than the terminal's.
    if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text):
        raise ClipSegError(f"prompt {text!a} holds bytes that are no text; write it in UTF-8")
    return prompt


def _condition(prompt: Prompt, texts: Mapping[str, Tensor], visuals: Mapping[VisualPrompt, Tensor]) -> Tensor:
    if isinstance(prompt, Mix):
        return prompt.weight * texts[prompt.text] + (1 - prompt.weight) * visuals[prompt.visual]
    if isinstance(prompt, VisualPrompt):
        return visuals[prompt]
    return texts[prompt] if isinstance(prompt, str) else prompt
