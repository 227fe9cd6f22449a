"""What the terms of a trial read, found without building a network."""

from __future__ import annotations

import torch

from kdsearch import models
from kdsearch.config.trial import TrialConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import Requirements
from kdsearch.distill.registry import build_terms


def requirements_of(config: TrialConfig, info: DatasetInfo) -> Requirements:
    """What the terms of a trial with a teacher read; they are built on the meta device.

    Raises `UserError` when the student, the teacher, the terms, the size and the data set do not fit each other.
    """
    assert config.teacher is not None
    size = config.data.crop or config.data.size
    student, teacher = (
        models.tap_shapes(network, info, size) for network in (config.student, config.teacher.network())
    )
    with torch.device("meta"):
        return build_terms(config.distill, student, teacher, info).needs
