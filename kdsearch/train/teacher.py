"""Teachers trained by kdsearch: once per configuration and data set, then shared by all studies and never replaced."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from kdsearch.config.trial import TrialConfig
from kdsearch.data.store.store import Store
from kdsearch.io.digests import weights_digest


def teacher_trial(config: TrialConfig) -> TrialConfig:
    """The training of `config.teacher` as a trial of its own: no teacher above it, nothing distilled."""
    assert config.teacher is not None
    return TrialConfig(data=config.data, student=config.teacher.network(), train=config.teacher.train)


def teacher_folder(config: TrialConfig, store: Store, root: Path) -> Path:
    """The folder of that teacher, named after the content that its weights depend on. (All fusions train at once.)"""
    trial = teacher_trial(config)
    key = {
        "network": _by_content(trial.student.model_dump(mode="json", exclude={"fuse"})),
        "train": trial.train.model_dump(mode="json"),
        "augment": trial.data.augment.model_dump(mode="json"),
        "crop": trial.data.crop,
        "size": store.size,
        "data": store.fingerprint,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    return root / f"{trial.student.arch}-{trial.student.encoder}-{digest}"


def teacher_lock(folder: Path) -> Path:
    """The file that is locked by the one process that trains the teacher of `folder`."""
    return folder.with_name(f".{folder.name}.lock")


def _by_content(network: Any) -> Any:
    """The settings of a network with the digests of its files of weights in place of their paths."""
    if not isinstance(network, dict):
        return network
    weights = network.get("encoder_weights")
    known = {key: _by_content(value) for key, value in network.items()}
    if isinstance(weights, str) and os.path.isabs(weights) and Path(weights).exists():
        known["encoder_weights"] = weights_digest(Path(weights))
    return known
