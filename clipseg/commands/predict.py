"""`clipseg predict IMAGE|FOLDER PROMPT …`: probability maps, masks, an overlay figure and a line of numbers for each photo."""

import argparse
import hashlib
import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from clipseg.commands.file_names import split_inputs, unique_stems
from clipseg.commands.prediction_files import write_answer
from clipseg.commands.prediction_lines import PredictionLines
from clipseg.commands.questions import Question
from clipseg.errors import ClipSegError
from clipseg.files import locked, remove_leftovers
from clipseg.image_io import read_image
from clipseg.network.backbone import weights_checksum
from clipseg.network.model import CLIPSeg
from clipseg.network.weights import load
from clipseg.prompts.support import Mix, VisualPrompt
from clipseg.prompts.text import TEMPLATES
from clipseg.run.distributed import choose_device
from clipseg.run.interruption import Interruption, stoppable
from clipseg.segmenter import Segmenter

TELL_EVERY_S = 10  # into a log, where no bar is drawn
AHEAD = 2  # photos read before, and written behind, the one that passes the network


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
  clipseg predict photo.jpg dog cat --contrast --min-area 0.001 --components
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
        "--mix",
        nargs=3,
        metavar=("TEXT", "IMAGE", "MASK"),
        action="append",
        default=[],
        help="a text and a visual prompt for the same thing; may be given again",
    )
    parser.add_argument(
        "--mix-weight", type=_fraction, default=0.5, metavar="W", help="the part of the text in mixes (default: %(default)s)"
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
        metavar="T",
        help="pixels with a probability above it are in the mask (default: what the weights keep for the phrase, as those of "
        "`clipseg finetune` do, else 0.3, the paper's choice on PhraseCut, where masks are best near 0.3, not at 0.5)",
    )
    parser.add_argument(
        "--minus",
        action="append",
        default=[],
        metavar="PROMPT",
        help="subtract this text's probabilities from each map; may be given again",
    )
    parser.add_argument(
        "--contrast",
        action="store_true",
        help="the prompts and a background share each pixel (softmax); NAME.labels.png holds the number of the best",
    )
    parser.add_argument("--background", metavar="TEXT", help="what the rest is called for --contrast (default: background)")
    parser.add_argument(
        "--min-area",
        type=_fraction,
        default=0.0,
        metavar="A",
        help="leave out parts of masks smaller than this part of the image",
    )
    parser.add_argument(
        "--components",
        action="store_true",
        help="tell of each connected part of a mask its area, its box, and a point inside, as SAM takes them",
    )
    parser.add_argument(
        "--templates",
        default="plain",
        metavar="SET",
        help=f"put around every text, and averaged: {', '.join(TEMPLATES)}, or a text with {{}} (default: %(default)s)",
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


def run(arguments: argparse.Namespace) -> int:
    """Segment every photo; an unreadable one is named and skipped, and makes the status 1."""
    images, texts = split_inputs([arguments.image, *arguments.rest])
    texts += arguments.prompt
    if not texts and not arguments.support and not arguments.mix:
        raise ClipSegError(f"no prompt for {arguments.image}; add a text after the image, or --support IMAGE MASK")
    _check_contrast(arguments)
    if any(os.path.dirname(os.path.realpath(image)) == os.path.realpath(arguments.out) for image in images.values()):
        raise ClipSegError(f"--out {arguments.out}: holds the photos themselves; choose another folder")
    supports = [VisualPrompt(image, mask) for image, mask in arguments.support]
    mixes = [Mix(text, VisualPrompt(image, mask), arguments.mix_weight) for text, image, mask in arguments.mix]
    rest = [arguments.background or "background"] if arguments.contrast else arguments.minus
    question = Question(
        names=[
            *texts,
            *(_stem(image) for image, _ in arguments.support),
            *(f"{text} with {_stem(image)}" for text, image, _ in arguments.mix),
        ],
        rest=rest,
        joined=arguments.join,
        contrast=arguments.contrast,
        threshold=None if arguments.contrast else 0.3 if arguments.threshold is None else arguments.threshold,
        min_area=arguments.min_area,
        components=arguments.components,
    )
    with stoppable("the same command with --resume goes on") as interruption:
        model = load(arguments.weights, device=choose_device(arguments.device), precision=arguments.precision)
        segment = Segmenter(model, templates=arguments.templates)
        prompts = [*texts, *supports, *mixes, *rest]
        conditions = segment.embed(prompts)
        if arguments.threshold is None and not arguments.contrast:
            own = {text: model.calibration[text].threshold for text in texts if text in model.calibration}
            question = replace(question, own=own)
        shown = [*supports, *(mix.visual for mix in mixes)]
        asked = _fingerprint([asdict(question), arguments.templates, arguments.mix_weight], shown, segment.model)
        with locked(arguments.out):
            remove_leftovers(arguments.out)

            def answer(image: Tensor) -> Tensor:
                return segment.calibrated(segment(image, conditions), prompts)

            return _segment_each(images, answer, question, asked, arguments, interruption)


def _stem(path: str) -> str:
    return Path(path).stem


def _check_contrast(arguments: argparse.Namespace) -> None:
    """Refuse options that mean nothing with or without --contrast."""
    others = {"--join": arguments.join, "--minus": arguments.minus, "--threshold": arguments.threshold is not None}
    if arguments.contrast and any(others.values()):
        given = ", ".join(name for name, value in others.items() if value)
        raise ClipSegError(f"{given} with --contrast, where each pixel goes to the prompt that fits best; leave it out")
    if arguments.background is not None and not arguments.contrast:
        raise ClipSegError(f"--background {arguments.background!r} is for --contrast alone; add that, or leave it out")


def _fingerprint(asked: Sequence[Any], supports: Sequence[VisualPrompt], model: CLIPSeg) -> str:
    """Return what tells this question to this model from others."""
    by = [str(model.backbone.precision), weights_checksum(model.decoder)]
    digest = hashlib.sha256(json.dumps([*asked, *by]).encode())
    for support in supports:
        digest.update(support.image.numpy().tobytes() + support.mask.numpy().tobytes())
    return digest.hexdigest()[:16]


def _segment_each(
    images: Mapping[str, Path],
    segment: Callable[[Tensor], Tensor],
    question: Question,
    asked: str,
    arguments: argparse.Namespace,
    interruption: Interruption,
) -> int:
    """Segment the images that are to be, and say of how many there are answers, however it ends."""
    lines = PredictionLines(arguments.out)
    stems = dict(zip(images, unique_stems(images, lines.stems()), strict=True))
    left = [key for key in images if not (arguments.resume and lines.answers(key, asked))]
    answered, skipped, told = len(images) - len(left), 0, time.monotonic()
    writes: deque[tuple[str, Future[dict[str, Any]]]] = deque()

    def finish(most: int) -> None:
        """Add the lines of photos whose files are written, until at most so many are waited for."""
        nonlocal answered
        while len(writes) > most:
            key, written = writes.popleft()
            lines.add({"image": key, "question": asked, **written.result()})
            answered += 1
            tell()

    def tell() -> None:
        nonlocal told
        bar.update()
        if not sys.stderr.isatty() and time.monotonic() - told >= TELL_EVERY_S:
            told = time.monotonic()
            print(f"{answered + skipped} of {len(images)} photos", file=sys.stderr, flush=True)

    bar = tqdm(total=len(images), initial=answered, unit="photo", disable=None if len(images) > 1 else True)
    try:
        with bar, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            try:
                for key, read in _ahead(reader, left, images):
                    if interruption.received:
                        break
                    with interruption.deferred():
                        try:
                            image = read.result()
                        except ClipSegError as error:
                            skipped += 1
                            tqdm.write(f"skipped: {error}", file=sys.stderr)
                            tell()
                            continue
                        maps = question.combine(segment(image))
                        writes.append((key, writer.submit(write_answer, image, maps, question, arguments.out, stems[key])))
                        finish(AHEAD)
            finally:
                with interruption.deferred():
                    finish(0)
            if interruption.received:
                raise interruption.stopped()
        lines.tidy()
    finally:
        print(f"{answered} of {len(images)} photos segmented into {arguments.out}")
    return 1 if skipped else 0


def _ahead(reader: Executor, keys: Sequence[str], images: Mapping[str, Path]) -> Iterator[tuple[str, Future[Tensor]]]:
    """Yield each key with its photo, of which the next `AHEAD` are read meanwhile."""
    reads: deque[tuple[str, Future[Tensor]]] = deque()
    for key in keys:
        reads.append((key, reader.submit(read_image, images[key])))
        if len(reads) > AHEAD:
            yield reads.popleft()
    yield from reads
