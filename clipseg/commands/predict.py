"""`clipseg predict IMAGE|FOLDER PROMPT …`: probability maps, masks, an overlay figure and a line of numbers for each photo."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from clipseg.commands.file_names import slug, unique_stems
from clipseg.errors import ClipSegError
from clipseg.files import atomic_write
from clipseg.image_io import SUFFIXES, read_image
from clipseg.network.weights import load
from clipseg.prompts.support import Prompt, VisualPrompt
from clipseg.run.distributed import choose_device
from clipseg.segmenter import Segmenter

LINES = "predictions.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = """Segment photos by prompts. DIR gets, for each photo,
  NAME.0_PROMPT.prob.png   probabilities, 16 bits: 0 to 65535 are 0 to 1
  NAME.0_PROMPT.mask.png   white where the probability is above the threshold
  NAME.overlay.png         the photo, the heat map of each prompt and its cut
and predictions.jsonl, one line a photo: for each prompt the area (a part of the image), the box
[x0, y0, x1, y1] in pixels, and the mean probability."""
    parser.epilog = """examples:
  clipseg predict photo.jpg "a dog" sky
  clipseg predict photos/ car --minus "red car" --threshold 0.4 --out masks
  clipseg predict photo.jpg --support other_photo.jpg its_mask.png"""
    parser.add_argument("image", metavar="IMAGE|FOLDER", help="a photo, or a folder of them; more photos may follow the first")
    parser.add_argument("rest", metavar="PROMPT", nargs="*", help="what to segment, each a text")
    parser.add_argument(
        "--support",
        nargs=2,
        metavar=("IMAGE", "MASK"),
        action="append",
        default=[],
        help="a visual prompt: another photo, and a mask of the object meant in it, white on black; may be given again",
    )
    parser.add_argument(
        "--weights",
        default="CIDAS/clipseg-rd64-refined",
        metavar="W",
        help="a trained model: a run folder or checkpoint, an authors' .pth, a folder or hub name in transformers' layout, "
        "or 'mini', the bundled toy (default: %(default)s)",
    )
    parser.add_argument(
        "--threshold",
        type=_fraction,
        default=0.3,
        metavar="T",
        help="pixels with a probability above it are in the mask (default: %(default)s, the paper's choice on PhraseCut, where "
        "masks are best near 0.3, not at 0.5)",
    )
    parser.add_argument(
        "--minus",
        action="append",
        default=[],
        metavar="PROMPT",
        help="subtract this text's probabilities from each map; may be given again",
    )
    parser.add_argument("--join", action="store_true", help="one map for all prompts: the largest of their probabilities")
    parser.add_argument(
        "--out", type=Path, default=Path("predictions"), metavar="DIR", help="where the files go (default: %(default)s)"
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda:1, … (default: %(default)s, a GPU where there is one)"
    )


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1]")
    return value


@dataclass(frozen=True)
class _Question:
    """What is asked of every photo: N conditions, of which the last are subtracted from the others."""

    conditions: Tensor
    names: list[str]
    minus: list[str]
    joined: bool
    threshold: float

    def titles(self) -> list[str]:
        """What each map shows."""
        names = [" + ".join(self.names)] if self.joined else self.names
        return [" − ".join([name, *self.minus]) for name in names]


def run(arguments: argparse.Namespace) -> int:
    """Segment every photo; an unreadable one is named and skipped, and makes the status 1."""
    images, texts = _split([arguments.image, *arguments.rest])
    if not texts and not arguments.support:
        raise ClipSegError(f"no prompt for {images[0]}; add a text after the image, or --support IMAGE MASK")
    if any(image.resolve().parent == arguments.out.resolve() for image in images):
        raise ClipSegError(f"--out {arguments.out}: holds the photos themselves; choose another folder")
    prompts: list[Prompt] = [*texts, *(VisualPrompt(image, mask) for image, mask in arguments.support), *arguments.minus]
    segment = Segmenter(load(arguments.weights, device=choose_device(arguments.device)))
    names = [*texts, *(Path(image).stem for image, _ in arguments.support)]
    question = _Question(segment.embed(prompts), names, arguments.minus, arguments.join, arguments.threshold)
    skipped = 0
    bar = tqdm(total=len(images), unit="photo", disable=None if len(images) > 1 else True)
    with bar, atomic_write(arguments.out / LINES, "w") as lines:
        for image, stem in zip(images, unique_stems(images), strict=True):
            try:
                _answer(segment, question, image, out=arguments.out, stem=stem, lines=lines)
            except _Unreadable as error:
                skipped += 1
                tqdm.write(f"skipped: {error}", file=sys.stderr)
            bar.update()
    print(f"{len(images) - skipped} of {len(images)} photos segmented into {arguments.out}")
    return 1 if skipped else 0


def _split(inputs: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The photos and the prompts. After the first image, a text is one more if it is named like an image and is there."""
    first = Path(inputs[0])
    count = 1
    if first.is_dir():
        images = sorted(path for path in first.iterdir() if _is_photo(path) and not path.name.startswith("."))
        if not images:
            raise ClipSegError(f"{first}: no photos in this folder; its own folders are not searched")
        return images, list(inputs[1:])
    if not first.exists():
        raise ClipSegError(f"{first}: no such image or folder; the image comes first, then the prompts")
    while count < len(inputs) and _is_photo(Path(inputs[count])):
        count += 1
    return [Path(text) for text in inputs[:count]], list(inputs[count:])


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


class _Unreadable(Exception):
    """A photo that cannot be read, as against a disk that is full."""


def _answer(segment: Segmenter, question: _Question, path: Path, *, out: Path, stem: str, lines: IO[str]) -> None:
    """Segment one photo and write its files and its line."""
    try:
        image = read_image(path)
    except ClipSegError as error:
        raise _Unreadable(str(error)) from error
    maps = _combine(segment(image, question.conditions), question)
    titles = question.titles()
    found = []
    for index, (title, values) in enumerate(zip(titles, maps, strict=True)):
        name = f"{stem}.{index}_{slug(title, 'prompt', 40)}"
        mask = values > question.threshold
        _write_png(out / f"{name}.prob.png", (values * 65535).round().numpy().astype(np.uint16))
        _write_png(out / f"{name}.mask.png", mask.numpy().astype(np.uint8) * 255)
        files = {"probabilities": f"{name}.prob.png", "mask": f"{name}.mask.png"}
        found.append({"prompt": title, **_numbers(values, mask), **files})
    from clipseg.commands.overlay import overlay_figure  # matplotlib takes a second

    with atomic_write(out / f"{stem}.overlay.png") as file:
        file.write(overlay_figure(image, maps, titles, threshold=question.threshold))
    size = {"height": image.shape[1], "width": image.shape[2]}
    line = {"image": str(path), **size, "threshold": question.threshold, "prompts": found, "overlay": f"{stem}.overlay.png"}
    lines.write(json.dumps(line, allow_nan=False) + "\n")


def _combine(probabilities: Tensor, question: _Question) -> Tensor:
    """Join and subtract: `[N + M, H, W]` with M maps to subtract -> `[N, H, W]`, or `[1, H, W]` joined."""
    count = len(question.names)
    maps = probabilities[:count]
    if question.joined:
        maps = maps.amax(dim=0, keepdim=True)
    return (maps - probabilities[count:].sum(dim=0)).clamp(min=0)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    with atomic_write(path) as file:
        Image.fromarray(pixels).save(file, format="PNG")


def _numbers(values: Tensor, mask: Tensor) -> dict[str, Any]:
    """Area as a part of the image, the mask's box in pixels (None: empty mask), and the mean probability over the image."""
    rows, columns = (mask.any(dim=dim).nonzero().flatten() for dim in (1, 0))
    box = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1] if len(rows) else None
    area, mean = mask.double().mean().item(), values.mean(dtype=torch.float64).item()
    if not math.isfinite(mean):
        raise ClipSegError("the model's probabilities are not finite; its weights are damaged, or its precision too low")
    return {"area": round(area, 6), "box": box, "mean_probability": round(mean, 6)}
