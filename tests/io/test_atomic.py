"""Atomic writes: complete or not there, by any number of writers."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kdsearch.io import atomic
from kdsearch.io.atomic import (
    partial_path,
    write_atomically,
    write_folder_atomically,
    write_folder_once,
    write_text,
)


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


def fill(text: str) -> Callable[[Path], None]:
    def write(partial: Path) -> None:
        (partial / "deep").mkdir()
        (partial / "deep" / "file").write_text(text)

    return write


def test_readers_of_a_folder_that_is_replaced_always_find_it(tmp_path: Path) -> None:
    folder, failed, read, done = tmp_path / "student", [], [], threading.Event()
    write_folder_atomically(folder, fill("0"))

    def reader() -> None:
        while not done.is_set():
            try:
                read.append((folder / "deep" / "file").read_text())
            except OSError as error:
                failed.append(error)

    thread = threading.Thread(target=reader)
    thread.start()
    for number in range(300):
        write_folder_atomically(folder, fill(str(number)))
    done.set()
    thread.join()
    assert (failed, folder.joinpath("deep", "file").read_text()) == ([], "299")
    assert len(set(read)) > 1
    assert list(tmp_path.iterdir()) == [folder]


def test_where_folders_cannot_be_exchanged_they_are_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic.ctypes, "CDLL", lambda *a, **k: object())  # NFS, and systems without such a call
    for text in "123":
        write_folder_atomically(tmp_path / "student", fill(text))
    assert (tmp_path / "student" / "deep" / "file").read_text() == "3"
    assert list(tmp_path.iterdir()) == [tmp_path / "student"]


def test_what_is_written_once_is_never_replaced(tmp_path: Path) -> None:
    folder, both = tmp_path / "teacher", threading.Barrier(4)
    seen: list[int] = []

    def write(text: str) -> None:
        def at_once(partial: Path) -> None:
            fill(text)(partial)
            both.wait(10)

        write_folder_once(folder, at_once)
        seen.append(folder.stat().st_ino)

    threads = [threading.Thread(target=write, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 4
    assert len(set(seen)) == 1
    assert list(tmp_path.iterdir()) == [folder]


def test_everything_is_on_disk_before_a_folder_appears_and_its_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sync, rename = atomic.sync_path, os.rename
    monkeypatch.setattr(atomic, "sync_path", lambda path: (order.append(path.name), sync(path)))
    monkeypatch.setattr(os, "rename", lambda *a: (order.append("rename"), rename(*a)))
    write_folder_atomically(tmp_path / "student", fill("1"))
    at = order.index("rename")
    assert {"deep", "file"} <= set(order[:at])
    assert order[at + 1 :] == [tmp_path.name]


def test_temporary_names_have_process_host_and_chance(tmp_path: Path) -> None:
    name = partial_path(tmp_path / "t0007").name
    host = "".join(c if c.isalnum() or c == "_" else "_" for c in socket.gethostname())[:32]
    assert f".{os.getpid()}-{host}-" in name
