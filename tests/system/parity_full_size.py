"""Parity at full size, by hand: `python tests/system/parity_full_size.py` prints a Markdown table (minutes, 3 GB of memory).

ViT-B/16 and ViT-B/32 of transformers' CLIPSeg with scaled random weights, saved by its own `save_pretrained` and loaded here;
and the authors' decoders as `.pth` files beside such a CLIP, asked by texts, by images with masks, and by mixes of both.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from reference import TEXTS, AuthorsDecoder, random_condition, random_images, save_reference, spread
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

from clipseg.network.formats.renaming import decoder_table, to_theirs
from clipseg.network.model import CLIPSeg
from clipseg.network.weights import load
from clipseg.prompts.support import Mix, VisualPrompt
from clipseg.segmenter import Segmenter

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


AUTHORS = {  # width and head of the decoders in the authors' files
    "rd64-uni.pth": (64, False),
    "rd16-uni.pth": (16, False),
    "rd64-uni-refined.pth": (64, True),
}


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

    authors()


@torch.no_grad()
def authors() -> None:
    """Each of the authors' layouts through `Segmenter`, beside their decoder on the reference's CLIP."""
    generator = torch.Generator().manual_seed(7)
    photo, shown = (torch.randint(256, (3, 352, 352), dtype=torch.uint8, generator=generator) for _ in range(2))
    mask = torch.zeros(352, 352, dtype=torch.bool)
    mask[90:200, 60:300] = True
    mask[120:150, 100:180] = False
    visual = VisualPrompt(shown, mask)
    prompts = {"text": TEXTS[0], "image and mask": visual, "mix, w = 0.3": Mix(TEXTS[1], visual, weight=0.3)}
    with tempfile.TemporaryDirectory() as folder:
        reference = save_reference(CLIPSegConfig(vision_config={"patch_size": 16}), Path(folder, "clip"))
        for name, (reduce_dim, refined) in AUTHORS.items():
            decoder = AuthorsDecoder(768, 512, reduce_dim, refined=refined).eval()
            torch.save(decoder.state_dict(), Path(folder, name))
            model = load(Path(folder, name), pretrained=Path(folder, "clip"))
            clip = reference.clip
            states = clip.vision_model(
                _normalised(photo), output_hidden_states=True, interpolate_pos_encoding=True
            ).hidden_states
            texts = clip.get_text_features(model.backbone.tokenize(TEXTS)).pooler_output
            image = clip.get_image_features(_engineered(shown, mask), interpolate_pos_encoding=True).pooler_output[0]
            conditions = [texts[0], image, 0.3 * texts[1] + 0.7 * image]
            segment = Segmenter(model)
            logits = model(_normalised(photo).expand(3, -1, -1, -1), segment.embed(list(prompts.values())))
            probabilities = segment(photo, list(prompts.values()))
            for number, (kind, condition) in enumerate(zip(prompts, conditions, strict=True)):
                expected = decoder([states[layer + 1] for layer in (9, 6, 3)], condition[None])[0]
                difference = (logits[number] - expected).abs().max().item()
                of_mask = (probabilities[number] - expected.sigmoid()).abs().max().item()
                found = f"{difference:.1e}, of probabilities {of_mask:.1e}"
                print(f"| {name} | {kind} | 352×352 | ±{spread(expected):.1f} | {found} |", flush=True)


def _normalised(photo: torch.Tensor) -> torch.Tensor:
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    return ((photo / 255 - mean) / deviation)[None]


def _engineered(photo: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Crop, blur and darken as docs/paper.md, Sec. 3, says, written anew."""
    image, side = _normalised(photo), photo.shape[1]
    bell = torch.exp(-((torch.arange(15) - 7.0) ** 2) / 18)
    kernel = (bell[:, None] * bell / bell.sum() ** 2).expand(3, 1, 15, 15)
    image = torch.where(mask, image, 0.1 * F.conv2d(F.pad(image, (7, 7, 7, 7), mode="reflect"), kernel, groups=3))
    ends = []
    for axis in (1, 0):
        inside = torch.nonzero(mask.any(dim=axis))[:, 0].tolist()
        start, stop = inside[0], inside[-1] + 1
        ends.append((int(max(0, start - 0.1 * (stop - start))), int(min(side, stop + 0.1 * (stop - start)))))
    (top, bottom), (left, right) = ends
    cut = image[:, :, top:bottom, left:right]
    height, width = cut.shape[2:]
    square = max(height, width)
    above, before = (square - height) // 2, (square - width) // 2
    cut = F.pad(cut, (before, square - width - before, above, square - height - above))
    return F.interpolate(cut, size=(side, side), mode="nearest")


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
