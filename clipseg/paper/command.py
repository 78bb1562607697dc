"""`clipseg tables RESULTS…`: the paper's tables with ours beside them."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from clipseg.errors import ClipSegError
from clipseg.measure.metrics import DEFINITIONS
from clipseg.measure.results import Results
from clipseg.paper.formats import to_markdown, write_tables
from clipseg.paper.tables import Measured, paper_tables
from clipseg.run.benchmarks import PROTOCOLS
from clipseg.studies.visual_prompts.numbers import PromptDeltas
from clipseg.studies.zero_shot.results import CONFUSION_FILE, MulticlassResults

READERS: dict[str, Callable[[Path], Measured | PromptDeltas]] = {
    Results.FILE: Results.load,
    CONFUSION_FILE: MulticlassResults.load,
    PromptDeltas.FILE: PromptDeltas.load,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = """Print every table of the paper as Markdown, with ours beside it: difference, 95% interval and number
of seeds. Rows that were not run say so. Results of one experiment and benchmark are told apart by the seed that their run was
trained with, and by their fold; folds are averaged for each seed."""
    parser.epilog = "example: clipseg tables outputs/phrasecut_pc outputs/phrasecut_pc_plus --out tables"
    parser.add_argument(
        "results", metavar="RESULTS", nargs="+", help="output folders of evaluate.py, or folders of train.py with eval/<split>"
    )
    parser.add_argument(
        "--definition",
        choices=DEFINITIONS,
        default="released",
        help="of our metrics (default: %(default)s, which made the published figures)",
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="released",
        help="of our results; others are left out, and named (default: %(default)s, which made the published figures)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write tables.md, tables.tex and tables.html there")


def run(arguments: argparse.Namespace) -> int:
    """Print the tables, or write them."""
    places = [place for name in arguments.results for place in _results_in(Path(name))]
    twice = [place for number, place in enumerate(places) if os.path.realpath(place) in map(os.path.realpath, places[:number])]
    if twice:
        raise ClipSegError(f"{twice[0].parent} is given twice; each run counts once")
    results = {str(place.parent): READERS[place.name](place.parent) for place in places}
    tables = paper_tables(results, definition=arguments.definition, protocol=arguments.protocol)
    if arguments.out is None:
        print(to_markdown(tables))
        return 0
    for path in write_tables(arguments.out, tables):
        print(path)
    return 0


def _results_in(folder: Path) -> list[Path]:
    """The results files of an evaluation's folder, or of a run folder's `eval/*`."""
    found = [folder / name for name in READERS if (folder / name).is_file()]
    found = found or sorted(path for name in READERS for path in folder.glob(f"eval/*/{name}"))
    if not found:
        raise ClipSegError(
            f"{folder}: no results; expected {', '.join(READERS)} in it or in its eval/<split>: run evaluate.py, or name its "
            f"output folder"
        )
    return found
