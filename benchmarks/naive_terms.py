"""Table of the measured terms and modes, each with a naive form: the plain formula, in the style of public code.

The naive forms are in the package `naive`: loops over classes, gathers by mask, pair matrices. A naive form takes
settings, layers and random state from the term, and has the same value and gradients. `benchmarks/terms.py` runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from benchmarks.naive import adversarial, clfd, features, frkd, generators, logits, relations, video
from kdsearch.distill.base import FramePair
from kdsearch.models.seg_output import SegOutput

Naive = Callable[[Any, SegOutput, SegOutput, Tensor, FramePair | None], Tensor]


@dataclass(frozen=True)
class Row:
    """One term in one mode, with the taps that it reads of both networks or of the teacher alone.

    `tiny` are settings for tiny maps; `pairs` marks naive forms with matrices of pixels by pixels, and
    `needs(batch, pixels of a map)` is their size in bytes; `ours` is measured instead of the term's call; `cpu_shrink`
    divides the maps' sides on a CPU; `tolerance` is the greatest relative difference in fp32.
    """

    label: str
    term: str
    naive: Naive
    config: dict[str, Any] = field(default_factory=dict)
    taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()
    tiny: dict[str, Any] = field(default_factory=dict)
    video: bool = False
    pairs: bool = False
    generator: bool = False
    ours: Naive | None = None
    cpu_shrink: int = 1
    tolerance: float = 1e-4
    needs: Callable[[int, int], int] | None = None


HEAD, BACK, WIDE = ("head",), ("c4",), ("wide",)
BRANCHES = ("cnn.head", "transformer.head")
DETAILS = ("bound1", "bound2", "bound3", "bin1", "bin2", "bin3")

PIXEL_PROTO, EXACT = {"mode": "pixel_proto"}, {"mode": "pixel_pixel", "anchors_per_class": None}
ETC = {"space": "logit", "resolution": "full", "mask_out_of_frame": False}
EVERY = {"node": "none"}
TINY_CONTRAST, TINY_LIGHT = {"pool": 1}, {"light_rank": 8}

SHARP = 1e-3
"""Tolerance of Af-DCD's logits: L1 distances of hundreds over 0.07, which fp32 rounds to about 1e-3."""


def image_pairs(matrices: int) -> Callable[[int, int], int]:
    """So many fp32 matrices of an image's places by its places."""
    return lambda batch, n: 4 * matrices * batch * n**2


def batch_pairs(matrices: int) -> Callable[[int, int], int]:
    """The same of the batch's places by its places."""
    return lambda batch, n: 4 * matrices * (batch * n) ** 2


def contrast_row(mode: str, metric: str) -> Row:
    config = {"tap": "wide", "projector": "light", "mode": mode, "metric": metric}
    return Row(
        f"afdcd, contrast alone, {mode}, {metric}", "afdcd", generators.naive_contrast, config, WIDE,
        tiny=TINY_CONTRAST, ours=generators.contrast_alone, tolerance=SHARP,
    )  # fmt: skip


ROWS: list[Row] = [
    Row("kd", "kd", logits.kd),
    Row("dsrd, derived", "dsrd", logits.dsrd),
    Row("dsrd, heads", "dsrd", logits.dsrd, taps=DETAILS),
    Row("clfd, proto", "clfd", clfd.proto, taps=HEAD),
    Row("clfd, spatial", "clfd", clfd.spatial, {"mode": "spatial"}, HEAD),
    Row("clfd, relation", "clfd", clfd.relation, {"mode": "relation"}, HEAD),
    Row("clfd, pixel_proto", "clfd", clfd.pixel_proto, PIXEL_PROTO, HEAD),
    Row("clfd, pixel_pixel, exact", "clfd", clfd.pixel_pixel, EXACT, HEAD, pairs=True, needs=batch_pairs(5)),
    Row("clfd, pixel_pixel, 64 a class", "clfd", clfd.sampled, {"mode": "pixel_pixel"}, HEAD),
    Row("clfd, memory", "clfd", clfd.memory, {"mode": "memory"}, HEAD),
    Row("cwd", "cwd", features.cwd),
    Row("cwd_feature", "cwd_feature", features.cwd_feature, taps=HEAD),
    Row("fitnet", "fitnet", features.fitnet, taps=HEAD),
    Row("at", "at", features.attention, taps=HEAD),
    Row("dist", "dist", logits.dist),
    Row("ifvd", "ifvd", features.ifvd, taps=HEAD),
    Row("skd_pair, stride2", "skd_pair", relations.skd_pair, taps=HEAD, pairs=True),
    Row("skd_pair, every pixel", "skd_pair", relations.skd_pair, EVERY, HEAD, pairs=True, needs=image_pairs(4)),
    Row("cirkd", "cirkd", relations.cirkd, taps=HEAD, pairs=True, needs=batch_pairs(3)),
    Row("cirkd_memory", "cirkd_memory", relations.cirkd_memory, taps=HEAD),
    Row("frkd_refine", "frkd_refine", frkd.refine, taps=HEAD),
    Row("frkd_location", "frkd_location", frkd.location, taps=HEAD),
    Row("frkd_inter", "frkd_inter", frkd.inter, taps=HEAD),
    Row("frkd_intra", "frkd_intra", frkd.intra, taps=HEAD),
    Row("stc_pair, stride2", "stc_pair", relations.stc_pair, taps=HEAD, teacher_taps=BRANCHES, pairs=True),
    Row(
        "stc_pair, every pixel", "stc_pair", relations.stc_pair, EVERY, HEAD, BRANCHES, pairs=True, needs=image_pairs(5)
    ),
    Row("stc_frames", "stc_frames", relations.stc_frames, taps=HEAD, video=True, pairs=True, needs=image_pairs(5)),
    Row("stc_motion", "stc_motion", video.stc_motion, video=True),
    Row("stc_motion, as ETC", "stc_motion", video.stc_motion, ETC, video=True),
    Row("stc_temporal_kd", "stc_temporal_kd", video.stc_temporal_kd, video=True),
    Row("adversarial", "adversarial", adversarial.student),
    Row("adversarial, hinge step of D", "adversarial", adversarial.discriminator, ours=adversarial.adversary_loss),
    Row(
        "adversarial, wgan_gp step of D", "adversarial", adversarial.discriminator, {"mode": "wgan_gp"},
        ours=adversarial.adversary_loss,
    ),
    Row("mgd", "mgd", generators.mgd, taps=BACK, generator=True, cpu_shrink=4),
    Row("mgd, enhanced", "mgd", generators.mgd, {"projector": "enhanced"}, BACK, generator=True, cpu_shrink=8),
    Row("mgd, light", "mgd", generators.mgd, {"projector": "light"}, BACK, tiny=TINY_LIGHT, generator=True),
    Row(
        "afdcd, light", "afdcd", generators.afdcd, {"projector": "light"}, BACK, tiny=TINY_LIGHT | TINY_CONTRAST,
        generator=True, tolerance=SHARP,
    ),
    contrast_row("omni", "l1"),
    contrast_row("omni", "cos"),
    contrast_row("spatial", "l1"),
    contrast_row("channel", "l1"),
]  # fmt: skip
