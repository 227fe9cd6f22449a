"""Atomic writes: complete or not there, by any number of writers."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from kdsearch.io.atomic import partial_path, write_atomically, write_folder_atomically, write_text


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise RuntimeError("disk")

    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_temporary_names_are_unique_and_begin_with_the_name_of_the_target(tmp_path: Path) -> None:
    names = {partial_path(tmp_path / "t0007").name for _ in range(100)}
    assert len(names) == 100
    assert all(name.lstrip(".").split(".")[0] == "t0007" and name.endswith(".partial") for name in names)


def test_writers_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Each has its own temporary file, in one process too; the last one wins."""
    path, both = tmp_path / "file", threading.Barrier(2)

    def write(text: str) -> None:
        def fill(partial: Path) -> None:
            partial.write_text(text)
            both.wait(10)

        write_atomically(path, fill)

    threads = [threading.Thread(target=write, args=(text,)) for text in ("a" * 1000, "b" * 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in ("a" * 1000, "b" * 1000)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    folder = tmp_path / "student"
    write_folder_atomically(folder, lambda partial: (partial / "old").write_text("1") and None)
    write_folder_atomically(folder, lambda partial: (partial / "new").write_text("2") and None)
    assert [file.name for file in folder.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [folder]
