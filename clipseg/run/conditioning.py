"""A batch's prompts -> conditions: phrases in templates, support images engineered on the device, embedded and mixed."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.profiler import record_function

from clipseg.data.sample import Batch
from clipseg.errors import ClipSegError
from clipseg.network.backbone import CLIPBackbone
from clipseg.network.feature_cache import FeatureCache, TextCache
from clipseg.network.model import CLIPSeg
from clipseg.network.preprocess import Resize, normalise, resize_images, resize_objects
from clipseg.prompts.attention import ALL_VARIANTS, ATTENTION_VARIANTS, ORIGINAL
from clipseg.prompts.text import choose, fill, templates
from clipseg.prompts.visual import VARIANTS, engineer
from clipseg.ragged import send
from clipseg.run.settings import PromptSettings


class Conditioner:
    """How the targets of a batch are described to the decoder (paper Sec. 3 and 4; docs/paper.md, Sec. 2 and 3).

    Every choice of a task - its template, how much its text counts - is a function of the task's seed.

    Args:
        settings: which templates, which visual prompt engineering, and how text and image are mixed.
        resize: how images are brought to the model's size, support images and those they are prompts for.
        cache: keeps the embeddings of prompt images, and what `training.forward` needs of a batch's images.
    """

    def __init__(self, settings: PromptSettings, *, resize: Resize = "squash", cache: FeatureCache | None = None):
        self.resize: Resize = resize
        self.cache = cache
        self.templates = templates(settings.templates)
        if settings.visual_prompt not in ALL_VARIANTS:
            raise ClipSegError(
                f"prompt.visual_prompt={settings.visual_prompt!r} unknown; expected one of {', '.join(ALL_VARIANTS)}"
            )
        masking = ATTENTION_VARIANTS.get(settings.visual_prompt)
        if masking is not None and masking.how == "mixed_up":
            raise ClipSegError(
                f"prompt.visual_prompt={settings.visual_prompt} gives images one another's masks, as released for Tab. 2; "
                f"choose {settings.visual_prompt}_scores_times_mask or {settings.visual_prompt}_minus_infinity"
            )
        self.variant = settings.visual_prompt
        self.least, self.most = settings.text_weight
        self.ensemble = settings.ensemble
        self.known = TextCache()

    def __call__(self, model: CLIPSeg, batch: Batch) -> Tensor:
        """The conditions of a batch's N tasks, float `[N, E]`; a task without support has its text alone."""
        with record_function("text"):
            conditions = self.texts(model, batch.phrases, batch.seeds, batch.synonyms)
        index = torch.cat([batch.support_index, batch.blank_index])
        if not len(index):
            return conditions
        with record_function("prompt images"):
            visual = self.visual(model, batch)
        drawn = [np.random.default_rng((seed, 1)).uniform(self.least, self.most) for seed in batch.seeds]
        weight = send(torch.tensor(drawn, dtype=visual.dtype), visual.device)[index, None]
        mixed = weight * conditions[index] + (1 - weight) * visual
        return conditions.index_copy(0, index, mixed)

    def texts(
        self, model: CLIPSeg, phrases: Sequence[str], seeds: Sequence[int], synonyms: Sequence[Sequence[str]] | None = None
    ) -> Tensor:
        """The embeddings of N phrases, float `[N, E]`: each seed draws a template, or the mean is over all and all synonyms."""
        if not self.ensemble:
            choices = zip(phrases, seeds, strict=True)
            return self._encode(model, [fill(choose(self.templates, seed), phrase) for phrase, seed in choices])
        meant = synonyms or [[phrase] for phrase in phrases]
        texts = [[fill(template, phrase) for phrase in each for template in self.templates] for each in meant]
        embedded = self._encode(model, list(chain.from_iterable(texts)))
        return torch.stack([part.mean(dim=0) for part in embedded.split(list(map(len, texts)))])

    def _encode(self, model: CLIPSeg, texts: Sequence[str]) -> Tensor:
        # The last bits of an embedding depend on what it was computed with. On the CPU a run that goes on equals one that never
        # stopped, and many processes count what one does, bit for bit: nothing is kept there.
        on_gpu = next(model.decoder.parameters()).is_cuda
        return self.known.encode(model, texts) if on_gpu else model.encode_text(texts)

    def visual(self, model: CLIPSeg, batch: Batch) -> Tensor:
        """Embeddings of M engineered support images, then of K blank ones, float `[M + K, E]`, not normalised."""
        size = (model.config.image_size, model.config.image_size)
        found: list[Tensor] = []
        if batch.support_images:
            masked = self.variant in ATTENTION_VARIANTS
            if masked and model.config.image_prompts == "image_tower":
                raise ClipSegError(
                    f"prompt.visual_prompt={self.variant} masks CLIP's attention, but this model's prompt images pass "
                    f"{model.config.image_tower}; choose a variant without"
                )
            encoder = model.backbone if masked else model

            def embed(images: Sequence[Tensor], masks: Sequence[Tensor]) -> tuple[Tensor]:
                shown = resize_images(images, size, resize=self.resize)
                inside = resize_objects(masks, size, resize=self.resize)
                return (embed_prompt_images(encoder, shown, inside, self.variant),)

            supports = (batch.support_images, batch.support_masks)
            if self.cache is None:
                found += embed(*supports)
            else:
                kind = f"prompt images {self.variant} {size} {self.resize} {model.backbone.precision}"
                found += self.cache.look_up(kind, embed, *supports)
        if len(batch.blank_index):
            nothing = model.encode_image(torch.zeros(1, 3, *size, device=batch.blank_index.device))
            found.append(nothing.expand(len(batch.blank_index), -1))
        return torch.cat(found)


def embed_prompt_images(
    encoder: CLIPBackbone | CLIPSeg, images: Tensor, masks: Tensor, variant: str, *, size: int | None = None
) -> Tensor:
    """The embeddings of objects.

    Args:
        encoder: whose image tower embeds; for attention masks a backbone.
        images: float `[N, 3, H, W]` in [0, 1], not yet normalised.
        masks: `[N, H, W]`, bool or 0 and 1; of an empty one all is background.
        variant: one of `prompts.attention.ALL_VARIANTS`.
        size: side of the image that CLIP sees, in pixels, by default the images' own.

    Returns:
        float `[N, E]`, not normalised.
    """
    masking = ATTENTION_VARIANTS.get(variant)
    pixels = VARIANTS[variant if masking is None else ORIGINAL]
    shown, masks = engineer(images, masks, pixels, normalise=normalise, size=size)
    if masking is None:
        return encoder.encode_image(shown)
    assert isinstance(encoder, CLIPBackbone)
    from clipseg.network.attention_mask import encode_masked_image  # by those who mask

    return encode_masked_image(encoder, shown, masks, layers=masking.layers, rows=masking.rows, how=masking.how)
