"""The command line: `clipseg COMMAND …`, the same as `python -m clipseg`. Each command is a module, imported when it runs."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from clipseg import __version__
from clipseg.exit_status import guarded


@dataclass(frozen=True)
class Command:
    """A command of the line: its module has `add_arguments(parser)` and `run(arguments) -> exit status`."""

    module: str
    summary: str


COMMANDS = {
    "predict": Command("clipseg.commands.predict", "segment photos by prompts: masks, probability maps, an overlay figure"),
    "classify": Command("clipseg.commands.classify", "which of some names fits a photo best, by CLIP alone"),
    "data": Command("clipseg.commands.data", "check or download a data set; what held-out classes remove from it"),
    "case-study": Command(
        "clipseg.studies.case_study.command",
        "one photo of a data set: its phrases as prompts, IoU, Dice and the t-tests of its masks",
    ),
    "compare": Command(
        "clipseg.commands.compare",
        "is the difference between runs one? t-tests, Wilcoxon, intervals, by what evaluations left on disk",
    ),
    "tables": Command("clipseg.paper.command", "the paper's tables with ours beside them"),
    "benchmark": Command(
        "clipseg.studies.speed.command", "speed and memory beside transformers' CLIPSeg and others, on this machine"
    ),
    "export": Command("clipseg.commands.export", "write a model as ONNX, for programs without torch"),
    "release": Command("clipseg.commands.release", "write the decoder of a run for others to load"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 only where all asked for was done, and 2 after an error in what was asked."""
    return guarded(lambda: _run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="clipseg",
        description="CLIPSeg: image segmentation using text and image prompts.",
        epilog="example: clipseg predict photo.jpg 'a dog' sky",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, entry in COMMANDS.items():
        summary = entry.summary
        command = commands.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        command.description = f"{summary[0].upper()}{summary[1:]}."
        # Only the command that runs is imported: some of them take seconds.
        if arguments and arguments[0] == name:
            module = importlib.import_module(entry.module)
            module.add_arguments(command)
            command.set_defaults(execute=module.run)
    parsed = parser.parse_args(arguments)
    return int(parsed.execute(parsed))


if __name__ == "__main__":
    sys.exit(main())
