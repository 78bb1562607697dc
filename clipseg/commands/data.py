"""`clipseg data ACTION`: is a data set whole, fetch one, which phrases do held-out classes remove."""

import argparse
from pathlib import Path

from clipseg.data.upkeep.check import check_data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.epilog = "example: clipseg data check data/phrasecut"
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summary = "compare a data set's files with its annotations and the published counts"
    check = actions.add_parser(
        "check",
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}: PhraseCut, Pascal VOC 2012, COCO, LVIS, or a folder of your own. "
        "One line a finding, then a summary; status 1 after an error.",
        epilog="example: clipseg data check data/phrasecut --decode",
    )
    check.add_argument("root", metavar="ROOT", type=Path, help="the data set's folder; its layout says which it is")
    check.add_argument(
        "--decode", action="store_true", help="decode every photo and mask, not only headers: finds truncated files"
    )
    check.set_defaults(act=_check)
    _add_download(actions)
    _add_words(actions)


def _add_download(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    download = actions.add_parser(
        "download",
        help="fetch a data set",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="""Fetch a data set: annotations (0.4 GB) from its authors' Google Drive, photos (11 GB) from the
addresses that image_data_split.json lists. What is there is kept: stop and run it again as you like.
Photos that cannot be had are listed in ROOT/download_failures.txt, and make the status 1.""",
        epilog="examples:\n  clipseg data download phrasecut data/phrasecut --split miniv"
        "\n  clipseg data download phrasecut data/phrasecut",
    )
    download.add_argument("dataset", choices=["phrasecut"], help="which data set")
    download.add_argument("root", metavar="ROOT", type=Path, help="the folder to fill")
    download.add_argument(
        "--split",
        default="train_val_test_miniv",
        metavar="SPLIT",
        help="train, val, test or miniv (100 photos), or several joined by '_' (default: %(default)s)",
    )
    download.add_argument(
        "--threads", type=_count, default=16, metavar="N", help="photos fetched at once (default: %(default)s)"
    )
    download.set_defaults(act=_download)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text} is not in 1 to 256")
    return int(text)


def _add_words(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = actions.add_parser(
        "words",
        help="how many phrases each rule of held-out classes removes, with examples",
        description="Print for each rule of held-out classes how many phrases it removes from a split, and the first few of "
        "them, each with the forbidden word it holds.",
        epilog="example: clipseg data words data/phrasecut --split train",
    )
    words.add_argument("root", metavar="ROOT", type=Path, help="the folder that holds image_data_split.json")
    words.add_argument("--split", default="train", metavar="SPLIT", help="whose phrases (default: %(default)s)")
    words.set_defaults(act=_words)


def run(arguments: argparse.Namespace) -> int:
    """Do what is asked."""
    return int(arguments.act(arguments))


def _check(arguments: argparse.Namespace) -> int:
    report = check_data(arguments.root, decode=arguments.decode)
    print("\n".join(report.lines()))
    return 0 if report.ok else 1


def _download(arguments: argparse.Namespace) -> int:
    from clipseg.data.upkeep.download import download_annotations, download_photos

    for name in download_annotations(arguments.root, arguments.split):
        print(f"{arguments.root / name}: fetched")
    summary = download_photos(arguments.root, arguments.split, threads=arguments.threads)
    print(summary.line(arguments.root))
    return 0 if summary.ok else 1


def _words(arguments: argparse.Namespace) -> int:
    from clipseg.data.class_words import RULES, forbidden_word
    from clipseg.data.json_entries import iterate_entries
    from clipseg.data.layout import split_files

    files = split_files(arguments.root, arguments.split).values()
    entries = (entry for path in files for entry in iterate_entries(path))
    phrases = [str(entry.get("phrase", "")) for entry in entries if isinstance(entry, dict)]
    print(f"{arguments.root}, {arguments.split}: {len(phrases):,} phrases")
    for rule in RULES:
        find = forbidden_word(rule)
        found = {phrase: find(phrase) for phrase in dict.fromkeys(phrases)}
        removed = sum(found[phrase] is not None for phrase in phrases)
        examples = [f"{phrase!r} ({word})" for phrase, word in found.items() if word is not None][:4]
        part = removed / max(1, len(phrases))
        print(f"{rule:<15} {removed:>9,} {part:>6.1%}  {', '.join(examples)}".rstrip())
    return 0
