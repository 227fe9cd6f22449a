"""The forward pass of a training step: outputs of the student, its supervised loss, and the distillation terms."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kdsearch.data.loader import Batch
from kdsearch.distill.base import FramePair
from kdsearch.distill.ops.class_queue import ClassQueue
from kdsearch.distill.weighted_sum import WeightedSum
from kdsearch.models.network import Network
from kdsearch.models.seg_output import SegOutput
from kdsearch.models.torch_private import exclude_from_broadcast
from kdsearch.train.losses import SupervisedLoss


class Distillation(nn.Module):
    """Student, supervised loss and terms as one module, so that DDP sees every trained parameter and one forward."""

    def __init__(self, student: Network, supervised: SupervisedLoss, terms: WeightedSum) -> None:
        super().__init__()
        self.student = student
        self.supervised = supervised
        self.terms = terms

    def forward(
        self,
        batch: Batch,
        teacher: SegOutput | None,
        epoch: int,
        epochs: int,
        norms_3: Tensor | None = None,
        diagnose: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, float]]:
        """Task loss, weighted terms by name, and with `diagnose` each term's gradient ratio at the student's logits.

        With a later frame in the batch, `teacher` is the output for both frames' images in sequence. `norms_3` are the
        divisors for the whole of which the batch is a part; see `SupervisedLoss`.
        """
        output: SegOutput = self.student(both_frames(batch))
        output, teacher, frames = by_frame(batch, output, teacher)
        task = self.supervised(output, batch.label_bhw, norms_3)
        if teacher is None:
            return task, {}, {}
        _, weighted = self.terms(output, teacher, batch.label_bhw, epoch, epochs, frames)
        if not diagnose:
            return task, weighted, {}
        # Here and not by the caller: from outside, DDP's outputs are copies that do not depend on each other.
        with torch.autocast(task.device.type, enabled=False):
            return task, weighted, self.terms.gradient_ratio(task, weighted, output.logits)


def both_frames(batch: Batch) -> Tensor:
    """The batch's images, followed by those of the later frames, if any, for a single forward pass."""
    if batch.next_image_bchw is None:
        return batch.image_bchw
    return torch.cat([batch.image_bchw, batch.next_image_bchw])


def by_frame(
    batch: Batch, student: SegOutput, teacher: SegOutput | None
) -> tuple[SegOutput, SegOutput | None, FramePair | None]:
    """The outputs for the batch's own images, and those for the later frames, if any, as a frame pair.

    Each knows which of its pixels show the image.
    """
    if batch.next_image_bchw is None:
        for output in (student, teacher):
            if output is not None:
                output.inside_bhw = batch.inside_bhw
        return student, teacher, None
    assert teacher is not None
    assert batch.flow_b2hw is not None
    student, later_s = student.split(len(batch.image_bchw))
    teacher, later_t = teacher.split(len(batch.image_bchw))
    for output in (student, teacher):
        output.inside_bhw = batch.inside_bhw
    for output in (later_s, later_t):
        output.inside_bhw = batch.next_inside_bhw
    return student, teacher, FramePair(later_s, later_t, batch.flow_b2hw, batch.image_bchw, batch.next_image_bchw)


def data_parallel(module: Distillation, device: torch.device) -> DistributedDataParallel:
    """`module` wrapped for all ranks: gradients are means over ranks, and on GPUs batch statistics are of all ranks.

    Changes the batch normalisation layers of `module` in place.
    """
    if device.type == "cuda":
        # Statistics of the whole batch, as with one rank. PyTorch's own function would drop the activations inside
        # timm's layers.
        from timm.layers import convert_sync_batchnorm

        module = convert_sync_batchnorm(module)  # replaces layers; the module stays the same object
    # Queues of features of all ranks are equal without a broadcast, and too large for one at every step.
    queues = {name: each for name, each in module.named_modules() if isinstance(each, ClassQueue)}
    alike = [
        f"{name}.{buffer}" for name, each in queues.items() if each.all_ranks for buffer, _ in each.named_buffers()
    ]
    exclude_from_broadcast(module, alike)
    # Some encoders contain layers that a shallow decoder never runs.
    return DistributedDataParallel(module, find_unused_parameters=True)
