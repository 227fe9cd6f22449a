"""CLFD: contrastive feature distillation of CLNet."""

from __future__ import annotations

import re
from typing import TypeAlias

from torch import Tensor, nn

from kdsearch.config.terms.clfd import CLFDConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Requirements, Shapes, Term
from kdsearch.distill.ops import contrast
from kdsearch.distill.ops.class_queue import ClassQueue, embedding_head
from kdsearch.distill.ops.features import channel_adapter, match_size, pixels
from kdsearch.distill.ops.labels import labels_at, prototypes
from kdsearch.distill.ops.sampling import RandomState, sample_per_class
from kdsearch.distill.taps import FLOAT, matched_pixels, resized_bytes
from kdsearch.errors import UserError
from kdsearch.models.seg_output import SegOutput

_CON = re.compile(r"con\d+")


class CLFD(Term):
    """Pulls the student's features towards the teacher's of the same class, away from the other classes', by InfoNCE.

    Guo et al., KBS 2024. A reconstruction: the intent is the paper's, the formulas are the same author's in a sibling
    project or (`pixel_proto`, `pixel_pixel`, `symmetric`) ours. `distill/ops/contrast.py` has the modes. Values of
    several layers add up. Classes that are absent from the batch and ignored pixels are left out; with fewer than two
    classes the value is 0. It is not 0 where both networks agree.

    `proto`, `pixel_proto` and `pixel_pixel` bring the student to the teacher's channels by a 1x1 convolution where
    they differ; `memory` by an embedding head, whose batch statistics (in training) cover every pixel. `spatial` and
    `relation` need neither. `memory` stores the batch's teacher pixels, then contrasts with the queue; in eval mode it
    stores nothing.

    Peak extra memory, beside the maps' gradients: O(B h w (C + K)); `pixel_pixel` adds O(chunk n) for its n pixels,
    `memory` O(chunk K queue).
    """

    name = "clfd"
    reconstructed = True

    Config: TypeAlias = CLFDConfig
    config: CLFDConfig

    def __init__(self, config: CLFDConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        self.layers = _layers(config.layers, student, teacher)
        self.adapters = nn.ModuleDict()
        self.queues = nn.ModuleDict()
        for layer in self.layers:
            channels_s, channels_t = student[layer][0], teacher[layer][0]
            if config.mode == "memory":
                self.adapters[layer] = embedding_head(channels_s, channels_t)
                self.queues[layer] = ClassQueue(info.num_classes, config.queue, channels_t)
            elif config.mode not in ("spatial", "relation"):
                self.adapters[layer] = channel_adapter(channels_s, channels_t)
        if config.mode == "pixel_pixel" and config.anchors_per_class is not None:
            self.random = RandomState()

    @property
    def requirements(self) -> Requirements:
        return Requirements(taps=self.layers)

    def estimate_bytes(self, batch: int) -> int:
        shapes = (self.shapes_s, self.shapes_t)
        numbers = [self._layer_numbers(layer, batch) for layer in self.layers]
        kept = sum(kept for kept, _ in numbers) + max(peak - kept for kept, peak in numbers)
        weights = sum(parameter.numel() for parameter in self.parameters())
        resized = max(resized_bytes(layer, *shapes, batch) for layer in self.layers)
        return int(FLOAT * (kept + weights)) + (0 if self.config.mode == "spatial" else resized)

    def _layer_numbers(self, layer: str, batch: int) -> tuple[float, float]:
        """Numbers held for a layer while another layer is computed, and their peak."""
        config, classes = self.config, self.info.num_classes
        channels_s, height, width = self.shapes_s[layer]
        channels_t = self.shapes_t[layer][0]
        adapted = channels_s != channels_t and config.mode not in ("spatial", "relation")
        pixels = batch * matched_pixels(layer, self.shapes_s, self.shapes_t)
        feats, grads = pixels * channels_t, batch * height * width * channels_s
        if config.mode == "memory":
            queue = classes * config.queue
            pairs = min(config.chunk, pixels) * queue
            kept = queue * channels_t + 4.5 * feats
            return kept, queue * channels_t + max(8 * feats, 5.5 * feats + 5 * pairs)
        if config.mode == "pixel_proto":
            return feats + pixels * (classes + 5), 6 * feats + 2 * pixels
        if config.mode == "pixel_pixel":
            sampled = config.anchors_per_class is not None
            rows = classes * min(config.anchors_per_class or pixels, pixels) if sampled else pixels
            pairs = rows * min(config.chunk, rows)
            copies = 5 if sampled else 6 + adapted
            maps = (2 + adapted) * feats + 2 * rows * channels_t
            kept = max(grads, rows * (2 * channels_t + classes + 6))
            return kept, max(maps, rows * (copies * channels_t + classes + 6) + 4 * pairs)
        kept, member = max(grads, pixels * (classes + 2)), pixels * (1.5 * classes + 3)
        if config.mode == "spatial":
            return kept, max(grads + pixels, member)
        # Whether the adapter's backward pass copies both maps depends on the number of CPU threads.
        copied = (feats + grads) / 2
        peak = max(2 * feats + grads + copied, feats + member) if adapted else max(2 * grads, member)
        if config.mode == "proto_spatial":
            peak += grads if adapted else pixels * classes
        return kept, peak

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        total = student.logits.new_zeros(())
        for layer in self.layers:
            total = total + self._layer_loss(layer, student.taps[layer], teacher.taps[layer], target_bhw)
        return total

    def _layer_loss(self, layer: str, student_bchw: Tensor, teacher_bchw: Tensor, target_bhw: Tensor) -> Tensor:
        mode, tau, classes = self.config.mode, self.config.temperature, self.info.num_classes
        if mode == "spatial":
            return self._spatial_loss(student_bchw, teacher_bchw, target_bhw)
        adapted_bchw = self.adapters[layer](student_bchw) if layer in self.adapters else student_bchw
        feat_s, feat_t = match_size(adapted_bchw, teacher_bchw)
        label_bhw, valid_bhw = labels_at(target_bhw, feat_s.shape[-2:])
        label_n, valid_n = label_bhw.flatten(), valid_bhw.flatten()

        if mode == "memory":
            return self._memory_loss(layer, feat_s, feat_t, label_bhw, valid_bhw)
        if mode == "pixel_pixel":
            return self._pixel_pixel_loss(pixels(feat_s), pixels(feat_t), label_n, valid_n)

        proto_t, present_k = prototypes(feat_t, label_bhw, valid_bhw, classes)
        if mode == "pixel_proto":
            return contrast.pixel_proto(pixels(feat_s), proto_t, present_k, label_n, valid_n, tau)
        proto_s, _ = prototypes(feat_s, label_bhw, valid_bhw, classes)
        if mode == "relation":
            return contrast.relation(proto_s, proto_t, present_k, tau)
        value = contrast.proto(proto_s, proto_t, present_k, tau, self.config.symmetric)
        if mode == "proto_spatial":
            value = value + self._spatial_loss(student_bchw, teacher_bchw, target_bhw)
        return value

    def _spatial_loss(self, student_bchw: Tensor, teacher_bchw: Tensor, target_bhw: Tensor) -> Tensor:
        mean_s, mean_t = match_size(student_bchw.mean(1, keepdim=True), teacher_bchw.mean(1, keepdim=True))
        label_bhw, valid_bhw = labels_at(target_bhw, mean_s.shape[-2:])
        classes, tau = self.info.num_classes, self.config.temperature
        return contrast.spatial(
            mean_s.flatten(), mean_t.flatten(), label_bhw.flatten(), valid_bhw.flatten(), classes, tau
        )

    def _pixel_pixel_loss(self, student_nc: Tensor, teacher_nc: Tensor, label_n: Tensor, valid_n: Tensor) -> Tensor:
        classes, count = self.info.num_classes, self.config.anchors_per_class
        if count is not None:
            score_1n = self.random.of_images(len(label_n), device=label_n.device)[None]
            index_1km, taken_1km = sample_per_class(label_n[None], valid_n[None], classes, count, score_1n)
            index_n, valid_n = index_1km.flatten(), taken_1km.flatten()
            student_nc, teacher_nc, label_n = student_nc[index_n], teacher_nc[index_n], label_n[index_n]
        return contrast.pixel_pixel(
            student_nc, teacher_nc, label_n, valid_n, classes, self.config.temperature, self.config.chunk
        )

    def _memory_loss(self, layer: str, feat_s: Tensor, feat_t: Tensor, label_bhw: Tensor, valid_bhw: Tensor) -> Tensor:
        queue = self.queues[layer]
        assert isinstance(queue, ClassQueue)
        if self.training:
            queue.push(feat_t, label_bhw, valid_bhw, self.config.pixels)
        return contrast.pixel_queue(
            pixels(feat_s),
            queue.entries_kqc.clone(),  # this step's backward pass reads the queue after the next push
            queue.filled_kq,
            label_bhw.flatten(),
            valid_bhw.flatten(),
            self.config.temperature,
            self.config.chunk,
        )


def _layers(choice: str, student: Shapes, teacher: Shapes) -> tuple[str, ...]:
    """Names of the taps to contrast. Raises `UserError` if these networks lack them."""
    shared = sorted(name for name in student if name in teacher)
    con = tuple(name for name in shared if _CON.fullmatch(name))
    if choice == "auto":
        choice = "con" if con else "head"
    layers = tuple(layer for part in choice.split("+") for layer in (con if part == "con" and con else (part,)))
    if any(layer not in shared for layer in layers):
        taps = ", ".join(name for name in shared if name != "logits") or "none"
        raise UserError(
            f"clfd: layers '{choice}' are not taps of both networks (they share: {taps}); set layers: auto."
        )
    return layers
