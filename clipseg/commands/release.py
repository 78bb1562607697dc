"""`clipseg release RUN [OUT] [--push NAME]`: a trained decoder to publish."""

import argparse
import tempfile
from pathlib import Path

from clipseg.errors import ClipSegError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = """Write the decoder of a run, a few MB, with its config and a model card, into a folder that
clipseg.load takes, upload it to the Hugging Face hub, or both. CLIP itself is named and checked, not copied."""
    parser.epilog = """examples:
  clipseg release outputs/phrasecut_pc/2026-11-22_10-00-00 clipseg-pc --licence cc-by-4.0
  clipseg release outputs/phrasecut_pc/2026-11-22_10-00-00 --push me/clipseg-pc"""
    parser.add_argument("run", type=Path, metavar="RUN", help="an output folder of train.py")
    parser.add_argument("out", type=Path, metavar="OUT", nargs="?", help="a new folder")
    parser.add_argument("--licence", default="other", help="of the weights, as the hub names it (default: %(default)s)")
    parser.add_argument("--push", metavar="NAME", help="OWNER/MODEL on the hub, where clipseg.load finds it")
    parser.add_argument("--overwrite", action="store_true", help="upload even where NAME holds something")


def run(arguments: argparse.Namespace) -> int:
    """Write the folder, upload it, and say where."""
    from clipseg.run.release import push, release

    if arguments.out is None and arguments.push is None:
        raise ClipSegError("nowhere to release to; name a new folder OUT, or --push OWNER/MODEL")
    with tempfile.TemporaryDirectory() as scratch:
        out = arguments.out or Path(scratch) / "release"
        release(arguments.run, out, licence=arguments.licence)
        if arguments.out is not None:
            print(f"{out}: model.safetensors, config.json, README.md")
        if arguments.push is not None:
            print(push(out, arguments.push, overwrite=arguments.overwrite))
    return 0
