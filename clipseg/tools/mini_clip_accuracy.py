"""What the bundled CLIP knows: fresh drawings classified by names alone, as CLIP classifies photos."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from open_clip.model import CLIP
from torch import Tensor

from clipseg.data.mini.scenes import COLOURS, RELATIONS, SIZES, Kind, Scene, draw_scene, relation
from clipseg.data.mini.shapes import CATEGORIES, PATTERNS
from clipseg.network.mini_clip import create_tokenizer
from clipseg.network.preprocess import normalise
from clipseg.prompts.text import TEMPLATES

SIDE = 112  # 7 x 7 patches; things keep the pixel sizes they have in the 176 x 176 scenes of the mini data
WORDS: tuple[tuple[str, ...], ...] = (tuple(CATEGORIES), tuple(COLOURS), tuple(SIZES), tuple(PATTERNS))  # as in `Kind`
TEMPLATE = TEMPLATES["fixed"][0]


def scene_pixels(scene: Scene) -> Tensor:
    """A scene's image, uint8 `[3, SIDE, SIDE]`."""
    return torch.from_numpy(scene.image).permute(2, 0, 1).contiguous()


@torch.no_grad()
def zero_shot_accuracy(model: CLIP, *, count: int = 640, seed: int = 1_000_003) -> dict[str, float]:
    """Classify fresh scenes by the names alone, as CLIP classifies photos: "a photo of a {}.".

    Returns:
        The accuracy in [0, 1] on single things among the 64 colour x category names ("pair"), the 8 category names ("category")
        and the 4 patterns of the category ("pattern"); and on two things between a relation and the same turned round
        ("relation").
    """
    tokenizer = create_tokenizer()
    device = model.logit_scale.device

    def read(texts: Sequence[str]) -> Tensor:
        return model.encode_text(tokenizer([TEMPLATE.format(text) for text in texts]).to(device), normalize=True).cpu()

    kinds = [_kind(i) for i in range(count)]
    seen = torch.cat([_embed(model, kinds[i : i + 64], seed + i) for i in range(0, count, 64)])
    pairs = [(category, colour) for category in CATEGORIES for colour in COLOURS]
    right = {
        "pair": (seen @ read([f"{colour} {category}" for category, colour in pairs]).T).argmax(1)
        == torch.tensor([pairs.index(kind[:2]) for kind in kinds]),
        "category": (seen @ read(list(CATEGORIES)).T).argmax(1)
        == torch.tensor([WORDS[0].index(kind.category) for kind in kinds]),
    }
    patterned = read([f"{pattern} {category}" for category in CATEGORIES for pattern in PATTERNS]).unflatten(
        0, (-1, len(PATTERNS))
    )
    own = patterned[[WORDS[0].index(kind.category) for kind in kinds]]
    told = (own @ seen[:, :, None])[..., 0].argmax(1)
    right["pattern"] = told == torch.tensor([WORDS[3].index(kind.pattern) for kind in kinds])
    right["relation"] = _relations_told(model, read, count=count // 2, seed=seed)
    return {name: hits.float().mean().item() for name, hits in right.items()}


def _kind(item: int) -> Kind:
    """The kinds of single things in turn, each pair of colour and category as often."""
    return Kind(*(words[item // step % len(words)] for words, step in zip(WORDS, (8, 1, 3, 5), strict=True)))


def _embed(model: CLIP, kinds: Sequence[Kind], seed: int) -> Tensor:
    """Embeddings `[B, E]` of drawings of single things."""
    scenes = [draw_scene(np.random.default_rng([seed, i]), [kind], side=SIDE) for i, kind in enumerate(kinds)]
    return _see(model, list(map(scene_pixels, scenes)))


def _see(model: CLIP, images: Sequence[Tensor]) -> Tensor:
    pixels = torch.stack(list(images)).to(model.logit_scale.device)
    return model.encode_image(normalise(pixels.float() / 255), normalize=True).cpu()


def _relations_told(model: CLIP, read: Callable[[Sequence[str]], Tensor], *, count: int, seed: int) -> Tensor:
    """Whether an image of two things is nearer to their relation than to the opposite: bool `[count]`."""
    images: list[Tensor] = []
    texts: list[str] = []
    item = 0
    while len(images) < count:
        rng = np.random.default_rng([seed, 7, item])
        item += 1
        names = rng.permutation(WORDS[0])[:2]
        kinds = [
            Kind(str(name), str(rng.choice(WORDS[1])), size) for name, size in zip(names, ("medium", "small"), strict=True)
        ]
        scene = draw_scene(rng, kinds, side=SIDE)
        word = relation(*scene.objects) if len(scene.objects) == 2 else None
        if word:
            images.append(scene_pixels(scene))
            both = (word, RELATIONS[RELATIONS.index(word) ^ 1])
            texts += [f"{kinds[0].colour} {names[0]} {each} a {kinds[1].colour} {names[1]}" for each in both]
    seen = _see(model, images)
    right, wrong = ((seen * part).sum(1) for part in read(texts).unflatten(0, (-1, 2)).unbind(1))
    return right > wrong
