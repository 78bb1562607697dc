"""`clipseg finetune FOLDER --out OUT`: a model of one's own from a trained one and a few labelled photos."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = """Train a decoder on with the photos and labels of a folder, in whichever form these are kept (see
`clipseg data check`). Where the folder has no splits, photos are divided by the seed: 60% to learn from, 20% to choose when to
stop, thresholds and temperatures, 20% to measure before and after. OUT is then a release that `clipseg predict --weights OUT`
and `clipseg.load` take, with metrics.json, report.html, and the evaluations before/ and after/."""
    parser.epilog = "example: clipseg finetune photos --out cracks; clipseg predict wall.jpg crack --weights cracks"
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="a new or empty folder")
    parser.add_argument(
        "--init",
        default="CIDAS/clipseg-rd64-refined",
        metavar="W",
        help="what to start from, as in `clipseg predict --weights` (default: %(default)s)",
    )
    parser.add_argument("--steps", type=int, default=400, metavar="N", help="at most so many (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="phrases a step (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of splits and training (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:1, … (default: %(default)s)")
    parser.add_argument(
        "--whole",
        action="store_true",
        help="learn from whole photos in place of random crops: CLIP's part of each is then computed once, on a CPU",
    )
    parser.add_argument("--onnx", action="store_true", help="write OUT/onnx too, for programs without torch")


def run(arguments: argparse.Namespace) -> int:
    """Fine-tune, and print what it brought."""
    from clipseg.run.distributed import choose_device
    from clipseg.studies.finetune.run import FineTuning

    FineTuning(
        root=arguments.folder,
        out=arguments.out,
        init=arguments.init,
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        device=choose_device(arguments.device),
        whole=arguments.whole,
        onnx=arguments.onnx,
    ).run()
    return 0
