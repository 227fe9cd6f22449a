"""What a trial requires of its networks, terms and data, found without building a network."""

from __future__ import annotations

import torch

from kdsearch.config.networks import without_weights
from kdsearch.config.trial import TrialConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import Requirements
from kdsearch.distill.registry import build_terms
from kdsearch.errors import UserError
from kdsearch.models.checkpoint import checkpoint_file
from kdsearch.models.cost import check_batch, network_cost, tap_shapes
from kdsearch.models.registry import build_network
from kdsearch.models.weights import load_network
from kdsearch.train.teacher import teacher_trial


def requirements_of(config: TrialConfig, info: DatasetInfo) -> Requirements:
    """The requirements of the terms of a trial with a teacher; the terms are built on the meta device.

    `UserError` when the student, the teacher, the terms, the size and the data set do not fit each other.
    """
    assert config.teacher is not None
    size = config.data.crop or config.data.size
    student, teacher = (tap_shapes(network, info, size) for network in (config.student, config.teacher.network()))
    with torch.device("meta"):
        return build_terms(config.distill, student, teacher, info).requirements


def check_trial(config: TrialConfig, info: DatasetInfo, ranks: int = 1) -> None:
    """Raise `UserError` unless the trial can be trained, after its teacher, on `ranks` ranks that normalise alone.

    Checked are the networks and terms at the size of the images, and the batch of one rank.
    """
    if not info.video and (config.data.consistency or config.data.frames == "video"):
        raise UserError(
            f"the data set {info.name} has single images: set data.frames to views and data.consistency to false, "
            "or choose a video set (camvid with option flow, scenes)."
        )
    network_cost(config.student, info, config.data.size)
    frames = 1
    if config.teacher is not None:
        frames += requirements_of(config, info).video
        if config.teacher.checkpoint is None:
            _check_batch(teacher_trial(config), info, ranks, "teacher.train.batch_size")
    _check_batch(config, info, ranks, "train.batch_size", frames)


def check_weights(config: TrialConfig, info: DatasetInfo) -> None:
    """Raise `UserError` unless the weights that files and downloads give to student and teacher can be loaded."""
    teacher, size = config.teacher, config.data.size
    weights = None
    if teacher is not None and teacher.checkpoint is not None:
        weights = checkpoint_file(teacher.checkpoint, teacher.network())
    if without_weights(config.student) != config.student:
        build_network(config.student, info, size)
    if teacher is not None and (weights is not None or without_weights(teacher.network()) != teacher.network()):
        network = build_network(teacher.network(), info, size)
        if weights is not None:
            load_network(network, weights)


def _check_batch(config: TrialConfig, info: DatasetInfo, ranks: int, name: str, frames: int = 1) -> None:
    batch = config.train.batch_size
    try:
        check_batch(config.student, info, config.data.crop or config.data.size, frames * max(1, batch // ranks))
    except UserError as error:
        over = f" over {ranks} workers a trial" if ranks > 1 else ""
        fewer = ", or fewer --workers-per-trial" if ranks > 1 else ""
        raise UserError(f"{name} {batch}{over}: {error} Set {name} to {2 * ranks} or more{fewer}.") from error
