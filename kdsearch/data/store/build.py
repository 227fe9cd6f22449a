"""Writer of stores: an incomplete store is never visible, and an interrupted build is continued.

Everything is written into a hidden sibling folder, which is renamed once all of it is on disk. `arrow_file.py` writes a
split's file, `temporary.py` manages the folder and the list of finished rows.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from kdsearch.data import set_facts
from kdsearch.data.images import resize_flow, resize_image, resize_label
from kdsearch.data.reader import SPLITS, Reader, reader_notes
from kdsearch.data.set_facts import SampleFacts, SplitFacts, sample_facts
from kdsearch.data.store.arrow_file import SCHEMA_VERSION, Layout, StoreFile, column_layout, sample_bytes
from kdsearch.data.store.content import CONTENT, Content
from kdsearch.data.store.file_digests import FileDigests
from kdsearch.data.store.temporary import PLAN, ROWS, Progress, RowFacts, read_plan, temporary_folder, write_plan
from kdsearch.errors import UserError
from kdsearch.io.atomic import sync_path
from kdsearch.io.disk import DiskError, writing

LISTED = 10
"""Bad files that an error message lists."""


class BadSamplesError(UserError):
    """Samples of the data set cannot be used."""


def write_store(
    root: Path,
    name: str,
    digests: FileDigests,
    size: tuple[int, int],
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> Path:
    """Read every sample, resize it and write the store `root/NAME-FINGERPRINT`, which is returned.

    In the same pass the bytes of the files are digested into the fingerprint of the content. A store of equal content
    that is there already, or that another process completes first, stays. Continues an interrupted build of the same
    files at the same size. `UserError` names the bad files, or the file that could not be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {root} ({error.strerror}); give another --storage") from None
    reader, keys = digests.reader, digests.keys
    rules = hashlib.sha256(json.dumps([keys, reader.rules()]).encode()).hexdigest()
    facts = {"schema_version": SCHEMA_VERSION, "info": dataclasses.asdict(reader.info), "size": size}
    plan = json.loads(json.dumps({**facts, "rules": rules, "files": digests.stamp, "pillow": PIL.__version__}))
    with temporary_folder(root, name, plan) as temporary:
        build = _Build(temporary, digests, size, plan)
        try:
            splits = build.fill_all(progress, threads)
        finally:
            build.close()
        content = digests.content()
        folder = root / store_name(name, content)
        with writing(temporary / "meta.json"):
            (temporary / CONTENT).write_text(content.to_json(), encoding="utf-8")
            length = (temporary / CONTENT).stat().st_size
            found = {"fingerprint": content.fingerprint, "content_bytes": length}
            meta = {**facts, **found, "splits": splits, "notes": build.notes()}
            (temporary / "meta.json").write_text(json.dumps(meta, indent=1))
            for path in (temporary / CONTENT, temporary / "meta.json", temporary):
                sync_path(path)
        try:
            temporary.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            for file in (PLAN, ROWS):
                (folder / file).unlink()
        sync_path(root)
        with writing(root):
            digests.save()
    return folder


def store_name(name: str, content: Content) -> str:
    """The name of the folder of a store; `name` has the data set and its size."""
    return f"{name}-{content.fingerprint[:12]}"


class _Build:
    """The files of a store during its build."""

    def __init__(self, temporary: Path, digests: FileDigests, size: tuple[int, int], plan: dict[str, Any]) -> None:
        self.digests, self.reader, self.size, self.keys = digests, digests.reader, size, digests.keys
        reader, keys = self.reader, self.keys
        layout = column_layout(reader.info, size)
        with ExitStack() as stack:
            self.files = _reopened(temporary, keys, layout) if read_plan(temporary) is not None else {}
            if not self.files:
                for path in temporary.iterdir():
                    path.unlink()
                _check_space(temporary.parent, layout, keys)
                for split in SPLITS:
                    self.files[split] = StoreFile.allocate(temporary / f"{split}.arrow", keys[split], layout)
                    stack.callback(self.files[split].close)
                write_plan(temporary, plan)
            counts = {split: len(names) for split, names in keys.items()}
            self.progress = Progress(temporary / ROWS, counts, reader.info.num_classes)
            for split, rows in self.progress.done.items():
                for row, known in rows.items():
                    digests.add(split, keys[split][row], known.digests)
            stack.pop_all()

    def close(self) -> None:
        for file in self.files.values():
            file.close()
        self.progress.close()

    def fill_all(self, progress: Callable[[int, int], None] | None, threads: int | None) -> dict[str, Any]:
        """Fill the unfinished rows; returns the properties of the splits for `meta.json`."""
        total, done = sum(map(len, self.keys.values())), sum(map(len, self.progress.done.values()))
        problems: list[str] = []
        if done and progress is not None:
            progress(done, total)
        # Threads, since PIL decodes and resizes without the interpreter lock and a process takes seconds to start.
        with ThreadPoolExecutor(threads or min(16, os.cpu_count() or 1)) as pool:
            for split in SPLITS:
                rows = [row for row in range(len(self.keys[split])) if row not in self.progress.done[split]]

                def fill(row: int, split: str = split) -> RowFacts | str:
                    return self._fill(split, row)

                with closing(pool.map(fill, rows)) as results:  # type: ignore[type-var]
                    for row, result in zip(rows, results, strict=True):
                        if isinstance(result, str):
                            problems.append(result)
                        else:
                            self.progress.add(split, row, result, self.files[split])
                        done += 1
                        if progress is not None:
                            progress(done, total)
                self.progress.flush(self.files[split])
        if problems:
            more = f"\n  ... and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
            listed = "".join(f"\n  {problem}" for problem in problems[:LISTED])
            name = self.reader.info.name
            raise BadSamplesError(f"{len(problems)} of {total} samples of '{name}' cannot be used:{listed}{more}")
        if faults := set_facts.faults(self.reader, self._set_facts()):
            raise BadSamplesError(f"data set '{self.reader.info.name}' cannot be trained: {'; '.join(faults)}")
        return {split: self._facts(split) for split in SPLITS}

    def notes(self) -> list[str]:
        """What is odd about the set, and what the reader left out."""
        return [*reader_notes(self.reader), *set_facts.notes(self.reader, self._set_facts())]

    def _set_facts(self) -> dict[str, SplitFacts]:
        splits = {split: SplitFacts.empty(self.reader.info) for split in SPLITS}
        for split, found in splits.items():
            for row, facts in sorted(self.progress.done[split].items()):
                found.add(self.keys[split][row], facts.sample)
        return splits

    def _fill(self, split: str, row: int) -> RowFacts | str:
        """Read a sample into its row; returns its facts, or the error message."""
        key, info = self.keys[split][row], self.reader.info
        try:
            digests = self.digests.of(split, key)  # the decoder then finds the bytes in the system's cache
            values, found = _columns(self.reader, split, key, self.size)
            self.digests.check_unchanged(split, key)
            self.files[split].write(row, values)
        except DiskError:
            raise
        except UserError as error:
            return str(error)
        counts: list[int] = np.bincount(values["label"].ravel(), minlength=256)[: info.num_classes].tolist()
        return RowFacts(counts, found, digests)

    def _facts(self, split: str) -> dict[str, Any]:
        counts = [facts.class_counts for facts in self.progress.done[split].values()]
        return {
            "count": len(self.keys[split]),
            "bytes": self.files[split].path.stat().st_size,
            "class_counts": np.array(counts, np.int64).sum(0).tolist(),
        }


def _reopened(temporary: Path, keys: dict[str, list[str]], layout: Layout) -> dict[str, StoreFile]:
    """The files of an interrupted build, or none if they are incomplete."""
    files: dict[str, StoreFile] = {}
    try:
        for split in SPLITS:
            files[split] = StoreFile(temporary / f"{split}.arrow", keys[split], layout)
    except ValueError:
        for file in files.values():
            file.close()
        return {}
    return files


def _columns(
    reader: Reader, split: str, key: str, size: tuple[int, int]
) -> tuple[dict[str, NDArray[Any]], SampleFacts]:
    """A sample, read, checked and resized, and its content at native size."""
    sample = reader.read(split, key)
    where = f"{reader.info.name} {split} sample '{key}'"
    found = sample_facts(sample, reader.info, where)
    columns: dict[str, NDArray[Any]] = {
        "image": resize_image(sample.image_hwc, size),
        "label": resize_label(sample.label_hw, size),
    }
    if reader.info.video:
        if sample.next_image_hwc is None or sample.flow_hw2 is None:
            raise UserError(f"{where} has no next frame or no flow, though the data set is a video set")
        columns["next_image"] = resize_image(sample.next_image_hwc, size)
        columns["flow"] = resize_flow(sample.flow_hw2, size)
    return columns, found


def _check_space(root: Path, layout: Layout, keys: dict[str, list[str]]) -> None:
    """`UserError` if the disk is too small, before gigabytes of zeros are written."""
    needed, free = sample_bytes(layout) * sum(map(len, keys.values())) + 2**20, shutil.disk_usage(root).free
    if free < needed:
        raise UserError(f"{root} has {free / 1e9:.1f} GB free, the store needs {needed / 1e9:.1f} GB; make room")
