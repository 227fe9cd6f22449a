"""A study that is resumed as another one: with another space, other data or other weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from kdsearch.api.resumed_space import source_of
from kdsearch.config.space.search_space import load_space
from kdsearch.data.registry import open_reader
from kdsearch.data.store.file_digests import content_of
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.study_record import StudyRecord, named_weights
from tests.data.layouts import write_folder
from tests.wrong_inputs.case import Case

SPACE = """
name: toy
data: {name: folder, path: set, size: [32, 32]}
student: {arch: fpn, encoder: tu-mobilenetv3_small_050, encoder_weights: encoder.pt}
train: {lr: {log: [1.0e-4, 1.0e-2]}, epochs: 2}
search: {trials: 4, rungs: [1]}
"""
CHANGED = r"the data set folder is not the one .*of 12 files 2 changed \(labels/val/.*--warm-start"


def begun(folder: Path) -> RunFolder:
    """A study `x` of `toy.yaml` on the data set `set`, as its driver leaves it before the first trial."""
    write_folder(folder / "set")
    weights(folder, 0.5)
    (folder / "toy.yaml").write_text(SPACE)
    run, space = RunFolder(folder / "runs" / "x"), load_space(folder / "toy.yaml")
    run.create()
    run.space.write_text(space.record())
    run.journal.write_text("")
    run.log.write_text("")
    content = content_of(open_reader(space.default().trial.data))
    run.content.write_text(content.to_json())
    source = source_of(str(folder / "toy.yaml"))
    StudyRecord(content.fingerprint, named_weights(space), given=space.complete(), source=source).save(run)
    return run


def weights(folder: Path, value: float) -> None:
    """Weights of the student's encoder that are all `value`."""
    from segmentation_models_pytorch.encoders import get_encoder

    state = get_encoder("tu-mobilenetv3_small_050", weights=None).state_dict()
    torch.save({name: torch.full_like(each, value) for name, each in state.items()}, folder / "encoder.pt")


def after(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        begun(folder)
        change(folder)

    return prepare


def swap(folder: Path, data: str = "set") -> None:
    one, other = sorted((folder / data / "labels" / "val").iterdir())[:2]
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def copy_and_swap(folder: Path) -> None:
    shutil.copytree(folder / "set", folder / "copy")
    swap(folder, "copy")


def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new))


def damage(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        swap(folder)
        (folder / "runs" / "x" / name).write_text("[1")

    return change


RESUME = "run toy.yaml --resume --name x"
OTHER = r"searches the space toy, not afdcd: give toy, or another --name"
CASES = [
    Case("resume-another-shipped-space", "run afdcd --resume --name x", OTHER, begun),
    Case("resume-another-space-extended", "run afdcd --resume --name x --extend toy.yaml", OTHER, begun),
    Case("resume-an-unknown-space", "run nothing --resume --name x", "not nothing: give toy", begun),
    Case("resume-an-edited-space", RESUME, r"toy.yaml has changed .*\(search.trials\).*--extend toy.yaml",
         after(edit("toy.yaml", "trials: 4", "trials: 9"))),
    Case("resume-after-labels-changed", RESUME, CHANGED, after(swap)),
    Case("resume-after-an-image-was-lost", RESUME, r"1 changed \(images/train/.*bring the files back",
         after(lambda f: sorted((f / "set/images/train").iterdir())[0].write_bytes(b""))),
    Case("resume-after-samples-were-added", RESUME, r"of 12 files 2 new \(images/val/zz",
         after(lambda f: [shutil.copy(next((f / "set" / kind / "val").iterdir()), f / "set" / kind / "val" / "zz_1.png")
                          for kind in ("images", "labels")])),
    Case("resume-after-classes-changed", RESUME, r"read in another way \(classes\)",
         after(edit("set/classes.yaml", "road", "street"))),
    Case("resume-after-the-data-moved", RESUME, "does not exist; give --data folder=FOLDER",
         after(lambda f: (f / "set").rename(f / "moved"))),
    Case("resume-at-a-place-with-other-content", f"{RESUME} --data folder=copy", CHANGED, after(copy_and_swap)),
    Case("resume-at-a-place-that-is-not-there", f"{RESUME} --data folder=nowhere", "nowhere does not exist",
         begun),
    Case("resume-with-another-reader", f"{RESUME} --data mfnet=set", r"data.name.* cannot .*--warm-start", begun),
    Case("resume-with-a-place-without-a-name", f"{RESUME} --data set", "expected NAME=PATH", begun),
    Case("resume-with-a-profile", f"{RESUME} --profile demo", "leave --profile out", begun),
    Case("resume-with-other-weights", RESUME, r"encoder.pt holds other weights .*--warm-start",
         after(lambda folder: weights(folder, 0.25))),
    Case("resume-a-damaged-record", RESUME, r"study.json is no record .*bring it back", after(damage("study.json"))),
    Case("resume-a-damaged-content", RESUME, r"content.json cannot be read .*bring it back",
         after(damage("content.json"))),
]  # fmt: skip
