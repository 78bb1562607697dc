"""Trains the bundled CLIP: contrastively, on captions of synthetic scenes, as CLIP was trained on captions of photos.

    python -m clipseg.tools.train_mini_clip --out clipseg/assets/mini_clip.safetensors

What it is: a CLIP of three million parameters that knows 8 kinds of things, 8 colours, 4 patterns, 3 sizes and 4 relations in
the drawings of `clipseg.data.mini.scenes`, so that the whole project can be run, tested and studied without a download. What it
is not: a substitute for CLIP. It has never seen a photo, and a word outside its vocabulary means nothing to it.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from clipseg.data.mini.phrases import EXTREMES, Description
from clipseg.data.mini.scenes import RELATIONS, SIZES, Kind, draw_scene, relation
from clipseg.network.cpu_kernels import cpu_has_bf16
from clipseg.network.mini_clip import EMBED_DIM, TEXT_CONFIG, VISION_CONFIG, load_mini_clip, save_mini_clip
from clipseg.network.preprocess import normalise
from clipseg.prompts.text import TEMPLATES
from clipseg.tools.mini_clip_accuracy import SIDE, WORDS, scene_pixels, zero_shot_accuracy

TEMPLATES_OF_CAPTIONS = TEMPLATES["extended"]
SAID = (1.0, 0.7, 0.25, 0.4)  # how often a caption says each of them
SLOTS = 3  # objects a caption can name
UNSAID, ABSENT = -1, -2
PATCH = VISION_CONFIG["patch_size"]
CAPTIONS = 2  # of an image that are true, and as many that are true but for one word

Claims = NDArray[
    np.int64
]  # [SLOTS * len(WORDS) + 1]: the words of each thing, largest first; the relation of the first to the second


def pretrain(
    out: Path, *, steps: int = 1500, batch_size: int = 128, learning_rate: float = 2e-3, workers: int = 1, seed: int = 0
) -> dict[str, float]:
    """Train the bundled CLIP and write its weights, settings and zero-shot accuracies.

    AdamW, cosine after a short warm-up. Every batch is drawn anew, by workers while the one before it is learned. Products are
    in bfloat16 where the processor multiplies it faster. CLIP saw 400 million captions; these are a thousand times fewer, from
    which an outline is hard to learn. So for the first half of the steps, on crowded scenes, the last tokens of the patches
    learn alone, through a linear layer that is thrown away, the words of the thing that lies there; then captions come.

    Args:
        out: the safetensors file to write.
        steps, batch_size, learning_rate, seed: same values, same machine and same number of threads give the same weights.
        workers: processes that draw.

    Returns:
        The accuracies of `zero_shot_accuracy`.
    """
    model, tokenizer = load_mini_clip(pretrained=False, seed=seed)
    model.train()
    model.visual.output_tokens = True
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        named = nn.Linear(VISION_CONFIG["width"], sum(map(len, WORDS)) + 1)
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": [*others, *named.parameters()], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step, warm_up=60, steps=steps))
    alone = steps // 2
    drawn = Drawings(seed, count=steps * batch_size, crowded=alone * batch_size)
    drawings = DataLoader(drawn, batch_size=batch_size, num_workers=workers, prefetch_factor=4 if workers else None)
    for step, (images, captions, claims, facts, patches) in enumerate(drawings, start=1):
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bf16()):
            seen, places = model.visual(normalise(images.float() / 255))
        loss = naming_loss(named(places.float()), patches)
        if step > alone:
            tokens = tokenizer([text for texts in captions for text in texts])
            tokens = tokens[
                :, : int(tokens.argmax(dim=1).max()) + 1
            ]  # what follows the longest is nothing: the tower is causal
            with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bf16()):
                read = _encode_text(model, tokens)
            loss = loss + contrastive_loss(
                F.normalize(seen.float(), dim=-1),
                F.normalize(read.float(), dim=-1),
                scale=model.logit_scale.exp().clamp(max=100.0),
                is_true=truth(claims.transpose(0, 1).flatten(0, 1), facts),
            )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if step % 20 == 0:
            print(f"step {step}/{steps} loss {loss.item():.3f}", flush=True)
        if step % 100 == 0 and step > alone:
            print(measured(model), flush=True)
    accuracy = measured(model)
    metadata = {
        "embed_dim": EMBED_DIM,
        "vision": VISION_CONFIG,
        "text": TEXT_CONFIG,
        "training": {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed},
        "zero_shot": accuracy,
    }
    save_mini_clip(model, out, token_ids=vocabulary(), metadata=metadata)
    return accuracy


def measured(model: CLIP) -> dict[str, float]:
    """`zero_shot_accuracy` of a model in training."""
    model.visual.output_tokens = False
    accuracy = zero_shot_accuracy(model.eval())
    model.train().visual.output_tokens = True
    return accuracy


def _encode_text(model: CLIP, tokens: Tensor) -> Tensor:
    """As `CLIP.encode_text`, which takes no fewer tokens than its context."""
    mask = model.attn_mask[: tokens.shape[1], : tokens.shape[1]]
    x = model.transformer(model.token_embedding(tokens) + model.positional_embedding[: tokens.shape[1]], attn_mask=mask)
    return model.ln_final(x)[torch.arange(len(x)), tokens.argmax(dim=-1)] @ model.text_projection


def _warm_cosine(step: int, *, warm_up: int, steps: int) -> float:
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def contrastive_loss(image_embeddings: Tensor, text_embeddings: Tensor, *, scale: Tensor, is_true: Tensor) -> Tensor:
    """CLIP's symmetric loss with soft targets: a caption shares its probability among all images of which it is true, and an
    image among all captions; a caption that is true of none is only among those an image is told from.

    Args:
        image_embeddings, text_embeddings: float32 `[N, E]` and `[M, E]`, of length 1.
        scale: the inverse temperature.
        is_true: bool `[M, N]`, caption i is true of image j; each image has one.
    """
    logits = scale * text_embeddings @ image_embeddings.T
    target = is_true.float()
    some = is_true.any(dim=1)
    by_text = F.cross_entropy(logits[some], target[some] / target[some].sum(dim=1, keepdim=True))
    by_image = F.cross_entropy(logits.T, target.T / target.T.sum(dim=1, keepdim=True))
    return (by_text + by_image) / 2


def naming_loss(scores: Tensor, patches: Tensor) -> Tensor:
    """The cross-entropy of the words of what lies at each patch that something covers, and of whether something does.

    The category, which is the hardest to see, counts four times as much as each of the others.

    Args:
        scores: `[B, P, W + 1]`, of all words in the order of `WORDS`, and of being covered.
        patches: int64 `[B, P, len(WORDS)]`, or `ABSENT`.
    """
    covered = patches[..., 0] != ABSENT
    *of_words, of_covered = scores.split([*map(len, WORDS), 1], dim=-1)
    category, *others = (F.cross_entropy(part[covered], patches[covered][:, place]) for place, part in enumerate(of_words))
    others.append(F.binary_cross_entropy_with_logits(of_covered[..., 0], covered.float()))
    return category + torch.stack(others).sum() / 4


def truth(claims: Tensor, facts: Tensor) -> Tensor:
    """Which captions are true of which images: int `[M, K]` claims and `[N, K]` facts -> bool `[M, N]`; what is unsaid is not
    wrong."""
    return ((claims[:, None] == facts[None]) | (claims[:, None] == UNSAID)).all(dim=-1)


class Drawings(Dataset[tuple[Tensor, list[str], Tensor, Tensor, Tensor]]):
    """Captioned scenes of one to three things, after `crowded` ones of three to five. Item i is a pure function of (seed, i).

    An item is: uint8 image `[3, SIDE, SIDE]`; 2 * `CAPTIONS` captions, each true one followed by one with a wrong word; what
    they claim, int64 `[2 * CAPTIONS, K]`; what is so, int64 `[K]`; and the words of the thing that covers most of each patch,
    int64 `[P, len(WORDS)]`, `ABSENT` where none does.
    """

    def __init__(self, seed: int, *, count: int, crowded: int = 0) -> None:
        self.seed = seed
        self.count = count
        self.crowded = crowded

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, list[str], Tensor, Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, index])
        scene = draw_scene(rng, _some_kinds(rng, 2 if index < self.crowded else 0), side=SIDE)
        # As people do, a caption names the main thing first: so the embedding of "a flag left of a board" is about the flag.
        things = sorted(scene.objects, key=lambda thing: -int(thing.mask.sum()))
        words = np.array([_word_indices(thing.kind) for thing in things])
        facts = np.full((SLOTS, len(WORDS)), ABSENT)
        facts[: len(things)] = words[:SLOTS]
        word = relation(things[0], things[1]) if len(things) > 1 else None
        known = np.append(facts, RELATIONS.index(word) if word else ABSENT)
        claims = []
        for _ in range(CAPTIONS):
            claims.append(_some_claims(rng, known))
            claims.append(_with_a_wrong_word(rng, claims[-1]))
        captions = [_caption(rng, claim) for claim in claims]
        patches = np.full((SIDE // PATCH, SIDE // PATCH, len(WORDS)), ABSENT)
        for thing, own in zip(things, words, strict=True):
            patches[thing.mask.reshape(SIDE // PATCH, PATCH, -1, PATCH).mean((1, 3)) > 0.5] = own
        claimed, so, there = map(torch.from_numpy, (np.stack(claims), known, patches.reshape(-1, len(WORDS))))
        return scene_pixels(scene), captions, claimed, so, there


def _some_kinds(rng: np.random.Generator, more: int) -> list[Kind]:
    count = more + int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))
    sizes = list(SIZES) if count == 1 else ["small", "medium"]
    words = (WORDS[0], WORDS[1], sizes, WORDS[3])
    kinds = [Kind(*(str(rng.choice(choices)) for choices in words)) for _ in range(count)]
    # Often a second thing of the same category or the same colour: neither word alone then tells them apart.
    if count > 1 and rng.random() < 0.4:
        shared = {"category": kinds[0].category} if rng.random() < 0.5 else {"colour": kinds[0].colour}
        kinds[1] = kinds[1]._replace(**shared)
    return kinds


def _word_indices(kind: Kind) -> list[int]:
    return [words.index(word) for words, word in zip(WORDS, kind, strict=True)]


def _some_claims(rng: np.random.Generator, known: Claims) -> Claims:
    """Some of what is so: of the first thing, of all, or how the first lies to the second."""
    claims = np.full_like(known, UNSAID)
    count = int((known[: -1 : len(WORDS)] != ABSENT).sum())
    relates = count > 1 and known[-1] != ABSENT and rng.random() < 0.5
    named = 2 if relates else 1 if rng.random() < 0.3 else count
    said = np.append((rng.random((SLOTS, len(WORDS))) < SAID) & (np.arange(SLOTS) < named)[:, None], relates)
    claims[said] = known[said]
    return claims


def _with_a_wrong_word(rng: np.random.Generator, claims: Claims) -> Claims:
    """The same but for one word; a relation is turned round half the time that there is one."""
    wrong, said = claims.copy(), np.flatnonzero(claims != UNSAID)
    place = int(said[-1]) if claims[-1] != UNSAID and rng.random() < 0.5 else int(rng.choice(said))
    choices = RELATIONS if place == len(claims) - 1 else WORDS[place % len(WORDS)]
    # Relations lie in pairs: left and right, above and below.
    wrong[place] = claims[place] ^ 1 if choices is RELATIONS else (claims[place] + rng.integers(1, len(choices))) % len(choices)
    return wrong


def _caption(rng: np.random.Generator, claims: Claims) -> str:
    """What says so, alone or in a template."""
    names = [_name(words) for words in claims[:-1].reshape(SLOTS, len(WORDS)) if words[0] != UNSAID]
    phrase = " and a ".join(names) if claims[-1] == UNSAID else f"{names[0]} {RELATIONS[claims[-1]]} a {names[1]}"
    template = "{}" if rng.random() < 0.4 else str(rng.choice(TEMPLATES_OF_CAPTIONS))
    return template.format(phrase)


def _name(indices: Claims) -> str:
    category, *others = (None if i == UNSAID else words[i] for words, i in zip(WORDS, indices, strict=True))
    assert category is not None, "a thing has its name"
    return Description(category, *others).text


def vocabulary() -> list[int]:
    """The sorted token ids of all words that captions, the mini data's phrases and the paper's templates use."""
    _, tokenizer = load_mini_clip(pretrained=False)
    texts = [word for words in (*WORDS, RELATIONS, EXTREMES) for word in words]
    texts += [template.format("") for template in TEMPLATES_OF_CAPTIONS] + ["and", "an", ","]
    return sorted(set(tokenizer(texts).flatten().tolist()))


def main() -> None:
    """The command line: `python -m clipseg.tools.train_mini_clip --out FILE`."""
    parser = argparse.ArgumentParser(description="Train the bundled CLIP on synthetic scenes (about an hour on two cores).")
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(pretrain(options.out, steps=options.steps, seed=options.seed))


if __name__ == "__main__":
    main()
