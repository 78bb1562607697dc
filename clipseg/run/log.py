"""The log of a run while it runs: a progress line, `metrics.jsonl`, and TensorBoard. Only rank 0 writes."""

import contextlib
import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from clipseg.data.sample import Batch
from clipseg.errors import ClipSegError
from clipseg.files import append_line, atomic_write, naming_disk_errors, sync
from clipseg.run.distributed import Processes

if TYPE_CHECKING:
    from clipseg.measure.results import Results


class RunLog:
    """The log of one training run.

    Args:
        folder: the run folder; None writes nothing (the other processes of a run).
        steps: how many there are in all.
        start: how many are done; records of later steps, left by a run that was cut off, are removed.
        every: steps between two records.
        processes: who trains; images/s counts the images of all.
        state: of the run that is gone on with, as `state_dict` gave it.

    Attributes:
        left_out: a line for each item that this process could not read.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        steps: int,
        start: int,
        every: int,
        processes: Processes,
        state: Mapping[str, Any] | None = None,
    ):
        self.every, self.processes = every, processes
        self.folder = folder
        self.noted: dict[str, float] = {}
        self.unread: list[tuple[int, float, list[str], Tensor, Tensor]] = []
        self.left_out: list[str] = []
        self.left_out_before = 0
        self.bar: tqdm[Any] = tqdm(
            total=steps, initial=start, unit="step", disable=folder is None or not sys.stderr.isatty(), leave=True
        )
        if folder is not None:
            self.path = folder / "metrics.jsonl"
            purge_step = start if self.path.exists() else None
            self.noted |= _keep_until(self.path, start)
            with naming_disk_errors(folder):
                self.writer = SummaryWriter(str(folder), purge_step=purge_step)
        self.began = time.perf_counter()
        self._begin_window()
        if state is not None:
            self.began -= state["seconds"]
            self.noted |= state["noted"]
            self.overlap = torch.tensor(state["overlap"])
            self.left_out_before = state["left_out"]

    def _board(self, write: Callable[[SummaryWriter], object]) -> None:
        """Write to TensorBoard, where this process writes at all; an error of the disk names the folder."""
        if self.folder is not None:
            with naming_disk_errors(self.folder):
                write(self.writer)

    def _begin_window(self) -> None:
        self.since, self.waited, self.images = time.perf_counter(), 0.0, 0
        self.overlap = torch.zeros(2, dtype=torch.int64)

    def state_dict(self) -> dict[str, Any]:
        """Return what is known and not yet written, and what is counted over the whole run: plain values, for a checkpoint."""
        return {
            "noted": dict(self.noted),
            "overlap": self.overlap.tolist(),
            "left_out": self.left_out_before + len(self.left_out),
            "seconds": time.perf_counter() - self.began,
        }

    def training_step(
        self, step: int, *, lr: float, losses: tuple[Tensor, Tensor], norm: Tensor, iou: Tensor, batch: Batch, waited: float
    ) -> None:
        """Note one step, with the loss of this process and of all and the gradient's norm; every `every` steps read values from
        the device, `check` them, and write a record of the steps since."""
        self.unread.append((step - 1, lr, batch.keys, *losses))
        self.waited += waited
        self.images += len(batch.images) * self.processes.world_size
        self.overlap = iou + self.overlap.to(iou.device)
        self.bar.update()
        if step % self.every:
            return
        last_norm, last_loss, intersection, union = self.check(norm, losses[1], *self.overlap)
        elapsed = time.perf_counter() - self.since
        self.noted |= {
            "train/loss": last_loss,
            "train/iou_fg": intersection / max(union, 1),
            "train/lr": lr,
            "train/gradient_norm": last_norm,
            "speed/images_per_second": self.images / elapsed,
            "speed/waiting_for_data": self.waited / elapsed,
            "memory/peak_gib": _peak_gib(iou.device),
        }
        if self.left_out_before or self.left_out:
            self.noted["data/left_out"] = self.left_out_before + len(self.left_out)
        loss_text, iou_text, speed = f"{last_loss:.4f}", f"{intersection / max(union, 1):.3f}", f"{self.images / elapsed:.1f}"
        line = f"loss {loss_text}  IoU {iou_text}  {speed} images/s"
        self.bar.set_postfix_str(line)
        if self.folder is not None and self.bar.disable and (step // self.every) % 10 == 0:
            print(f"step {step}/{self.bar.total}  {line}", flush=True)
        self._begin_window()

    def check(self, *others: Tensor) -> list[float]:
        """Read the losses of the steps since the last call, and `others`, by one copy -> the values of the others.

        Raises:
            ClipSegError: a loss is not finite; it names the first such step, its rate, and the samples.
        """
        steps, self.unread = self.unread, []
        tensors = [*others, *(loss for *_, own, mean in steps for loss in (own, mean))]
        values = torch.stack([tensor.float() for tensor in tensors]).tolist() if tensors else []
        losses = values[len(others) :]
        for (step, lr, keys, *_), own, mean in zip(steps, losses[::2], losses[1::2], strict=True):
            if not math.isfinite(mean):
                broken = self.processes.gather_lists([] if math.isfinite(own) else keys)
                raise ClipSegError(
                    f"loss is {mean} at step {step}, lr {lr:.3g}, samples {', '.join(broken)}; look at these, or lower "
                    "training.lr"
                )
        return values[: len(others)]

    def validation(self, step: int, metrics: Mapping[str, float], *, curve: Mapping[str, NDArray[np.float64]]) -> None:
        """Note a validation's figures, and precision over recall."""
        self.noted |= {f"val/{name}": value for name, value in metrics.items()}
        self._board(lambda writer: add_precision_recall(writer, "val/precision_recall", curve, step))
        self._begin_window()

    def pictures(self, step: int, pictures: Iterable[tuple[str, NDArray[np.uint8]]]) -> None:
        """Show pictures uint8 `[H, W, 3]` (photo, truth, prediction), each with its phrase."""

        def write(writer: SummaryWriter) -> None:
            for number, (phrase, picture) in enumerate(pictures):
                writer.add_image(f"val/{number}", picture, step, dataformats="HWC")
                writer.add_text(f"val/{number}", phrase, step)

        self._board(write)

    def config(self, text: str) -> None:
        """Note the resolved config, as YAML."""
        self._board(lambda writer: writer.add_text("config", f"```yaml\n{text}\n```"))

    def hparams(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Note the settings beside the figures they led to, once, at the end."""
        values, final = dict(_flat(config)), {f"final/{name}": value for name, value in metrics.items()}
        self._board(lambda writer: writer.add_hparams(values, final, run_name="."))

    def end_step(self, step: int) -> None:
        """Write what was noted of this step, if anything: one line of `metrics.jsonl`, and the same scalars to TensorBoard.

        `speed/seconds` is what training and its validations took so far, the time before a resume included.

        Raises:
            ClipSegError: the disk is full, or the folder cannot be written to.
        """
        if self.noted and self.folder is not None:
            self.noted["speed/seconds"] = time.perf_counter() - self.began
            append_line(self.path, json.dumps({"step": step} | self.noted))
            noted = self.noted

            def write(writer: SummaryWriter) -> None:
                for name, value in noted.items():
                    writer.add_scalar(name, value, step)

            self._board(write)
        self.noted = {}

    def flush(self) -> None:
        """Bring all that was written to the disk, so that no step before a checkpoint is without its record.

        Raises:
            ClipSegError: the disk is full; TensorBoard writes in a thread of its own, and tells only here or later.
        """
        if self.folder is not None:
            sync(self.path)
            self._board(SummaryWriter.flush)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.close()
        # On a full disk this fails once more, and what failed first is what counts.
        with contextlib.suppress(OSError, ClipSegError) if error else contextlib.nullcontext():
            self._board(SummaryWriter.close)


def add_precision_recall(writer: SummaryWriter, tag: str, curve: Mapping[str, NDArray[np.float64]], step: int) -> None:
    """Precision over recall, of `metrics.curves`, as TensorBoard's PR curve."""
    found = ~np.isnan(curve["precision"])
    # TensorBoard's PR plugin also takes the four counts behind each point; it draws from precision and recall alone.
    unused = np.zeros(int(found.sum()))
    points = (unused, unused, unused, unused, curve["precision"][found], curve["recall"][found])
    writer.add_pr_curve_raw(tag, *points, step, num_thresholds=len(unused))


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as ("training.lr", 0.001) pairs; what TensorBoard cannot hold, as text."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value if isinstance(value, (bool, int, float, str)) else str(value)


def recorded_steps(folder: Path) -> int:
    """After how many steps the last record of a run folder was written; with it a step and its validation are done."""
    return max((step for step, _ in records(folder / "metrics.jsonl")), default=0)


def _keep_until(path: Path, step: int) -> dict[str, float]:
    """Drop the records from `step` on, and a line that was cut off, so that each step is recorded once -> that of `step`."""
    if not path.exists():
        return {}
    kept = list(records(path))
    with atomic_write(path, "w") as file:
        file.writelines(json.dumps({"step": done} | figures) + "\n" for done, figures in kept if done < step)
    return dict(kept).get(step, {})


def records(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, figures) of each whole line, of a file that may be missing."""
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                yield record.pop("step"), record


def _peak_gib(device: torch.device) -> float:
    """Peak memory so far in GiB: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def log_results(folder: Path, results: "Results", *, step: int) -> None:
    """Write TensorBoard's files of one evaluation into `folder`.

    Figures are at the training's last `step`; curves over thresholds and probabilities have these, in percent, for steps.
    """
    from clipseg.measure.breakdown import by_class, by_size
    from clipseg.measure.failures import failures
    from clipseg.measure.metrics import THRESHOLDS, curves
    from clipseg.measure.reliability import reliability

    over_thresholds, calibration = curves(results.counts, results.group), reliability(results.counts)
    with SummaryWriter(str(folder)) as writer:
        for name, value in results.metrics().items():
            writer.add_scalar(name if "/" in name else f"eval/{name}", value, step)
        for part in by_size(results):
            writer.add_scalar(f"size/{part.name}", part.mean, step)
        for part in by_class(results):
            # A phrase may hold halves of surrogate pairs, which no tag can.
            writer.add_scalar(f"class/{part.name.encode(errors='replace').decode()}", part.mean, step)
        for kind, rows in failures(results).items():
            writer.add_scalar(f"failures/{kind}", len(rows) / len(results), step)
        for family in results.intensity.rejections() if results.intensity else []:
            if family.count.tested:
                writer.add_scalar(f"rejected/{family.name}", family.count.rejected / family.count.tested, step)
        writer.add_scalar("eval/calibration_error", calibration.error, step)
        add_precision_recall(writer, "eval/precision_recall", over_thresholds, step)
        for name in ("miou", "iou_fg", "iou_bin"):
            for threshold, value in zip(THRESHOLDS.tolist(), over_thresholds[name].tolist(), strict=True):
                writer.add_scalar(f"over_threshold/{name}", value, round(100 * threshold))
        for probability, frequency in zip(calibration.probability, calibration.frequency, strict=True):
            if not np.isnan(frequency):
                writer.add_scalar("reliability/in_the_truth", frequency, round(100 * probability))
