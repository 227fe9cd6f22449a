"""Requirements of the terms of a trial, found without building a network."""

from __future__ import annotations

import torch

from kdsearch.config.trial import TrialConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import Requirements
from kdsearch.distill.registry import build_terms
from kdsearch.models.cost import tap_shapes


def requirements_of(config: TrialConfig, info: DatasetInfo) -> Requirements:
    """The requirements of the terms of a trial with a teacher; the terms are built on the meta device.

    `UserError` when the student, the teacher, the terms, the size and the data set do not fit each other.
    """
    assert config.teacher is not None
    size = config.data.crop or config.data.size
    student, teacher = (tap_shapes(network, info, size) for network in (config.student, config.teacher.network()))
    with torch.device("meta"):
        return build_terms(config.distill, student, teacher, info).requirements
