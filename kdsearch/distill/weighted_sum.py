"""The total distillation loss of a trial."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kdsearch.distill.base import FramePair, Requirements, Term
from kdsearch.models.seg_output import SegOutput


class WeightedSum(nn.Module):
    """All terms of a trial, with their weights, warm-up and decay. `terms` maps a name to its term; it may be empty."""

    def __init__(self, terms: Mapping[str, Term]) -> None:
        super().__init__()
        self._terms = nn.ModuleDict(dict(terms))

    @property
    def terms(self) -> dict[str, Term]:
        """The terms by name, in the order in which they were configured."""
        return {name: term for name, term in self._terms.items() if isinstance(term, Term)}

    @property
    def requirements(self) -> Requirements:
        """The joint requirements of all terms."""
        requirements = [term.requirements for term in self.terms.values()]
        return Requirements(
            taps=tuple(dict.fromkeys(tap for each in requirements for tap in each.taps)),
            teacher_taps=tuple(dict.fromkeys(tap for each in requirements for tap in each.teacher_taps)),
            detail_heads=any(each.detail_heads for each in requirements),
            video=any(each.video for each in requirements),
        )

    def forward(
        self,
        student: SegOutput,
        teacher: SegOutput,
        target_bhw: Tensor,
        epoch: int,
        epochs: int,
        frames: FramePair | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total (fp32 scalar; an exact 0 without a graph if there are no terms) and each weighted term.

        `epoch` counts from 0 to `epochs` - 1. A term in its warm-up is computed and multiplied by 0: DDP needs its
        parameters in the graph of every step, and queues fill. Values that are not finite pass through: a check would
        wait for the device at every step, so the trial checks a whole epoch at once.
        """
        terms = self.terms
        if not terms:
            return student.logits.new_zeros((), dtype=torch.float32), {}
        values = {name: term(student, teacher, target_bhw, frames) for name, term in terms.items()}
        weighted = {name: value * terms[name].config.weight_at(epoch, epochs) for name, value in values.items()}
        return torch.stack(list(weighted.values())).sum(), weighted

    @staticmethod
    def gradient_ratio(task_loss: Tensor, weighted: Mapping[str, Tensor], at: Tensor) -> dict[str, float]:
        """Norm of each weighted term's gradient at a student tensor, divided by that of the task loss.

        `at` is a tensor of the student's graph, such as its logits; a term that does not depend on it has ratio 0.
        Graphs are kept, so a backward pass can follow. Useful ratios lie between 0.1 and 3.
        """
        norms = [_gradient_norm(loss, at) for loss in (task_loss, *weighted.values())]
        task, *rest = torch.stack(norms).tolist()
        floor = torch.finfo(torch.float32).tiny
        return {name: norm / max(task, floor) for name, norm in zip(weighted, rest, strict=True)}


def _gradient_norm(loss: Tensor, at: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, at, retain_graph=True, allow_unused=True, materialize_grads=True)
    norm: Tensor = torch.linalg.vector_norm(gradient.float())
    return norm
