"""The teacher cache as trials read it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kdsearch.config.trial import TrialConfig
from kdsearch.data.loader import Batch
from kdsearch.data.store.store import Store, build_store
from kdsearch.data.views import warp_maps
from kdsearch.errors import UserError
from kdsearch.models.seg_output import SegOutput
from kdsearch.train.resources import Resources
from kdsearch.train.teacher_cache.plan import CachePlan, plan_cache
from kdsearch.train.teacher_cache.reader import TeacherCache
from kdsearch.train.trial import Trial
from tests.train.teacher_cache.cases import HALF, STILL, cache_resources, cached, live, whole_maps
from tests.train.test_trial import assert_same


@pytest.mark.parametrize("frames", ["video", "views"])
def test_without_augmentation_cached_maps_are_the_live_ones(
    frames: str, store: Store, teacher_weights: Path, tmp_path: Path
) -> None:
    motion = {"augment": STILL["augment"] | {"motion": 1e-6}}
    trial = cached(frames, data=motion)
    shared = cache_resources(trial, store, teacher_weights, tmp_path)
    one, other = Trial(trial, shared), Trial(live(trial), shared)
    assert one.teacher is None
    assert other.cached is None
    for batch in one.train_batches.train(0):
        read, expected = one.teacher_output(batch), other.teacher_output(batch)
        assert read is not None
        assert expected is not None
        assert read.taps.keys() == {"head"}
        for a, b in ((read.logits, expected.logits), (read.taps["head"], expected.taps["head"])):
            assert a.shape == b.shape
            # Rounding to fp16, and positions that are off by a rounding of fp32.
            torch.testing.assert_close(a, b, rtol=HALF, atol=2e-3 * float(b.abs().max()))
            torch.testing.assert_close(a[:4], b[:4], rtol=2 * HALF, atol=1e-4 * float(b.abs().max()))


def test_a_view_of_cached_maps_is_the_view_of_live_ones(store: Store, teacher_weights: Path, tmp_path: Path) -> None:
    trial = cached("views", data={"crop": [32, 32]})
    shared = cache_resources(trial, store, teacher_weights, tmp_path)
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
                views = [
                    warp_maps(full, theta, got.shape[-2:], store.size, (32, 32))
                    for theta in (batch.theta_b23, batch.next_theta_b23)
                ]
                torch.testing.assert_close(got, torch.cat(views), rtol=2 * HALF, atol=HALF * float(full.abs().max()))
    assert 0 < flipped < 24


def test_next_frames_of_a_video_have_maps_of_their_own(store: Store, teacher_weights: Path, tmp_path: Path) -> None:
    trial = cached("video")
    shared = cache_resources(trial, store, teacher_weights, tmp_path)
    assert shared.cache_plan is not None
    assert shared.cache_plan.next_frames
    kept = Trial(trial, shared).cached
    assert kept is not None
    split = store.split("train")
    assert split.next_images is not None
    row = np.array([3])
    expected = whole_maps(shared, trial, row + len(split))["logits"]
    torch.testing.assert_close(kept.cache.whole("logits", row + len(split)), expected, rtol=HALF, atol=1e-5)
    assert not torch.allclose(kept.cache.whole("logits", row), expected, rtol=HALF, atol=1e-5)


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
    Trial(wide, cache_resources(wide, store, teacher_weights, tmp_path))
    narrow = cached(distill={"kd": {}})
    assert Trial(narrow, cache_resources(narrow, store, teacher_weights, tmp_path)).cached is not None
    assert len(list(tmp_path.iterdir())) == 1


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


def test_a_trial_with_cached_maps_resumes_bit_exactly(store: Store, teacher_weights: Path, tmp_path: Path) -> None:
    trial = cached("views")
    shared = cache_resources(trial, store, teacher_weights, tmp_path / "maps")
    whole = Trial(trial, shared)
    for _ in range(3):
        whole.train_epoch()
    first = Trial(trial, shared)
    first.train_epoch()
    first.save(tmp_path / "state.pt", {})
    # A fresh process opens the cache that the other has written.
    second = Trial(trial, cache_resources(trial, store, teacher_weights, tmp_path / "maps"))
    assert second.cached is not None
    second.load(tmp_path / "state.pt")
    for _ in range(2):
        metrics = second.train_epoch()
    assert_same(whole, second)
    assert metrics["loss/kd"] > 0


def test_micro_batches_read_their_own_maps(store: Store, teacher_weights: Path, tmp_path: Path) -> None:
    trial = Trial(cached("views"), cache_resources(cached("views"), store, teacher_weights, tmp_path))
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


def test_terms_that_read_more_run_the_teacher_live(store: Store, teacher_weights: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    plan = CachePlan(tmp_path, ("logits",))
    shared = Resources(store.path, teacher_weights, cache_plan=plan, log=lines.append)
    assert Trial(cached(distill={"kd": {}}), shared).cached is not None
    trial = Trial(cached("views"), shared)
    assert trial.cached is None
    assert trial.teacher is not None
    assert "head missing, so this trial runs its teacher live" in lines[-1]
    video = Trial(cached("video", distill={"stc_motion": {}}), shared)
    assert video.teacher is not None
    assert "next frames missing" in lines[-1]
    assert video.train_epoch()["loss/total"] > 0


@pytest.mark.parametrize("frames", ["video", "views"])
@pytest.mark.parametrize("mode", ["live", "cached"])
def test_no_term_reads_the_padding_of_a_view(
    mode: str, frames: str, store: Store, teacher_weights: Path, tmp_path: Path
) -> None:
    """What either teacher says beyond the border of the image has no effect on any term."""
    terms = {name: {} for name in ("kd", "cwd", "cwd_feature", "at", "fitnet", "skd_pair", "stc_frames", "stc_motion")}
    trial = cached(frames, distill=terms, data={"augment": {"scale": [0.4, 0.6], "motion": 0.2}})
    trial = live(trial) if mode == "live" else trial
    one = Trial(trial, cache_resources(trial, store, teacher_weights, tmp_path))
    assert (one.cached is None) == (mode == "live")
    one.module.eval()
    for batch in one.train_batches.train(0):
        teacher = one.teacher_output(batch)
        assert teacher is not None
        _, expected, _ = one.module(batch, teacher, 0, 3)
        assert batch.inside_bhw is not None
        assert batch.next_inside_bhw is not None
        shown = SegOutput(teacher.logits, {}, torch.cat([batch.inside_bhw, batch.next_inside_bhw]))

        def changed(map_bchw: torch.Tensor, shown: SegOutput = shown) -> torch.Tensor:
            inside_bhw = shown.inside_at(map_bchw.shape[-2:])
            assert inside_bhw is not None
            assert (~inside_bhw).float().mean() > 0.3
            return torch.where(inside_bhw[:, None], map_bchw, 100 * map_bchw + 7)

        taps = {name: changed(tap) for name, tap in teacher.taps.items()}
        _, other, _ = one.module(batch, SegOutput(changed(teacher.logits), taps), 0, 3)
        assert other.keys() == terms.keys()
        for name, value in other.items():
            torch.testing.assert_close(value, expected[name], msg=name)
