"""From a trained decoder and a few labelled photos to a decoder of one's own, measured before and after."""

import copy
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markupsafe import Markup

from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.readers.folder import FolderData, folder_splits
from clipseg.errors import ClipSegError
from clipseg.files import check_new_folder, write_json
from clipseg.measure.figures import reliability_curve
from clipseg.measure.metrics import sample_iou
from clipseg.measure.page import write_page
from clipseg.measure.reliability import reliability
from clipseg.measure.report import GalleryItem, pick_gallery
from clipseg.measure.results import Results
from clipseg.measure.significance import Interval, NotTestable, cluster_bootstrap, paired_t
from clipseg.measure.tables import monospaced
from clipseg.network.calibration import Calibration
from clipseg.network.feature_cache import FeatureCache
from clipseg.network.model import CLIPSeg
from clipseg.network.preprocess import resize_masks
from clipseg.network.weights import load, save_release
from clipseg.run.conditioning import Conditioner
from clipseg.run.distributed import Processes
from clipseg.run.evaluation import Evaluation, absent_phrases, predictions
from clipseg.run.interruption import stoppable
from clipseg.run.loading import IN_PROCESS
from clipseg.run.log import RunLog, records
from clipseg.run.provenance import provenance
from clipseg.run.settings import DataSettings, PromptSettings, TrainConfig, TrainingSettings
from clipseg.run.training import train_decoder
from clipseg.run.training_data import Validation
from clipseg.studies.finetune.numbers import calibrate, choose_thresholds, logit_histogram

FEWEST_PHOTOS = 5
SHARES = {"val": 0.2, "test": 0.2}  # of the photos of a folder without splits; the rest is learnt from
THRESHOLD = 0.3
MOST_SHARED = 4  # phrases of a photo in a step
BY_TEXT = PromptSettings(text_weight=[0.0, 0.0])
COLUMNS = ("", "IoU_FG", "mean IoU", "95% interval", "AP")


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """One fine-tuning.

    Attributes:
        root: the folder of photos and labels.
        out: a new or empty folder, which becomes a release.
        init: weights to start from, as `clipseg.load` takes them.
        steps: at most.
        batch_size: phrases a step.
        seed: of splits and training.
        device: where.
        whole: learn from whole photos in place of random crops, and, on a CPU, compute CLIP's part of them once.
        onnx: write `out/onnx` too.

    Raises:
        ClipSegError: too few photos, a class without any object, or weights that cannot be had.
    """

    root: Path
    out: Path
    init: str
    steps: int
    batch_size: int
    seed: int
    device: torch.device
    whole: bool = False
    onnx: bool = False

    def run(self) -> dict[str, float]:
        """Train, calibrate, measure, write and print; the figures of `metrics.json`."""
        check_new_folder(self.out)
        data = split_folder(self.root, self.seed, crop=not self.whole)
        config = self._config(data["train"].options.phrases_per_image)
        model = load(self.init, device=self.device)
        model.calibration = {}  # it is chosen anew
        origin = provenance(asdict(config), str(self.device)) | {"experiment": "finetune", "init": self.init}
        photos = {name: len(part.image_ids) for name, part in data.items()}
        print(", ".join(f"{name} {count} photos" for name, count in photos.items()) + f"; divided by photo, seed {self.seed}")
        before = self._measure(model, data, origin)
        tuned = self._train(copy.deepcopy(model), data, config, origin)
        after = self._measure(tuned, data, origin)
        figures, rows = compare(before, after)
        for name, measured in (("before", before), ("after", after)):
            measured.evaluation.write(self.out / name, measured.results, seed=self.seed)
        write_json(self.out / "provenance.json", origin)
        write_json(self.out / "metrics.json", figures)
        plain = after.results
        tuned.calibration = dict(after.calibrations)
        numbers = {phrase: asdict(calibration) for phrase, calibration in after.calibrations.items()}
        evaluation = self._evaluation(tuned, data["test"], origin | {"calibration": numbers})
        calibrated = evaluation.run(progress="measuring, calibrated")
        curves = {"before calibration": reliability(plain.counts), "after calibration": reliability(calibrated.counts)}
        self._write_page(
            figures=figures,
            rows=rows,
            calibrations=after.calibrations,
            photos=photos,
            images=photos["test"],
            commit=origin["commit"],
            reliabilities={name: (curve, Markup(reliability_curve(curve))) for name, curve in curves.items()},
            worst=worst(evaluation, calibrated),
        )
        card = f"# Fine-tuned from {self.init}\n\nOn {photos['train']} photos of {self.root.name}, by `clipseg finetune`.\n"
        save_release(tuned, self.out, card=card, extra={"calibration": numbers, "metrics": figures, "init": self.init})
        if self.onnx:
            from clipseg.network.formats.onnx import export_onnx

            export_onnx(tuned, self.out / "onnx")
        print(f"{monospaced([COLUMNS, *rows])}\nreport: {self.out / 'report.html'}")
        return figures

    def _config(self, shared: int) -> TrainConfig:
        every = max(min(50, self.steps // 4), 1)
        return TrainConfig(
            experiment="finetune",
            data=DataSettings(root=str(self.root), format="folder", workers=0, crop=not self.whole),
            prompt=BY_TEXT,
            training=TrainingSettings(
                init=self.init,
                steps=self.steps,
                batch_size=max(self.batch_size // shared, 1) * shared,
                phrases_per_image=shared,
                lr=1e-4,
                final_lr=1e-5,
                validate_every=every,
                checkpoint_every=every,
                patience=4,
            ),
            seed=self.seed,
            out=str(self.out),
        )

    def _train(
        self, model: CLIPSeg, data: Mapping[str, FolderData], config: TrainConfig, origin: Mapping[str, object]
    ) -> CLIPSeg:
        folder, settings = self.out / "training", config.training
        features = folder / "features"
        cache = FeatureCache(features, model) if self.whole and self.device.type == "cpu" else None
        evaluation = self._evaluation(model, data["val"], origin)
        with (
            stoppable("start again in a new folder") as interruption,
            RunLog(folder, steps=settings.steps, start=0, every=settings.log_every, processes=Processes()) as log,
        ):
            train_decoder(
                model,
                data["train"],
                settings=settings,
                seed=self.seed,
                loader=IN_PROCESS,
                threshold=THRESHOLD,
                folder=folder,
                state=None,
                condition=Conditioner(BY_TEXT, cache=cache),
                validate=Validation(evaluation, images=None, log=log),
                log=log,
                processes=Processes(),
                interruption=interruption,
            )
        shutil.rmtree(features, ignore_errors=True)
        return model.eval()

    def _evaluation(self, model: CLIPSeg, data: FolderData, origin: Mapping[str, object]) -> Evaluation:
        return Evaluation(
            model=model,
            data=data,
            condition=Conditioner(BY_TEXT),
            threshold=THRESHOLD,
            provenance={**origin, "benchmark": "folder", "split": "test"},
            processes=Processes(),
            loader=IN_PROCESS,
            absent=absent_phrases(data),
        )

    def _measure(self, model: CLIPSeg, data: Mapping[str, FolderData], origin: Mapping[str, object]) -> "Measured":
        evaluation = self._evaluation(model, data["test"], origin)
        return Measured(evaluation, evaluation.run(progress="measuring"), calibrate_phrases(model, data["val"]))

    def _write_page(self, **facts: Any) -> None:
        curve = [
            (step, f"{100 * record['val/iou_fg_best']:.1f}")
            for step, record in records(self.out / "training" / "metrics.jsonl")
            if "val/iou_fg_best" in record
        ]
        write_page(
            self.out / "report.html",
            "studies/finetune/page.html.j2",
            title=f"Fine-tuned from {self.init}",
            columns=COLUMNS,
            curve=curve,
            seed=self.seed,
            **facts,
        )


@dataclass(frozen=True)
class Measured:
    """Results on the photos that are measured on, and what the phrases want, told by those that choose."""

    evaluation: Evaluation
    results: Results
    calibrations: Mapping[str, Calibration]


def worst(evaluation: Evaluation, results: Results, count: int = 8) -> list[GalleryItem]:
    """Pictures of the samples with the lowest IoU, the worst first."""
    keys = pick_gallery(results, count, 0)["worst"]
    return sorted(evaluation.render(keys, results), key=lambda item: keys.index(item.key))


def split_folder(root: Path, seed: int, *, crop: bool = True) -> dict[str, FolderData]:
    """The parts of a folder that are learnt from, that choose, and that are measured: `train`, `val`, `test`.

    A folder's own splits stand; what it lacks is cut, photo by photo, off the one that it is learnt from.

    Raises:
        ClipSegError: fewer than `FEWEST_PHOTOS` photos, or a class that has no object to learn from or to choose by.
    """
    splits = list(folder_splits(root))
    learnt = "train" if "train" in splits else splits[0]
    rng = np.random.default_rng(seed)
    whole = FolderData(root, split=learnt)
    images = rng.permutation(whole.image_ids).tolist()
    if len(images) < FEWEST_PHOTOS:
        raise ClipSegError(
            f"{root}: {len(images)} labelled photos; at least {FEWEST_PHOTOS} are needed to learn, choose and measure"
        )
    taken, parts = 0, {}
    for name in SHARES:
        if name in splits and name != learnt:
            parts[name] = FolderData(root, split=name)
        else:
            count = max(round(SHARES[name] * len(images)), 1)
            parts[name] = FolderData(root, split=learnt, images=images[taken : taken + count])
            taken += count
    rest = FolderData(root, split=learnt, images=images[taken:])
    # Phrases of a photo share its pass through the backbone, which takes most of a step.
    shared = min(max(round(len(rest.task_rows) / len(rest.image_ids)), 1), MOST_SHARED)
    options = ReaderOptions(training=True, crop=crop, seed=seed, phrases_per_image=shared)
    return {"train": FolderData(root, options, split=learnt, images=images[taken:])} | parts


def calibrate_phrases(model: CLIPSeg, data: FolderData) -> dict[str, Calibration]:
    """The threshold and the temperature of each class of which the photos show something."""
    histograms: dict[str, np.ndarray] = {}
    for batch, maps in predictions(model, data, Conditioner(BY_TEXT), range(len(data))):
        masks = resize_masks(batch.masks, (maps.shape[1], maps.shape[2]))
        for group, probabilities, mask in zip(batch.groups, maps.cpu().numpy(), masks.cpu().numpy(), strict=True):
            histograms[group] = histograms.get(group, 0) + logit_histogram(probabilities, mask)
    return {data.phrases[group][0]: calibrate(counts) for group, counts in histograms.items() if counts[1].any()}


def compare(before: Measured, after: Measured) -> tuple[dict[str, float], list[tuple[str, ...]]]:
    """The figures of both as `before/<name>` and `after/<name>`, `_tuned` by thresholds of their own; and rows of `COLUMNS`."""
    figures: dict[str, float] = {}
    rows: list[tuple[str, ...]] = []
    ious = []
    for name, measured in (("before", before), ("after", after)):
        results = measured.results
        figures |= {f"{name}/{figure}": value for figure, value in results.metrics().items()}
        own = results.counts.cut_at(choose_thresholds(results.phrase, measured.calibrations, THRESHOLD))
        for suffix, counts in (("", results.counts), ("_tuned", own)):
            iou = 100 * sample_iou(counts, THRESHOLD)
            figures[f"{name}/iou_fg{suffix}"] = pooled = float(sample_iou(counts.pooled(), THRESHOLD)[0])
            title = f"{name}, t = {THRESHOLD}" if not suffix else f"{name}, a threshold a phrase"
            ends = cluster_bootstrap(iou, results.image_key, seed=0)
            ap = f"{100 * figures[f'{name}/ap']:.1f}" if not suffix else ""
            rows.append((title, f"{100 * pooled:.1f}", f"{iou.mean():.1f}", _ends(ends), ap))
        ious.append(iou)
    gain, test = cluster_bootstrap(ious[1] - ious[0], before.results.image_key, seed=0), paired_t(ious[1], ious[0])
    figures["gain"] = float((ious[1] - ious[0]).mean())
    rows.append(("gain, points", "", f"{figures['gain']:+.1f}", _ends(gain), ""))
    if not isinstance(test, NotTestable):
        figures["gain_p"] = test.p_value
    return figures, rows


def _ends(interval: Interval | NotTestable) -> str:
    return f"[{interval.low:.1f}, {interval.high:.1f}]" if isinstance(interval, Interval) else str(interval)
