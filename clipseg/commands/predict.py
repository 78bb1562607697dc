"""`clipseg predict IMAGE|FOLDER PROMPT …`: probability maps, masks, an overlay figure and a line of numbers for each photo."""

import argparse
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from clipseg.commands.file_names import slug, unique_stems
from clipseg.commands.prediction_lines import PredictionLines, image_key
from clipseg.errors import ClipSegError
from clipseg.files import atomic_write, locked, remove_leftovers
from clipseg.image_io import SUFFIXES, read_image
from clipseg.network.backbone import weights_checksum
from clipseg.network.model import CLIPSeg
from clipseg.network.weights import load
from clipseg.prompts.support import VisualPrompt
from clipseg.run.distributed import choose_device
from clipseg.run.interruption import Interruption, stoppable
from clipseg.segmenter import Segmenter

# The last two cannot be read, which is to be told.
PHOTOS = SUFFIXES | {".heic", ".heif"}
TELL_EVERY_S = 10  # into a log, where no bar is drawn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = """Segment photos by prompts. DIR gets, for each photo,
  NAME.0_PROMPT.prob.png   probabilities, 16 bits: 0 to 65535 are 0 to 1
  NAME.0_PROMPT.mask.png   white where the probability is above the threshold
  NAME.overlay.png         the photo, the heat map of each prompt and its cut
and predictions.jsonl, one line a photo: for each prompt the area (a part of the image), the box
[x0, y0, x1, y1] in pixels, and the mean probability. A later call into DIR adds lines, and replaces
those of the same photos."""
    parser.epilog = """examples:
  clipseg predict photo.jpg "a dog" sky
  clipseg predict photos/ car --minus "red car" --threshold 0.4 --out masks
  clipseg predict photo.jpg --support other_photo.jpg its_mask.png"""
    parser.add_argument("image", metavar="IMAGE|FOLDER", help="a photo, or a folder of them; more may follow the first")
    parser.add_argument("rest", metavar="PROMPT", nargs="*", help="what to segment, each a text")
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        metavar="TEXT",
        help="a text that is named like a file, such as 'AC/DC logo'; may be given again",
    )
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
    parser.add_argument("--resume", action="store_true", help="skip photos of which DIR holds the answers to the same question")
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda:1, … (default: %(default)s, a GPU where there is one)"
    )
    parser.add_argument(
        "--precision",
        default="float32",
        help="of CLIP's products: float32, or bf16, faster on a processor with AVX512_BF16 or AMX (default: %(default)s)",
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
    """The question put to every photo: N conditions, of which the last are subtracted from the others."""

    conditions: Tensor
    names: list[str]
    minus: list[str]
    joined: bool
    threshold: float

    def titles(self) -> list[str]:
        """Return what each map shows."""
        names = [" + ".join(self.names)] if self.joined else self.names
        return [" − ".join([name, *self.minus]) for name in names]


def run(arguments: argparse.Namespace) -> int:
    """Segment every photo; an unreadable one is named and skipped, and makes the status 1."""
    images, texts = _split([arguments.image, *arguments.rest])
    texts += arguments.prompt
    if not texts and not arguments.support:
        raise ClipSegError(f"no prompt for {arguments.image}; add a text after the image, or --support IMAGE MASK")
    if any(os.path.dirname(os.path.realpath(image)) == os.path.realpath(arguments.out) for image in images.values()):
        raise ClipSegError(f"--out {arguments.out}: holds the photos themselves; choose another folder")
    supports = [VisualPrompt(image, mask) for image, mask in arguments.support]
    with stoppable("the same command with --resume goes on") as interruption:
        segment = Segmenter(load(arguments.weights, device=choose_device(arguments.device), precision=arguments.precision))
        question = _Question(
            conditions=segment.embed([*texts, *supports, *arguments.minus]),
            names=[*texts, *(Path(image).stem for image, _ in arguments.support)],
            minus=arguments.minus,
            joined=arguments.join,
            threshold=arguments.threshold,
        )
        asked = _fingerprint(question, supports, segment.model)
        with locked(arguments.out):
            remove_leftovers(arguments.out)
            return _segment_each(images, segment, question, asked, arguments, interruption)


def _fingerprint(question: _Question, supports: Sequence[VisualPrompt], model: CLIPSeg) -> str:
    """Return what tells this question to this model from others."""
    precision, decoder = str(model.backbone.precision), weights_checksum(model.decoder)
    asked = [question.names, question.minus, question.joined, question.threshold, precision, decoder]
    digest = hashlib.sha256(json.dumps(asked).encode())
    for support in supports:
        digest.update(support.image.numpy().tobytes() + support.mask.numpy().tobytes())
    return digest.hexdigest()[:16]


def _segment_each(
    images: Mapping[str, Path],
    segment: Segmenter,
    question: _Question,
    asked: str,
    arguments: argparse.Namespace,
    interruption: Interruption,
) -> int:
    """Segment the images that are to be, and say of how many there are answers, however it ends."""
    lines = PredictionLines(arguments.out)
    stems = dict(zip(images, unique_stems(images, lines.stems()), strict=True))
    left = [key for key in images if not (arguments.resume and lines.answers(key, asked))]
    answered, skipped, told = len(images) - len(left), 0, time.monotonic()
    bar = tqdm(total=len(images), initial=answered, unit="photo", disable=None if len(images) > 1 else True)
    try:
        with bar:
            for key in left:
                if interruption.received:
                    raise interruption.stopped()
                try:
                    with interruption.deferred():
                        found = _answer(segment, question, images[key], out=arguments.out, stem=stems[key])
                        lines.add({"image": key, "question": asked, **found})
                    answered += 1
                except _Unreadable as error:
                    skipped += 1
                    tqdm.write(f"skipped: {error}", file=sys.stderr)
                bar.update()
                if not sys.stderr.isatty() and time.monotonic() - told >= TELL_EVERY_S:
                    told = time.monotonic()
                    print(f"{answered + skipped} of {len(images)} photos", file=sys.stderr, flush=True)
        lines.tidy()
    finally:
        print(f"{answered} of {len(images)} photos segmented into {arguments.out}")
    return 1 if skipped else 0


def _split(inputs: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """The photos, of folders too, by what their lines call them, and the prompts after them; what may be either is refused."""
    sources: list[str] = []
    texts: list[str] = []
    for text in inputs:
        looks_like_path = "/" in text or os.path.splitext(text)[1].lower() in PHOTOS
        if os.path.exists(text) or looks_like_path or not sources:
            if not os.path.lexists(text):
                raise ClipSegError(
                    f"{text}: no such image or folder; they come first, then the prompts (--prompt {text!r} if it is one)"
                )
            if texts:
                raise ClipSegError(f"{text}: images and folders come before the prompts (--prompt {text!r} if it is one)")
            if sources and not looks_like_path:
                raise ClipSegError(f"{text}: is there as a file or folder; write ./{text} to mean it, or --prompt {text!r}")
            sources.append(text)
        else:
            texts.append(text)
    images = [image for source in map(Path, sources) for image in (_photos_in(source) if source.is_dir() else [source])]
    return {image_key(image): image for image in images}, texts


def _photos_in(folder: Path) -> list[Path]:
    found = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in PHOTOS and path.name[0] != "." and not path.is_dir()
    )
    if not found:
        raise ClipSegError(f"{folder}: no photos in this folder; its own folders are not searched")
    return found


class _Unreadable(Exception):
    """A photo that cannot be read, as against a disk that is full."""


def _answer(segment: Segmenter, question: _Question, path: Path, *, out: Path, stem: str) -> dict[str, Any]:
    """Segment one photo and write its files; the rest of its line."""
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
    return {**size, "threshold": question.threshold, "prompts": found, "overlay": f"{stem}.overlay.png"}


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
    return {"area": round(area, 6), "box": box, "mean_probability": round(mean, 6)}
