"""`clipseg case-study --root ROOT`: one photo of a data set, its phrases as prompts, and the t-tests of its masks."""

import argparse
from pathlib import Path

from clipseg.errors import ClipSegError
from clipseg.measure.intensity import DIFFERENCES, REGIONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = """Study one photo of a data set in PhraseCut's layout. Its phrases are the prompts; printed are
IoU and Dice in percent and, for the predicted and the true mask, Welch's t-test on differences of gray
value between neighbouring pixels: inside against inside, and inside against across the boundary.
DIR gets case-study.png (photo, truth, heat map and cut a phrase), case-study.json and case-study.html."""
    parser.epilog = "example: clipseg case-study --root data/phrasecut --split test --seed 1 --out case"
    parser.add_argument(
        "--root", required=True, metavar="ROOT", help="the folder of image_data_split.json, or mini, the synthetic data"
    )
    parser.add_argument("--split", default="test", metavar="S", help="default: %(default)s")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--image-id", type=int, metavar="N", help="this photo (default: one drawn with the seed)")
    which.add_argument("--all", action="store_true", help="all photos: how often is H0 rejected? Writes case-studies.json only")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of the photo and of the pixels drawn (default: %(default)s)"
    )
    parser.add_argument(
        "--weights",
        default="CIDAS/clipseg-rd64-refined",
        metavar="W",
        help="a trained model, as in `clipseg predict` (default: %(default)s)",
    )
    parser.add_argument(
        "--threshold", type=float, default=0.3, metavar="T", help="above it a pixel is predicted (default: %(default)s)"
    )
    parser.add_argument(
        "--region", choices=REGIONS, default="mask", help="the object: the mask, or its bounding box (default: %(default)s)"
    )
    parser.add_argument("--difference", choices=DIFFERENCES, default="absolute", help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:1, … (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("case-study"), metavar="DIR", help="default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Study the photo, or all of them, and print what was found."""
    if not 0 <= arguments.threshold <= 1 or arguments.seed < 0:
        raise ClipSegError(
            f"--threshold {arguments.threshold:g} --seed {arguments.seed}; expected a probability, and a seed of at least 0"
        )
    from clipseg.data.phrasecut import Leniency, PhraseCut
    from clipseg.network.weights import load
    from clipseg.run.distributed import choose_device
    from clipseg.run.loading import data_root
    from clipseg.studies.case_study.numbers import CaseSettings, format_case, format_rejections
    from clipseg.studies.case_study.run import pick_photo, study_photo, study_split

    # One photo that is missing is no reason to show none of the others.
    data = PhraseCut(data_root(arguments.root), split=arguments.split, leniency=Leniency(allow_missing=True))
    item = pick_photo(data, image_id=arguments.image_id, seed=arguments.seed)
    model = load(arguments.weights, device=choose_device(arguments.device))
    settings = CaseSettings(
        weights=str(arguments.weights),
        threshold=arguments.threshold,
        region=arguments.region,
        difference=arguments.difference,
        seed=arguments.seed,
    )
    if arguments.all:
        cases = study_split(arguments.out, model, data, settings)
        print(
            f"{len(cases)} photos of {arguments.split}, {sum(len(case.phrases) for case in cases)} phrases\n{settings.method}"
        )
        print(f"{format_rejections(cases)}\nnumbers: {arguments.out / 'case-studies.json'}")
    else:
        print(format_case(study_photo(arguments.out, model, data, item, settings)))
        print(f"\npage: {arguments.out / 'case-study.html'}")
    return 0
