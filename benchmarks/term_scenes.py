"""Terms with random inputs, and the agreement of both forms on them, for `terms.py`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.naive.adversarial import adversary_loss
from benchmarks.naive_terms import Naive, Row
from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.distill.base import FramePair, Shapes, Term
from kdsearch.distill.ops.sampling import RandomState
from kdsearch.distill.registry import registry
from kdsearch.models.seg_output import SegOutput

CLASSES = 19
STAGES = {"c1": (64, 256, 2), "c2": (128, 512, 1), "c3": (256, 1024, 1), "c4": (512, 2048, 1), "head": (128, 256, 1)}
TAPS = STAGES | {"wide": (2048, 2048, 1)}
TAPS |= {f"{kind}{index}": (2, 2, 8) for kind in ("bound", "bin") for index in (1, 2, 3)}
"""Channels of the student's and the teacher's map, and its size in units of the logits'."""


@dataclass(frozen=True)
class Setting:
    """Shapes and type of one measurement; `tiny` divides the channels by 16 and uses the row's `tiny` settings."""

    batch: int
    size: tuple[int, int]
    device: torch.device
    dtype: torch.dtype = torch.float32
    tiny: bool = False

    @property
    def classes(self) -> int:
        return 5 if self.tiny else CLASSES

    def shapes(self, row: Row, side: int) -> Shapes:
        height, width = self.size
        shapes = {"logits": (self.classes, height, width)}
        for tap in (*STAGES, *row.taps):
            channels, scale = TAPS[tap][side], TAPS[tap][2]
            if self.tiny and channels > 16:
                channels //= 16
            shapes[tap] = (channels, scale * height, scale * width)
        return shapes

    def info(self) -> DatasetInfo:
        names = tuple(f"class {index}" for index in range(self.classes))
        return DatasetInfo("random", names, ((0, 0, 0),) * self.classes, 3, (0.5,) * 3, (0.5,) * 3, video=True)


TINY = Setting(2, (8, 12), torch.device("cpu"), torch.float64, tiny=True)


class Scene:
    """One row's term and random inputs."""

    def __init__(self, row: Row, setting: Setting) -> None:
        self.row, self.setting = row, setting
        torch.manual_seed(0)
        kind = registry()[row.term]
        config = kind.Config(**row.config | (row.tiny if setting.tiny else {}))
        shapes_s, shapes_t = (setting.shapes(row, side) for side in (0, 1))
        for tap in row.teacher_taps:
            shapes_t[tap] = shapes_t["head"]
        self.term = kind(config, shapes_s, shapes_t, setting.info()).to(setting.device, setting.dtype)
        shapes_s = {name: shapes_s[name] for name in ("logits", *row.taps)}
        shapes_t = {name: shapes_t[name] for name in ("logits", *row.taps, *row.teacher_taps)}
        self.student, self.teacher = self._output(shapes_s, True), self._output(shapes_t, False)
        self.target = self._labels()
        self.frames = self._frames(shapes_s, shapes_t) if row.video else None
        if row.ours is adversary_loss:
            self.term.eval()  # freezes spectral norms, so that both forms use the same
            ours(self.term, self.student, self.teacher, self.target, self.frames)
            self.term.requires_grad_(True)

    def _draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.setting.device, dtype=self.setting.dtype)

    def _output(self, shapes: Shapes, student: bool) -> SegOutput:
        maps = {name: self._draw(self.setting.batch, *shape).requires_grad_(student) for name, shape in shapes.items()}
        return SegOutput(maps.pop("logits"), maps)

    def _labels(self) -> Tensor:
        """Labels of the image, in blocks; one block in twenty is ignored."""
        block = 4 if self.setting.tiny else 32
        blocks = [8 * extent // block for extent in self.setting.size]
        target = torch.randint(self.setting.classes, (self.setting.batch, *blocks))
        target[torch.rand(target.shape) < 0.05] = IGNORE_INDEX
        return target.repeat_interleave(block, 1).repeat_interleave(block, 2).to(self.setting.device)

    def _frames(self, shapes_s: Shapes, shapes_t: Shapes) -> FramePair:
        batch, size = self.setting.batch, [8 * extent for extent in self.setting.size]
        image = self._draw(batch, 3, *size) / 4
        return FramePair(
            self._output(shapes_s, True),
            self._output(shapes_t, False),
            4 * self._draw(batch, 2, *size),
            image,
            image + self._draw(batch, 3, *size) / 16,
        )

    @property
    def forms(self) -> tuple[Naive, Naive]:
        return self.row.ours or ours, self.row.naive

    def leaves(self) -> dict[str, Tensor]:
        """Tensors with a gradient, by name."""
        leaves = {f"student.{name}": tap for name, tap in self.student.taps.items()}
        leaves["student.logits"] = self.student.logits
        if self.frames is not None:
            leaves |= {f"later.{name}": tap for name, tap in self.frames.student.taps.items()}
            leaves["later.logits"] = self.frames.student.logits
        return leaves | {name: value for name, value in self.term.named_parameters() if value.requires_grad}

    def clear(self) -> None:
        for tensor in (*self.leaves().values(), *self.term.parameters()):
            tensor.grad = None

    def step(self, form: Naive) -> Tensor:
        value = form(self.term, self.student, self.teacher, self.target, self.frames)
        value.backward()
        return value.detach()


def ours(
    term: Term, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None = None
) -> Tensor:
    value: Tensor = term(student, teacher, target_bhw, frames)
    return value


def difference(scene: Scene) -> float:
    """The greatest relative difference of both forms in the value and in any gradient, from the same state."""
    rngs = [(module, module.get_extra_state()) for module in scene.term.modules() if isinstance(module, RandomState)]
    buffers = {name: buffer.clone() for name, buffer in scene.term.named_buffers()}
    results = []
    for form in scene.forms:
        for module, state in rngs:
            module.set_extra_state(state)
        with torch.no_grad():
            for name, buffer in scene.term.named_buffers():
                buffer.copy_(buffers[name])
        scene.clear()
        value = scene.step(form)
        results.append([value, *(leaf.grad for leaf in scene.leaves().values())])
    scene.clear()
    return max(_relative(a, b) for a, b in zip(*results, strict=True))


def _relative(a: Tensor | None, b: Tensor | None) -> float:
    if a is None or b is None:
        rest = b if a is None else a
        return 0.0 if rest is None or not rest.any() else float("inf")
    scale = float(b.abs().max())
    error = float((a - b).abs().max())
    return error / scale if scale > 0 else error
