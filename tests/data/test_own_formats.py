"""The synthetic data in each form that people keep labels in, written and read back pixel for pixel; phrases by class."""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clipseg.data.mini.layouts import outlines, run_lengths
from clipseg.data.mini.phrasecut import draw_image
from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.readers.folder import FolderData, find_format, folder_splits
from clipseg.data.upkeep.check import check_data
from clipseg.errors import ClipSegError
from clipseg.network.model import CLIPSeg
from clipseg.run.conditioning import Conditioner
from clipseg.run.settings import PromptSettings

Truth = Mapping[str, Mapping[str, NDArray[np.bool_]]]  # photo -> class -> mask


def draw(root: Path, count: int = 4, folder: str = "images") -> Truth:
    """Photos, and what they show, things of one colour a class."""
    truth: dict[str, dict[str, NDArray[np.bool_]]] = {}
    for index in range(count):
        scene, _ = draw_image("train", index)
        path = root / folder / f"photo__{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(path)
        masks = truth.setdefault(path.relative_to(root).as_posix(), {})
        for thing in scene.objects:
            name = f"{thing.kind.colour} thing"
            masks[name] = masks.get(name, np.zeros_like(thing.mask)) | thing.mask
    return truth


def classes(truth: Truth) -> list[str]:
    return sorted({name for masks in truth.values() for name in masks})


def box_of(mask: NDArray[np.bool_]) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)).tolist(), np.flatnonzero(mask.any(axis=0)).tolist()
    return [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]


def boxed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    x, y, width, height = box_of(mask)
    drawn = np.zeros_like(mask)
    drawn[y : y + height, x : x + width] = True
    return drawn


def write_coco_json(path: Path, truth: Truth, outline: Callable[[NDArray[np.bool_]], object]) -> Path:
    names = classes(truth)
    images, annotations = [], []
    for image_id, (photo, masks) in enumerate(truth.items()):
        height, width = next(iter(masks.values())).shape
        images.append({"id": image_id, "file_name": Path(photo).name, "height": height, "width": width})
        for name, mask in masks.items():
            entry = {"id": len(annotations), "image_id": image_id, "category_id": names.index(name), "bbox": box_of(mask)}
            annotations.append(entry | {"segmentation": outline(mask)})
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def write_label_maps(root: Path, truth: Truth, folder: str = "labels") -> None:
    names = classes(truth)
    (root / folder).mkdir(parents=True, exist_ok=True)
    for photo, masks in truth.items():
        labels = np.zeros(next(iter(masks.values())).shape, dtype=np.uint8)
        for name, mask in masks.items():
            labels[mask] = 3 * names.index(name) + 1
        Image.fromarray(labels).save(root / folder / f"{Path(photo).stem}.png")
    (root / "names.txt").write_text("".join(f"{3 * number + 1}: {name}\n" for number, name in enumerate(names)))


def write_masks(root: Path, truth: Truth, *, by_class: bool) -> None:
    for photo, masks in truth.items():
        for name, mask in masks.items():
            called = name.replace(" ", "_")
            path = f"{called}/{Path(photo).stem}.png" if by_class else f"{Path(photo).stem}__{called}.png"
            (root / "masks" / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(root / "masks" / path)


def read_back(root: Path, split: str) -> dict[str, dict[str, NDArray[np.bool_]]]:
    data = FolderData(root, split=split)
    samples = [data[item] for item in range(len(data))]
    for sample in samples:
        with Image.open(root / sample.image_key) as photo:
            assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), np.asarray(photo.convert("RGB")))
    return {sample.image_key: {task.phrase: task.mask.numpy() for task in sample.tasks} for sample in samples}


def assert_same(found: Truth, truth: Truth) -> None:
    assert {photo: set(masks) for photo, masks in found.items()} == {photo: set(masks) for photo, masks in truth.items()}
    for photo, masks in truth.items():
        for name, mask in masks.items():
            assert np.array_equal(found[photo][name], mask), (photo, name)


@pytest.mark.parametrize("outline", [outlines, run_lengths])
@pytest.mark.parametrize("place", ["annotations/instances_photos.json", "photos.json"])
def test_coco_json(tmp_path: Path, outline: Callable[[NDArray[np.bool_]], object], place: str):
    truth = draw(tmp_path)
    write_coco_json(tmp_path / place, truth, outline)
    assert find_format(tmp_path) == "COCO JSON"
    assert list(folder_splits(tmp_path)) == ["photos"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert_same(read_back(tmp_path, "photos"), truth)
    if place == "photos.json":
        assert check_data(tmp_path, decode=True).ok


def test_coco_json_beside_the_photos_of_each_split(tmp_path: Path):
    for split, count in (("train", 3), ("valid", 2)):
        truth = draw(tmp_path, count, split)
        write_coco_json(tmp_path / split / "_annotations.coco.json", truth, outlines)
        assert_same(read_back(tmp_path, split), truth)
    assert list(folder_splits(tmp_path)) == ["train", "valid"]


def test_boxes_are_drawn_as_boxes_with_one_warning(tmp_path: Path):
    truth = draw(tmp_path)
    write_coco_json(tmp_path / "all.json", truth, lambda mask: [])
    with pytest.warns(UserWarning, match="have a box and no outline; they are drawn as boxes") as warned:
        found = read_back(tmp_path, "all")
    assert sum(warning.category is UserWarning for warning in warned) == 1
    assert_same(found, {photo: {name: boxed(mask) for name, mask in masks.items()} for photo, masks in truth.items()})
    lines = check_data(tmp_path).lines()
    assert [line.startswith("info: ") and "drawn as boxes" in line for line in lines].count(True) == 1
    content = json.loads((tmp_path / "all.json").read_text())
    content["annotations"][0]["bbox"] = [1, 2, 3]
    (tmp_path / "all.json").write_text(json.dumps(content))
    with pytest.raises(ClipSegError, match=r"all.json: annotation 0: bbox is \[1, 2, 3\]; expected \[x, y, width, height\]"):
        FolderData(tmp_path, split="all")


def test_label_maps(tmp_path: Path):
    truth = draw(tmp_path)
    write_label_maps(tmp_path, truth)
    assert find_format(tmp_path) == "label maps"
    assert_same(read_back(tmp_path, "all"), truth)
    assert check_data(tmp_path).ok


def test_what_a_label_map_leaves_open_is_not_counted(tmp_path: Path):
    truth = draw(tmp_path, 1)
    write_label_maps(tmp_path, truth)
    path = next((tmp_path / "labels").iterdir())
    labels = np.array(Image.open(path))
    labels[:3] = 255
    Image.fromarray(labels).save(path)
    assert np.array_equal(FolderData(tmp_path, split="all")[0].valid, labels != 255)
    assert FolderData(tmp_path, ReaderOptions(training=True), split="all")[0].valid is None
    with (tmp_path / "names.txt").open("a") as file:
        file.write("255 the rim\n")
    sample = FolderData(tmp_path, split="all")[0]
    assert sample.valid is None
    assert np.array_equal({task.phrase: task.mask for task in sample.tasks}["the rim"], labels == 255)


def test_label_maps_of_splits(tmp_path: Path):
    for split, count in (("train", 3), ("val", 2)):
        write_label_maps(tmp_path, truth := draw(tmp_path, count, f"photos/{split}"), f"annotations/{split}")
        assert_same(read_back(tmp_path, split), truth)
    assert list(folder_splits(tmp_path)) == ["train", "val"]


@pytest.mark.parametrize("by_class", [True, False])
def test_masks(tmp_path: Path, by_class: bool):
    truth = draw(tmp_path)
    write_masks(tmp_path, truth, by_class=by_class)
    assert find_format(tmp_path) == "masks"
    assert_same(read_back(tmp_path, "all"), truth)
    assert check_data(tmp_path).ok
    some = list(truth)[1:3]
    assert FolderData(tmp_path, split="all", images=some).image_ids.tolist() == some


def test_names_begin_where_it_can_be_told(tmp_path: Path):
    truth = draw(tmp_path, 1)
    write_label_maps(tmp_path, truth)
    name, path = classes(truth)[0], tmp_path / "names.txt"
    path.write_text(f"Background\n{name}\n" + "\n".join(f"c{value}" for value in range(2, 40)))
    assert np.array_equal(read_back(tmp_path, "all")["images/photo__0.png"][name], truth["images/photo__0.png"][name])
    for text, message in (
        ("a crack\na joint\n", "line 'a crack'; expected each value of the label maps once, as in '1 a crack'"),
        ("1 a\n1 b\n", "line '1 b'; expected each value"),
        ("300 a\n", "line '300 a'"),
        ("\n", "no name; write the values"),
        ("250 a\n", r"photo__0.png: label value \d+ has no name; add it to .*names.txt"),
    ):
        path.write_text(text)
        with pytest.raises(ClipSegError, match=message):
            FolderData(tmp_path, split="all")
        assert not check_data(tmp_path).ok


def test_a_format_that_cannot_be_told(tmp_path: Path):
    with pytest.raises(ClipSegError, match=r"not a folder of your own .*; found nothing"):
        find_format(tmp_path)
    with pytest.raises(ClipSegError, match="no such folder"):
        find_format(tmp_path / "nowhere")
    truth = draw(tmp_path)
    with pytest.raises(ClipSegError, match=r"images without any label; expected a folder of your own \("):
        find_format(tmp_path)
    write_masks(tmp_path, truth, by_class=True)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(ClipSegError, match=r"labels \(masks\) without images"):
        find_format(tmp_path)
    with pytest.raises(ClipSegError, match=r"labels \(masks\) without images.*; other layouts are PhraseCut's"):
        check_data(tmp_path)


@pytest.mark.parametrize("maps", [True, False])
def test_images_without_label_and_labels_without_image(tmp_path: Path, maps: bool):
    truth = draw(tmp_path)
    if maps:
        write_label_maps(tmp_path, truth)
    else:
        write_masks(tmp_path, truth, by_class=False)
    (tmp_path / "images" / "photo__0.png").rename(tmp_path / "images" / "other.png")
    with pytest.raises(ClipSegError, match="images: 1 of 4 images without a label: other; name labels"):
        FolderData(tmp_path, split="all")
    text = "\n".join(check_data(tmp_path).lines())
    assert "1 of 4 images without a label: other;" in text
    assert "without an image, or without a class: photo__0" in text
    (tmp_path / "images" / "other.png").unlink()
    with pytest.raises(ClipSegError, match="without an image, or without a class: photo__0"):
        FolderData(tmp_path, split="all")


def test_what_does_not_belong_is_named(tmp_path: Path):
    truth = draw(tmp_path, 2)
    write_masks(tmp_path, truth, by_class=True)
    Image.new("L", (3, 3)).save(tmp_path / "images" / "photo__0.jpg")
    with pytest.raises(ClipSegError, match=r"photo__0.jpg: another picture there has this name too, photo__0.png"):
        FolderData(tmp_path, split="all")
    (tmp_path / "images" / "photo__0.jpg").unlink()
    mask = next((tmp_path / "masks").rglob("photo__1.png"))
    Image.new("L", (3, 3)).save(mask)
    data = FolderData(tmp_path, split="all")
    with pytest.raises(ClipSegError, match=r"mask masks/.*/photo__1.png has 3x3 pixels, its image 176x176"):
        [data[item] for item in range(len(data))]
    assert "has 3x3 pixels" in "\n".join(check_data(tmp_path).lines())
    outside = tmp_path.parent / "secret.png"
    Image.new("L", (3, 3)).save(outside)
    mask.unlink()
    mask.symlink_to(outside)
    with pytest.raises(ClipSegError, match="is a symbolic link that leaves"):
        FolderData(tmp_path, split="all")


def table(truth: Truth) -> str:
    return "".join(f"{name}: {json.dumps([f'a {name}', name, f'the {name}'])}\n" for name in classes(truth))


def test_one_phrase_is_drawn_in_training_and_the_first_asked_at_test(tmp_path: Path):
    truth = draw(tmp_path)
    write_masks(tmp_path, truth, by_class=True)
    (tmp_path / "phrases.yaml").write_text(table(truth))
    found = FolderData(tmp_path, split="all")
    tasks = [task for item in range(len(found)) for task in found[item].tasks]
    assert all(task.phrase == f"a {task.group}" for task in tasks)
    assert all(task.synonyms == (f"a {task.group}", task.group, f"the {task.group}") for task in tasks)
    options = ReaderOptions(training=True, negatives=0.3, visual_support=True)
    training = FolderData(tmp_path, options, split="all")
    drawn = [training[epoch, item].tasks[0] for epoch in range(12) for item in range(len(training))]
    own = [task for task in drawn if task.mask.any()]
    counts = [sum(task.phrase == form.format(task.group) for task in own) / len(own) for form in ("a {}", "{}", "the {}")]
    assert sum(counts) == 1
    assert min(counts) > 0.2
    # A negative is another class, never another phrase for the same thing.
    others = [task for task in drawn if task.phrase not in found.phrases[task.group]]
    assert others
    assert not any(task.mask.any() for task in others)


def test_the_mean_embedding_of_all_phrases_on_request(tmp_path: Path, tiny_model: CLIPSeg):
    from clipseg.data.sample import collate

    truth = draw(tmp_path, 1)
    write_masks(tmp_path, truth, by_class=True)
    (tmp_path / "phrases.yaml").write_text(table(truth))
    batch = collate([FolderData(tmp_path, split="all")[0]])
    found = Conditioner(PromptSettings(ensemble=True))(tiny_model, batch)
    for task, condition in zip(batch.groups, found, strict=True):
        meant = tiny_model.encode_text([f"a {task}", task, f"the {task}"]).mean(dim=0)
        assert np.allclose(condition, meant, atol=1e-5)
    first = Conditioner(PromptSettings())(tiny_model, batch)
    assert np.allclose(first, tiny_model.encode_text([f"a {task}" for task in batch.groups]), atol=1e-5)


def test_held_out_words_are_looked_for_in_all_phrases(tmp_path: Path):
    truth = draw(tmp_path)
    write_masks(tmp_path, truth, by_class=True)
    (tmp_path / "phrases.yaml").write_text(table(truth))
    gone = classes(truth)[0]
    options = ReaderOptions(exclude=lambda phrases: np.array([phrase == f"the {gone}" for phrase in phrases]))
    data = FolderData(tmp_path, options, split="all")
    assert sorted({task.group for item in range(len(data)) for task in data[item].tasks}) == classes(truth)[1:]


def test_tables_of_phrases_that_cannot_be(tmp_path: Path):
    truth = draw(tmp_path)
    write_masks(tmp_path, truth, by_class=True)
    first, *others = classes(truth)
    rest = "".join(f"{name}: x\n" for name in others)
    for text, message in (
        (rest, f"phrases.yaml: class '{first}' has no phrase; add it"),
        (f"{rest}{first}: []\n", f"class '{first}' has no phrase"),
        (f"{rest}{first}: [3]\n", f"a phrase of '{first}' is 3; expected text"),
        ("- a\n", r"phrases.yaml: \['a'\]; expected a table of classes"),
        ("a: [", "phrases.yaml: not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("a: 2001-99-99", "not valid YAML"),
    ):
        (tmp_path / "phrases.yaml").write_text(text)
        with pytest.raises(ClipSegError, match=message) as error:
            FolderData(tmp_path, split="all")
        assert "\n" not in str(error.value)
        assert str(error.value) in "\n".join(check_data(tmp_path).lines())
