"""Which layout a folder has, and where PhraseCut's keeps its files: its splits, and each photo's folder. Opens none of them."""

import os
from collections.abc import Iterable
from pathlib import Path

from clipseg.errors import ClipSegError, listed

IMAGE_FOLDERS = ("images", "VG_100K", "VG_100K_2")
IMAGES_FILE = "image_data_split.json"

# Their annotated size differs from the file's; the paper's authors leave them out.
# fmt: off
KNOWN_BAD_IMAGES = frozenset({
    150417, 285665, 498246, 61564, 285743, 498269, 498010, 150516, 150344,
    286093, 61530, 150333, 286065, 285814, 498187, 285761, 498042,
})
# fmt: on


# Layout -> what it looks like; in the order in which a folder is asked for them.
LAYOUTS = {
    "phrasecut": f"PhraseCut's layout ({IMAGES_FILE}, refer_<split>.json, images/<id>.jpg)",
    "pascal": "Pascal VOC's layout (VOC2012 with ImageSets/Segmentation, JPEGImages, SegmentationClass)",
    "coco": "COCO's layout (annotations/instances_<split>.json, <split>/<photo>.jpg)",
    "lvis": "LVIS's layout (lvis_v1_<split>.json, COCO's train2017 and val2017)",
    "folder": "a folder of your own (<split>.jsonl, COCO JSON, or images/ with labels/ or masks/: docs/add_a_dataset.md)",
}


def find_layouts(root: Path) -> tuple[str, ...]:
    """The layouts of `LAYOUTS` a folder has: COCO and LVIS share photos, and so perhaps a folder.

    Raises:
        ClipSegError: no such folder.
    """
    if not root.is_dir():
        raise ClipSegError(f"data.root={root}: no such folder; set data.root to the folder of the data set")
    found = {
        "phrasecut": (root / IMAGES_FILE).is_file() and any(root.glob("refer_*.json")),
        "pascal": voc_folder(root) is not None,
        "coco": bool(annotation_files(root, "instances_")),
        "lvis": bool(annotation_files(root, "lvis_v1_")),
        "folder": any(root.glob("*.jsonl")),
    }
    return tuple(layout for layout in LAYOUTS if found[layout])


def is_own_folder(root: Path) -> bool:
    """Whether a folder is a user's own, in whichever form its labels are kept, and not in the layout of a data set here."""
    return set(find_layouts(root)) <= {"folder", "coco"}


def voc_folder(root: Path) -> Path | None:
    """The folder VOC2012 in, above or two below `root` (its archive unpacks to VOCdevkit/VOC2012); None where there is none."""
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / "ImageSets" / "Segmentation").is_dir() and any(folder.glob("SegmentationClass*/")):
            return folder
    return None


def annotation_files(root: Path, prefix: str) -> dict[str, Path]:
    """The splits that COCO's or LVIS's annotation files are of: "val2014" -> `instances_val2014.json`."""
    paths = sorted([*(root / "annotations").glob(f"{prefix}*.json"), *root.glob(f"{prefix}*.json")])
    return {path.stem.removeprefix(prefix): path for path in paths}


def wrong_layout(root: Path, wanted: str) -> ClipSegError:
    """The error that `root` is not of layout `wanted`; it says which it is, or else what is there."""
    if not root.is_dir():
        return ClipSegError(f"data.root={root}: no such folder; set data.root to the data set: {LAYOUTS[wanted]}")
    layouts = [LAYOUTS[layout] for layout in find_layouts(root) if layout != wanted]
    names = sorted(path.name for path in root.glob("*"))
    found = " and ".join(layouts) or listed(names, most=8) or "nothing"
    return ClipSegError(f"data.root={root}: not {LAYOUTS[wanted]}; found {found}")


def split_files(root: Path, split: str) -> dict[str, Path]:
    """The annotation file of each split that `split` joins: name -> path.

    Raises:
        ClipSegError: no folder, another layout, or a split that is not there; the message names those that are.
    """
    known = find_splits(root)
    without_truth = root / f"refer_input_{split.removeprefix('input_')}.json"
    if split not in known and without_truth.is_file():
        raise ClipSegError(
            f"{root}: split {split!r} has no ground truth: {without_truth.name} repeats phrases without masks; fetch "
            f"{without_truth.name.replace('input_', '')}, or choose one of {', '.join(known)}"
        )
    names = [split] if split in known else split.split("_")
    if not set(names) <= known.keys() or len(set(names)) != len(names):
        raise ClipSegError(f"{root}: split {split!r} unknown; expected one of {', '.join(known)}, or several joined by '_'")
    return {name: known[name] for name in names}


def find_splits(root: Path) -> dict[str, Path]:
    """The splits a folder in PhraseCut's layout holds: name -> `refer_<name>.json`.

    Raises:
        ClipSegError: no such folder, or a folder of another layout.
    """
    if not root.is_dir():
        raise ClipSegError(f"data.root={root}: no such folder; set data.root to the folder that holds {IMAGES_FILE}")
    paths = sorted(root.glob("refer_*.json"))
    # refer_input_<split>.json repeats the phrases without their ground truth.
    splits = {path.stem.removeprefix("refer_"): path for path in paths if not path.stem.startswith("refer_input_")}
    if not splits or not (root / IMAGES_FILE).is_file():
        raise wrong_layout(root, "phrasecut")
    return splits


def locate_images(root: Path, image_ids: Iterable[int]) -> dict[int, str]:
    """Find each image's folder by listing folders (asking for 70,000 files one by one takes minutes on a network disk).

    Returns:
        image id -> name of the folder that holds `<id>.jpg`; images that are nowhere are not in it.

    Raises:
        ClipSegError: a symbolic link to an image leads out of the root, or a folder cannot be listed.
    """
    wanted = {f"{image_id}.jpg": image_id for image_id in image_ids}
    found: dict[int, str] = {}
    for folder in IMAGE_FOLDERS:
        try:
            entries = list(os.scandir(root / folder))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ClipSegError(f"{root / folder}: cannot be listed ({error.strerror})") from error
        for link in [root / folder, *(Path(entry.path) for entry in entries if entry.is_symlink() and entry.name in wanted)]:
            check_inside(link, root)
        files = (entry.name for entry in entries if entry.name in wanted and _is_file(entry))
        found = {wanted[name]: folder for name in files} | found
    return found


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def check_inside(path: Path, root: Path) -> None:
    """Refuse a file of a data set that lies elsewhere: an archive may bring links along that lead to anything.

    Raises:
        ClipSegError: `path` is, or lies behind, a symbolic link that leaves `root`. The root itself may be a link.
    """
    if not os.path.realpath(path).startswith(os.path.join(os.path.realpath(root), "")):
        raise ClipSegError(f"{path}: a symbolic link that leaves {root}; put the photos themselves there")
