"""What only a GPU can show: `pytest -n0 tests/gpu` where there is one; elsewhere all is skipped."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made_data import SMALL_TRAINING
from places import ROOT

import clipseg
import train
from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.phrasecut import PhraseCut
from clipseg.data.sample import Batch, collate
from clipseg.network.model import CLIPSeg, create_model
from clipseg.network.preprocess import resize_images, resize_masks, resize_objects
from clipseg.run.conditioning import Conditioner
from clipseg.run.distributed import choose_device
from clipseg.run.settings import PromptSettings
from clipseg.run.training import batch_iou, forward

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
CPU, GPU = torch.device("cpu"), torch.device("cuda")
SIZE = (64, 64)
PC_PLUS = ["data.visual_support=true", "data.negatives=0.2", "data.train_split=train", "data.val_split=val"]


@pytest.fixture
def batch(phrasecut_root) -> Batch:
    options = ReaderOptions(training=True, visual_support=True, negatives=0.2)
    data = PhraseCut(phrasecut_root(n=8), options, split="train")
    return collate([data[0, item] for item in range(8)])


@pytest.fixture
def model() -> CLIPSeg:
    return create_model("mini", "mini", reduce_dim=16, image_size=64).eval()


def records(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_pixels_are_prepared_as_on_the_cpu(batch: Batch):
    there = batch.to(GPU)
    for resize in ("squash", "pad"):
        pixels = resize_images(batch.images, SIZE, resize=resize)
        torch.testing.assert_close(resize_images(there.images, SIZE, resize=resize).cpu(), pixels, rtol=0, atol=1e-6)
        for masks, moved, how in (
            (batch.masks, there.masks, resize_masks),
            (batch.support_masks, there.support_masks, resize_objects),
        ):
            assert torch.equal(how(moved, SIZE, resize=resize).cpu(), how(masks, SIZE, resize=resize))


@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 1e-3), (torch.bfloat16, 0.2), (torch.float16, 0.05)])
@torch.no_grad()
def test_logits_are_those_of_the_cpu(batch: Batch, model: CLIPSeg, dtype: torch.dtype | None, tolerance: float):
    condition = Conditioner(PromptSettings())
    expected, masks = forward(model, batch, condition)
    with torch.autocast("cuda", dtype, enabled=dtype is not None):
        found, there = forward(model.to(GPU), batch.to(GPU), Conditioner(PromptSettings()))
    assert torch.equal(there.cpu(), masks)
    assert (found.float().cpu() - expected).abs().max() < tolerance * expected.std()


def test_a_compiled_step_has_the_gradients_of_a_plain_one(batch: Batch, model: CLIPSeg):
    there, condition = batch.to(GPU), Conditioner(PromptSettings())
    compiled = model.to(GPU).at_precision("float32")
    compiled.compile_parts()
    gradients = []
    for each in (model, compiled, compiled, compiled):  # a CUDA graph is recorded at the second call, and replayed at the third
        model.decoder.zero_grad()
        logits, masks = forward(each, there, condition)
        torch.nn.functional.binary_cross_entropy_with_logits(logits, masks.float()).backward()
        gradients.append([weight.grad.clone() for weight in model.decoder.parameters() if weight.grad is not None])
    for found in gradients[1:]:
        for ours, expected in zip(found, gradients[0], strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@torch.no_grad()
def test_precision_bf16_is_close_and_answers_in_float32(batch: Batch, model: CLIPSeg):
    condition, there = Conditioner(PromptSettings()), batch.to(GPU)
    plain, _ = forward(model.to(GPU), there, condition)
    half, _ = forward(model.at_precision("bf16"), there, Conditioner(PromptSettings()))
    assert half.dtype == torch.float32
    assert 0 < (half - plain).abs().max() < 0.2 * plain.std()


def test_a_step_waits_for_nothing(batch: Batch, model: CLIPSeg):
    condition, there = Conditioner(PromptSettings()), batch.to(GPU)
    optimizer = torch.optim.AdamW(model.to(GPU).decoder.parameters(), fused=True)
    for mode in ("default", "error"):  # first what is brought to the device once
        torch.cuda.set_sync_debug_mode(mode)
        try:
            with torch.autocast("cuda", torch.bfloat16):
                logits, masks = forward(model, there, condition)
            torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), masks.float()).backward()
            optimizer.step()
            batch_iou(logits, masks, 0.3)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("amp", "compiled"), [("off", False), ("bf16", False), ("fp16", False), ("fp16", True)])
def test_fifty_steps_of_phrasecut_plus_learn(phrasecut_root, tmp_path: Path, call, amp: str, compiled: bool):
    root = phrasecut_root(n=8)
    options = [
        "training.steps=50",
        "training.validate_every=50",
        "training.log_every=10",
        "data.workers=2",
        f"training.amp={amp}",
        f"training.compile={compiled}",
    ]
    status, _, error = call(train, *SMALL_TRAINING, *PC_PLUS, *options, f"data.root={root}", f"out={tmp_path / 'run'}")
    assert status == 0, error
    losses = [record["train/loss"] for record in records(tmp_path / "run") if "train/loss" in record]
    assert losses[-1] < losses[0]
    assert choose_device("auto").type == "cuda"


def test_a_run_goes_on_bit_for_bit(phrasecut_root, tmp_path: Path, call):
    root = phrasecut_root(n=8)
    options = [*PC_PLUS, "training.steps=6", "training.checkpoint_every=3", "training.validate_every=6", "deterministic=true"]
    common = [*SMALL_TRAINING, *options, f"data.root={root}"]
    try:
        assert call(train, *common, f"out={tmp_path / 'whole'}")[0] == 0
        middle = tmp_path / "whole" / "checkpoints" / "step_0000003.pt"
        assert call(train, *common, f"resume={middle}", f"out={tmp_path / 'parts'}")[0] == 0
    finally:
        torch.use_deterministic_algorithms(False)
    whole, parts = (clipseg.load(tmp_path / name).decoder.state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(weight, parts[name]) for name, weight in whole.items())


def test_memory_of_batches_grows_as_they_do(phrasecut_root):
    data = PhraseCut(phrasecut_root(n=8), ReaderOptions(training=True), split="train")
    model = create_model(pretrained=None).to(GPU)
    condition, peaks = Conditioner(PromptSettings()), []
    for size in (16, 64, 256):
        there = collate([data[item // 8, item % 8] for item in range(size)]).to(GPU)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.autocast("cuda", torch.bfloat16):
            logits, masks = forward(model.train(), there, condition)
        torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), masks.float()).backward()
        peaks.append((torch.cuda.max_memory_allocated() - before) / size)
        del logits, masks, there
    assert max(peaks) < 1.5 * min(peaks)
    assert peaks[1] * 64 < 24 * 2**30, "a batch of 64 fits a card of 24 GiB"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_as_one_run(phrasecut_root, tmp_path: Path):
    root = phrasecut_root(n=8)
    arguments = [*SMALL_TRAINING, *PC_PLUS, f"data.root={root}", f"out={tmp_path / 'run'}"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*launcher, str(ROOT / "train.py"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert records(tmp_path / "run")[-1]["step"] == 2
