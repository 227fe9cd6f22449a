"""Locks between processes, as far as one process can show them: each open of a file locks for itself."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from kdsearch.io.locks import acquire, hold, is_held, locked, take


def test_a_held_lock_is_seen_and_released(tmp_path: Path) -> None:
    path = tmp_path / "study.lock"
    assert not is_held(path)
    handle = hold(path)
    assert is_held(path)
    os.close(handle)
    assert not is_held(path)


def test_locked_waits_for_the_holder(tmp_path: Path) -> None:
    path, order = tmp_path / "lock", []

    def second() -> None:
        with locked(path, lambda: order.append("waits")):
            order.append("second")

    with locked(path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["waits", "first", "second"]


def test_folders_can_be_locked(tmp_path: Path) -> None:
    one, other = (os.open(tmp_path, os.O_RDONLY) for _ in range(2))
    assert acquire(one)
    assert not acquire(other)
    os.close(one)
    assert acquire(other)
    os.close(other)


def test_a_lock_is_taken_once(tmp_path: Path) -> None:
    handle = take(tmp_path / "lock")
    assert handle is not None
    assert take(tmp_path / "lock") is None
    os.close(handle)
    again = take(tmp_path / "lock")
    assert again is not None
    os.close(again)
