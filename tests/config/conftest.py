"""Small stand-ins for the distillation terms (no torch), and spaces written to a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveFloat, PositiveInt

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.config.strict import Listed
from kdsearch.config.terms.base import TermConfig


class Soft(TermConfig):
    temperature: Annotated[float, Field(gt=0, le=20)] = 4.0


class Contrast(TermConfig):
    tau: PositiveFloat = 0.1
    mode: Literal["proto", "pixel"] = "proto"
    layers: Listed[tuple[PositiveInt, ...]] = (1, 2)
    queue: PositiveInt = 60


@pytest.fixture(autouse=True)
def _fake_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdsearch.config.terms.registry.TERM_CONFIGS", {"soft": Soft, "contrast": Contrast})


SPACE = """\
name: small
description: a space for tests
data: {name: scenes, size: [64, 96], options: {n: 8}}
teacher: {arch: clnet, encoder: mit_b0, shared_encoder: false}
student:
  one_of:
    - arch: clnet
      encoder: {choice: [mit_b0, mit_b1], default: mit_b1}
      width: {int: [16, 64]}
    - arch: fpn
      encoder: {choice: [resnet18, mobilenet_v2]}
      options: {choice: [{}, {decoder_channels: [64, 32]}]}
distill:
  soft: {weight: {log: [0.01, 100]}, temperature: {uniform: [1, 9]}}
  contrast:
    one_of:
      - null
      - mode: proto
        tau: {log: [3e-2, 1], default: 0.1}
      - mode: pixel
        queue: {int_log: [4, 64]}
    default: proto
train: {lr: {log: [2e-5, 6e-4], default: 6e-5}, epochs: 9}
search: {trials: 12, rungs: [1, 3], constraints: {gflops: "<= 60"}}
confirm: {seeds: 3}
profiles:
  quick:
    data: {name: other, size: [32, 32]}
    teacher: {width: 32}
    student: {arch: unet, encoder: resnet18}
    distill: {contrast: null}
    train: {lr: 1e-3}
    search: {trials: 2}
  broken:
    train: {epoch: 3}
"""


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own as the working directory, so that errors name files by their relative path."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


Load = Callable[..., SearchSpace]


@pytest.fixture
def load(in_folder: Path) -> Load:
    """Load a space from its text."""

    def load_text(text: str = SPACE, **how: object) -> SearchSpace:
        (in_folder / "space.yaml").write_text(text)
        return load_space("space.yaml", **how)  # type: ignore[arg-type]

    return load_text
