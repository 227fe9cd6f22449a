"""Studies for the tests of samplers."""

from __future__ import annotations

from pathlib import Path

from kdsearch.config.space.search_space import load_space
from kdsearch.search.storage.study_storage import StudyStorage
from tests.search.conftest import SPACE

BRANCHES = SPACE.replace(
    "student:\n  arch: fpn\n  encoder: {choice: [resnet18, resnet34, mobilenet_v2]}",
    "student:\n  one_of:\n    - {arch: fpn, encoder: {choice: [resnet18, resnet34]}}\n"
    "    - {arch: unet, encoder: mobilenet_v2, options: {decoder_channels: [8, 8, 8, 8, 8]}}",
).replace('constraints: {gflops: "<= 5"}, ', "")


def open_study(tmp_path: Path, sampler: str, text: str = SPACE) -> StudyStorage:
    (tmp_path / "s.yaml").write_text(text.replace("sampler: random", f"sampler: {sampler}"))
    return StudyStorage.open(None, load_space(tmp_path / "s.yaml"), lambda config: {"gflops": 2.0, "params_m": 1.0})
