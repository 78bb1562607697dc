"""`clipseg export --onnx DIR`: a trained model for programs without torch."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = """Write a trained model as ONNX. DIR gets image_encoder.onnx, text_encoder.onnx and decoder.onnx,
for any number of images and prompts and any image size that the patch size divides, and config.json, which says how to
feed them."""
    parser.epilog = "example: clipseg export --onnx clipseg_onnx --weights rd64-uni-refined.pth"
    parser.add_argument("--onnx", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument(
        "--weights",
        default="CIDAS/clipseg-rd64-refined",
        metavar="W",
        help="a trained model, as in `clipseg predict` (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the folder, and print what it holds."""
    from clipseg.network.formats.onnx import export_onnx
    from clipseg.network.weights import load

    export_onnx(load(arguments.weights), arguments.onnx)
    for path in sorted(arguments.onnx.iterdir()):
        print(f"{path.stat().st_size / 1e6:8.1f} MB  {path}")
    return 0
