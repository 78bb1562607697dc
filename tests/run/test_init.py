"""Training that starts from weights: their shape, the same logits at step 0, and what contradicts them."""

import json
from pathlib import Path

import pytest
import torch
from composed import train_settings

import clipseg
import train
from clipseg.errors import ClipSegError
from clipseg.run.training import initial_model

CPU = torch.device("cpu")


def settings(*overrides):
    return train_settings("experiment=mini", "training.init=mini", *overrides)


def test_step_0_answers_as_the_weights_bit_for_bit():
    config = settings()
    model, bundled = initial_model(config, CPU, given=()), clipseg.load("mini")
    assert config.model == bundled.config
    images, text = torch.rand(1, 3, 64, 64), ["a red circle"]
    with torch.no_grad():
        assert torch.equal(model.eval()(images, text), bundled(images, text))


@pytest.mark.parametrize(
    ("override", "given", "line"),
    [
        ("model.reduce_dim=16", (), "model.reduce_dim=16 contradicts training.init=mini, which has 64"),
        ("model.extract_layers=[1,2]", (), "model.extract_layers"),
        ("model.head=plain", ("model.head",), "model.head=plain contradicts"),
        ("backbone=vit_b16", ("backbone",), "model.backbone=ViT-B-16-quickgelu contradicts"),
    ],
)
def test_what_contradicts_the_weights_is_refused(override, given, line):
    with pytest.raises(ClipSegError) as caught:
        initial_model(settings(override), CPU, given=given)
    assert line in str(caught.value)


def test_weights_that_are_none():
    config = train_settings("experiment=mini", "training.init=nothing.pt")
    with pytest.raises(ClipSegError, match=r"nothing\.pt"):
        initial_model(config, CPU, given=())


@pytest.mark.slow
def test_a_run_says_what_it_began_with_and_goes_on(call, phrasecut_root):
    asked = ["training.init=mini", f"data.root={phrasecut_root(3)}", "training.batch_size=4", "training.phrases_per_image=2"]
    asked += ["data.workers=0", "evaluate_splits=[]", "out=run", "training.checkpoint_every=1", "training.lr=1e-4"]
    status, _, error = call(train, *asked, "training.steps=1")
    assert (status, "Error" in error) == (0, False)
    origin = json.loads(Path("run/provenance.json").read_text())
    assert origin["init"]["weights"] == "mini"
    assert len(origin["init"]["decoder_sha256"]) == 64
    assert clipseg.load("run").config == clipseg.load("mini").config
    assert call(train, *asked, "training.steps=1", "resume=auto")[1].endswith("finished already\n")
    status, _, error = call(train, *asked, "training.steps=1", "resume=auto", "training.init=null")
    assert status == 2
    assert "model." in error or "training.init" in error
