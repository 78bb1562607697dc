"""One photo as a study: its phrases as prompts, what the model finds, and how sharp the edges are that it follows."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from clipseg.data.phrasecut import PhraseCut
from clipseg.data.sample import Batch
from clipseg.errors import ClipSegError, listed
from clipseg.files import write_json
from clipseg.measure.figures import panel
from clipseg.measure.intensity import gray_values, intensity_tests
from clipseg.measure.metrics import official_counts
from clipseg.network.model import CLIPSeg
from clipseg.network.preprocess import resize_probabilities
from clipseg.run.conditioning import Conditioner
from clipseg.run.evaluation import predictions
from clipseg.run.settings import PromptSettings
from clipseg.studies.case_study.numbers import Case, CaseSettings, PhraseCase, case_to_json, write_case_page, write_figure


def pick_photo(data: PhraseCut, *, image_id: int | None, seed: int) -> int:
    """The item of the photo named, or of one drawn with `seed`.

    Raises:
        ClipSegError: the split has no such photo.
    """
    image_ids = data.image_ids.tolist()
    if image_id is None:
        return int(np.random.default_rng(seed).integers(len(image_ids)))
    if image_id not in image_ids:
        some = listed(sorted(image_ids), most=5)
        raise ClipSegError(f"{data.root}: no image {image_id} in split {data.split}; it has {len(image_ids)}: {some}")
    return image_ids.index(image_id)


def study_photo(folder: Path, model: CLIPSeg, data: PhraseCut, item: int, settings: CaseSettings) -> Case:
    """Study one photo, and write `case-study.png`, `case-study.json` and `case-study.html` into `folder`."""
    ((batch, probabilities),) = _photos(model, data, [item])
    case = _study(batch, probabilities, data.split, settings)
    strips = [
        panel(_pixels(batch), mask.cpu().numpy(), probability.cpu().numpy(), threshold=settings.threshold)
        for mask, probability in zip(batch.masks, probabilities, strict=True)
    ]
    write_figure(folder / "case-study.png", case, strips)
    write_json(folder / "case-study.json", case_to_json(case))
    write_case_page(folder / "case-study.html", case, strips)
    return case


def study_split(folder: Path, model: CLIPSeg, data: PhraseCut, settings: CaseSettings) -> list[Case]:
    """Study all photos of a split, and write `case-studies.json` into `folder`: how often is H0 rejected over a data set?"""
    photos = tqdm(_photos(model, data, range(len(data))), total=len(data), unit="photo", disable=None, leave=False)
    cases = [_study(batch, probabilities, data.split, settings) for batch, probabilities in photos]
    write_json(folder / "case-studies.json", [case_to_json(case) for case in cases])
    return cases


def _photos(model: CLIPSeg, data: PhraseCut, items: Sequence[int]) -> Iterator[tuple[Batch, Tensor]]:
    """Each photo and its probabilities `[N, H, W]` at its own size."""
    for batch, probabilities in predictions(model, data, Conditioner(PromptSettings()), items):
        height, width = batch.masks[0].shape
        yield batch, resize_probabilities(probabilities, (height, width))


def _pixels(batch: Batch) -> np.ndarray:
    return batch.images[0].permute(1, 2, 0).cpu().numpy()


def _study(batch: Batch, probabilities: Tensor, split: str, settings: CaseSettings) -> Case:
    gray = gray_values(_pixels(batch))
    phrases = []
    for key, phrase, mask, probability in zip(batch.keys, batch.phrases, batch.masks, probabilities, strict=True):
        intersection, union = official_counts(probability, mask, settings.threshold)
        masks = {"predicted": (probability > settings.threshold).cpu().numpy(), "truth": mask.cpu().numpy()}
        tests = {
            name: intensity_tests(gray, pixels, seed=settings.seed, region=settings.region, difference=settings.difference)
            for name, pixels in masks.items()
        }
        phrases.append(PhraseCase(key=key, phrase=phrase, intersection=intersection, union=union, **tests))
    return Case(image_key=batch.image_keys[0], split=split, settings=settings, phrases=tuple(phrases))
