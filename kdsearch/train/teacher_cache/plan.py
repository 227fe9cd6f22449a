"""Plan of the teacher cache: the maps that the terms of a study read, their codecs, and whether they fit the disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsearch.config.trial import TrialConfig
from kdsearch.data.store.store import Store
from kdsearch.distill.base import Requirements
from kdsearch.errors import UserError
from kdsearch.io.digests import weights_digest
from kdsearch.models.cost import tap_shapes
from kdsearch.train.frame_source import frame_source
from kdsearch.train.requirements import requirements_of
from kdsearch.train.teacher_cache.codec import MapCodec
from kdsearch.train.teacher_cache.reader import CacheSpec, TeacherCache
from kdsearch.train.teacher_cache.writer import building_folder, images_written

AUTO_SHARE = 0.25
"""Share of the free disk that `teacher.cache: auto` may use."""


@dataclass(frozen=True)
class CachePlan:
    """The maps, by name, in caches under `root`; with `next_frames` also those of the next frames."""

    root: Path
    maps: tuple[str, ...]
    next_frames: bool = False

    def holds(self, needed: Iterable[str], next_frames: bool) -> bool:
        return set(needed) <= set(self.maps) and self.next_frames >= next_frames

    def spec(self, config: TrialConfig, store: Store, weights: Path) -> CacheSpec:
        """The specification of the cache of this trial's teacher with these weights."""
        return self._spec(config, store, weights_digest(weights))

    def nbytes(self, config: TrialConfig, store: Store) -> int:
        """Bytes on disk; the teacher need not be trained yet."""
        return self._spec(config, store, "").nbytes

    def progress(self, config: TrialConfig, store: Store, weights: Path) -> tuple[int, int] | None:
        """Images written to the cache of this trial's teacher, and their total; None unless it is being written."""
        if not weights.exists():
            return None
        spec = self.spec(config, store, weights)
        folder = spec.folder(self.root)
        if folder.exists() or not building_folder(folder).exists():
            return None
        return images_written(folder, spec), spec.rows

    def _spec(self, config: TrialConfig, store: Store, digest: str) -> CacheSpec:
        assert config.teacher is not None
        network = config.teacher.network()
        shapes = tap_shapes(network, store.info, store.size)
        return CacheSpec(
            network=network,
            weights=digest,
            data=store.fingerprint,
            size=store.size,
            codecs={name: _codec(name, shapes[name], config) for name in self.maps},
            images=len(store.split("train")),
            next_frames=self.next_frames,
        )

    def to_json(self) -> dict[str, Any]:
        return {"root": str(self.root), "maps": list(self.maps), "next_frames": self.next_frames}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> CachePlan:
        return cls(Path(facts["root"]), tuple(facts["maps"]), facts["next_frames"])


@dataclass(frozen=True)
class Planned:
    """A plan, or None where the teacher runs live; `why` explains it in a line, empty where no cache is configured."""

    plan: CachePlan | None
    why: str = ""


def plan_cache(trials: Iterable[TrialConfig], store: Store, root: Path, weights: Path | None = None) -> Planned:
    """The cache for trials that share a teacher (though not its fusion): those that represent a search space.

    `weights` are the teacher's where they exist already: a partly written cache is completed, whatever space is left.
    `UserError` when a configured cache serves no trial or does not fit, and for a damaged one.
    """
    wanted = [config for config in trials if config.teacher is not None and config.distill]
    if not wanted or wanted[0].teacher is None or (mode := wanted[0].teacher.cache) == "off":
        return Planned(None)
    needs = [requirements_of(config, store.info) for config in wanted]
    names = [needed_maps(need) for need in needs]
    video = [need.video and frame_source(config.data, store.info) == "video"
             for config, need in zip(wanted, needs, strict=True)]  # fmt: skip
    whole = CachePlan(root, tuple(sorted({name for each in names for name in each})), any(video))
    of_logits = [later for each, later in zip(names, video, strict=True) if each == ("logits",)]
    logits = CachePlan(root, ("logits",), any(of_logits)) if of_logits else None
    # Teachers that differ only in their fusion have separate caches.
    teachers = list({_teacher_key(config): config for config in wanted}.values())
    if mode == "logits" and logits is None:
        raise UserError(
            "teacher.cache is logits, and every trial of this space reads taps of the teacher too "
            f"({', '.join(name for name in whole.maps if name != 'logits')}): set teacher.cache to taps or auto."
        )
    choices = [logits] if mode == "logits" else [whole] if mode == "taps" else [whole, logits]
    free = _free(root)
    for plan in choices:
        if plan is None:
            continue
        begun = weights is not None and weights.exists() and _is_begun(plan, teachers, store, weights)
        needed = sum(plan.nbytes(config, store) for config in teachers)
        if begun or needed <= (AUTO_SHARE if mode == "auto" else 1) * free:
            return Planned(plan, _description(plan, wanted[0], store, mode, needed, served=_served(plan, names, video)))
        if mode != "auto":
            raise UserError(
                f"teacher.cache is {mode}: the teacher's maps need {needed / 1e9:.1f} GB, {root} has {free / 1e9:.1f} "
                "GB free; make room, or set teacher.cache to auto or off, or teacher.cache_format to uint8."
            )
    return Planned(
        None,
        f"teacher cache (auto): none, the teacher runs live; {needed / 1e9:.1f} GB of maps are more than "
        f"{AUTO_SHARE:.0%} of the {free / 1e9:.1f} GB free in {root}",
    )


def needed_maps(needs: Requirements) -> tuple[str, ...]:
    """The maps of the teacher that terms read, the logits first. Detail heads are named as taps."""
    return tuple(dict.fromkeys(("logits", *needs.taps, *needs.teacher_taps)))


def _teacher_key(config: TrialConfig) -> str:
    assert config.teacher is not None
    return json.dumps(config.teacher.network().model_dump(mode="json"))


def _codec(name: str, shape: tuple[int, int, int], config: TrialConfig) -> MapCodec:
    assert config.teacher is not None
    if name == "logits" and 0 < config.teacher.cache_top_k < shape[0] - 1:
        return MapCodec(shape, "top_k", config.teacher.cache_top_k)
    return MapCodec(shape, config.teacher.cache_format)


def _is_begun(plan: CachePlan, teachers: list[TrialConfig], store: Store, weights: Path) -> bool:
    """Whether any of the caches exists, complete or not. A damaged one is an error."""
    begun = False
    for config in teachers:
        spec = plan.spec(config, store, weights)
        path = spec.found(plan.root)
        if path is not None:
            TeacherCache(path)
        begun |= path is not None or building_folder(spec.folder(plan.root)).exists()
    return begun


def _served(plan: CachePlan, names: list[tuple[str, ...]], video: list[bool]) -> bool:
    """Whether no trial needs its teacher live."""
    return all(plan.holds(each, later) for each, later in zip(names, video, strict=True))


def _description(plan: CachePlan, config: TrialConfig, store: Store, mode: str, needed: int, served: bool) -> str:
    assert config.teacher is not None
    frames = " and their next frames" if plan.next_frames else ""
    text = (
        f"teacher cache ({mode}): {', '.join(plan.maps)} of {len(store.split('train'))} images{frames}, "
        f"{config.teacher.cache_format}, {needed / 1e6:,.1f} MB"
    )
    if config.teacher.cache_top_k and "logits" in plan.maps:
        text += f", {config.teacher.cache_top_k} largest logits per pixel"
    return text if served else f"{text}; trials whose terms read more run the teacher live"


def _free(root: Path) -> int:
    while not root.exists():
        root = root.parent
    return shutil.disk_usage(root).free
