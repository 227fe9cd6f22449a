"""Teachers trained by kdsearch: once per configuration and data set, then shared by all studies."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from kdsearch.config.trial import TrialConfig
from kdsearch.data.store.store import Store


def teacher_trial(config: TrialConfig) -> TrialConfig:
    """The training of `config.teacher` as a trial of its own: no teacher above it, nothing distilled."""
    assert config.teacher is not None
    return TrialConfig(data=config.data, student=config.teacher.network(), train=config.teacher.train)


def teacher_folder(config: TrialConfig, store: Store, root: Path) -> Path:
    """The folder of that teacher, named after everything that its weights depend on. (All fusions train at once.)"""
    trial = teacher_trial(config)
    key = {
        "network": trial.student.model_dump(mode="json", exclude={"fuse"}),
        "train": trial.train.model_dump(mode="json"),
        "augment": trial.data.augment.model_dump(mode="json"),
        "crop": trial.data.crop,
        "size": store.size,
        "data": store.fingerprint,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    return root / f"{trial.student.arch}-{trial.student.encoder}-{digest}"
