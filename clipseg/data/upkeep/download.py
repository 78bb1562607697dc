"""PhraseCut from where it is published: annotations from its authors' Google Drive, photos from the addresses they list.

What is there already is kept, so a download that was stopped goes on where it was; a file is whole or absent.
"""

import importlib
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from tqdm import tqdm

from clipseg.data.annotations import ImageRecord, read_images
from clipseg.data.layout import IMAGES_FILE, KNOWN_BAD_IMAGES, locate_images
from clipseg.data.upkeep.fetch import FetchError, PhotoFetcher
from clipseg.errors import ClipSegError, one_line
from clipseg.files import atomic_write

SPLITS = ("train", "val", "test", "miniv")
FAILURES_FILE = "download_failures.txt"
HOPELESS_AFTER = 100  # failures in a row that another attempt might mend: there is no network, or the server is down
PAGE = "https://github.com/ChenyunWu/PhraseCutDataset"


@dataclass(frozen=True, slots=True)
class DriveFile:
    """A file on Google Drive, and about how large the data set's page says it is."""

    drive_id: str
    megabytes: float

    @property
    def url(self) -> str:
        """Where a browser gets it."""
        return f"https://drive.google.com/uc?id={self.drive_id}"


# Source: download_dataset.py (ids, of March 2026) and README.md (sizes) of https://github.com/ChenyunWu/PhraseCutDataset.
ANNOTATIONS = {
    IMAGES_FILE: DriveFile("1xB9eExJo35K3DQu8PnBWZ1q_OMoMl8-i", 15.9),
    "name_att_rel_count.json": DriveFile("10lWrt2Oy7Im-QofRSNKNu9qa_DS0IcbR", 0.348),
    "refer_train.json": DriveFile("1qx-0q6r9r0YUGpoyT0B8HJKmUFWQDSu7", 344.1),
    "refer_val.json": DriveFile("1UyojArOFPlsSeNbA9fHWjCjOOU-OCohG", 44.1),
    "refer_test.json": DriveFile("1jrzXm1gcq6f5hNDeamZd0UmyyHUv61IZ", 30.4),
    "refer_miniv.json": DriveFile("1oLcTQ1blTIQyu5ZMelQN2HSniuQaxM4E", 2.2),
}


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of a download: counts, and for each that failed its record and the reason."""

    wanted: int
    fetched: int
    failures: tuple[tuple[ImageRecord, str], ...]
    gave_up: bool

    @property
    def ok(self) -> bool:
        """True where every photo is there."""
        return not self.failures and not self.gave_up

    def line(self, root: Path) -> str:
        """The end of the download in one line."""
        kept = self.wanted - self.fetched - len(self.failures)
        counts = f"{root}: {self.wanted:,} photos: {self.fetched:,} fetched"
        if self.gave_up:
            return f"{counts}, given up after {HOPELESS_AFTER:,} failures in a row; see {root / FAILURES_FILE}"
        if self.failures:
            counts += f", {len(self.failures):,} failed (see {root / FAILURES_FILE}, and run it again)"
        return f"{counts}, {kept:,} there before"


def download_annotations(root: Path, split: str) -> list[str]:
    """Fetch the annotation files that are not there yet.

    Args:
        root: the folder to fill; made where it is missing.
        split: of `SPLITS`, or several joined by "_".

    Returns:
        The names of the files fetched.

    Raises:
        ClipSegError: a split is unknown, gdown is not installed, or Google Drive gives something else than the file.
    """
    names = [IMAGES_FILE, "name_att_rel_count.json", *(f"refer_{name}.json" for name in _split_names(split))]
    missing = [name for name in names if not (root / name).is_file()]
    for name in missing:
        _download_from_drive(root / name, ANNOTATIONS[name])
    return missing


def _split_names(split: str) -> list[str]:
    names = split.split("_")
    if not set(names) <= set(SPLITS):
        raise ClipSegError(f"split {split!r} unknown; expected one of {', '.join(SPLITS)}, or several joined by '_'")
    return list(dict.fromkeys(names))


def _download_from_drive(path: Path, source: DriveFile) -> None:
    by_hand = f"fetch it in a browser from {source.url} (or see {PAGE}), put it there, and run this again"
    try:
        gdown = importlib.import_module("gdown")
    except ImportError as error:
        raise ClipSegError(f"{path}: Google Drive needs gdown: pip install 'clipseg[download]'; or {by_hand}") from error
    with atomic_write(path, "w+b") as file:
        messages = {"start": f"{path.name}, about {source.megabytes} MB\n", "output": ""}
        try:
            gdown.download(id=source.drive_id, output=file, timeout=60, log_messages=messages)
        # gdown passes on what requests, urllib3 and its own parser raise.
        except Exception as error:
            raise ClipSegError(f"{path}: Google Drive does not give it ({one_line(error)}); {by_hand}") from error
        if not _is_json(file):
            raise ClipSegError(f"{path}: what Google Drive gives is not the JSON file, or not whole; {by_hand}")
        megabytes = file.seek(0, os.SEEK_END) / 1e6
    # The page may count a megabyte as 2^20 bytes: 5% more.
    if not 0.95 < megabytes / source.megabytes < 1.1:
        sizes = f"{megabytes:.1f} MB, published as {source.megabytes} MB"
        warnings.warn(f"{path}: {sizes}; compare with `clipseg data check`", stacklevel=3)


def _is_json(file: IO[bytes]) -> bool:
    """Whether a file begins and ends as JSON does: a page that asks to log in does not. Parsing 344 MB would take gigabytes."""
    file.seek(0)
    first = file.read(1024).lstrip()[:1]
    file.seek(max(0, file.seek(0, os.SEEK_END) - 1024))
    last = file.read().rstrip()[-1:]
    return (first, last) in ((b"[", b"]"), (b"{", b"}"))


def download_photos(root: Path, split: str, *, threads: int = 16, fetcher: PhotoFetcher | None = None) -> Summary:
    """Fetch the photos of splits that are not there yet into `root/images`, many at once.

    Args:
        root: holds `image_data_split.json`; photos in its folders `VG_100K` and `VG_100K_2` count as there.
        split: as in `download_annotations`.
        threads: photos at once.
        fetcher: with how much patience.

    Returns:
        What became of them. The failures are in `root/download_failures.txt` too, a line each: id, address, reason.

    Raises:
        ClipSegError: a split is unknown, the list of images is missing or malformed, or the disk is full.
    """
    wanted = _wanted(root, _split_names(split))
    there = locate_images(root, wanted)
    missing = [record for image_id, record in wanted.items() if image_id not in there]
    fetcher = replace(fetcher or PhotoFetcher())  # a copy of our own: it is stopped at the end
    save = _Saver(root / "images", fetcher)
    failures: list[tuple[ImageRecord, str]] = []
    fetched = in_a_row = 0
    with ThreadPoolExecutor(threads) as pool, tqdm(total=len(missing), unit="photo", disable=None) as bar:
        futures = {pool.submit(save, record): record for record in missing}
        try:
            for future in as_completed(futures):
                record = futures.pop(future)
                try:
                    future.result()
                    fetched, in_a_row = fetched + 1, 0
                except FetchError as error:
                    failures.append((record, str(error)))
                    in_a_row = in_a_row + 1 if error.may_pass else 0
                bar.update()
                if in_a_row == HOPELESS_AFTER:
                    break
        finally:  # after the last photo, a full disk or Ctrl-C alike
            fetcher.stop()
            pool.shutdown(wait=False, cancel_futures=True)
    _write_failures(root / FAILURES_FILE, failures)
    return Summary(len(wanted), fetched, tuple(failures), gave_up=in_a_row == HOPELESS_AFTER)


def _wanted(root: Path, splits: list[str]) -> dict[int, ImageRecord]:
    """The records of the splits' images. An entry that names no split belongs to each."""
    images = read_images(root)
    return {image_id: record for image_id, record in images.items() if record.split in (*splits, "")}


class _Saver:
    """Fetches a photo and puts it in its folder."""

    def __init__(self, folder: Path, fetcher: PhotoFetcher) -> None:
        self._folder = folder
        self._fetcher = fetcher
        self._writing = threading.Lock()  # one file at a time: `atomic_write` sets the process's umask for a moment

    def __call__(self, record: ImageRecord) -> None:
        size = None if record.image_id in KNOWN_BAD_IMAGES else (record.width, record.height)
        content = self._fetcher.fetch(record.url, size=size)
        with self._writing, atomic_write(self._folder / f"{record.image_id}.jpg") as file:
            file.write(content)


def _write_failures(path: Path, failures: list[tuple[ImageRecord, str]]) -> None:
    if not failures:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path, "w") as file:
        for record, reason in sorted(failures, key=lambda failure: failure[0].image_id):
            file.write("\t".join(" ".join(text.split()) for text in (str(record.image_id), record.url, reason)) + "\n")
