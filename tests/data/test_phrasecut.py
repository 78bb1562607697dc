"""The reader: right pixels and masks, items that depend on (seed, epoch, item) alone, one line for all that is wrong."""

import json
import pickle
from collections import Counter
from collections.abc import Callable
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from clipseg.data.layout import KNOWN_BAD_IMAGES
from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.phrasecut import Leniency, PhraseCut
from clipseg.data.rasterise import rasterise, rasterise_official
from clipseg.data.sample import Batch, Sample, collate
from clipseg.data.sampling import StreamSampler
from clipseg.errors import ClipSegError
from clipseg.image_io import read_image

Factory = Callable[..., Path]


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    """Read a JSON file, edit its content in place, write it back."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def read_all(dataset: PhraseCut) -> list[Sample]:
    return [dataset[item] for item in range(len(dataset))]


def assert_same(one: Sample, other: Sample) -> None:
    assert one.image_key == other.image_key
    assert torch.equal(one.image, other.image)
    assert len(one.tasks) == len(other.tasks)
    for a, b in zip(one.tasks, other.tasks, strict=True):
        assert (a.key, a.phrase, a.group, a.seed) == (b.key, b.phrase, b.group, b.seed)
        assert torch.equal(a.mask, b.mask)


def test_evaluation_reads_whole_images_with_all_tasks_in_file_order(phrasecut_root: Factory) -> None:
    root = phrasecut_root(3)
    change(root / "refer_test.json", lambda tasks: tasks.reverse())
    dataset = PhraseCut(root, split="test")
    entries = json.loads((root / "refer_test.json").read_text())
    assert len(dataset) == 3
    samples = read_all(dataset)
    assert [sample.image_key for sample in samples] == ["9", "8", "7"]
    assert [task.key for sample in samples for task in sample.tasks] == [f"test/{entry['task_id']}" for entry in entries]
    for sample in samples:
        assert torch.equal(sample.image, read_image(root / "images" / f"{sample.image_key}.jpg"))
        for task in sample.tasks:
            entry = next(e for e in entries if f"test/{e['task_id']}" == task.key)
            assert task.phrase == entry["phrase"]
            assert task.group == task.key
            points = np.array(entry["Polygons"][0][0])
            assert task.mask.dtype == torch.uint8
            assert np.array_equal(task.mask.numpy(), rasterise([points], *sample.image.shape[1:]))
            assert np.array_equal(task.official.numpy(), rasterise_official([points], *sample.image.shape[1:]))


@pytest.mark.parametrize("training", [False, True])
def test_masks_lie_on_what_they_name(phrasecut_root: Factory, training: bool) -> None:
    channel = {"red": 0, "green": 1, "blue": 2}
    checked = 0
    for sample in read_all(PhraseCut(phrasecut_root(4), ReaderOptions(training=training))):
        assert sample.image.is_contiguous()
        for task in sample.tasks:
            assert task.mask.is_contiguous()
            assert task.mask.shape == sample.image.shape[1:]
            assert task.mask.max() <= 1
            if task.phrase in channel and task.mask.any():
                inside = sample.image[:, task.mask.bool()].float().mean(dim=1)
                assert inside.argmax() == channel[task.phrase]
                checked += 1
    assert checked >= 8


def test_training_crops_a_square_of_the_short_side(phrasecut_root: Factory) -> None:
    dataset = PhraseCut(phrasecut_root(4, size=(40, 90)), ReaderOptions(training=True))
    for sample in read_all(dataset):
        assert sample.image.shape == (3, 40, 40)
        assert sample.tasks[0].mask.float().mean() > 0.05


@pytest.mark.parametrize("k", [1, 2, 3, 100])
def test_an_epoch_holds_each_task_once_in_groups_of_one_image(phrasecut_root: Factory, k: int) -> None:
    dataset = PhraseCut(phrasecut_root(6), ReaderOptions(training=True, phrases_per_image=k))
    per_image = Counter(dataset.tasks.image_ids.tolist())
    orders = []
    for epoch in range(3):
        plan = dataset.epoch_plan(epoch)
        groups = [plan[item].tolist() for item in range(len(plan))]
        assert len(groups) == len(dataset) == sum(-(-tasks // k) for tasks in per_image.values())
        assert sorted(chain.from_iterable(groups)) == list(range(len(dataset.tasks)))
        assert max(map(len, groups)) == min(k, max(per_image.values()))
        assert all(len({int(dataset.tasks.image_ids[task]) for task in group}) == 1 for group in groups)
        orders.append(groups)
    assert orders[0] != orders[1] != orders[2]


def test_one_phrase_an_image_is_a_plain_shuffle_of_tasks(phrasecut_root: Factory) -> None:
    dataset = PhraseCut(phrasecut_root(8), ReaderOptions(training=True))
    first = Counter(int(dataset.epoch_plan(epoch)[0][0]) for epoch in range(500))
    assert len(first) == len(dataset)
    assert max(first.values()) < 60
    neighbours = 0
    for epoch in range(50):
        images = [int(dataset.tasks.image_ids[dataset.epoch_plan(epoch)[item][0]]) for item in range(len(dataset))]
        neighbours += sum(a == b for a, b in pairwise(images))
    assert neighbours / 50 < 5  # 23 pairs, of which chance makes 2 of one image; tasks left beside each other would make 16


def test_an_item_is_a_function_of_seed_epoch_and_item(phrasecut_root: Factory) -> None:
    root = phrasecut_root(4, size=(40, 90))
    one, other = (PhraseCut(root, ReaderOptions(training=True, seed=5, phrases_per_image=2)) for _ in range(2))
    expected = {(epoch, item): one[epoch, item] for epoch in range(3) for item in range(len(one))}
    for index in reversed(expected):  # another order of asking
        assert_same(other[index], expected[index])
    assert_same(pickle.loads(pickle.dumps(one))[1, 2], expected[1, 2])
    seeds = [task.seed for sample in expected.values() for task in sample.tasks]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    reseeded = PhraseCut(root, ReaderOptions(training=True, seed=6, phrases_per_image=2))
    assert [reseeded[0, i].tasks[0].key for i in range(len(one))] != [expected[0, i].tasks[0].key for i in range(len(one))]


def test_batches_are_the_same_for_any_number_of_workers(phrasecut_root: Factory) -> None:
    dataset = PhraseCut(phrasecut_root(5), ReaderOptions(training=True, phrases_per_image=2))

    def batches(workers: int) -> list[Batch]:
        sampler = StreamSampler(len(dataset), batch_size=3)
        return list(
            islice(DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=workers), 2 * len(dataset) // 3)
        )

    for a, b in zip(batches(0), batches(2), strict=True):
        assert (a.keys, a.phrases, a.seeds, a.image_keys) == (b.keys, b.phrases, b.seeds, b.image_keys)
        assert all(map(torch.equal, a.images, b.images))
        assert all(map(torch.equal, a.masks, b.masks))
        assert torch.equal(a.image_index, b.image_index)


def test_items_end(phrasecut_root: Factory) -> None:
    dataset = PhraseCut(phrasecut_root(2))
    for index in (2, -1, (0, 2)):
        with pytest.raises(IndexError):
            dataset[index]


def test_splits_join(phrasecut_root: Factory) -> None:
    root = phrasecut_root(2)
    change(
        root / "refer_miniv.json", lambda tasks: tasks.append(tasks[0] | {"image_id": 3, "task_id": "3__0"})
    )  # image and id of val
    dataset = PhraseCut(root, split="val_miniv")
    assert [sample.image_key for sample in read_all(dataset)] == ["3", "4", "7", "8"]
    assert [task.key for task in dataset[0].tasks] == ["val/3__0", "val/3__1", "miniv/3__0"]


def test_any_split_that_is_there_can_be_read(phrasecut_root: Factory) -> None:
    root = phrasecut_root(1, splits=("train", "unseen", "my_own"))
    (root / "refer_input_train.json").write_text("[]")
    for split in ("unseen", "my_own", "train_unseen"):
        assert len(PhraseCut(root, split=split)) in (1, 2)
    for split in ("tets", "", "train_", "train_train", "../train", "../input_train"):
        with pytest.raises(ClipSegError, match="unknown; expected one of my_own, train, unseen"):
            PhraseCut(root, split=split)


def test_photos_are_found_in_visual_genomes_folders(phrasecut_root: Factory) -> None:
    root = phrasecut_root(4, splits=("train",), folder="VG_100K")
    (root / "VG_100K_2").mkdir()
    (root / "VG_100K" / "2.jpg").rename(root / "VG_100K_2" / "2.jpg")
    assert [sample.image_key for sample in read_all(PhraseCut(root))] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "I;16", "LA"])
def test_photos_of_every_mode_work(phrasecut_root: Factory, mode: str) -> None:
    root = phrasecut_root(1)
    path = root / "images" / "1.jpg"
    gray = np.asarray(Image.open(path).convert("L"))
    image = Image.fromarray(gray.astype(np.uint16) * 257) if mode == "I;16" else Image.open(path).convert(mode)
    image.save(path, "JPEG" if mode in ("L", "CMYK") else "PNG")  # what a file is, its content says
    pixels = PhraseCut(root)[0].image
    assert pixels.shape == (3, *gray.shape)
    assert pixels.dtype == torch.uint8
    if mode in ("L", "I;16", "LA"):
        assert (pixels.float() - torch.from_numpy(gray.astype(np.float32))).abs().max() < 16


def test_exif_orientation_is_ignored_since_polygons_lie_on_stored_pixels(phrasecut_root: Factory) -> None:
    root = phrasecut_root(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = root / "images" / "1.jpg"
    Image.open(path).copy().save(path, exif=exif)
    assert PhraseCut(root)[0].image.shape == (3, 48, 64)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), "not an image, or an empty file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-300]), "truncated"),
        (lambda path: path.unlink(), "no such image"),
        (
            lambda path: Image.new("RGB", (48, 64)).save(path),
            r"48x64 pixels, but image_data_split\.json says 64x48.*clipseg data check",
        ),
    ],
)
def test_a_photo_that_breaks_after_the_start_is_named(
    phrasecut_root: Factory, damage: Callable[[Path], object], message: str
) -> None:
    root = phrasecut_root(1)
    dataset = PhraseCut(root, ReaderOptions(training=True))
    damage(root / "images" / "1.jpg")
    with pytest.raises(ClipSegError, match=message) as caught:
        dataset[0]
    assert "images/1.jpg" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_photos_are_counted_named_and_left_out_by_key(phrasecut_root: Factory) -> None:
    root = phrasecut_root(14, splits=("train",))
    for image_id in range(1, 13):
        (root / "images" / f"{image_id}.jpg").unlink()
    expected = r"split train: 12 of 14 images are missing: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more; .*data\.allow_missing=true"
    with pytest.raises(ClipSegError, match=expected):
        PhraseCut(root)
    with pytest.warns(UserWarning, match="12 of 14 images are missing"):
        dataset = PhraseCut(root, leniency=Leniency(allow_missing=True))
    assert [sample.image_key for sample in read_all(dataset)] == ["13", "14"]
    for image_id in (13, 14):
        (root / "images" / f"{image_id}.jpg").unlink()
    with pytest.warns(UserWarning, match="14 of 14"), pytest.raises(ClipSegError, match="no task with an image"):
        PhraseCut(root, leniency=Leniency(allow_missing=True))
    (root / "images").rmdir()
    with pytest.raises(ClipSegError, match="14 of 14 images are missing"):
        PhraseCut(root)


def test_the_images_of_known_wrong_size_are_left_out(phrasecut_root: Factory) -> None:
    root = phrasecut_root(3, splits=("train",))
    assert len(KNOWN_BAD_IMAGES) == 17

    def rename(entries: Any) -> None:
        for entry in entries:
            entry["image_id"] = 61564 if entry["image_id"] == 2 else entry["image_id"]

    change(root / "image_data_split.json", rename)
    change(root / "refer_train.json", rename)
    assert [sample.image_key for sample in read_all(PhraseCut(root))] == [
        "1",
        "3",
    ]  # though its photo is missing
    (root / "images" / "2.jpg").rename(root / "images" / "61564.jpg")
    assert len(PhraseCut(root, leniency=Leniency(skip_known_bad=False))) == 3


def test_links_may_not_leave_the_root(phrasecut_root: Factory, tmp_path: Path) -> None:
    root = phrasecut_root(2, splits=("train",))
    photo = root / "images" / "1.jpg"
    photo.rename(root / "photo.jpg")
    photo.symlink_to(root / "photo.jpg")  # stays inside
    assert len(PhraseCut(root)) == 2
    photo.unlink()
    (root / "photo.jpg").rename(tmp_path / "photo.jpg")
    photo.symlink_to(tmp_path / "photo.jpg")
    with pytest.raises(ClipSegError, match=r"1\.jpg: a symbolic link that leaves"):
        PhraseCut(root)
    photo.unlink()
    (root / "images").rename(tmp_path / "images")
    (root / "images").symlink_to(tmp_path / "images")
    with pytest.raises(ClipSegError, match="images: a symbolic link that leaves"):
        PhraseCut(root)
    link = tmp_path / "link"
    link.symlink_to(root)
    (root / "images").unlink()
    (tmp_path / "images").rename(root / "images")
    (tmp_path / "photo.jpg").rename(root / "images" / "1.jpg")
    assert len(PhraseCut(link)) == 2  # the root itself may be a link


def test_a_folder_that_is_no_data_set_is_named_with_its_key(phrasecut_root: Factory, tmp_path: Path) -> None:
    with pytest.raises(ClipSegError, match=r"data\.root=.*nowhere: no such folder"):
        PhraseCut(tmp_path / "nowhere", ReaderOptions(training=True))
    (tmp_path / "VOCdevkit").mkdir()
    with pytest.raises(ClipSegError, match=r"data\.root=.*not PhraseCut's layout.*found VOCdevkit"):
        PhraseCut(tmp_path, ReaderOptions(training=True))
    root = phrasecut_root(1)
    (root / "image_data_split.json").unlink()
    with pytest.raises(ClipSegError, match=r"data\.root=.*image_data_split\.json"):
        PhraseCut(root, ReaderOptions(training=True))


def test_a_split_without_ground_truth_is_named(phrasecut_root: Factory) -> None:
    root = phrasecut_root(1, splits=("train",))
    entry = {"task_id": "1__9", "image_id": 1, "phrase": "x"}
    (root / "refer_input_test.json").write_text(json.dumps([entry]))
    for split in ("test", "input_test"):
        with pytest.raises(ClipSegError, match=r"no ground truth: .*fetch refer_test\.json, or choose one of train"):
            PhraseCut(root, split=split)
    (root / "refer_input_test.json").rename(root / "refer_test.json")
    with pytest.raises(ClipSegError, match="task 1__9: no Polygons, as in a split without ground truth"):
        PhraseCut(root, split="test")
    (root / "refer_test.json").write_text("[]")
    with pytest.raises(ClipSegError, match="split test has no task with an image"):
        PhraseCut(root, split="test")


def test_annotations_cut_off_in_the_middle_are_named(phrasecut_root: Factory) -> None:
    root = phrasecut_root(2)
    for name in ("refer_train.json", "image_data_split.json"):
        whole = (root / name).read_bytes()
        (root / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ClipSegError, match=f"{name}: not valid JSON.*cut off"):
            PhraseCut(root, ReaderOptions(training=True))
        (root / name).write_bytes(whole)


def test_degenerate_polygons_stop_the_reader_unless_allowed(phrasecut_root: Factory) -> None:
    root = phrasecut_root(1)
    change(root / "refer_train.json", lambda tasks: tasks[0].update(Polygons=[[[[1, 1], [5, 5]]]]))
    with pytest.raises(ClipSegError, match=r"refer_train\.json: entry 0, task 1__0: .*2 points.*data\.allow_degenerate=true"):
        PhraseCut(root, ReaderOptions(training=True))
    assert PhraseCut(root, leniency=Leniency(allow_degenerate=True))[0].tasks[0].mask.sum() == 2
    assert PhraseCut(root, leniency=Leniency(allow_degenerate=True))[0].tasks[0].official.sum() == 5


@pytest.mark.parametrize("training", [False, True])
def test_tasks_whose_boxes_have_no_area_are_never_asked_but_may_be_a_support(phrasecut_root: Factory, training: bool) -> None:
    root = phrasecut_root(2, splits=("train",))
    change(
        root / "refer_train.json", lambda tasks: [t.update(instance_boxes=[[1, 1, 0, 5]]) for t in tasks if t["image_id"] == 2]
    )
    options = ReaderOptions(training=training, visual_support=True, singletons="leave_out", self_support=False)
    data = PhraseCut(root, options)
    assert data.image_ids.tolist() == [1]
    asked = [task for epoch in range(2) for item in range(len(data)) for task in data[epoch, item].tasks]
    assert {task.key.split("__")[0] for task in asked} == {"train/1"}
    of_the_other = PhraseCut(root, leniency=Leniency(allow_degenerate=True))[1]
    assert of_the_other.image_key == "2"
    for task in asked:
        (same,) = [other for other in of_the_other.tasks if other.phrase == task.phrase]
        assert training or torch.equal(task.support.mask, same.mask)
    change(root / "refer_train.json", lambda tasks: [t.update(instance_boxes=[[1, 1, 0, 5]]) for t in tasks])
    with pytest.raises(ClipSegError, match="no task"):
        PhraseCut(root, options)


def test_points_outside_the_image_and_empty_phrases_work(phrasecut_root: Factory) -> None:
    root = phrasecut_root(1)
    everywhere = [[[[-50, -50], [200, -50], [200, 200], [-50, 200]]]]
    change(root / "refer_train.json", lambda tasks: tasks[0].update(Polygons=everywhere, phrase=""))
    task = PhraseCut(root)[0].tasks[0]
    assert task.mask.all()
    assert task.phrase == ""


def test_wrong_options_are_named(phrasecut_root: Factory) -> None:
    root = phrasecut_root(1)
    with pytest.raises(ClipSegError, match=r"training\.phrases_per_image=0"):
        PhraseCut(root, ReaderOptions(training=True, phrases_per_image=0))
    with pytest.raises(ClipSegError, match="seed=-1"):
        PhraseCut(root, ReaderOptions(training=True, seed=-1))
