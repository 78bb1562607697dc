"""`clipseg classify IMAGE NAME …`: CLIP's zero-shot classification."""

import argparse

from clipseg.prompts.text import TEMPLATES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.epilog = "example: clipseg classify photo.jpg dog cat 'fire engine'"
    parser.add_argument("image", metavar="IMAGE", help="an image file")
    parser.add_argument("names", metavar="NAME", nargs="+", help="what the photo may show")
    parser.add_argument(
        "--weights", metavar="W", help="whose CLIP answers; as in `clipseg predict` (default: OpenAI's ViT-B/16)"
    )
    parser.add_argument(
        "--templates",
        default="fixed",
        metavar="SET",
        help=f"put around every name: {', '.join(TEMPLATES)}, or a text with {{}} for the name (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print a probability a name, the best first."""
    from clipseg.classification import classify
    from clipseg.network.weights import load

    model = None if arguments.weights is None else load(arguments.weights)
    found = classify(arguments.image, arguments.names, model=model, templates=arguments.templates)
    for name, probability in sorted(found.items(), key=lambda item: -item[1]):
        print(f"{probability:.4f}  {name}")
    return 0
