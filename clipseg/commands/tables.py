"""`clipseg tables RESULTS…`: the paper's tables with ours beside them."""

import argparse
from pathlib import Path

from clipseg.errors import ClipSegError
from clipseg.measure.alignment import load_runs
from clipseg.measure.metrics import DEFINITIONS
from clipseg.measure.paper_tables import paper_tables, to_markdown, write_tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = """Print every table of the paper as Markdown, with ours beside it: difference, 95% interval and number
of seeds. Rows that were not run say so. Results of the same experiment and benchmark are taken for seeds."""
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
    parser.add_argument("--out", type=Path, metavar="DIR", help="write tables.md, tables.tex and tables.html there")


def run(arguments: argparse.Namespace) -> int:
    """Print the tables, or write them."""
    if len({Path(name).resolve() for name in arguments.results}) < len(arguments.results):
        raise ClipSegError("a results folder is given twice; each counts as one seed")
    results = [result for name in arguments.results for result in load_runs(name).values()]
    tables = paper_tables(results, definition=arguments.definition)
    if arguments.out is None:
        print(to_markdown(tables))
        return 0
    for path in write_tables(arguments.out, tables):
        print(path)
    return 0
