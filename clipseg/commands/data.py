"""`clipseg data check ROOT`: is a data set whole?"""

import argparse
from pathlib import Path

from clipseg.data.check import check_phrasecut


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.epilog = "example: clipseg data check data/phrasecut"
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summary = "compare a folder in PhraseCut's layout with its annotations and the published counts"
    check = actions.add_parser(
        "check",
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. One line a finding, then a summary; status 1 after an error.",
        epilog="example: clipseg data check data/phrasecut --decode",
    )
    check.add_argument("root", metavar="ROOT", type=Path, help="the folder that holds image_data_split.json")
    check.add_argument("--decode", action="store_true", help="decode every photo, not only its header: finds truncated files")


def run(arguments: argparse.Namespace) -> int:
    """Print the findings."""
    report = check_phrasecut(arguments.root, decode=arguments.decode)
    print("\n".join(report.lines()))
    return 0 if report.ok else 1
