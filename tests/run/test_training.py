"""The loop: it learns, it can stop and go on as if it had not, it says what went wrong, it leaves what it promises."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch._inductor.config
from operations import Operations
from torch.utils.tensorboard import SummaryWriter  # noqa: F401  (imported before the clock of any test runs)

from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.phrasecut import PhraseCut
from clipseg.data.sample import collate
from clipseg.errors import ClipSegError
from clipseg.network import model as network_model
from clipseg.network.model import create_model
from clipseg.run.checkpoint import newest_whole
from clipseg.run.conditioning import Conditioner
from clipseg.run.distributed import Processes
from clipseg.run.interruption import Interruption
from clipseg.run.log import RunLog
from clipseg.run.settings import LoaderSettings, PromptSettings, TrainingSettings
from clipseg.run.training import check_compiler, forward, learning_rate, step_seed, train_decoder

pytestmark = pytest.mark.slow


def small_model(**options):
    return create_model("mini", None, extract_layers=(1, 2), reduce_dim=16, image_size=64, **options)


def run(
    root,
    folder: Path,
    *,
    steps=4,
    stop_at=None,
    workers=0,
    model=None,
    state=None,
    interruption=None,
    reader=None,
    score=float,
    **settings,
):
    """Train `steps` steps; `stop_at` stands for a run that was ended early: the schedule is that of `steps`."""
    model = model or small_model()
    data = PhraseCut(root, ReaderOptions(training=True, seed=3, **reader or {}), split="train")
    options = {"batch_size": 4, "validate_every": 1000, "checkpoint_every": 2, "log_every": 1, **settings}
    training = TrainingSettings(steps=steps, **options)
    scores = []

    def validate(step):
        scores.append(step)
        if stop_at is not None and step >= stop_at:
            raise KeyboardInterrupt
        return score(step)

    if stop_at is not None:
        training.validate_every = stop_at
    start, log_state = (state["step"], state["log"]) if state else (0, None)
    with RunLog(folder, steps=steps, start=start, every=options["log_every"], processes=Processes(), state=log_state) as log:
        train_decoder(
            model,
            data,
            settings=training,
            seed=3,
            loader=LoaderSettings(workers=workers),
            threshold=0.3,
            folder=folder,
            state=state,
            condition=Conditioner(PromptSettings()),
            validate=validate,
            log=log,
            processes=Processes(),
            interruption=interruption or Interruption("go on"),
        )
    return model


def weights(model):
    return {name: tensor.clone() for name, tensor in model.decoder.state_dict().items()}


def assert_same_weights(one, two):
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_resumed_equals_uninterrupted_bit_for_bit(phrasecut_root, tmp_path):
    root = phrasecut_root(n=3, splits=("train",))
    whole = weights(run(root, tmp_path / "whole", steps=6))
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path / "parts", steps=6, stop_at=5)
    state = newest_whole(tmp_path / "parts")
    assert state["step"] == 5, "a checkpoint is written before the validation of its step"
    resumed = run(root, tmp_path / "parts", steps=6, state=state)
    assert_same_weights(whole, weights(resumed))
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_the_number_of_workers_changes_nothing(phrasecut_root, tmp_path):
    root = phrasecut_root(n=3, splits=("train",))
    assert_same_weights(weights(run(root, tmp_path / "0")), weights(run(root, tmp_path / "2", workers=2)))


def test_another_seed_is_another_run(phrasecut_root, tmp_path):
    root = phrasecut_root(n=3, splits=("train",))
    one, two = weights(run(root, tmp_path / "a")), weights(run(root, tmp_path / "b", model=small_model(seed=1)))
    assert not torch.equal(one["film.scale.weight"], two["film.scale.weight"])


def test_only_the_decoder_learns(phrasecut_root, tmp_path):
    root = phrasecut_root(n=3, splits=("train",))
    model = small_model()
    backbone, decoder = model.backbone.checksum(), weights(model)
    run(root, tmp_path / "run", model=model)
    assert model.backbone.checksum() == backbone
    unmoved = [name for name, before in decoder.items() if torch.equal(before, model.decoder.state_dict()[name])]
    assert not unmoved, f"parameters that never learn: {unmoved}"


def test_one_batch_is_learnt_by_heart(phrasecut_root, tmp_path):
    root = phrasecut_root(n=1, splits=("train",), size=(64, 64))  # square: the crop is the whole image, every time
    model = create_model("mini", "mini", image_size=64, head="refined")
    run(root, tmp_path / "run", steps=170, model=model, batch_size=4, phrases_per_image=4, checkpoint_every=170)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert records[0]["train/iou_fg"] < 0.4
    assert records[-1]["train/iou_fg"] > 0.8


def test_phrases_of_an_image_share_its_backbone_pass(phrasecut_root):
    root = phrasecut_root(n=2, splits=("train",))
    data = PhraseCut(root, ReaderOptions(training=True, phrases_per_image=4), split="train")
    model = small_model()
    passes = []
    model.backbone.clip.visual.ln_pre.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    batch = collate([data[0, 0], data[0, 1]])
    logits, masks = forward(model, batch, Conditioner(PromptSettings()))
    assert passes == [2]
    assert len(batch) > 2
    assert logits.shape == masks.shape == (len(batch), 64, 64)


def test_loss_that_is_not_finite_stops_with_step_rate_and_samples(phrasecut_root, tmp_path):
    root = phrasecut_root(n=3, splits=("train",))
    model = small_model()
    with torch.no_grad():
        model.decoder.film.scale.weight.fill_(float("nan"))
    with pytest.raises(ClipSegError, match=r"loss is nan at step 0, lr 0.001, samples train/"):
        run(root, tmp_path / "run", model=model)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_loss_that_breaks_between_two_records_is_named_and_never_saved(phrasecut_root, tmp_path, monkeypatch):
    root, lost = phrasecut_root(n=3, splits=("train",)), []
    real = torch.nn.functional.binary_cross_entropy_with_logits

    def breaking(*arguments):
        lost.append(real(*arguments))
        return lost[-1] * (float("nan") if len(lost) == 3 else 1)

    monkeypatch.setattr(torch.nn.functional, "binary_cross_entropy_with_logits", breaking)
    with pytest.raises(ClipSegError, match=r"loss is nan at step 2, lr 0\.0\d+, samples train/.*; look at these"):
        run(root, tmp_path / "run", steps=9, log_every=100, checkpoint_every=2)
    assert len(lost) == 4, "it is noticed before the next checkpoint"
    assert newest_whole(tmp_path / "run")["step"] == 2


@pytest.mark.parametrize("size", [(40, 50), (90, 120)])
def test_a_step_asks_a_fixed_number_of_operations_and_reads_no_value(phrasecut_root, tmp_path, monkeypatch, size):
    """Between two records, where a GPU would have to wait for each value; of PhraseCut+, with its prompt images."""
    # Whether indices are of images that are there is looked at on a CPU only.
    monkeypatch.setattr(network_model, "_checked_index", lambda image_index, cond, *, images: image_index)
    root = phrasecut_root(n=6, splits=("train",), size=size)
    counted = []
    for steps in (2, 5):
        with Operations() as operations:
            reader = {"visual_support": True, "negatives": 0.2}
            run(root, tmp_path / f"{steps}", steps=steps, reader=reader, log_every=1000, checkpoint_every=1000)
        counted.append(operations)
    assert counted[0].reads == counted[1].reads
    assert (counted[1].total - counted[0].total) / 3 < 900


def test_a_checkpoint_of_another_model_is_refused(phrasecut_root, tmp_path):
    root = phrasecut_root(n=3, splits=("train",))
    run(root, tmp_path / "run")
    state = newest_whole(tmp_path / "run")
    other = create_model("mini", None, extract_layers=(1, 2), reduce_dim=32, image_size=64)
    with pytest.raises(ClipSegError, match=r"another model: reduce_dim=16 \(now 32\)"):
        run(root, tmp_path / "other", model=other, state=state)
    with pytest.raises(ClipSegError, match="another model: seed=0"):
        run(root, tmp_path / "other", model=small_model(seed=1), state=state)


def test_checkpoints_hold_the_decoder_and_not_clip(phrasecut_root, tmp_path):
    root = phrasecut_root(n=3, splits=("train",))
    model = run(root, tmp_path / "run", steps=4)
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best.pt", "last.pt", "step_0000002.pt", "step_0000004.pt"]
    state = newest_whole(tmp_path / "run")
    assert state["step"] == 4
    assert state["model"].keys() == model.decoder.state_dict().keys()
    assert state["backbone_checksum"] == model.backbone.checksum()


def test_cosine_from_lr_to_final_lr():
    settings = TrainingSettings(steps=100, lr=1e-3, final_lr=1e-4)
    assert learning_rate(0, settings) == 1e-3
    assert learning_rate(50, settings) == pytest.approx(5.5e-4)
    assert learning_rate(100, settings) == pytest.approx(1e-4)


def test_step_seeds_are_distinct():
    seeds = {step_seed(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(4)}
    assert len(seeds) == 3 * 50 * 4


def test_autocast_on_the_cpu_stays_close(phrasecut_root, tmp_path):
    root = phrasecut_root(n=3, splits=("train",))
    run(root, tmp_path / "fp32")
    run(root, tmp_path / "bf16", amp="bf16")
    fp32, bf16 = losses(tmp_path / "fp32"), losses(tmp_path / "bf16")
    assert fp32 != bf16
    assert fp32 == pytest.approx(bf16, rel=0.02)


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="nothing to compile with")
def test_compiled_training_stays_close(phrasecut_root, tmp_path, monkeypatch):
    monkeypatch.setattr(torch._inductor.config, "compile_threads", 1)  # starting workers would take longer than compiling
    root = phrasecut_root(n=3, splits=("train",))
    # The baseline's decoder compiles in seconds, and has no dropout, of which compiled code draws other numbers.
    for name, compiled in (("eager", False), ("compiled", True)):
        model = create_model("mini", None, extract_layers=(0,), reduce_dim=16, decoder="deconv", image_size=64)
        run(root, tmp_path / name, model=model, steps=2, compile=compiled)
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), rel=1e-4)
    eager, compiled = (newest_whole(tmp_path / name)["model"] for name in ("eager", "compiled"))
    assert eager.keys() == compiled.keys()
    for name, weight in eager.items():
        torch.testing.assert_close(compiled[name], weight, rtol=0, atol=1e-4)


def losses(folder):
    return [json.loads(line)["train/loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_nothing_to_compile_with_is_one_line(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ClipSegError, match=r"needs a C\+\+ compiler on the CPU; install g\+\+"):
        check_compiler(torch.device("cpu"))


def test_patience_ends_a_run_with_the_weights_of_its_best_validation(phrasecut_root, tmp_path):
    root = phrasecut_root(n=3, splits=("train",))
    asked = {"steps": 12, "validate_every": 1, "patience": 3, "score": {1: 0.1, 2: 0.5, 3: 0.2, 4: 0.4, 5: 0.3}.__getitem__}
    model = run(root, tmp_path, **asked)
    last, best = (torch.load(tmp_path / "checkpoints" / name) for name in ("last.pt", "best.pt"))
    assert (last["step"], last["best_step"], last["ended"], best["step"]) == (5, 2, True, 2)
    assert_same_weights(weights(model), best["model"])
    assert_same_weights(last["model"], best["model"])
    again = run(root, tmp_path, state=newest_whole(tmp_path), **asked)  # ended: nothing is trained, nothing validated
    assert_same_weights(weights(again), best["model"])


def test_a_run_without_patience_keeps_its_last_weights(phrasecut_root, tmp_path):
    model = run(phrasecut_root(n=3, splits=("train",)), tmp_path, validate_every=1, score=lambda step: -float(step))
    last, best = (torch.load(tmp_path / "checkpoints" / name) for name in ("last.pt", "best.pt"))
    assert (last["step"], best["step"]) == (4, 1)
    assert_same_weights(weights(model), last["model"])
