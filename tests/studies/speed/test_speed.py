"""Side by side: both sides compute the same, arithmetic and memory are counted, and what cannot be compared is said."""

import importlib.util
import json
import time
from dataclasses import replace

import pytest
import torch
from reference import narrow_config, save_reference

from clipseg.__main__ import main
from clipseg.network.cpu_kernels import frozen_linear
from clipseg.network.formats.transformers import save_transformers
from clipseg.network.weights import load
from clipseg.studies.speed import timing as speed
from clipseg.studies.speed.cases import Cases
from clipseg.studies.speed.command import CASES
from clipseg.studies.speed.throughput import training_rates
from clipseg.studies.speed.timing import Case, compare, count_gflop, markdown, peak_mib, time_calls

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A narrow model of 64×64 pixels, as a folder."""
    folder = tmp_path_factory.mktemp("narrow")
    save_reference(narrow_config(), folder / "reference")
    model = load(folder / "reference")
    model.config = replace(model.config, image_size=64)
    save_transformers(model, folder / "model")
    return folder / "model"


@pytest.fixture(autouse=True)
def small_and_short(monkeypatch):
    monkeypatch.setattr(speed, "SHAPES", ((64, 64, 64), (40, 32, 64)))
    monkeypatch.setattr(speed, "SHORTEST", 0.02)


@pytest.fixture(scope="module")
def cases(weights, tmp_path_factory):
    return Cases(load(weights), tmp_path_factory.mktemp("drawn"))


@pytest.mark.parametrize("row", CASES)
def test_both_sides_compute_the_same(cases, row):
    if row == "reader":
        pytest.importorskip("skimage")
    case = cases.makers[row]()
    assert case.difference() <= case.tolerance
    case.ours()
    case.theirs()


def test_training_steps_move_no_weight_of_either_side(cases):
    before = {name: tensor.clone() for name, tensor in cases.model.decoder.state_dict().items()}
    case = cases.training()
    case.ours()
    assert all(torch.equal(tensor, before[name]) for name, tensor in cases.model.decoder.state_dict().items())
    assert any(parameter.grad is not None for parameter in cases.model.decoder.parameters())


def test_ratio_and_bound():
    one = torch.ones(64, 64)
    same = Case(
        name="product", ours=lambda: one @ one, theirs=lambda: one @ one @ one, reference="twice", difference=lambda: 0.0
    )
    outcome = compare(same, rounds=3, device=CPU)
    assert outcome.ratio_range[0] <= outcome.ratio <= outcome.ratio_range[1]
    assert outcome.gflop == pytest.approx(2 * 64**3 / 1e9)
    assert outcome.bound == pytest.approx(outcome.gflop / outcome.peak)
    assert "| product |" in markdown([outcome])


def test_what_is_over_at_once_is_timed_many_times():
    calls: list[float] = []
    assert time_calls(lambda: calls.append(0.001) or time.sleep(0.001)).mean == pytest.approx(0.001, abs=0.01)
    assert len(calls) > 2
    calls.clear()
    time_calls(lambda: calls.append(0.03) or time.sleep(0.03))
    assert len(calls) == 2


def test_sides_that_differ_are_not_timed():
    differing = Case(name="row", ours=pytest.fail, theirs=pytest.fail, reference="other", difference=lambda: 0.1)
    with pytest.raises(AssertionError, match=r"row: results differ by 0\.1"):
        compare(differing, rounds=1, device=CPU)


def test_fused_attention_is_counted_as_its_two_products():
    q = torch.randn(1, 2, 5, 8)
    assert count_gflop(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q)) * 1e9 == 2 * 2 * (2 * 5 * 5 * 8)


@torch.no_grad()
def test_products_with_packed_weights_are_counted_as_any_other():
    x, weight, bias = torch.randn(2, 5, 8), torch.randn(3, 8), torch.randn(3)
    plain = count_gflop(lambda: torch.nn.functional.linear(x, weight, bias))
    assert count_gflop(lambda: frozen_linear(x, weight, bias)) == plain
    assert plain * 1e9 == pytest.approx(2 * (2 * 5 * 3 * 8))


def test_peak_memory_is_what_a_call_adds():
    kept = torch.zeros(16 * 2**20)
    peak = peak_mib(lambda: torch.ones(32 * 2**20), CPU)
    if peak is None:
        pytest.skip("this system does not tell")
    assert 120 <= peak <= 160
    assert len(kept)


@pytest.mark.slow
def test_command_prints_and_writes_its_figures(tmp_path, weights, capsys):
    arguments = ["benchmark", "metrics", "prompt", "reading", "memory", "--rounds", "1", "--weights", str(weights)]
    assert main([*arguments, "--json", str(tmp_path / "speed.json")]) == 0
    assert "| metrics, one 64×64 sample |" in capsys.readouterr().out
    written = json.loads((tmp_path / "speed.json").read_text())
    assert [row["name"] for row in written["rows"]] == ["metrics, one 64×64 sample", "1 prompt, one image"]
    assert [row["prompts"] for row in written["memory"]] == [1, 8, 64]
    assert written["reading"]["PC"] > written["reading"]["PC+"] > 0
    assert written["versions"]["transformers"]


@pytest.mark.slow
def test_steps_as_they_are(cases):
    before = {name: tensor.clone() for name, tensor in cases.model.decoder.state_dict().items()}
    for _, rates in training_rates(cases.model, cases.root, steps=2, batch_size=4):
        assert rates["images_per_second"] > 0
        assert 0 <= rates["waiting_for_data"] < 1
        assert rates["share_of_peak"] > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in cases.model.decoder.state_dict().items())


def test_command_names_what_is_wrong_or_missing(weights, monkeypatch, capsys):
    assert main(["benchmark", "sped"]) == 2
    assert "'sped' cannot be measured; expected some of prompt, prompt_bf16" in capsys.readouterr().err
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "transformers" else found(name, *rest))
    assert main(["benchmark", "prompt", "--weights", str(weights)]) == 2
    error = capsys.readouterr().err
    assert "pip install 'clipseg[benchmark]'" in error
    assert error.count("\n") == 1
