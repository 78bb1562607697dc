import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import AuthorsDecoder, narrow_config, random_condition, random_images, save_reference, scale_weights, spread
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPConfig, CLIPModel

from clipseg.errors import ClipSegError
from clipseg.network.clip_weights import find_weights, load_backbone
from clipseg.network.config import ModelConfig
from clipseg.network.formats import authors as authors_layout
from clipseg.network.formats.transformers import save_transformers
from clipseg.network.formats.transformers_config import read_folder_config
from clipseg.network.model import CLIPSeg
from clipseg.network.weights import load, save_release


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow CLIPSeg in transformers' layout, that the other files here take their CLIP from."""
    folder = tmp_path_factory.mktemp("clipseg")
    save_reference(narrow_config(), folder)
    return folder


@pytest.fixture
def folder(clip_folder: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(clip_folder, tmp_path / "copy"))


@pytest.fixture
def authors_file(tmp_path: Path) -> Path:
    path = tmp_path / "rd16-uni.pth"
    torch.save(AuthorsDecoder(32, 32, 16, refined=False).state_dict(), path)
    return path


def spoil(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    state = load_file(path) if path.suffix == ".safetensors" else torch.load(path)
    change(state)
    save_file(state, path, {"format": "pt"}) if path.suffix == ".safetensors" else torch.save(state, path)


# The authors' files


@pytest.mark.parametrize("refined", [False, True])
@pytest.mark.parametrize("reduce_dim", [16, 64])
def test_an_authors_file(clip_folder: Path, tmp_path: Path, refined: bool, reduce_dim: int):
    decoder = AuthorsDecoder(32, 32, reduce_dim, refined=refined).eval()
    torch.save(decoder.state_dict(), tmp_path / "weights.pth")
    model = load(tmp_path / "weights.pth", pretrained=clip_folder)
    assert not model.training
    head = "refined" if refined else "plain"
    assert model.config == ModelConfig(
        backbone="transformers", pretrained=str(clip_folder), extract_layers=(3, 6, 9), reduce_dim=reduce_dim, head=head
    )
    images, condition = random_images(2, (64, 64)), random_condition(2, 32)
    with torch.no_grad():
        expected = decoder(list(reversed(model.activations(images))), condition)
        assert (model(images, condition) - expected).abs().max() <= 1e-4
    assert spread(expected) > 0.1


def test_read_outs_of_an_authors_file_can_be_chosen(authors_file: Path, clip_folder: Path):
    assert load(authors_file, pretrained=clip_folder, extract_layers=[3, 7, 9]).config.extract_layers == (3, 7, 9)
    with pytest.raises(ClipSegError, match="takes 3 read-outs"):
        load(authors_file, pretrained=clip_folder, extract_layers=(3,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("film_add.bias"), r"missing film_add\.bias"),
        (lambda s: s.pop("reduces.0.weight"), r"reduces\.0\.weight is missing"),
        (lambda s: s.update({"extra.weight": torch.zeros(1), "visual": torch.zeros(1)}), r"unknown extra\.weight, visual"),
        (lambda s: s.update({"film_add.bias": torch.zeros(17)}), r"film_add\.bias \[17\] instead of \[16\]"),
        (lambda s: s["blocks.1.linear1.bias"].fill_(float("nan")), r"NaN or infinite blocks\.1\.linear1\.bias"),
        (lambda s: s["blocks.1.linear1.bias"].fill_(float("inf")), r"NaN or infinite blocks\.1\.linear1\.bias"),
        (lambda s: s.update({"film_add.bias": "text"}), r"no plain float tensor film_add\.bias"),
        (lambda s: s.update({"film_add.bias": torch.zeros(16).long()}), r"no plain float tensor film_add\.bias"),
        (lambda s: s.update({"film_add.bias": torch.zeros(1).expand(16)}), r"no plain float tensor film_add\.bias"),
        (lambda s: s.clear(), r"film_mul\.weight is missing or misshapen \(found nothing"),
    ],
)
def test_a_spoilt_authors_file(authors_file: Path, clip_folder: Path, change: Callable[[dict[str, Any]], Any], message: str):
    spoil(authors_file, change)
    with pytest.raises(ClipSegError, match=message) as caught:
        load(authors_file, pretrained=clip_folder)
    assert str(authors_file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_faults_are_in_one_error(authors_file: Path, clip_folder: Path):
    spoil(authors_file, lambda s: [s.pop("film_add.bias"), s.update({"wrong": torch.zeros(1), "norm": torch.zeros(1)})])
    with pytest.raises(ClipSegError, match=r"missing film_add\.bias; unknown wrong, norm"):
        load(authors_file, pretrained=clip_folder)


def test_no_clip_is_known_for_a_narrow_decoder(authors_file: Path):
    with pytest.raises(ClipSegError, match="no known CLIP has width 32, embedding 32 and patches of 16 pixels"):
        load(authors_file)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, folder: Path):
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    for path in (tmp_path / "plain.pth", tmp_path / "archive.pth", folder / "pytorch_model.bin"):
        if path.name == "plain.pth":
            path.write_bytes(pickle.dumps({"film_mul.weight": Malicious()}))
        else:
            torch.save({"film_mul.weight": Malicious()}, path)
    (folder / "model.safetensors").unlink()
    for path in (tmp_path / "plain.pth", tmp_path / "archive.pth", folder):
        with pytest.raises(ClipSegError, match=r"refused: .* pickle could run code when read") as caught:
            load(path)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"weights", b"<html>", b"PK\x03\x04" + bytes(100), b"\x80\x02."])
def test_a_file_that_is_no_weights(tmp_path: Path, content: bytes):
    for name in ("weights.pth", "weights.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ClipSegError, match=f"{name}: (refused|not readable as weights)"):
            load(tmp_path / name)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_whatever_the_bytes_a_model_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, clip_folder: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
):
    backbone = load_backbone("transformers", clip_folder)
    monkeypatch.setattr(authors_layout, "load_backbone", lambda *_: backbone)
    path = tmp_path_factory.mktemp("fuzz") / f"weights{suffix}"
    state = AuthorsDecoder(32, 32, 4, refined=False).state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    whole = path.read_bytes()
    # Headers, directories and pickles lie at both ends.
    places = st.integers(0, 4096) | st.integers(len(whole) - 8192, len(whole) - 1) | st.integers(0, len(whole) - 1)

    @settings(max_examples=80, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(edits=st.lists(st.tuples(places, st.integers(0, 255)), max_size=4), length=st.just(len(whole)) | places)
    def check(edits: list[tuple[int, int]], length: int) -> None:
        content = bytearray(whole)
        for place, value in edits:
            content[place] = value
        path.write_bytes(content[:length])
        try:
            model = load(path, pretrained=clip_folder)
        except ClipSegError as error:
            assert "\n" not in str(error)  # noqa: PT017 (either outcome is right)
        else:
            assert all(torch.isfinite(parameter).all() for parameter in model.parameters())

    check()


# What this package writes


@pytest.fixture(scope="module")
def model(clip_folder: Path) -> CLIPSeg:
    config = ModelConfig(backbone="transformers", pretrained=str(clip_folder), reduce_dim=8, image_size=64, seed=4)
    model = CLIPSeg(load_backbone("transformers", clip_folder), config)
    scale_weights(model.decoder, seed=2)
    return model.eval()


def save_checkpoint(model: CLIPSeg, path: Path, changes: dict[str, Any] | None = None) -> Path:
    config = asdict(model.config) | {"extract_layers": list(model.config.extract_layers)}
    state = {
        "format": "clipseg-checkpoint",
        "version": 1,
        "model": model.decoder.state_dict(),
        "model_config": config,
        "backbone_checksum": model.backbone.checksum(),
        "step": 7,
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state | (changes or {}), path)
    return path


def same_logits(a: CLIPSeg, b: CLIPSeg) -> bool:
    images, condition = random_images(1, (64, 96)), random_condition(1, 32)
    with torch.no_grad():
        return torch.equal(a(images, condition), b(images, condition))


def test_a_run_folder_is_its_last_checkpoint(model: CLIPSeg, tmp_path: Path):
    save_checkpoint(model, tmp_path / "checkpoints" / "last.pt")
    (tmp_path / "checkpoints" / "best.pt").write_bytes(b"not looked at")
    for x in (tmp_path, str(tmp_path / "checkpoints" / "last.pt")):
        again = load(x)
        assert again.config == model.config
        assert same_logits(again, model)


def test_another_clip_than_the_decoders_is_refused(model: CLIPSeg, folder: Path, tmp_path: Path):
    path = save_checkpoint(model, tmp_path / "last.pt")
    assert load(path, pretrained=folder).config.pretrained == str(folder)
    spoil(folder / "model.safetensors", lambda state: state["clip.text_projection.weight"].add_(0.1))
    with pytest.raises(ClipSegError, match="trained on another CLIP"):
        load(path, pretrained=folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "no checkpoint of train.py of version 1"),
        ({"format": "other"}, "no checkpoint of train.py of version 1"),
        ({"model": None}, "holds no decoder weights"),
        ({"model": {}}, "missing reductions.0.weight"),
        ({"model_config": None}, "no model_config"),
        ({"model_config": {"width": 3}}, "no model_config of this version .*width"),
        ({"model_config": {"extract_layers": [3], "reduce_dim": "x"}}, "model_config: reduce_dim='x' is of the wrong kind"),
    ],
)
def test_a_spoilt_checkpoint(model: CLIPSeg, tmp_path: Path, changes: dict[str, Any], message: str):
    path = save_checkpoint(model, tmp_path / "last.pt", changes)
    with pytest.raises(ClipSegError, match=message):
        load(path)


def test_a_release(model: CLIPSeg, clip_folder: Path, tmp_path: Path):
    save_release(model, tmp_path / "release", card="# Card\n", extra={"metrics": {"miou": 0.5}})
    assert sorted(path.name for path in (tmp_path / "release").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    content = json.loads((tmp_path / "release" / "config.json").read_text())
    assert content["metrics"] == {"miou": 0.5}
    assert str(clip_folder) not in json.dumps(content), "a path of this machine must not be published"
    for x in (tmp_path / "release", tmp_path / "release" / "model.safetensors"):
        assert same_logits(load(x, pretrained=clip_folder), model)
    with pytest.raises(ClipSegError, match="pretrained="):
        load(tmp_path / "release")
    (tmp_path / "release" / "config.json").write_text('{"format": "clipseg-release", "version": 9}')
    with pytest.raises(ClipSegError, match=r"config\.json: neither a release \(version 1\)"):
        load(tmp_path / "release", pretrained=clip_folder)


# transformers' layout


def test_the_config_says_the_read_outs(clip_folder: Path):
    model = load(clip_folder)
    assert model.config.extract_layers == (3, 6, 9)
    assert (model.config.backbone, model.config.pretrained) == ("transformers", str(clip_folder))
    assert load(clip_folder, extract_layers=(3, 7, 9)).config.extract_layers == (3, 7, 9)


def test_shards_and_pickled_state_dicts_give_the_same(clip_folder: Path, folder: Path, tmp_path: Path):
    whole = load(clip_folder)
    save_reference(narrow_config(), tmp_path / "shards", max_shard_size="1MB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert same_logits(load(tmp_path / "shards"), whole)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert same_logits(load(folder), whole)
    next((tmp_path / "shards").glob("*-00002-*.safetensors")).unlink()
    with pytest.raises(ClipSegError, match="no such weights file"):
        load(tmp_path / "shards")
    (tmp_path / "shards" / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../weights"}}')
    with pytest.raises(ClipSegError, match="names of files beside it"):
        load(tmp_path / "shards")


def test_constants_of_older_files_are_left_out(clip_folder: Path, folder: Path):
    names = ("clip.text_model.embeddings.position_ids", "clip.vision_model.embeddings.position_ids")
    spoil(folder / "model.safetensors", lambda state: state.update({name: torch.arange(5) for name in names}))
    assert same_logits(load(folder), load(clip_folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("clip.visual_projection.weight"), r"missing clip\.visual_projection\.weight"),
        (lambda s: s.pop("decoder.film_add.bias"), r"missing decoder\.film_add\.bias"),
        (lambda s: s.update({"decoder.reduce.weight": torch.zeros(1)}), r"unknown decoder\.reduce\.weight"),
        (lambda s: s.update({"clip.logit_bias": torch.zeros(1)}), r"unknown clip\.logit_bias"),
        (lambda s: s.update({"clip.logit_scale": torch.zeros(1)}), r"clip\.logit_scale \[1\] instead of \[\]"),
        (lambda s: s["clip.logit_scale"].fill_(float("nan")), r"NaN or infinite clip\.logit_scale"),
    ],
)
def test_a_spoilt_folder(folder: Path, change: Callable[[dict[str, Any]], Any], message: str):
    spoil(folder / "model.safetensors", change)
    with pytest.raises(ClipSegError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("section", "change"),
    [
        (None, {"decoder_num_attention_heads": 8}),
        (None, {"decoder_intermediate_size": 1024}),
        (None, {"conditional_layer": 1}),
        (None, {"extract_layers": "369"}),
        (None, {"reduce_dim": 0}),
        (None, {"projection_dim": True}),
        (None, {"vision_config": []}),
        (None, {"model_type": "bert"}),
        ("vision_config", {"hidden_act": "gelu_new"}),
        ("vision_config", {"hidden_act": "gelu"}),
        ("vision_config", {"layer_norm_eps": 1e-6}),
        ("vision_config", {"num_channels": 4}),
        ("vision_config", {"num_attention_heads": 5}),
        ("vision_config", {"image_size": [64, 96]}),
        ("vision_config", {"image_size": 70}),
        ("text_config", {"vocab_size": 1000}),
        ("text_config", {"eos_token_id": 5}),
        ("text_config", {"intermediate_size": 10**9}),
    ],
)
def test_a_config_we_do_not_compute(folder: Path, section: str | None, change: dict[str, Any]):
    content = json.loads((folder / "config.json").read_text())
    (content[section] if section else content).update(change)
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(
        ClipSegError, match=rf"config\.json: .*{next(iter(change))}|config\.json; expected|config\.json: neither"
    ):
        load(folder)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"vision_config": {"patch_size": 16}}, "ViT-B-16-quickgelu"),
        ({"vision_config": None, "vision_config_dict": {"patch_size": 16}}, "ViT-B-16-quickgelu"),
        ({"model_type": "clip"}, "ViT-B-32-quickgelu"),
        ({"vision_config": {"patch_size": 16, "hidden_act": "gelu"}, "text_config": {"hidden_act": "gelu"}}, "ViT-B-16"),
        ({"vision_config": {"patch_size": 16, "image_size": 240}}, "transformers"),
    ],
)
def test_known_sizes_have_their_open_clip_name(tmp_path: Path, content: dict[str, Any], name: str):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clipseg"} | content))
    assert read_folder_config(tmp_path).sizes.name() == name


def test_a_clip_of_transformers_is_a_backbone(clip_folder: Path, tmp_path: Path):
    config = narrow_config()
    reference = CLIPModel(
        CLIPConfig(vision_config=config.vision_config.to_dict(), text_config=config.text_config.to_dict(), projection_dim=32)
    )
    clip = {key.removeprefix("clip."): value for key, value in load_file(clip_folder / "model.safetensors").items()}
    reference.load_state_dict({key: value for key, value in clip.items() if not key.startswith("decoder.")}, strict=True)
    reference.save_pretrained(tmp_path)
    assert load_backbone("transformers", tmp_path).checksum() == load_backbone("transformers", clip_folder).checksum()
    with pytest.raises(ClipSegError, match="a CLIP without CLIPSeg's decoder"):
        load(tmp_path)


def test_a_backbone_of_another_name_is_refused(clip_folder: Path):
    with pytest.raises(ClipSegError, match="trained with QuickGELU"):
        load_backbone("ViT-S-32-alt", clip_folder)
    with pytest.raises(ClipSegError, match="name it by pretrained="):
        load_backbone("transformers", None)


def test_a_named_backbone_from_a_folder_of_transformers(tmp_path: Path):
    backbone = load_backbone("ViT-S-32-alt", None, seed=5)
    save_transformers(CLIPSeg(backbone, ModelConfig(extract_layers=(3,), reduce_dim=4)), tmp_path / "same")
    assert load_backbone("ViT-S-32-alt", tmp_path / "same").checksum() == backbone.checksum()
    save_reference(narrow_config(hidden_act="gelu"), tmp_path / "narrow")
    with pytest.raises(ClipSegError, match="other sizes than ViT-S-32-alt; use backbone 'transformers'"):
        load_backbone("ViT-S-32-alt", tmp_path / "narrow")


def test_the_processors_size_is_the_models(folder: Path):
    (folder / "preprocessor_config.json").write_text('{"size": {"height": 96, "width": 96}}')
    assert load(folder).config.image_size == 96
    (folder / "preprocessor_config.json").write_text('{"size": 64}')
    assert load(folder).config.image_size == 64
    (folder / "preprocessor_config.json").write_text('{"size": {"shortest_edge": 70}}')
    with pytest.raises(ClipSegError, match="expected a square"):
        load(folder)


def test_what_the_layout_cannot_hold(clip_folder: Path, tmp_path: Path):
    backbone = load_backbone("transformers", clip_folder)
    deconv = CLIPSeg(backbone, ModelConfig(extract_layers=(9,), decoder="deconv"))
    with pytest.raises(ClipSegError, match="decoder=deconv"):
        save_transformers(deconv, tmp_path / "out")
    wide = load_backbone("ViT-S-32-alt", None)
    with pytest.raises(ClipSegError, match="patches of 16 pixels alone, not 32"):
        save_transformers(CLIPSeg(wide, ModelConfig(extract_layers=(3,), head="refined")), tmp_path / "out")
    wide.clip.logit_bias = nn.Parameter(torch.zeros(()))
    with pytest.raises(ClipSegError, match="no plain CLIP"):
        save_transformers(CLIPSeg(wide, ModelConfig(extract_layers=(3,))), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# What x is


def test_nothing_there(tmp_path: Path):
    with pytest.raises(ClipSegError, match="no such file or folder"):
        load(tmp_path / "missing")
    with pytest.raises(ClipSegError, match="no such file or folder"):
        load("weights/rd64-uni.pth")
    with pytest.raises(ClipSegError, match=r"has neither checkpoints/ nor config\.json"):
        load(tmp_path)


def test_a_hub_name_offline(monkeypatch: pytest.MonkeyPatch):
    def offline(*_: object, **__: object) -> str:
        raise OSError("no network\nat all")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ClipSegError, match=r"from https://huggingface\.co/CIDAS/clipseg-rd64-refined into a folder") as caught:
        load("CIDAS/clipseg-rd64-refined")
    assert "\n" not in str(caught.value)


def test_a_hub_name_online(clip_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(clip_folder))
    assert same_logits(load("CIDAS/clipseg-rd64-refined"), load(clip_folder))


def test_offline_says_so_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    slept: list[float] = []
    monkeypatch.setattr(_http.time, "sleep", slept.append)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ClipSegError, match="not cached and cannot be downloaded"):
        find_weights("ViT-B-32-quickgelu", "openai")
    with pytest.raises(ClipSegError, match="not to be had from the hub"):
        load("CIDAS/clipseg-rd64-refined")
    assert not slept
    assert not constants.HF_HUB_OFFLINE


@pytest.mark.parametrize("name", ["n" * 5000, "a\0b", "\udcff"])
def test_names_that_no_file_can_have(name: str):
    with pytest.raises(ClipSegError, match="no such file or folder"):
        load(name)
    with pytest.raises(ClipSegError, match="is no file, no folder and no tag"):
        load_backbone("RN50", name)


def test_read_outs_that_are_none():
    assert load("mini", extract_layers=range(3, 6)).config.extract_layers == (3, 4, 5)
    with pytest.raises(ClipSegError, match="extract_layers=3; expected"):
        load("mini", extract_layers=3)


@pytest.mark.parametrize("x", [None, 3, ["mini"], b"mini"])
def test_what_is_no_name_of_a_model(x: Any):
    with pytest.raises(ClipSegError, match="a model to load of type"):
        load(x)


def test_what_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for write in (save_transformers, lambda model, folder: save_release(model, folder, card="", extra={})):
        with pytest.raises(ClipSegError, match="file: cannot be written"):
            write(load("mini"), tmp_path / "file")
    with pytest.raises(ClipSegError, match="model of type DataParallel"):
        save_transformers(nn.DataParallel(load("mini")), tmp_path / "other")


def test_the_device_may_be_chosen_for_you():
    assert load("mini", device="auto").decoder.film.scale.weight.device.type in ("cpu", "cuda")
    with pytest.raises(ClipSegError, match="device='None' cannot be used"):
        load("mini", device=None)


def test_a_device_that_is_not_there(clip_folder: Path):
    with pytest.raises(ClipSegError, match="device='gpu' cannot be used"):
        load(clip_folder, device="gpu")


def test_a_whole_model_takes_no_other_clip(clip_folder: Path):
    with pytest.raises(ClipSegError, match="holds a CLIP of its own"):
        load(clip_folder, pretrained="openai")
