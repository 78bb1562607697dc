"""The demo's page, in Gradio: a photo, phrases and an example marked with a brush on the left, coloured maps on the right.

Everything comes from this process: fonts are the reader's own, nothing is reported to anybody, and a header forbids the browser
to ask another address.
"""

import functools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware

from clipseg.demo.sitting import Sitting, prompt_images
from clipseg.errors import ClipSegError
from clipseg.network.model import CLIPSeg
from clipseg.prompts.support import VisualPrompt
from clipseg.prompts.visual import DEFAULT_VARIANT, VARIANTS

THRESHOLD = 0.3  # the paper's on PhraseCut, where the model brings none of its own
_POLICY = "default-src 'self' blob: data: 'unsafe-inline' 'unsafe-eval'"
_STYLE = "#seen .grid-container {grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)) !important}"


class _OwnAddressOnly:
    """Adds the header to every answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["content-security-policy"] = _POLICY
            await send(message)

        await self._app(scope, receive, send_with_policy)


def serve(model: CLIPSeg, photos: Sequence[Path], *, host: str, port: int | None) -> tuple[gr.Blocks, str]:
    """Start the page in a thread of its own.

    Args:
        model: which answers.
        photos: offered to be asked about; the first is there at once.
        host: address to listen at.
        port: None: the first free one from 7860 on.

    Returns:
        the page, to be closed, and its address.

    Raises:
        ClipSegError: the port is taken, or there is no such address.
    """
    page = build(model, photos)
    try:
        _, local, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            allowed_paths=[str(path.resolve()) for path in photos],
            app_kwargs={"middleware": [Middleware(_OwnAddressOnly)]},
            theme=gr.themes.Default(font="sans-serif", font_mono="monospace"),
            css=_STYLE,
            footer_links=[],
        )
    except OSError as error:
        raise ClipSegError(
            f"{host}, port {port or 'from 7860 on'}: cannot listen there; choose another --port or --host"
        ) from error
    return page, local


def build(model: CLIPSeg, photos: Sequence[Path]) -> gr.Blocks:
    """Lay out the page, and tie its parts to a visitor's `Sitting`."""
    thresholds = [known.threshold for known in model.calibration.values()] or [THRESHOLD]
    with gr.Blocks(title="CLIPSeg", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        folder = tempfile.TemporaryDirectory(prefix="clipseg-")  # of what is saved, as long as the page
        sitting = gr.State(None)
        gr.Markdown("# CLIPSeg\nSegment a photo by phrases, by an example, or by a mix of both.")
        with gr.Row():
            with gr.Column():
                photo = gr.Image(_first(photos), type="filepath", label="Photo", sources=["upload", "clipboard"], height=320)
                # The file as it came: what it holds is decoded in one place, `image_io`, and not before by Gradio.
                vars(photo)["preprocess"] = lambda payload: None if payload is None else payload.path
                phrases = gr.Textbox(
                    "\n".join(model.calibration), label="Phrases, one a line", lines=3, placeholder="a dog\nsky"
                )
                ask = gr.Button("Segment", variant="primary")
                if len(photos) > 1:
                    gr.Examples([[str(path)] for path in photos], photo, label="Photos")
            with gr.Column():
                maps = gr.AnnotatedImage(label="Where the probability is above the threshold", show_label=False)
                threshold = gr.Slider(0, 1, round(statistics.median(thresholds), 2), step=0.01, label="Threshold")
                save = gr.Button("Save masks and probabilities")
                archive = gr.File(label="ZIP", visible=False)
        with gr.Accordion("By an example: mark an object with the brush", open=False), gr.Row():
            with gr.Column():
                take = gr.Button("Mark it in the photo above", size="sm")
                example = gr.ImageEditor(
                    label="Example",
                    sources=["upload", "clipboard"],
                    brush=gr.Brush(colors=["#ff3030"], default_size=24),
                    layers=False,
                    transforms=(),
                    height=400,
                )
            with gr.Column():
                name = gr.Textbox(label="What it is called (for the mix)", placeholder="a dog")
                weight = gr.Slider(0, 1, 0.5, step=0.05, label="Mix: the part of the name; 0 is the example alone")
                variant = gr.Dropdown(list(VARIANTS), value=DEFAULT_VARIANT, label="As CLIP sees it; choose here or below")
                seen = gr.Gallery(show_label=False, elem_id="seen", height=330, allow_preview=False, buttons=[])
        question = [sitting, photo, phrases, example, variant, name, weight, threshold]
        answer = functools.partial(_answer, model)
        ask.click(answer, question, [sitting, maps], api_name="answer", show_progress_on=maps)
        for event in (phrases.submit, name.submit, weight.release, variant.change):
            event(
                answer, question, [sitting, maps], api_visibility="private", show_progress_on=maps, trigger_mode="always_last"
            )
        threshold.change(_cut, [sitting, threshold], maps, api_name="cut", show_progress="hidden", trigger_mode="always_last")
        take.click(lambda path: path, photo, example, api_visibility="private")
        example.change(functools.partial(_show, model), example, seen, api_name="prompt_images", trigger_mode="always_last")
        seen.select(_chosen, None, variant, api_visibility="private")
        save.click(functools.partial(_save, folder), [sitting, threshold], archive, api_name="save")
    return page


def _first(photos: Sequence[Path]) -> str | None:
    return str(photos[0]) if photos else None


def _told(action: Callable[..., Any]) -> Callable[..., Any]:
    """The same with our errors as Gradio shows them, in the corner of the page."""

    @functools.wraps(action)
    def tell(*arguments: Any) -> Any:
        try:
            return action(*arguments)
        except ClipSegError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return tell


@_told
def _answer(
    model: CLIPSeg, sitting: Sitting | None, photo: str | None, phrases: str, drawn: Any, variant: str, *rest: Any
) -> tuple[Sitting, Any]:
    name, weight, threshold = rest
    sitting = sitting or Sitting(model)
    if photo is not None:
        sitting.look(photo)
    sitting.ask(phrases or "", _example(drawn), variant=variant, name=name or "", weight=weight)
    return sitting, sitting.picture(threshold)


@_told
def _cut(sitting: Sitting | None, threshold: float) -> Any:
    return None if sitting is None else sitting.picture(threshold)


def _example(drawn: Any) -> VisualPrompt | None:
    """What the brush has marked in the editor's picture; None where it has not."""
    if not drawn or drawn.get("background") is None:
        return None
    marked = [np.asarray(layer)[:, :, 3] > 127 for layer in drawn["layers"]]
    mask = np.logical_or.reduce(marked) if marked else np.zeros(1, dtype=bool)
    return VisualPrompt(np.ascontiguousarray(drawn["background"][:, :, :3]), mask) if mask.any() else None


@_told
def _show(model: CLIPSeg, drawn: Any) -> Any:
    example = _example(drawn)
    return [] if example is None else prompt_images(model, example)


def _chosen(event: gr.SelectData) -> Any:
    return list(VARIANTS)[event.index]


@_told
def _save(folder: Any, sitting: Sitting | None, threshold: float) -> Any:
    if sitting is None:
        raise ClipSegError("no answer yet; choose a photo and ask for something")
    path = Path(tempfile.mkdtemp(dir=folder.name)) / "masks.zip"
    sitting.save(threshold, path)
    return gr.File(str(path), visible=True)
