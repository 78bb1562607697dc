"""`clipseg demo [IMAGE …]`: a local page to try phrases, examples and mixes by hand."""

import argparse
import importlib.util
import threading
from pathlib import Path

from clipseg.errors import ClipSegError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = """Open a page on this machine where photos are asked by phrases, by an object marked with a brush, and
by mixes of both. Nothing is loaded from elsewhere, and nothing is sent anywhere. Ctrl-C ends it."""
    parser.epilog = "examples:\n  clipseg demo photo.jpg other.jpg\n  clipseg demo --weights mini"
    parser.add_argument("images", metavar="IMAGE", nargs="*", type=Path, help="photos to offer; others can be dropped there")
    parser.add_argument(
        "--weights", default="CIDAS/clipseg-rd64-refined", metavar="W", help="as in clipseg predict (default: %(default)s)"
    )
    parser.add_argument("--precision", default="float32", help="float32 or bf16, as in clipseg predict (default: %(default)s)")
    parser.add_argument("--port", type=int, metavar="N", help="default: the first free one from 7860 on")
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="who may come (default: %(default)s, nobody else)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:1, … (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    if importlib.util.find_spec("gradio") is None:
        raise ClipSegError("clipseg demo needs Gradio; install it with: pip install 'clipseg[demo]'")
    if missing := [path for path in arguments.images if not path.is_file()]:
        raise ClipSegError(f"{missing[0]}: no such image")
    if arguments.port is not None and not 0 < arguments.port < 65536:
        raise ClipSegError(f"--port {arguments.port}: expected 1 to 65535")
    from clipseg.demo.page import serve
    from clipseg.network.weights import load
    from clipseg.run.distributed import choose_device

    model = load(arguments.weights, device=choose_device(arguments.device), precision=arguments.precision)
    page, address = serve(model, arguments.images, host=arguments.host, port=arguments.port)
    print(f"{address} (Ctrl-C ends it)", flush=True)
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)
    return 0
