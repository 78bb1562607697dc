"""`clipseg release RUN OUT`: a trained decoder to publish."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = """Write the decoder of a run, a few MB, with its config and a model card, into a folder that
clipseg.load takes. CLIP itself is named and checked, not copied."""
    parser.epilog = "example: clipseg release outputs/phrasecut_pc/2026-11-22_10-00-00 clipseg-pc --licence cc-by-4.0"
    parser.add_argument("run", type=Path, metavar="RUN", help="an output folder of train.py")
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    parser.add_argument("--licence", default="other", help="of the weights, as the hub names it (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Write the folder, and say where."""
    from clipseg.run.release import release

    release(arguments.run, arguments.out, licence=arguments.licence)
    print(f"{arguments.out}: model.safetensors, config.json, README.md")
    return 0
