"""Adversaries of the student that terms train, such as discriminators: each with its own optimiser."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor

from kdsearch.distill.base import Term
from kdsearch.distill.weighted_sum import WeightedSum


class Adversaries:
    """The adversaries of a trial's terms; see `Term.adversary_optimizer`.

    A step is `zero_grad`, then `backward` after each backward pass of the student (one per micro-batch), then `step`.
    """

    def __init__(self, terms: WeightedSum) -> None:
        self.terms: dict[str, Term] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        for name, term in terms.terms.items():
            optimizer = term.adversary_optimizer()
            if optimizer is not None:
                self.terms[name], self.optimizers[name] = term, optimizer

    def zero_grad(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def backward(self, share: float) -> dict[str, Tensor]:
        """Add `share` of the gradient of each adversary's loss; returns the losses as `<term>_opponent`."""
        losses = {}
        for name, term in self.terms.items():
            parameters = self._parameters(name)
            for parameter in parameters:
                parameter.requires_grad_(True)
            loss = term.adversary_loss()
            (loss * share).backward()  # type: ignore[no-untyped-call]
            # The student's step must neither store gradients for them nor give them to DDP.
            for parameter in parameters:
                parameter.requires_grad_(False)
            losses[f"{name}_opponent"] = loss.detach()
        return losses

    def step(self, world_size: int) -> None:
        for name, optimizer in self.optimizers.items():
            if world_size > 1:
                for parameter in self._parameters(name):
                    assert parameter.grad is not None
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= world_size
            optimizer.step()

    def _parameters(self, name: str) -> list[torch.nn.Parameter]:
        return [parameter for group in self.optimizers[name].param_groups for parameter in group["params"]]

    def state_dict(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])
