"""The demo over HTTP, as a browser drives it: phrases, the threshold, a brushed example, mixes, what is saved and refused."""

import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_data import add_noise, photo
from PIL import Image

gradio_client = pytest.importorskip("gradio_client", reason="the extra [demo] is not installed")

from clipseg import Mix, Segmenter, VisualPrompt  # noqa: E402
from clipseg.__main__ import main  # noqa: E402
from clipseg.demo.page import build, serve  # noqa: E402
from clipseg.errors import ClipSegError  # noqa: E402
from clipseg.network.calibration import Calibration  # noqa: E402
from clipseg.network.model import CLIPSeg  # noqa: E402
from clipseg.prompts.visual import DEFAULT_VARIANT, VARIANTS  # noqa: E402

SIZE = (48, 80)
CONNECTIONS: list[Any] = []


def note_connections(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        CONNECTIONS.append(arguments[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    for number in range(2):
        photo(folder / f"{number}.jpg", SIZE)
    add_noise(folder)
    return folder


@pytest.fixture(scope="module")
def address(seeing_model: CLIPSeg, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    sys.addaudithook(note_connections)
    with pytest.MonkeyPatch.context() as patch:
        # Gradio's pages share a folder, and one that closes takes pictures of another away.
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        page, address = serve(seeing_model, sorted(folder.iterdir()), host="127.0.0.1", port=None)
        yield address
        page.close(verbose=False)


@pytest.fixture
def client(address: str) -> Any:
    return gradio_client.Client(address, verbose=False, analytics_enabled=False)


def brushed(folder: Path, mask: np.ndarray) -> dict[str, Any]:
    """What the editor sends of a photo on which a brush has marked `mask`."""
    layer = np.zeros((*SIZE, 4), dtype=np.uint8)
    layer[mask] = (255, 48, 48, 255)
    Image.fromarray(layer).save(folder / "layer.png")
    background = gradio_client.handle_file(str(folder / "1.jpg"))
    return {"background": background, "layers": [gradio_client.handle_file(str(folder / "layer.png"))], "composite": background}


def ask(client: Any, folder: Path, phrases: str, example: Any = None, **options: Any) -> Any:
    asked = {"variant": DEFAULT_VARIANT, "name": "", "weight": 0.5, "threshold": 0.3} | options
    drawn = example or {"background": None, "layers": [], "composite": None}
    shown = gradio_client.handle_file(str(folder / "0.jpg"))
    return client.predict(shown, phrases, drawn, *asked.values(), api_name="/answer")


def masks(found: Any) -> dict[str, np.ndarray]:
    """Title -> where the page paints it."""
    return {
        entry["label"].rpartition(" (")[0]: np.asarray(Image.open(entry["image"]))[:, :, 3] > 0
        for entry in found["annotations"]
    }


@pytest.mark.slow
def test_phrases_and_the_threshold(client: Any, folder: Path, seeing_model: CLIPSeg, monkeypatch: pytest.MonkeyPatch):
    expected = Segmenter(seeing_model)(folder / "0.jpg", ["red", "a dog"]).numpy()
    middle = float(np.median(expected))
    found = masks(ask(client, folder, "red\n\n a dog \nred", threshold=middle))
    assert list(found) == ["red", "a dog"]
    assert np.array_equal(np.stack(list(found.values())), expected > middle)

    def forbidden(*_: Any) -> None:
        raise AssertionError("the backbone is asked anew")

    monkeypatch.setattr(type(seeing_model), "activations", forbidden)
    monkeypatch.setattr(type(seeing_model), "decode", forbidden)
    lower = float(np.quantile(expected, 0.2))
    found = masks(client.predict(lower, api_name="/cut"))
    assert np.array_equal(np.stack(list(found.values())), expected > lower)


@pytest.mark.slow
def test_a_fine_tuned_model_brings_its_phrases_thresholds_and_temperatures(
    client: Any, folder: Path, seeing_model: CLIPSeg, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(seeing_model, "calibration", {"crack": Calibration(3.0, 0.42)})
    parts = [part["props"] for part in build(seeing_model, []).config["components"]]
    values = {part["label"]: part.get("value") for part in parts if "label" in part}
    assert (values["Phrases, one a line"], values["Threshold"]) == ("crack", 0.42)
    expected = Segmenter(seeing_model)(folder / "0.jpg", ["crack"]).numpy()[0]
    middle = float(np.median(expected))
    (found,) = masks(ask(client, folder, "crack", threshold=middle)).values()
    assert np.array_equal(found, expected > middle)


@pytest.mark.slow
def test_an_example_and_its_mix(client: Any, folder: Path, seeing_model: CLIPSeg):
    mask = np.zeros(SIZE, dtype=bool)
    mask[10:30, 20:50] = True
    drawn, example = brushed(folder, mask), VisualPrompt(folder / "1.jpg", mask)
    segment = Segmenter(seeing_model)
    for name, weight, prompt in (("", 0.5, example), ("a dog", 0.25, Mix("a dog", example, 0.25)), ("a dog", 1, "a dog")):
        expected = segment(folder / "0.jpg", [prompt]).numpy()[0]
        middle = float(np.median(expected))
        (found,) = masks(ask(client, folder, "", drawn, name=name, weight=weight, threshold=middle)).values()
        assert (found != (expected > middle)).mean() < 0.01
    seen = client.predict(drawn, api_name="/prompt_images")
    assert [entry["caption"] for entry in seen] == list(VARIANTS)
    with Image.open(seen[0]["image"]) as original, Image.open(folder / "1.jpg") as own:
        side = seeing_model.config.image_size
        assert original.size == (side, side)
        near = np.asarray(own.resize((side, side), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(np.asarray(original.convert("RGB")) - near).mean() < 12


@pytest.mark.slow
def test_what_is_saved_are_masks_and_probabilities_of_the_photo_s_size(client: Any, folder: Path, seeing_model: CLIPSeg):
    ask(client, folder, "red\na dog")
    expected = Segmenter(seeing_model)(folder / "0.jpg", ["red", "a dog"]).numpy()
    middle = float(np.median(expected))
    path = client.predict(middle, api_name="/save")
    with zipfile.ZipFile(path if isinstance(path, str) else path["value"]) as archive:
        assert archive.namelist() == ["0_red.mask.png", "0_red.prob.png", "1_a-dog.mask.png", "1_a-dog.prob.png"]
        with archive.open("1_a-dog.mask.png") as file:
            assert np.array_equal(np.asarray(Image.open(file)) == 255, expected[1] > middle)
        with archive.open("0_red.prob.png") as file:
            assert np.allclose(np.asarray(Image.open(file)) / 65535, expected[0], atol=1e-4)


@pytest.mark.slow
def test_what_cannot_be_asked_is_told(client: Any, folder: Path):
    for phrases, message in (
        ("", "nothing to ask for; write a phrase"),
        ("\n".join(map(str, range(13))), "13 phrases; ask for"),
    ):
        with pytest.raises(gradio_client.exceptions.AppError, match=message):
            ask(client, folder, phrases)
    other = gradio_client.Client(client.src, verbose=False, analytics_enabled=False)
    with pytest.raises(gradio_client.exceptions.AppError, match="no answer yet"):
        other.predict(0.5, api_name="/save")
    (folder / "broken.png").write_bytes(b"no photo")
    empty = {"background": None, "layers": [], "composite": None}
    for shown, message in (
        (gradio_client.handle_file(str(folder / "broken.png")), "broken.png: not an image"),
        (None, "no photo"),
    ):
        with pytest.raises(gradio_client.exceptions.AppError, match=message):
            other.predict(shown, "red", empty, DEFAULT_VARIANT, "", 0.5, 0.3, api_name="/answer")


@pytest.mark.slow
def test_nothing_is_asked_of_another_address(address: str, client: Any, folder: Path):
    ask(client, folder, "red")
    assert CONNECTIONS
    assert {place[0] for place in CONNECTIONS if isinstance(place, tuple)} <= {"127.0.0.1", "::1", "localhost"}
    with urllib.request.urlopen(address) as answer:
        text, policy = answer.read().decode(), answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'")
    assert "http" not in policy
    for loaded in ("fonts.googleapis", "cdn.", "cdnjs"):
        assert loaded not in text
    secret = urllib.request.Request(f"{address}gradio_api/file=/etc/passwd")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(secret)


@pytest.mark.slow
def test_a_port_that_is_taken_is_told(address: str, seeing_model: CLIPSeg):
    port = int(address.rstrip("/").rpartition(":")[2])
    with pytest.raises(ClipSegError, match=rf"127.0.0.1, port {port}: cannot listen there; choose another --port"):
        serve(seeing_model, [], host="127.0.0.1", port=port)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nowhere.jpg"], "nowhere.jpg: no such image"), (["--port", "99999"], "--port 99999: expected 1 to 65535")],
)
def test_what_the_command_refuses(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str):
    assert main(["demo", "--weights", "mini", *arguments]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
