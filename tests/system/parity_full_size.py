"""Parity at full size, by hand: `python tests/system/parity_full_size.py` prints a Markdown table (minutes, 3 GB of memory).

ViT-B/16 and ViT-B/32 of transformers' CLIPSeg with scaled random weights, saved by its own `save_pretrained` and loaded here.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from reference import TEXTS, random_condition, random_images, save_reference, spread
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

from clipseg.network.formats.renaming import decoder_table, to_theirs
from clipseg.network.model import CLIPSeg
from clipseg.network.weights import load

MODELS: list[tuple[str, dict[str, Any], list[tuple[str, int]]]] = [
    (
        "ViT-B/16, plain, D 64, layers 3 7 9",
        {},
        [("text", 352), ("image", 352), ("embedding", 352), ("text", 224), ("text", 448)],
    ),
    ("ViT-B/16, plain, D 64, layers 3 6 9", {"extract_layers": [3, 6, 9]}, [("text", 352)]),
    ("ViT-B/16, plain, D 16", {"reduce_dim": 16}, [("text", 352)]),
    ("ViT-B/16, plain, D 128", {"reduce_dim": 128}, [("text", 352)]),
    ("ViT-B/16, refined, D 64", {"use_complex_transposed_convolution": True}, [("text", 352), ("text", 224), ("text", 448)]),
    ("ViT-B/16, refined, D 16", {"use_complex_transposed_convolution": True, "reduce_dim": 16}, [("text", 352)]),
    ("ViT-B/32, plain, D 64", {"patch_size": 32}, [("text", 352), ("image", 224)]),
]


def main() -> None:
    print("| model | condition | input | logits reach | max abs. difference |\n|---|---|---|---|---|")
    for name, settings, rows in MODELS:
        options = {"extract_layers": [3, 7, 9], "patch_size": 16} | settings
        vision = {"patch_size": options.pop("patch_size")}
        with tempfile.TemporaryDirectory() as folder:
            reference = save_reference(CLIPSegConfig(vision_config=vision, **options), Path(folder))
            model = load(folder)
        for kind, side in rows:
            expected, logits = compare(reference, model, kind, side)
            difference = (logits - expected).abs().max().item()
            print(f"| {name} | {kind} | {side}×{side} | ±{spread(expected):.1f} | {difference:.1e} |", flush=True)
        if name == MODELS[0][0]:
            print(f"| {name} | activations | 352×480 | – | {compare_activations(reference, model):.1e} |", flush=True)
            loss, gradients = compare_training_step(reference, model)
            print(f"| {name} | training step: loss (relative) | 352×352 | – | {loss:.1e} |")
            print(f"| {name} | training step: decoder gradients (relative) | 352×352 | – | {gradients:.1e} |", flush=True)


@torch.no_grad()
def compare(reference: CLIPSegForImageSegmentation, model: CLIPSeg, kind: str, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The reference's logits and ours for two images with two prompts."""
    images = random_images(2, (side, side))
    if kind == "text":
        tokens = model.backbone.tokenize(TEXTS)
        return reference(pixel_values=images, input_ids=tokens).logits, model(images, TEXTS)
    if kind == "image":
        support = random_images(2, (side, side), seed=5)
        return reference(pixel_values=images, conditional_pixel_values=support).logits, model(
            images, model.encode_image(support)
        )
    condition = random_condition(2, 512)
    return reference(pixel_values=images, conditional_embeddings=condition).logits, model(images, condition)


@torch.no_grad()
def compare_activations(reference: CLIPSegForImageSegmentation, model: CLIPSeg) -> float:
    """The largest difference of the read-outs of an image that is not square."""
    images = random_images(1, (352, 480))
    states = reference.clip.vision_model(images, output_hidden_states=True, interpolate_pos_encoding=True).hidden_states
    read_outs = zip(model.config.extract_layers, model.activations(images), strict=True)
    return max((states[layer + 1] - activation).abs().max().item() for layer, activation in read_outs)


def compare_training_step(reference: CLIPSegForImageSegmentation, model: CLIPSeg) -> tuple[float, float]:
    """Relative difference of the loss, and of the gradients: the largest, over the largest gradient."""
    reference.requires_grad_(False).decoder.requires_grad_(True)
    images, condition = random_images(2, (352, 352)), random_condition(2, 512)
    masks = (random_images(2, (352, 352), seed=9)[:, 0] > 0.5).float()
    expected = reference(pixel_values=images, conditional_embeddings=condition, labels=masks).loss
    expected.backward()
    loss = F.binary_cross_entropy_with_logits(model(images, condition), masks)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.decoder.named_parameters()}
    ours = to_theirs(gradients, decoder_table(len(model.config.extract_layers), model.config.head))
    theirs = {name: parameter.grad for name, parameter in reference.named_parameters() if parameter.grad is not None}
    largest = max(gradient.abs().max() for gradient in theirs.values())
    difference = max((ours[name] - gradient).abs().max() for name, gradient in theirs.items())
    return abs(loss.item() / expected.item() - 1), (difference / largest).item()


if __name__ == "__main__":
    main()
