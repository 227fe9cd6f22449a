"""Random outputs of two networks with labels, and the check of a term against a loop, to 1e-10."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.distill.base import Term
from kdsearch.distill.registry import registry
from kdsearch.models.seg_output import SegOutput

CLASSES = 5  # class 3 never occurs
INFO = DatasetInfo("toy", tuple("abcde"), ((0, 0, 0),) * CLASSES, 3, (0.5,) * 3, (0.5,) * 3)


class Scene:
    """Random outputs of both networks and labels with an absent class and ignored pixels."""

    def __init__(self, batch: int) -> None:
        generator = torch.Generator().manual_seed(batch)
        self.channels = {"logits": CLASSES, "con1": 6, "bound1": 2, "bin1": 2}
        draws = [
            {name: torch.randn(batch, c, 3, 4, generator=generator, dtype=torch.float64) for name, c in self.names()}
            for _ in range(2)
        ]
        self.student, self.teacher = (SegOutput(draw.pop("logits"), draw) for draw in draws)
        for tensor in (self.student.logits, *self.student.taps.values()):
            tensor.requires_grad_()
        present = torch.tensor([0, 1, 2, 4])
        self.target = present[torch.randint(4, (batch, 3, 4), generator=generator)]
        self.target[:, 0, 1] = IGNORE_INDEX
        self.target[0, 2, 2:] = IGNORE_INDEX

    def names(self) -> list[tuple[str, int]]:
        return list(self.channels.items())

    def build(self, name: str, taps: tuple[str, ...] = ("con1",), **config: Any) -> Term:
        shapes = {key: (self.channels[key], 3, 4) for key in ("logits", *taps)}
        term = registry()[name]
        return term(term.Config(**config), shapes, shapes, INFO).double()

    def check(self, term: Term, expected: Callable[[SegOutput, SegOutput], Tensor]) -> None:
        reads = [self.student.logits, *self.student.taps.values()]
        value, wanted = term(self.student, self.teacher, self.target), expected(self.student, self.teacher)
        torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-10)
        grads, wanted_grads = (
            torch.autograd.grad(loss, reads, allow_unused=True, materialize_grads=True) for loss in (value, wanted)
        )
        for grad, wanted_grad in zip(grads, wanted_grads, strict=True):
            torch.testing.assert_close(grad, wanted_grad, rtol=1e-10, atol=1e-10)
