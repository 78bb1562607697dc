"""The downloader against a server that stalls, drips, truncates, refuses and lies; and against a Google Drive that does too."""

import io
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from clipseg.__main__ import main
from clipseg.data.layout import KNOWN_BAD_IMAGES
from clipseg.data.upkeep import download, fetch
from clipseg.data.upkeep.check_phrasecut import PUBLISHED_COUNTS
from clipseg.data.upkeep.download import ANNOTATIONS, download_annotations, download_photos
from clipseg.data.upkeep.fetch import FetchError, PhotoFetcher
from clipseg.errors import ClipSegError

SIZE = (64, 48)
HASTY = PhotoFetcher(attempts=3, silence_seconds=0.5, longest_seconds=0.7, pause_seconds=0.01)


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.effect_noise(SIZE, 50).convert("RGB").save(file, "JPEG")
    return file.getvalue()


PHOTO = jpeg()


class Handler(BaseHTTPRequestHandler):
    """Does what the first part of the path says."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        behaviour, argument = self.path[1:].split("/", 1)
        getattr(self, behaviour)(argument)

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def head(self, status: int = 200, *, kind: str = "image/jpeg", length: int | None = None, **more: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in more.items():
            self.send_header(name, value)
        self.end_headers()

    def ok(self, _: str) -> None:
        self.head(length=len(PHOTO))
        self.wfile.write(PHOTO)

    def status(self, code: str) -> None:
        self.head(int(code.split("/")[0]), kind="text/html")

    def flaky(self, code: str) -> None:
        if self.server.asked[self.path] < 3:
            self.status(code)
        else:
            self.ok("")

    def html(self, _: str) -> None:
        self.head(kind="text/html")
        self.wfile.write(b"<html>Welcome to our casino</html>")

    def empty(self, _: str) -> None:
        self.head(length=0)

    def short(self, _: str) -> None:
        self.head(length=len(PHOTO))
        self.wfile.write(PHOTO[: len(PHOTO) // 2])

    def short_unannounced(self, _: str) -> None:
        self.head()
        self.wfile.write(PHOTO[: len(PHOTO) // 2])

    def stall(self, _: str) -> None:
        self.head(length=len(PHOTO))
        self.wfile.write(PHOTO[:100])
        self.wfile.flush()
        self.server.over.wait(10)

    def mute(self, _: str) -> None:
        self.server.over.wait(10)

    def drip(self, _: str) -> None:
        self.head(length=len(PHOTO))
        for byte in PHOTO:
            self.wfile.write(bytes([byte]))
            if self.server.over.wait(0.05):
                return

    def redirect(self, target: str) -> None:
        self.head(302, Location=target)

    def around(self, _: str) -> None:
        self.head(302, Location=self.path)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Counter[str] = Counter()
        self.over = threading.Event()

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is expected."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path: Path) -> Callable[..., Path]:
    """A factory of roots whose image list has these addresses: id -> url."""

    def make(urls: dict[int, str], **fields: Any) -> Path:
        entries = [{"image_id": i, "width": 64, "height": 48, "split": "miniv", "url": url} | fields for i, url in urls.items()]
        (tmp_path / "image_data_split.json").write_text(json.dumps(entries))
        for name in ("name_att_rel_count.json", "refer_miniv.json"):
            (tmp_path / name).write_text("[]")
        return tmp_path

    return make


def photos(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "images").iterdir()) if (root / "images").exists() else []


def test_a_photo_is_fetched_as_it_is(server: Server) -> None:
    assert HASTY.fetch(server.url("ok/1.jpg"), size=SIZE) == PHOTO
    assert HASTY.fetch(server.url(f"redirect/{server.url('ok/2.jpg')}"), size=None) == PHOTO
    assert HASTY.fetch(server.url("flaky/503"), size=SIZE) == PHOTO
    assert server.asked["/flaky/503"] == 3


@pytest.mark.parametrize(
    ("path", "reason", "attempts"),
    [
        ("status/404", "status 404 Not Found", 1),
        ("status/403", "status 403 Forbidden", 1),
        ("status/500", r"status 500 Internal Server Error \(attempt 3\)", 3),
        ("status/429", "status 429", 3),
        ("html/1.jpg", "not an image, or an empty file .*text/html", 3),
        ("empty/1.jpg", "not an image, or an empty file", 3),
        ("short/1.jpg", r"\d+ bytes read, \d+ more expected", 3),
        ("short_unannounced/1.jpg", "truncated or damaged", 3),
        ("stall/1.jpg", "timed out", 3),
        ("mute/1.jpg", "timed out", 3),
        ("drip/1.jpg", r"not whole after 0\.7 s", 3),
        ("redirect/http://visualgenome.org/1.jpg", "no longer belongs", 1),
        ("around/1.jpg", "30 redirects", 31),
        ("redirect/file:///etc/passwd", "no http", 1),
    ],
)
def test_bad_answers_are_refused_and_only_passing_ones_tried_again(
    server: Server, path: str, reason: str, attempts: int
) -> None:
    start = time.monotonic()
    with pytest.raises(FetchError, match=reason) as caught:
        HASTY.fetch(server.url(path), size=SIZE)
    assert server.asked[f"/{path}"] == attempts
    assert caught.value.may_pass == (attempts == 3)
    assert time.monotonic() - start < 10
    assert "\n" not in str(caught.value)


def test_another_photo_and_a_huge_one_are_refused_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FetchError, match="64x48 pixels, annotated as 48x64"):
        HASTY.fetch(server.url("ok/1.jpg"), size=(48, 64))
    monkeypatch.setattr(fetch, "LARGEST_PHOTO_BYTES", 1000)
    with pytest.raises(FetchError, match="over 1,000 bytes"):
        HASTY.fetch(server.url("ok/1.jpg"), size=None)
    assert server.asked["/ok/1.jpg"] == 2


def test_a_server_that_is_gone_may_come_back(server: Server) -> None:
    url = server.url("ok/1.jpg")
    server.server_close()
    with pytest.raises(FetchError, match="refused") as caught:
        HASTY.fetch(url, size=SIZE)
    assert caught.value.may_pass


def test_without_requests_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(ClipSegError, match=r"pip install 'clipseg\[download\]'"):
        PhotoFetcher()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "no http"),
        ("/etc/passwd", "no http"),
        ("file:///etc/passwd", "no http"),
        ("ftp://127.0.0.1/1.jpg", "no http"),
        ("http://", "no http"),
        ("http://[::1/1.jpg", "no http"),
        ("http://127.0.0.1/1.jpg\r\nX: 1", "no http"),
        ("https://visualgenome.org/1.jpg", "homes.cs.washington.edu"),
        ("http://WWW.VisualGenome.org/1.jpg", "homes.cs.washington.edu"),
    ],
)
def test_addresses_that_are_never_asked(url: str, reason: str) -> None:
    with pytest.raises(FetchError, match=reason) as caught:
        PhotoFetcher().fetch(url, size=None)
    assert not caught.value.may_pass


def test_a_stopped_fetcher_does_not_try_again(server: Server) -> None:
    patient = PhotoFetcher(pause_seconds=60)
    threading.Timer(0.1, patient.stop).start()
    with pytest.raises(FetchError, match=r"status 500 .*\(attempt 2\)"):
        patient.fetch(server.url("status/500"), size=SIZE)


def test_what_can_be_had_is_had_and_the_rest_is_listed(server: Server, root: Callable[..., Path]) -> None:
    paths = {1: "ok/1", 2: "html/2", 3: "flaky/500/3", 4: "short/4", 5: "status/404/5", 6: "stall/6", 7: "ok/7"}
    folder = root({image_id: server.url(path) for image_id, path in paths.items()} | {8: "http://visualgenome.org/8.jpg"})
    summary = download_photos(folder, "miniv", threads=4, fetcher=HASTY)
    assert photos(folder) == ["1.jpg", "3.jpg", "7.jpg"]
    assert all((folder / "images" / name).read_bytes() == PHOTO for name in photos(folder))
    assert not summary.ok
    lines = (folder / "download_failures.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["2", "4", "5", "6", "8"]
    assert lines[2].split("\t")[1] == server.url("status/404/5")
    assert "status 404" in lines[2].split("\t")[2]
    assert summary.line(folder).startswith(f"{folder}: 8 photos: 3 fetched, 5 failed")
    assert summary.line(folder).endswith("0 there before")


def test_a_second_run_fetches_only_what_is_missing(server: Server, root: Callable[..., Path]) -> None:
    folder = root({1: server.url("ok/1"), 2: server.url("status/404"), 3: server.url("ok/3")})
    (folder / "VG_100K").mkdir()
    (folder / "VG_100K" / "3.jpg").write_bytes(PHOTO)
    assert not download_photos(folder, "miniv", fetcher=HASTY).ok
    folder = root({1: server.url("ok/1"), 2: server.url("ok/2"), 3: server.url("ok/3")})
    summary = download_photos(folder, "miniv", fetcher=HASTY)
    assert summary.ok
    assert summary.line(folder).endswith("3 photos: 1 fetched, 2 there before")
    assert (server.asked["/ok/1"], server.asked["/ok/3"]) == (1, 0)
    assert not (folder / "download_failures.txt").exists()
    assert photos(folder) == ["1.jpg", "2.jpg"]


def test_only_the_photos_of_the_splits_are_fetched(server: Server, root: Callable[..., Path]) -> None:
    folder = root({1: server.url("ok/1")}, split="val")
    assert download_photos(folder, "train_miniv", fetcher=HASTY).wanted == 0
    assert download_photos(folder, "val_miniv", fetcher=HASTY).fetched == 1
    with pytest.raises(ClipSegError, match="split 'tets' unknown; expected one of train, val, test, miniv"):
        download_photos(folder, "tets")


def test_the_images_of_known_wrong_size_are_taken(server: Server, root: Callable[..., Path]) -> None:
    known = min(KNOWN_BAD_IMAGES)
    folder = root({known: server.url("ok/1"), 2: server.url("ok/2")}, width=999)
    summary = download_photos(folder, "miniv", fetcher=HASTY)
    assert photos(folder) == [f"{known}.jpg"]
    assert [record.image_id for record, _ in summary.failures] == [2]


def test_it_gives_up_where_nothing_answers(server: Server, root: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "HOPELESS_AFTER", 5)
    folder = root({image_id: server.url("status/500") for image_id in range(200)})
    summary = download_photos(folder, "miniv", threads=2, fetcher=HASTY)
    assert summary.gave_up
    assert not summary.ok
    assert "given up after 5 failures in a row" in summary.line(folder)
    assert server.asked["/status/500"] < 300
    folder = root({image_id: server.url("status/404") for image_id in range(20)})
    assert not download_photos(folder, "miniv", fetcher=HASTY).gave_up  # dead photos, not a dead network


def test_an_error_of_the_disk_ends_the_download(
    server: Server, root: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise ClipSegError("images: cannot be written (No space left on device)")

    monkeypatch.setattr(download, "atomic_write", full)
    folder = root({image_id: server.url(f"ok/{image_id}") for image_id in range(300)})
    with pytest.raises(ClipSegError, match="No space left"):
        download_photos(folder, "miniv", threads=2, fetcher=HASTY)
    assert sum(server.asked.values()) < 200


def test_the_command(
    server: Server, root: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(download, "PhotoFetcher", partial(PhotoFetcher, attempts=1))
    folder = root({1: server.url("ok/1"), 2: server.url("html/2")})
    command = ["data", "download", "phrasecut", str(folder), "--split", "miniv"]
    assert main(command) == 1
    assert "2 photos: 1 fetched, 1 failed (see" in capsys.readouterr().out
    folder = root({1: server.url("ok/1")})
    assert main([*command, "--threads", "1"]) == 0
    assert capsys.readouterr().out.endswith("1 photos: 0 fetched, 1 there before\n")
    assert main([*command[:-1], "tets"]) == 2
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--threads", "0"])


class Drive:
    """A stand-in for gdown: gives what `content` says for each file id."""

    def __init__(self, content: bytes | Exception | None = None) -> None:
        self.content = content
        self.asked: list[str] = []

    def download(self, *, id: str, output: Any, timeout: float, log_messages: dict[str, str]) -> Any:
        assert timeout > 0
        assert "MB" in log_messages["start"]
        name = next(name for name, source in ANNOTATIONS.items() if source.drive_id == id)
        self.asked.append(name)
        if isinstance(self.content, Exception):
            raise self.content
        # Padded to the published size, which is checked.
        size = int(ANNOTATIONS[name].megabytes * 1e6)
        output.write(b"[" + b" " * (size - 2) + b"]" if self.content is None else self.content)
        return output


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Drive:
    drive = Drive()
    monkeypatch.setitem(sys.modules, "gdown", SimpleNamespace(download=drive.download))
    return drive


def test_annotations_come_from_the_drive_once(drive: Drive, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    names = ["image_data_split.json", "name_att_rel_count.json", "refer_miniv.json"]
    assert download_annotations(tmp_path / "new", "miniv") == names
    assert drive.asked == names
    assert download_annotations(tmp_path / "new", "miniv") == []
    assert drive.asked == names
    assert json.loads((tmp_path / "new" / "refer_miniv.json").read_text()) == []
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names
    assert not recwarn
    assert {f"refer_{split}.json" for split in PUBLISHED_COUNTS} < ANNOTATIONS.keys()
    assert len({source.drive_id for source in ANNOTATIONS.values()}) == len(ANNOTATIONS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "not the JSON file"),
        (b'[{"image_id": 1', "not the JSON file"),
        (b"", "not the JSON file"),
        (RuntimeError("Too many users have viewed\nor downloaded this file recently"), "Too many users have viewed or"),
    ],
)
def test_what_is_no_annotation_file_is_not_kept(drive: Drive, tmp_path: Path, content: bytes | Exception, reason: str) -> None:
    (tmp_path / "name_att_rel_count.json").write_text("{}")
    drive.content = content
    for name in ("image_data_split.json", "refer_miniv.json"):
        with pytest.raises(ClipSegError, match=rf"{name}: .*{reason}.*browser from https://drive\.google\.com/uc\?id="):
            download_annotations(tmp_path, "miniv")
        assert not (tmp_path / name).exists()
        assert len(list(tmp_path.iterdir())) == (1 if name.startswith("image") else 2)
        (tmp_path / "image_data_split.json").write_text("[]")


def test_a_file_of_another_size_is_kept_with_a_warning(drive: Drive, tmp_path: Path) -> None:
    for name in ("image_data_split.json", "name_att_rel_count.json"):
        (tmp_path / name).write_text("[]")
    drive.content = b"[]"
    with pytest.warns(UserWarning, match=r"refer_val\.json: 0\.0 MB, published as 44\.1 MB; compare"):
        assert "refer_val.json" in download_annotations(tmp_path, "val")


def test_without_gdown_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    assert main(["data", "download", "phrasecut", str(tmp_path / "new"), "--split", "miniv"]) == 2
    error = capsys.readouterr().err
    assert "pip install 'clipseg[download]'" in error
    assert "https://drive.google.com/uc?id=" in error
    assert error.count("\n") == 1
    with pytest.raises(ClipSegError, match="split 'tets' unknown"):
        download_annotations(tmp_path, "tets")
