"""The command line: `clipseg COMMAND …`, the same as `python -m clipseg`. Each command is a module, imported when it runs."""

import argparse
import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from clipseg import __version__
from clipseg.errors import ClipSegError
from clipseg.exit_status import guarded


@dataclass(frozen=True)
class Command:
    """A command of the line: its module has `add_arguments(parser)` and `run(arguments) -> exit status`."""

    module: str
    summary: str


COMMANDS = {
    "predict": Command("clipseg.commands.predict", "segment photos by prompts: masks, probability maps, an overlay figure"),
    "classify": Command("clipseg.commands.classify", "which of some names fits a photo best, by CLIP alone"),
    "demo": Command("clipseg.commands.demo", "a local page to try phrases, examples and mixes by hand"),
    "data": Command("clipseg.commands.data", "check or download a data set; what held-out classes remove from it"),
    "finetune": Command("clipseg.studies.finetune.command", "a model of your own from a trained one and a few labelled photos"),
    "case-study": Command(
        "clipseg.studies.case_study.command",
        "one photo of a data set: its phrases as prompts, IoU, Dice and the t-tests of its masks",
    ),
    "compare": Command(
        "clipseg.commands.compare",
        "is the difference between runs one? t-tests, Wilcoxon, intervals, by what evaluations left on disk",
    ),
    "compare-words": Command(
        "clipseg.studies.laboratory.command", "presence, counterfactuals or paraphrases of groups of runs, in one table"
    ),
    "tables": Command("clipseg.paper.command", "the paper's tables with ours beside them"),
    "benchmark": Command(
        "clipseg.studies.speed.command", "speed and memory beside transformers' CLIPSeg and others, on this machine"
    ),
    "export": Command("clipseg.commands.export", "write a model as ONNX, for programs without torch"),
    "release": Command("clipseg.commands.release", "write the decoder of a run for others to load"),
}


_loudness = argparse.ArgumentParser(prog="clipseg", add_help=False, allow_abbrev=False)
_loudness.add_argument("-q", "--quiet", action="store_true", help="print results, and the error that ends it, and no more")
_loudness.add_argument("-v", "--verbose", action="store_true", help="before the line of an error tell where it arose")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 only where all asked for was done, and 2 after an error in what was asked."""
    loudness, rest = _loudness.parse_known_args(arguments)
    return guarded(lambda: _run(rest, loudness))


def _run(arguments: Sequence[str], loudness: argparse.Namespace) -> int:
    parser = argparse.ArgumentParser(
        prog="clipseg",
        description="CLIPSeg: image segmentation using text and image prompts.",
        epilog="example: clipseg predict photo.jpg 'a dog' sky",
        parents=[_loudness],
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, entry in COMMANDS.items():
        summary = entry.summary
        command = commands.add_parser(
            name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter, parents=[_loudness]
        )
        command.description = f"{summary[0].upper()}{summary[1:]}."
        # Only the command that runs is imported: some of them take seconds.
        if arguments and arguments[0] == name:
            module = importlib.import_module(entry.module)
            module.add_arguments(command)
            command.set_defaults(execute=module.run)
    parsed = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        if loudness.quiet:
            stack.enter_context(contextlib.redirect_stderr(stack.enter_context(open(os.devnull, "w"))))
        try:
            return int(parsed.execute(parsed))
        except ClipSegError as error:
            if loudness.verbose:
                traceback.print_exception(error)
            raise


if __name__ == "__main__":
    sys.exit(main())
