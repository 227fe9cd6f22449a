"""`study.json`: what the results of a study depend on beside its space, to compare them later and with others.

The content of the data set is beside it in `content.json`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kdsearch.config.space.flatten import flatten
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.config.trial import TrialConfig
from kdsearch.data.store.content import Content, FileOf
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_json
from kdsearch.io.digests import weights_digest
from kdsearch.io.run_folder import RunFolder


@dataclass(frozen=True)
class StudyRecord:
    """The fingerprint of the data set, the digests of the files of weights that the space names, and of the teacher's.

    `teacher` is empty until the teacher exists. `given` is the space as it was requested, before overrides, and
    `source` the tree of its file, before profile and data set: a later request is compared with them.
    """

    data: str
    weights: Mapping[str, str] = field(default_factory=dict)
    teacher: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, run: RunFolder) -> StudyRecord | None:
        """The record in a run folder; None for a study of an earlier version. Raises `UserError` if it is damaged."""
        try:
            facts = json.loads(run.record.read_text(encoding="utf-8"))
            record = cls(**{name: facts[name] for name in cls.__dataclass_fields__ if name in facts})
            if not isinstance(record.data, str) or not all(
                isinstance(each, dict) for each in (record.weights, record.versions, record.given, record.source)
            ):
                raise ValueError("it has other values")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{run.record} is no record of a study ({error}); bring it back from a copy.") from None
        return record

    def save(self, run: RunFolder) -> None:
        write_json(run.record, asdict(self))

    def with_teacher(self, weights: Path) -> StudyRecord:
        return replace(self, teacher=weights_digest(weights))


def named_weights(space: SearchSpace) -> dict[str, str]:
    """The digest of each file or folder of weights that the trials of a space name; those that are missing are not."""
    names = ("checkpoint", "encoder_weights")
    paths = {
        str(value)
        for _, sample in space.corners()
        for name, value in flatten(sample.trial).items()
        if name.rpartition(".")[2] in names and isinstance(value, str) and os.path.isabs(value) and Path(value).exists()
    }
    return {path: weights_digest(Path(path)) for path in sorted(paths)}


def changed_data(run: RunFolder, content: Content, file_of: FileOf) -> str:
    """How the data set differs from that of the study in `run`, in words."""
    return content.changes(Content.load(run.content), file_of)


def in_terms_of(
    config: TrialConfig, theirs: StudyRecord, ours: StudyRecord, trial: TrialConfig
) -> tuple[TrialConfig, str]:
    """A trial of another study with the paths that this study, with the default `trial`, has for the same content.

    The second value is the reason why its result does not hold here, empty if it does.
    """
    here = {digest: path for path, digest in ours.weights.items()}
    reasons: list[str] = []

    def translated(node: Any, name: str) -> Any:
        if isinstance(node, dict):
            return {key: translated(value, key) for key, value in node.items()}
        if name not in ("checkpoint", "encoder_weights") or node not in theirs.weights:
            return node
        digest = theirs.weights[node]
        if ours.weights.get(node) == digest:
            return node
        if digest not in here:
            reasons.append(f"{node} holds other weights than in this study")
        return here.get(digest, node)

    tree = translated(config.model_dump(mode="json"), "")
    tree["data"]["path"] = trial.data.path if config.data.name == trial.data.name else config.data.path
    return TrialConfig.model_validate_json(json.dumps(tree)), "; ".join(reasons)
