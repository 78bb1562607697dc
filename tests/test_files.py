"""Text is read in one place: with its byte-order mark, never from a pipe, and every error names the file."""

import errno
import json
import os
from pathlib import Path

import pytest

from clipseg.data.json_entries import iterate_entries
from clipseg.errors import ClipSegError
from clipseg.exit_status import guarded
from clipseg.files import locked, read_json, read_text, write_json
from clipseg.run.checkpoint import newest_whole, read_checkpoint
from clipseg.run.log import recorded_steps


@pytest.mark.parametrize("read", [read_text, read_json, lambda path: list(iterate_entries(path)), read_checkpoint])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ClipSegError, match=r"pipe: (cannot be read \(a folder, a pipe|no regular file)"):
        read(tmp_path / "pipe")


def test_a_run_folder_with_pipes_is_not_waited_for(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    os.mkfifo(tmp_path / "checkpoints" / "last.pt")
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.warns(UserWarning, match="no regular file"), pytest.raises(ClipSegError, match="every checkpoint is damaged"):
        newest_whole(tmp_path)
    assert recorded_steps(tmp_path) == 0


def test_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "list.json"
    path.write_text("\ufeff" + json.dumps([{"a": "\ufeffé"}]), encoding="utf-8")
    assert read_json(path) == list(iterate_entries(path)) == [{"a": "\ufeffé"}]


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG])
def test_what_cannot_be_read_is_one_line_without_talk_of_space(tmp_path, monkeypatch, code):
    def fail(*arguments, **options):
        raise OSError(code, os.strerror(code))

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(Path, "read_text", fail)
    with pytest.raises(ClipSegError) as raised:
        read_text(tmp_path / "file")
    assert str(raised.value) == f"{tmp_path / 'file'}: cannot be read ({os.strerror(code)})"


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "free the space or choose another folder"),
        (errno.ENOTCONN, "choose another path"),
        (errno.EMFILE, "raise the limit of open files (ulimit -n)"),
    ],
)
def test_what_cannot_be_written_is_one_line_with_the_remedy_that_fits(tmp_path, monkeypatch, capsys, code, remedy):
    def fail(*arguments, **options):
        raise OSError(code, os.strerror(code), "folder")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ClipSegError) as raised:
        write_json(tmp_path / "file", {})
    assert str(raised.value) == f"{tmp_path / 'file'}: cannot be written ({os.strerror(code)}); {remedy}"
    assert not list(tmp_path.iterdir())
    assert guarded(fail) == 2
    assert capsys.readouterr().err == f"error: folder: {os.strerror(code)}; {remedy}\n"


def test_a_folder_that_was_held_for_nothing_is_removed_again(tmp_path):
    (tmp_path / "there").mkdir()
    for folder in ("there", "there/made", "there/a/b"):
        with locked(tmp_path / folder):
            assert (tmp_path / folder).is_dir()
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "there"]
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "result").touch()
    assert (tmp_path / "a" / "b" / "result").is_file()
