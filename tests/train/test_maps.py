"""Cached maps of the teacher: what they show, how they are written, and a trial that reads them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kdsearch.config.trial import TrialConfig
from kdsearch.data.loader import Batch
from kdsearch.data.store.store import Store, build_store
from kdsearch.data.views import identity_views, warp_maps
from kdsearch.errors import UserError
from kdsearch.models.output import SegOutput
from kdsearch.train.resources import Resources
from kdsearch.train.teacher_cache import reader as maps
from kdsearch.train.teacher_cache.codec import MapCodec, MapError
from kdsearch.train.teacher_cache.plan import CachePlan, plan_cache
from kdsearch.train.teacher_cache.reader import TeacherCache
from kdsearch.train.teacher_cache.writer import building_folder, write_cache
from kdsearch.train.trial import Trial
from tests.conftest import TEACHER, config
from tests.train.test_trial import assert_same

TERMS: dict[str, Any] = {"kd": {}, "cwd_feature": {"tap": "head"}, "stc_motion": {"weight": 0.1}}
STILL = {"augment": {"scale": [1, 1], "flip": 0.0, "jitter": 0.0}}
HALF = 2**-11


def cached(frames: str = "auto", distill: dict[str, Any] | None = None, data: dict[str, Any] | None = None,
           **teacher: Any) -> TrialConfig:  # fmt: skip
    everything = config().data.model_dump(mode="json") | {"frames": frames} | (data or {})
    return config(
        data=everything, teacher=TEACHER | {"cache": "taps"} | teacher, distill=TERMS if distill is None else distill
    )


def resources(trial: TrialConfig, store: Store, weights: Path, root: Path) -> Resources:
    plan = plan_cache([trial], store, root, weights).plan
    return Resources(store.path, weights, maps_plan=plan)


def live(trial: TrialConfig) -> TrialConfig:
    assert trial.teacher is not None
    return trial.model_copy(update={"teacher": trial.teacher.model_copy(update={"cache": "off"})})


def whole_maps(shared: Resources, trial: TrialConfig, rows: np.ndarray[Any, Any]) -> dict[str, torch.Tensor]:
    output = shared._ask(trial)(rows)
    return output.taps | {"logits": output.logits}


# ---- what is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", ["video", "views"])
def test_without_augmentation_cached_maps_are_the_live_ones(
    frames: str, store: Store, teacher_weights: Path, tmp_path: Path
) -> None:
    motion = {"augment": STILL["augment"] | {"motion": 1e-6}}
    trial = cached(frames, data=motion)
    shared = resources(trial, store, teacher_weights, tmp_path)
    one, other = Trial(trial, shared), Trial(live(trial), shared)
    assert one.teacher is None
    assert other.cached is None
    for batch in one.train_batches.train(0):
        read, asked = one.teacher_output(batch), other.teacher_output(batch)
        assert read is not None
        assert asked is not None
        assert read.taps.keys() == {"head"}
        for a, b in ((read.logits, asked.logits), (read.taps["head"], asked.taps["head"])):
            assert a.shape == b.shape
            # Rounding to fp16, and positions that are off by a rounding of fp32.
            torch.testing.assert_close(a, b, rtol=HALF, atol=2e-3 * float(b.abs().max()))
            torch.testing.assert_close(a[:4], b[:4], rtol=2 * HALF, atol=1e-4 * float(b.abs().max()))


def test_a_view_of_cached_maps_is_the_view_of_live_ones(store: Store, teacher_weights: Path, tmp_path: Path) -> None:
    trial = cached("views", data={"crop": [32, 32]})
    shared = resources(trial, store, teacher_weights, tmp_path)
    teacher = Trial(trial, shared)
    flipped = 0
    for epoch in range(2):
        for batch in teacher.train_batches.train(epoch):
            read = teacher.teacher_output(batch)
            assert read is not None
            assert batch.next_theta_b23 is not None
            expected = whole_maps(shared, trial, batch.index.numpy())
            flipped += int((batch.theta_b23[:, 0, 0] < 0).sum())
            for name, got in (("logits", read.logits), ("head", read.taps["head"])):
                full = expected[name]
                views = [warp_maps(full, theta, got.shape[-2:]) for theta in (batch.theta_b23, batch.next_theta_b23)]
                torch.testing.assert_close(got, torch.cat(views), rtol=2 * HALF, atol=HALF * float(full.abs().max()))
    assert 0 < flipped < 24


def test_a_flipped_view_shows_flipped_maps() -> None:
    whole = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    theta = identity_views(2).clone()
    theta[:, 0, 0] = -1
    torch.testing.assert_close(warp_maps(whole, theta, (4, 6)), whole.flip(3), atol=1e-5, rtol=1e-5)


def test_valid_pixels_do_not_see_what_lies_outside() -> None:
    """A constant map stays constant up to the border of the image, and so do distributions that are kept as logs."""
    theta = identity_views(1) * 1.7
    torch.testing.assert_close(
        warp_maps(torch.full((1, 2, 4, 6), -3.0), theta, (8, 8)), torch.full((1, 2, 8, 8), -3.0), rtol=1e-6, atol=0
    )


def test_next_frames_of_a_video_are_cached_as_their_own(store: Store, teacher_weights: Path, tmp_path: Path) -> None:
    trial = cached("video")
    shared = resources(trial, store, teacher_weights, tmp_path)
    assert shared.maps_plan is not None
    assert shared.maps_plan.next_frames
    kept = Trial(trial, shared).cached
    assert kept is not None
    split = store.split("train")
    assert split.next_images is not None
    row = np.array([3])
    expected = whole_maps(shared, trial, row + len(split))["logits"]
    torch.testing.assert_close(kept.maps.whole("logits", row + len(split)), expected, rtol=HALF, atol=1e-5)
    assert not torch.allclose(kept.maps.whole("logits", row), expected, rtol=HALF, atol=1e-5)


# ---- forms -----------------------------------------------------------------------------------------------------------


def test_forms_lose_what_they_state() -> None:
    logits = torch.randn(4, 20, 5, 7, generator=torch.Generator().manual_seed(1)) * 4
    for form in (
        MapCodec((20, 5, 7), "fp16"), MapCodec((20, 5, 7), "uint8"), MapCodec((20, 5, 7), "top_k", 5),
    ):  # fmt: skip
        columns = form.encode(logits)
        assert {name: tuple(value.shape[1:]) for name, value in columns.items()} == {
            name: shape for name, (_, shape) in form.columns.items()
        }
        assert sum(value[0].nbytes for value in columns.values()) == form.nbytes
        kept = form.decode(columns)
        error = MapError()
        for half in (slice(2), slice(2, 4)):
            error.add(logits[half], kept[half], logits=True)
        stated = error.stated()
        difference = (logits - kept).double()
        assert stated["max_error"] == pytest.approx(float(difference.abs().max()))
        assert stated["rms_error"] == pytest.approx(float(difference.square().mean().sqrt()))
        if form.kind == "fp16":
            assert stated["max_error"] <= HALF * float(logits.abs().max())
        if form.kind == "uint8":
            step = (logits.amax((2, 3)) - logits.amin((2, 3))) / 255
            assert (difference.abs().amax((2, 3)) <= 0.501 * step).all()
        if form.kind == "top_k":
            assert stated["classes_changed"] < 0.02  # ties of fp16
            prob, prob_kept = logits.softmax(1), kept.softmax(1)
            index = logits.topk(5, 1).indices
            # The others keep their probability as a whole.
            torch.testing.assert_close(prob.gather(1, index), prob_kept.gather(1, index), atol=2e-3, rtol=2e-3)
        assert 0 <= stated["kl"] < (0.2 if form.kind == "top_k" else 1e-2)


def test_constant_and_huge_maps_are_kept() -> None:
    constant = torch.full((1, 2, 3, 3), 1.5)
    form = MapCodec((2, 3, 3), "uint8")
    assert torch.equal(form.decode(form.encode(constant)), constant)
    form = MapCodec((2, 3, 3), "fp16")
    assert form.decode(form.encode(constant * 1e6)).isfinite().all()


@pytest.mark.parametrize("form", [{"cache_format": "uint8"}, {"cache_top_k": 3}])
def test_smaller_forms_are_near_the_live_maps(
    form: dict[str, Any], store: Store, teacher_weights: Path, tmp_path: Path
) -> None:
    trial = cached("views", **form)
    shared = resources(trial, store, teacher_weights, tmp_path)
    kept = Trial(trial, shared).cached
    assert kept is not None
    expected = whole_maps(shared, trial, np.arange(12))["logits"]
    error = (kept.maps.whole("logits", np.arange(12)) - expected).abs().max()
    assert kept.maps.errors["logits"]["max_error"] == pytest.approx(float(error), rel=0.01, abs=1e-5)
    assert kept.maps.forms["head"].kind == form.get("cache_format", "fp16")
    full = sum(MapCodec(each.shape, "fp16").nbytes for each in kept.maps.forms.values())
    assert sum(each.nbytes for each in kept.maps.forms.values()) < full


# ---- the folder ------------------------------------------------------------------------------------------------------


def test_the_key_depends_on_all_that_the_maps_depend_on(store: Store, teacher_weights: Path, tmp_path: Path) -> None:
    def folder(trial: TrialConfig, data: Store = store, weights: Path = teacher_weights) -> Path:
        plan = plan_cache([trial], data, tmp_path, weights).plan
        assert plan is not None
        return plan.spec(trial, data, weights).folder(tmp_path)

    other_weights = tmp_path / "other.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(teacher_weights).items()}, other_weights)
    same_weights = tmp_path / "same.safetensors"
    shutil.copy(teacher_weights, same_weights)
    smaller = {"size": [32, 32], "options": {"train": 12, "val": 5, "height": 32, "width": 64}}
    small_store = build_store(cached(data=smaller).data, tmp_path / "data")
    first = folder(cached())
    assert folder(cached(), weights=same_weights) == first
    assert folder(cached(data=STILL)) == first
    others = [
        folder(cached(), weights=other_weights),
        folder(cached(data=smaller), small_store),
        folder(cached(cache_format="uint8")),
        folder(cached(cache_top_k=2)),
        folder(cached(distill={"kd": {}})),
        folder(cached("views")),
    ]
    assert len({first, *others}) == 7


def test_a_cache_that_holds_more_is_used(store: Store, teacher_weights: Path, tmp_path: Path) -> None:
    wide = cached()
    Trial(wide, resources(wide, store, teacher_weights, tmp_path))
    narrow = cached(distill={"kd": {}})
    assert Trial(narrow, resources(narrow, store, teacher_weights, tmp_path)).cached is not None
    assert len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def built(store: Store, teacher_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(maps, "SHARD_BYTES", 1)
    trial = cached()
    Trial(trial, resources(trial, store, teacher_weights, tmp_path))
    (folder,) = tmp_path.iterdir()
    return folder


def test_a_truncated_file_is_refused_by_name(built: Path, store: Store, teacher_weights: Path) -> None:
    file = built / "maps-00005.arrow"
    with file.open("rb+") as handle:
        handle.truncate(file.stat().st_size - 7)
    with pytest.raises(UserError, match=r"maps-00005.arrow has \d+ bytes instead of \d+; delete the folder"):
        TeacherCache(built)
    with pytest.raises(UserError, match=r"maps-00005.arrow"):
        plan_cache([cached()], store, built.parent, teacher_weights)
    file.unlink()
    with pytest.raises(UserError, match=r"maps-00005.arrow is missing"):
        TeacherCache(built)
    (built / "meta.json").unlink()
    with pytest.raises(UserError, match=r"meta.json is missing"):
        TeacherCache(built)


def test_nothing_but_the_cache_is_left(built: Path) -> None:
    names = {path.name for path in built.iterdir()}
    assert names == {"meta.json", *(f"maps-{shard:05d}.arrow" for shard in range(24))}
    meta = json.loads((built / "meta.json").read_text())
    assert meta["errors"]["logits"].keys() == {"rms_error", "max_error", "relative_error", "kl", "classes_changed"}
    assert meta["errors"]["head"].keys() == {"rms_error", "max_error", "relative_error"}


BUILDER = """
import sys, time
from pathlib import Path
from kdsearch.compat import ensure_torchvision
ensure_torchvision()
import torch
from kdsearch.config.trial import TrialConfig
from kdsearch.train import maps
from kdsearch.train.teacher_cache.writer import build_maps
from kdsearch.train.teacher_cache.plan import plan_maps
from kdsearch.train.resources import Resources
torch.set_num_threads(1)
store, weights, root = map(Path, sys.argv[1:4])
config, wait = TrialConfig.model_validate_json(sys.argv[4]), float(sys.argv[5])
maps.SHARD_BYTES = 1
shared = Resources(store, weights)
plan = plan_maps([config], shared.store, root, weights).plan
spec = plan.spec(config, shared.store, weights)
ask = shared._ask(config)
def slow(rows):
    print("asked", *rows, flush=True)
    time.sleep(wait)
    return ask(rows)
build_maps(spec.folder(root), spec, slow)
"""


def builder(store: Store, weights: Path, root: Path, wait: float) -> subprocess.Popen[str]:
    arguments = [str(store.path), str(weights), str(root), cached().model_dump_json(), str(wait)]
    return subprocess.Popen([sys.executable, "-c", BUILDER, *arguments], stdout=subprocess.PIPE, text=True)


def asked(text: str) -> list[int]:
    return [int(row) for line in text.splitlines() for row in line.split()[1:]]


def assert_same_maps(folder: Path, other: Path) -> None:
    """Two caches differ by no more than roundings of fp16: a network's sums depend on the number of threads."""
    assert {path.name for path in folder.iterdir()} == {path.name for path in other.iterdir()}
    ours, theirs = TeacherCache(folder), TeacherCache(other)
    assert ours.forms == theirs.forms
    assert ours.images == theirs.images
    assert ours.next_frames == theirs.next_frames
    rows = np.arange(ours.images * (2 if ours.next_frames else 1))
    for name, errors in ours.errors.items():
        torch.testing.assert_close(ours.whole(name, rows), theirs.whole(name, rows), rtol=2 * HALF, atol=1e-6)
        assert errors == pytest.approx(theirs.errors[name], rel=0.01, abs=1e-7)


@pytest.mark.slow
def test_a_killed_builder_is_gone_on_with(built: Path, store: Store, teacher_weights: Path, tmp_path: Path) -> None:
    root = tmp_path / "killed"
    process = builder(store, teacher_weights, root, wait=0.1)
    assert process.stdout is not None
    before = [process.stdout.readline() for _ in range(4)]
    os.kill(process.pid, signal.SIGKILL)
    before += [process.communicate()[0]]
    assert process.returncode == -signal.SIGKILL
    folder = root / built.name
    assert not folder.exists()
    finished = {path.name: path.stat().st_mtime_ns for path in building_folder(folder).glob("*.arrow")}
    assert 3 <= len(finished) < 24

    second = builder(store, teacher_weights, root, wait=0)
    after = asked(second.communicate()[0])
    assert second.returncode == 0
    assert sorted(after) == list(range(len(finished), 24))
    assert set(asked("".join(before))) >= set(range(len(finished)))
    assert_same_maps(folder, built)
    assert all((folder / name).stat().st_mtime_ns == modified for name, modified in finished.items())


@pytest.mark.slow
def test_builders_share_the_work(built: Path, store: Store, teacher_weights: Path, tmp_path: Path) -> None:
    root = tmp_path / "shared"
    processes = [builder(store, teacher_weights, root, wait=0.1) for _ in range(2)]
    rows = [asked(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all(rows)
    assert sorted([*rows[0], *rows[1]]) == list(range(24))
    assert [path.name for path in root.iterdir()] == [built.name]
    assert_same_maps(root / built.name, built)


def test_a_builder_waits_for_what_another_has_claimed(built: Path, store: Store, teacher_weights: Path) -> None:
    import fcntl
    import threading

    trial = cached()
    shared = resources(trial, store, teacher_weights, built.parent)
    assert shared.maps_plan is not None
    spec = shared.maps_plan.spec(trial, store, teacher_weights)
    shutil.rmtree(built)
    building_folder(built).mkdir()
    claim = (building_folder(built) / "shard-00002.claim").open("w")
    fcntl.flock(claim, fcntl.LOCK_EX)
    rows: list[int] = []

    def ask(wanted: np.ndarray[Any, Any]) -> SegOutput:
        rows.extend(wanted)
        return shared._ask(trial)(wanted)

    thread = threading.Thread(target=write_cache, args=(built, spec, ask))
    thread.start()
    deadline = time.monotonic() + 30
    while len(rows) < 23 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    assert shared.maps_plan.progress(trial, store, teacher_weights) == (23, 24)
    assert 2 not in rows
    assert not built.exists()
    claim.close()
    thread.join(30)
    assert rows[-1] == 2
    assert shared.maps_plan.progress(trial, store, teacher_weights) is None
    assert shared.maps_plan.progress(trial, store, built / "not trained yet") is None
    assert TeacherCache(built).images == 12


# ---- plans and trials ------------------------------------------------------------------------------------------------


def test_a_trial_with_cached_maps_resumes_bit_exactly(store: Store, teacher_weights: Path, tmp_path: Path) -> None:
    trial = cached("views")
    shared = resources(trial, store, teacher_weights, tmp_path / "maps")
    whole = Trial(trial, shared)
    for _ in range(3):
        whole.train_epoch()
    first = Trial(trial, shared)
    first.train_epoch()
    first.save(tmp_path / "state.pt", {})
    # A fresh process opens what the other has written.
    second = Trial(trial, resources(trial, store, teacher_weights, tmp_path / "maps"))
    assert second.cached is not None
    second.load(tmp_path / "state.pt")
    for _ in range(2):
        metrics = second.train_epoch()
    assert_same(whole, second)
    assert metrics["loss/kd"] > 0


def test_micro_batches_read_their_own_maps(store: Store, teacher_weights: Path, tmp_path: Path) -> None:
    trial = Trial(cached("views"), resources(cached("views"), store, teacher_weights, tmp_path))
    batch = next(iter(trial.train_batches.train(0)))
    together = trial.teacher_output(batch)
    parts = [trial.teacher_output(part) for part in batch.tensor_split(2)]
    assert isinstance(batch, Batch)
    assert together is not None
    now, later = together.split(4)
    for index, part in enumerate(parts):
        assert part is not None
        place = slice(2 * index, 2 * index + 2)
        torch.testing.assert_close(part.logits, torch.cat([now.logits[place], later.logits[place]]))


def test_terms_that_read_more_ask_live_and_say_so(store: Store, teacher_weights: Path, tmp_path: Path) -> None:
    said: list[str] = []
    plan = CachePlan(tmp_path, ("logits",))
    shared = Resources(store.path, teacher_weights, maps_plan=plan, say=said.append)
    assert Trial(cached(distill={"kd": {}}), shared).cached is not None
    trial = Trial(cached("views"), shared)
    assert trial.cached is None
    assert trial.teacher is not None
    assert "has no head, so this trial asks the teacher live" in said[-1]
    video = Trial(cached("video", distill={"stc_motion": {}}), shared)
    assert video.teacher is not None
    assert "has no next frames" in said[-1]
    assert video.train_epoch()["loss/total"] > 0


def test_plans_follow_needs_and_room(
    store: Store, teacher_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [cached("views"), cached("views", distill={"kd": {}})]

    def planned(mode: str) -> Any:
        changed = [
            each.model_copy(update={"teacher": each.teacher.model_copy(update={"cache": mode})})  # type: ignore[union-attr]
            for each in both
        ]
        return plan_cache(changed, store, tmp_path, teacher_weights)

    assert planned("off") == plan_cache([config()], store, tmp_path) != planned("taps")
    assert planned("off").plan is None
    assert planned("taps").plan.maps == planned("auto").plan.maps == ("head", "logits")
    assert planned("logits").plan.maps == ("logits",)
    assert "ask the teacher live" in planned("logits").why
    assert "head, logits of 12 images, fp16" in planned("taps").why
    taps, logits = (planned(mode).plan.nbytes(both[0], store) for mode in ("taps", "logits"))

    def room(free: float) -> None:
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    room(4 * taps)
    assert planned("auto").plan.maps == ("head", "logits")
    room(4 * logits)
    assert planned("auto").plan.maps == ("logits",)
    room(logits)
    assert planned("auto").plan is None
    assert "the teacher is asked live" in planned("auto").why
    with pytest.raises(UserError, match=r"teacher.cache is taps: .* make room, or set teacher.cache to auto"):
        planned("taps")
    with pytest.raises(UserError, match="every trial of this space reads taps"):
        plan_cache([cached("views", cache="logits")], store, tmp_path, teacher_weights)


def test_a_cache_that_is_there_is_kept_whatever_room_is_left(
    store: Store, teacher_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = cached(cache="auto")
    Trial(trial, resources(trial, store, teacher_weights, tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0}))
    assert plan_cache([trial], store, tmp_path, teacher_weights).plan is not None


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"cache": "head"}, "off"),
        ({"cache_format": "uint8", "cache": "off"}, "set cache to auto"),
        ({"cache_top_k": -1}, "greater than or equal to 0"),
        ({"cache_format": "fp32"}, "fp16"),
    ],
)
def test_settings_are_checked(teacher: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cached(**teacher)
