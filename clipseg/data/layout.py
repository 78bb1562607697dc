"""Where PhraseCut's layout keeps its files: the splits a folder holds, and each photo's folder. Opens none of them."""

import os
from collections.abc import Iterable
from pathlib import Path

from clipseg.errors import ClipSegError

IMAGE_FOLDERS = ("images", "VG_100K", "VG_100K_2")
IMAGES_FILE = "image_data_split.json"

# Their annotated size differs from the file's; the paper's authors leave them out.
# fmt: off
KNOWN_BAD_IMAGES = frozenset({
    150417, 285665, 498246, 61564, 285743, 498269, 498010, 150516, 150344,
    286093, 61530, 150333, 286065, 285814, 498187, 285761, 498042,
})
# fmt: on


def split_files(root: Path, split: str) -> dict[str, Path]:
    """The annotation file of each split that `split` joins: name -> path.

    Raises:
        ClipSegError: no folder, another layout, or a split that is not there; the message names those that are.
    """
    known = find_splits(root)
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
        found = sorted(path.name for path in root.glob("*"))
        raise ClipSegError(
            f"data.root={root}: not PhraseCut's layout ({IMAGES_FILE}, refer_<split>.json, images/<id>.jpg); "
            f"found {', '.join(found[:8]) or 'nothing'}{' ...' * (len(found) > 8)}"
        )
    return splits


def locate_images(root: Path, image_ids: Iterable[int]) -> dict[int, str]:
    """Find each image's folder by listing folders (asking for 70,000 files one by one takes minutes on a network disk).

    Returns:
        image id -> name of the folder that holds `<id>.jpg`; images that are nowhere are not in it.

    Raises:
        ClipSegError: a symbolic link to an image leads out of the root, or a folder cannot be listed.
    """
    wanted = {f"{image_id}.jpg": image_id for image_id in image_ids}
    inside = os.path.join(os.path.realpath(root), "")
    found: dict[int, str] = {}
    for folder in IMAGE_FOLDERS:
        try:
            entries = list(os.scandir(root / folder))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ClipSegError(f"{root / folder}: cannot be listed ({error.strerror})") from error
        links = [root / folder, *(Path(entry.path) for entry in entries if entry.is_symlink() and entry.name in wanted)]
        for link in links:
            if not os.path.realpath(link).startswith(inside):
                raise ClipSegError(f"{link}: a symbolic link that leaves {root}; put the photos themselves there")
        names = [entry.name for entry in entries if entry.name in wanted and entry.is_file()]
        found = {wanted[name]: folder for name in names} | found
    return found
