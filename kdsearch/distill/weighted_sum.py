"""The total distillation loss of a trial."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import torch
from torch import Tensor, nn

from kdsearch.distill.base import FramePair, Needs, Term
from kdsearch.models.output import SegOutput


class WeightedSum(nn.Module):
    """All terms of a trial, with their weights and warm-up. `terms` maps a name to its term; it may be empty."""

    def __init__(self, terms: Mapping[str, Term]) -> None:
        super().__init__()
        self._terms = nn.ModuleDict(dict(terms))

    @property
    def terms(self) -> dict[str, Term]:
        """The terms by name, in the order in which they were configured."""
        return {name: term for name, term in self._terms.items() if isinstance(term, Term)}

    @property
    def needs(self) -> Needs:
        """What all the terms together read."""
        needs = [term.needs for term in self.terms.values()]
        return Needs(
            taps=tuple(dict.fromkeys(tap for need in needs for tap in need.taps)),
            detail_heads=any(need.detail_heads for need in needs),
            video=any(need.video for need in needs),
        )

    def forward(
        self,
        student: SegOutput,
        teacher: SegOutput,
        target_bhw: Tensor,
        epoch: int,
        frames: FramePair | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total (fp32 scalar; an exact 0 without a graph when there are no terms) and each weighted term.

        `epoch` counts from 0. A term in its warm-up is computed and multiplied by 0: DDP needs its parameters in the
        graph of every step, and queues fill meanwhile. Raises `FloatingPointError` that names the terms whose value is
        not finite; the check costs one synchronisation with the device a call, whatever the number of terms.
        """
        terms = self.terms
        if not terms:
            return student.logits.new_zeros((), dtype=torch.float32), {}
        values = {name: term(student, teacher, target_bhw, frames) for name, term in terms.items()}
        _check_finite(values)
        weighted = {}
        for name, value in values.items():
            config = terms[name].config
            weighted[name] = value * (config.weight if epoch >= config.warmup_epochs else 0.0)
        return torch.stack(list(weighted.values())).sum(), weighted

    @staticmethod
    def gradient_ratio(task_loss: Tensor, weighted: Mapping[str, Tensor], at: Tensor) -> dict[str, float]:
        """Norm of each weighted term's gradient at a student tensor, divided by the norm of the task loss's there.

        `at` is a tensor of the student's graph, such as its logits; a term that does not depend on it has ratio 0.
        Graphs are kept, so a backward pass can follow. Useful ratios lie between 0.1 and 3 (methods.md, Appendix B).
        """
        norms = [_gradient_norm(loss, at) for loss in (task_loss, *weighted.values())]
        task, *rest = torch.stack(norms).tolist()
        floor = torch.finfo(torch.float32).tiny
        return {name: norm / max(task, floor) for name, norm in zip(weighted, rest, strict=True)}


def _check_finite(values: Mapping[str, Tensor]) -> None:
    stacked = torch.stack([value.detach() for value in values.values()])
    if bool(stacked.isfinite().all().item()):
        return
    broken = [f"{name} = {value}" for name, value in zip(values, stacked.tolist(), strict=True) if not isfinite(value)]
    raise FloatingPointError(f"distillation terms that are not finite: {', '.join(broken)}")


def _gradient_norm(loss: Tensor, at: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, at, retain_graph=True, allow_unused=True, materialize_grads=True)
    norm: Tensor = torch.linalg.vector_norm(gradient.float())
    return norm
