"""Trains the bundled CLIP: contrastively, on captions of synthetic scenes, as CLIP was trained on captions of photos.

    python -m clipseg.tools.train_mini_clip --out clipseg/assets/mini_clip.safetensors

What it is: a CLIP of three million parameters that knows 8 kinds of things, 8 colours, 4 patterns, 3 sizes and 4 relations in
the drawings of `clipseg.data.mini.scenes`, so that the whole project can be run, tested and studied without a download. What it
is not: a substitute for CLIP. It has never seen a photo, and a word outside its vocabulary means nothing to it.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.utils.data import DataLoader

from clipseg.data.mini.scenes import RELATIONS
from clipseg.network.cpu_kernels import cpu_has_bf16
from clipseg.network.mini_clip import EMBED_DIM, TEXT_CONFIG, VISION_CONFIG, create_tokenizer, load_mini_clip, save_mini_clip
from clipseg.network.preprocess import normalise
from clipseg.tools.mini_clip_accuracy import zero_shot_accuracy
from clipseg.tools.mini_clip_drawings import (
    ABSENT,
    PATCH_WORDS,
    PHRASE_WORDS,
    TEMPLATES_OF_CAPTIONS,
    UNSAID,
    Drawing,
    Drawings,
)


def pretrain(
    out: Path,
    *,
    steps: int = 2000,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    workers: int = 1,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, float]:
    """Train the bundled CLIP and write its weights, settings and zero-shot accuracies.

    AdamW, cosine after a short warm-up. Every batch is drawn anew, by workers while the one before it is learned. Products are
    in bfloat16 where the processor multiplies it faster. CLIP saw 400 million captions; these are a thousand times fewer, from
    which an outline is hard to learn. So linear layers that are thrown away help, each of which tells words: the last token of
    a patch those of the thing that lies there and of how it lies to another; the image's embedding how the first thing lies to
    the second; a text's embedding its own. For the first half of the steps, on crowded scenes, only patches and texts learn;
    then captions come.

    Args:
        out: the safetensors file to write.
        steps, batch_size, learning_rate, seed: same values, same machine and same number of threads give the same weights.
        workers: processes that draw.
        device: of the training, in torch's words.

    Returns:
        The accuracies of `zero_shot_accuracy`.
    """
    model, _ = load_mini_clip(pretrained=False, seed=seed)
    model.to(device).train()
    model.visual.output_tokens = True
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        patch_words = nn.Linear(VISION_CONFIG["width"], sum(map(len, PATCH_WORDS)) + 1).to(device)
        phrase_words = nn.Linear(EMBED_DIM, sum(len(words) + 1 for words in PHRASE_WORDS)).to(device)
        image_relation = nn.Linear(EMBED_DIM, len(RELATIONS)).to(device)
    heads = [p for head in (patch_words, phrase_words, image_relation) for p in head.parameters()]
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": [*others, *heads], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step, warm_up=60, steps=steps))
    alone = steps // 2
    drawn = Drawings(seed, count=steps * batch_size, crowded=alone * batch_size)
    drawings = DataLoader(
        drawn, batch_size=batch_size, num_workers=workers, prefetch_factor=4 if workers else None, collate_fn=tokenized
    )
    kind = torch.device(device).type
    faster = torch.autocast(kind, torch.bfloat16, enabled=kind != "cpu" or cpu_has_bf16())
    for step, batch in enumerate(drawings, start=1):
        images, captions, claims, facts, patches, phrases, said = (part.to(device) for part in batch)
        with faster:
            seen, places = model.visual(normalise(images.float() / 255))
            phrase = _encode_text(model, phrases)
        loss = patch_loss(patch_words(places.float()), patches) + phrase_loss(phrase_words(_direction(phrase)), said)
        if step > alone:
            with faster:
                read = _encode_text(model, captions.flatten(0, 1))
            loss = loss + word_loss(image_relation(_direction(seen)), facts[:, -1])
            loss = loss + contrastive_loss(
                F.normalize(seen.float(), dim=-1),
                F.normalize(read.float(), dim=-1),
                scale=model.logit_scale.exp().clamp(max=100.0),
                is_true=truth(claims.flatten(0, 1), facts),
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
    scale_residuals(model)
    accuracy = measured(model)
    metadata = {
        "embed_dim": EMBED_DIM,
        "vision": VISION_CONFIG,
        "text": TEXT_CONFIG,
        "training": {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed, "device": device},
        "zero_shot": accuracy,
    }
    save_mini_clip(model, out, token_ids=vocabulary(), metadata=metadata)
    return accuracy


@torch.no_grad()
def scale_residuals(model: CLIP) -> None:
    """Scale the image tower's residual stream so that tokens after the ninth block have a root mean square of 1.

    What the tower computes stays the same: all that reads the stream reads it through a norm. A decoder reads it without one,
    and learns slowly from inputs many times as large (docs/miniature/findings.md).
    """
    visual, seen = model.visual, []
    hook = visual.transformer.resblocks[8].register_forward_hook(lambda _, __, out: seen.append(out))
    drawings = Drawings(0, count=64)
    images = torch.stack([drawings[index].image for index in range(64)]).to(visual.proj.device)
    visual(normalise(images.float() / 255))
    hook.remove()
    scale = seen[0].square().mean().rsqrt()
    writers = [visual.ln_pre]
    for block in visual.transformer.resblocks:
        writers += [block.attn.out_proj, block.mlp.c_proj]
    for writer in writers:
        writer.weight.mul_(scale)
        writer.bias.mul_(scale)


def tokenized(drawings: Sequence[Drawing]) -> list[Tensor]:
    """A batch of drawings, its captions and phrases as int64 tokens `[B, 2 * CAPTIONS, T]` and `[B, T]`."""
    tokenizer = create_tokenizer()
    parts = dict(zip(Drawing._fields, zip(*drawings, strict=True), strict=True))
    captions = tokenizer([text for texts in parts["captions"] for text in texts])
    parts["captions"] = _shortened(captions).unflatten(0, (len(drawings), -1)).unbind()
    parts["phrase"] = _shortened(tokenizer(list(parts["phrase"]))).unbind()
    return [torch.stack(part) for part in parts.values()]


def _shortened(tokens: Tensor) -> Tensor:
    """Without what follows the longest text, which is nothing to a causal tower."""
    return tokens[:, : int(tokens.argmax(dim=1).max()) + 1]


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
    return model.ln_final(x)[torch.arange(len(x), device=x.device), tokens.argmax(dim=-1)] @ model.text_projection


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


def word_loss(scores: Tensor, words: Tensor) -> Tensor:
    """The mean cross-entropy of scores `[B, W]` where int64 words `[B]` are not `ABSENT`; 0 where all are."""
    return F.cross_entropy(scores, words, ignore_index=ABSENT, reduction="sum") / (words != ABSENT).sum().clamp(min=1)


def _direction(embeddings: Tensor) -> Tensor:
    """Embeddings in float32 and of one length, that of a vector of ones and minus ones."""
    return F.normalize(embeddings.float(), dim=-1) * embeddings.shape[-1] ** 0.5


def patch_loss(scores: Tensor, patches: Tensor) -> Tensor:
    """The cross-entropy of the words of what lies at each patch that something covers, and of whether something does.

    The category, which is the hardest to see, counts four times as much as each of the others.

    Args:
        scores: `[B, P, W + 1]`, of all words in the order of `PATCH_WORDS`, and of being covered.
        patches: int64 `[B, P, len(PATCH_WORDS)]`, or `ABSENT`.
    """
    covered = patches[..., 0] != ABSENT
    *of_words, of_covered = scores.split([*map(len, PATCH_WORDS), 1], dim=-1)
    category, *others = (word_loss(part.flatten(0, 1), patches[..., place].flatten()) for place, part in enumerate(of_words))
    others.append(F.binary_cross_entropy_with_logits(of_covered[..., 0], covered.float()))
    return category + torch.stack(others).sum() / 4


def phrase_loss(scores: Tensor, said: Tensor) -> Tensor:
    """The cross-entropy of a phrase's words, a mean over their places.

    Args:
        scores: `[B, W]`, at each place of `PHRASE_WORDS` of all words and of none.
        said: int64 `[B, len(PHRASE_WORDS)]`.
    """
    of_places = scores.split([len(words) + 1 for words in PHRASE_WORDS], dim=-1)
    return torch.stack([F.cross_entropy(part, said[:, place]) for place, part in enumerate(of_places)]).mean()


def truth(claims: Tensor, facts: Tensor) -> Tensor:
    """Which captions are true of which images: int `[M, K]` claims and `[N, K]` facts -> bool `[M, N]`; what is unsaid is not
    wrong."""
    return ((claims[:, None] == facts[None]) | (claims[:, None] == UNSAID)).all(dim=-1)


def vocabulary() -> list[int]:
    """The sorted token ids of all words that captions, the mini data's phrases and the paper's templates use."""
    texts = [word for words in (*PATCH_WORDS, *PHRASE_WORDS) for word in words]
    texts += [template.format("") for template in TEMPLATES_OF_CAPTIONS] + ["and", "an", ","]
    return sorted(set(create_tokenizer()(texts).flatten().tolist()))


def main() -> None:
    """The command line: `python -m clipseg.tools.train_mini_clip --out FILE`."""
    parser = argparse.ArgumentParser(description="Train the bundled CLIP on synthetic scenes (about an hour on two cores).")
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    options = parser.parse_args()
    print(pretrain(**vars(options)))


if __name__ == "__main__":
    main()
