"""Trains the bundled CLIP: contrastively, on captions of synthetic scenes, as CLIP was trained on captions of photos.

    python -m clipseg.tools.train_mini_clip --out clipseg/assets/mini_clip.safetensors

What it is: a CLIP of three million parameters that knows 8 kinds of things, 8 colours, 3 sizes and 4 relations in the drawings
of `clipseg.data.mini.scenes`, so that the whole project can be run, tested and studied without a download. What it is not: a
substitute for CLIP. It has never seen a photo, and a word outside its vocabulary means nothing to it.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clipseg.data.mini.phrases import Description
from clipseg.data.mini.scenes import CATEGORIES, COLOURS, RELATIONS, SIZES, Kind, Scene, SceneObject, draw_scene, relation
from clipseg.network.mini_clip import EMBED_DIM, TEXT_CONFIG, VISION_CONFIG, load_mini_clip, save_mini_clip
from clipseg.network.preprocess import normalise
from clipseg.prompts.text import TEMPLATES

SIDE = 112  # 7 x 7 patches; things keep the pixel sizes they have in the 176 x 176 scenes of the mini data
CAPTIONS = TEMPLATES["extended"]
WORDS: tuple[tuple[str, ...], ...] = (tuple(CATEGORIES), tuple(COLOURS), tuple(SIZES))
SLOTS = 3  # objects a caption can name
UNSAID, ABSENT = -1, -2


def pretrain(
    out: Path, *, steps: int = 800, batch_size: int = 128, learning_rate: float = 1e-3, seed: int = 0
) -> dict[str, float]:
    """Train the bundled CLIP and write its weights, settings and zero-shot accuracies.

    AdamW, cosine after a short warm-up. Every batch is drawn anew. About 20 minutes on two cores.

    Args:
        out: the safetensors file to write.
        steps, batch_size, learning_rate, seed: same values, same machine and same number of threads give the same weights.

    Returns:
        The accuracies of `zero_shot_accuracy`.
    """
    model, tokenizer = load_mini_clip(pretrained=False, seed=seed)
    model.train()
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step, warm_up=40, steps=steps))
    drawings = Drawings(seed, count=steps * batch_size)
    for step, batch in enumerate(DataLoader(drawings, batch_size=batch_size), start=1):
        images, captions, claims, facts = batch
        loss = contrastive_loss(
            model.encode_image(normalise(images.float() / 255), normalize=True),
            model.encode_text(tokenizer(captions), normalize=True),
            scale=model.logit_scale.exp().clamp(max=100.0),
            is_true=truth(claims, facts),
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if step % 20 == 0:
            print(f"step {step}/{steps} loss {loss.item():.3f}", flush=True)
        if step % 150 == 0:
            print(zero_shot_accuracy(model.eval()), flush=True)
            model.train()
    accuracy = zero_shot_accuracy(model.eval())
    metadata = {
        "embed_dim": EMBED_DIM,
        "vision": VISION_CONFIG,
        "text": TEXT_CONFIG,
        "training": {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed},
        "zero_shot": accuracy,
    }
    save_mini_clip(model, out, token_ids=vocabulary(), metadata=metadata)
    return accuracy


def _warm_cosine(step: int, *, warm_up: int, steps: int) -> float:
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def contrastive_loss(image_embeddings: Tensor, text_embeddings: Tensor, *, scale: Tensor, is_true: Tensor) -> Tensor:
    """CLIP's symmetric loss with soft targets: a caption shares its probability among all images of which it is true.

    Args:
        image_embeddings, text_embeddings: float32 `[N, E]`, of length 1.
        scale: the inverse temperature.
        is_true: bool `[N, N]`, caption i is true of image j; true on the diagonal.
    """
    logits = scale * text_embeddings @ image_embeddings.T
    target = is_true.float()
    by_text = F.cross_entropy(logits, target / target.sum(dim=1, keepdim=True))
    by_image = F.cross_entropy(logits.T, target.T / target.T.sum(dim=1, keepdim=True))
    return (by_text + by_image) / 2


def truth(claims: Tensor, facts: Tensor) -> Tensor:
    """Which captions are true of which images: int `[N, K]` claims and facts -> bool `[N, N]`; what is unsaid is not wrong."""
    return ((claims[:, None] == facts[None]) | (claims[:, None] == UNSAID)).all(dim=-1)


class Drawings(Dataset[tuple[Tensor, str, Tensor, Tensor]]):
    """Captioned scenes of one to three things. Item i is a pure function of (seed, i).

    An item is: uint8 image `[3, SIDE, SIDE]`; its caption; what the caption claims and what is so, int64 `[10]` each: category,
    colour and size of the first, second and third thing, largest first, and the relation of the first to the second.
    """

    def __init__(self, seed: int, *, count: int) -> None:
        self.seed = seed
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, str, Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, index])
        scene = draw_scene(rng, _some_kinds(rng), side=SIDE)
        # As people do, a caption names the main thing first: so the embedding of "a flag left of a board" is about the flag.
        things = sorted(scene.objects, key=lambda thing: -int(thing.mask.sum()))
        caption, claims = _describe(rng, things)
        facts = np.full((SLOTS, len(WORDS)), ABSENT)
        facts[: len(things)] = [_word_indices(thing.kind) for thing in things]
        word = relation(things[0], things[1]) if len(things) > 1 else None
        all_facts = np.append(facts, RELATIONS.index(word) if word else ABSENT)
        return _to_tensor(scene), caption, torch.from_numpy(claims), torch.from_numpy(all_facts)


def _some_kinds(rng: np.random.Generator) -> list[Kind]:
    count = int(rng.choice([1, 2, 3], p=[0.6, 0.28, 0.12]))
    sizes = list(SIZES) if count == 1 else ["small", "medium"]
    kinds = [Kind(str(rng.choice(WORDS[0])), str(rng.choice(WORDS[1])), str(rng.choice(sizes))) for _ in range(count)]
    # Often a second thing of the same category or the same colour: neither word alone then tells them apart.
    if count > 1 and rng.random() < 0.4:
        shared = {"category": kinds[0].category} if rng.random() < 0.5 else {"colour": kinds[0].colour}
        kinds[1] = kinds[1]._replace(**shared)
    return kinds


def _word_indices(kind: Kind) -> list[int]:
    return [words.index(word) for words, word in zip(WORDS, kind, strict=True)]


def _describe(rng: np.random.Generator, things: list[SceneObject]) -> tuple[str, np.ndarray]:
    """A caption of the first, or of all things; and its claims."""
    named = things[:1] if rng.random() < 0.25 else things
    claims = np.full((SLOTS, len(WORDS)), UNSAID)
    names = []
    for slot, thing in enumerate(named):
        says_colour, says_size = rng.random() < 0.8, rng.random() < 0.3
        kind = thing.kind
        names.append(Description(kind.category, kind.colour if says_colour else None, kind.size if says_size else None).text)
        said = np.array([True, says_colour, says_size])
        claims[slot, said] = np.array(_word_indices(kind))[said]
    phrase, claimed_relation = " and a ".join(names), UNSAID
    word = relation(named[0], named[1]) if len(named) > 1 else None
    if word and rng.random() < 0.4:
        phrase, claimed_relation = f"{names[0]} {word} a {names[1]}", RELATIONS.index(word)
        claims[2:] = UNSAID
    template = "{}" if rng.random() < 0.4 else str(rng.choice(CAPTIONS))
    return template.format(phrase), np.append(claims, claimed_relation)


def _to_tensor(scene: Scene) -> Tensor:
    return torch.from_numpy(scene.image).permute(2, 0, 1).contiguous()


def vocabulary() -> list[int]:
    """The sorted token ids of all words that captions, the mini data's phrases and the paper's templates use."""
    _, tokenizer = load_mini_clip(pretrained=False)
    texts = [word for words in (*WORDS, RELATIONS) for word in words]
    texts += [template.format("") for template in CAPTIONS] + ["and", "an", ","]
    return sorted(set(tokenizer(texts).flatten().tolist()))


@torch.no_grad()
def zero_shot_accuracy(model: CLIP, *, count: int = 640, seed: int = 1_000_003) -> dict[str, float]:
    """Classify fresh scenes of a single thing by the names alone, as CLIP classifies photos: "a photo of a {}.".

    Returns:
        The accuracy in [0, 1] among the 64 colour x category names ("pair"), and among the 8 category names ("category").
    """
    _, tokenizer = load_mini_clip(pretrained=False)
    pairs = [(category, colour) for category in CATEGORIES for colour in COLOURS]
    pair_text, category_text = (
        model.encode_text(tokenizer([CAPTIONS[0].format(name) for name in names]), normalize=True)
        for names in ([f"{colour} {category}" for category, colour in pairs], list(CATEGORIES))
    )
    right_pair = right_category = 0
    for images, truth_index in _single_things(pairs, count=count, seed=seed):
        embeddings = model.encode_image(normalise(images.float() / 255), normalize=True)
        right_pair += int(((embeddings @ pair_text.T).argmax(dim=1) == truth_index).sum())
        right_category += int(((embeddings @ category_text.T).argmax(dim=1) == truth_index // len(COLOURS)).sum())
    return {"pair": right_pair / count, "category": right_category / count}


def _single_things(pairs: list[tuple[str, str]], *, count: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of images uint8 `[B, 3, SIDE, SIDE]`, each pair in turn, and the pairs' indices `[B]`."""
    sizes = list(SIZES)
    for start in range(0, count, 64):
        indices = range(start, min(start + 64, count))
        scenes = [
            draw_scene(np.random.default_rng([seed, i]), [Kind(*pairs[i % len(pairs)], sizes[i % len(sizes)])], side=SIDE)
            for i in indices
        ]
        yield torch.stack([_to_tensor(scene) for scene in scenes]), torch.tensor([i % len(pairs) for i in indices])


def main() -> None:
    """The command line: `python -m clipseg.tools.train_mini_clip --out FILE`."""
    parser = argparse.ArgumentParser(description="Train the bundled CLIP on synthetic scenes (about 20 minutes on two cores).")
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(pretrain(options.out, steps=options.steps, seed=options.seed))


if __name__ == "__main__":
    main()
