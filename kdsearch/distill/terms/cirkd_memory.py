"""CIRKD with a memory: relations of pixels to pixels and regions of earlier batches."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

from kdsearch.config.terms.cirkd import CIRKDMemoryConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Shapes
from kdsearch.distill.ops.class_queue import ClassQueue, embedding_head
from kdsearch.distill.ops.features import match_size, pixels, unit
from kdsearch.distill.ops.labels import class_sums, labels_at
from kdsearch.distill.ops.relation_kl import block_rows, relation_kl
from kdsearch.distill.tap_term import TapTerm
from kdsearch.distill.taps import FLOAT, matched_pixels, resized_bytes
from kdsearch.models.seg_output import SegOutput

PIXEL_KEYS, REGION_KEYS = 4096, 1024


class CIRKDMemory(TapTerm):
    """`w_pixel * L(pixel queue) + w_region * L(region queue)` (Yang et al., CVPR 2022).

    `L = mean over valid pixels of KL(p_T || p_S)`, where `p` is the softmax of a pixel's cosines, divided by tau, to
    random entries of a queue of teacher features: the same for both networks, about 4096 pixels or 1024 regions in all.
    The student is brought to the teacher's channels by a small network (1x1 - BN - ReLU - 1x1), whose batch statistics
    (in training) cover every pixel. A region is the mean of a class's unit vectors in one image. The published weight
    is 1.

    Each call stores the batch's teacher features first, those of all ranks; in eval mode it stores nothing. Queues hold
    `K C_T (queue + region_queue)` numbers of state, 400 MB for 19 classes and 256 channels, which the `state_dict`
    saves. Unlike in the authors' code, a queue holds only pixels of its class, wraps exactly, and only its filled
    slots are read; a class with fewer entries repeats some. The value is 0 while the queues are empty.

    Peak extra memory: O(B h w (C_S + C_T + K) + 4096 C_T + r 4096), with r rows of similarities at a time, r 4096 at
    most 4 M.
    """

    name = "cirkd_memory"

    Config: TypeAlias = CIRKDMemoryConfig
    config: CIRKDMemoryConfig

    def __init__(self, config: CIRKDMemoryConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        channels_s, channels_t = student[config.tap][0], teacher[config.tap][0]
        self.projector = embedding_head(channels_s, channels_t)
        classes = info.num_classes
        self.pixel_queue = ClassQueue(classes, config.queue, channels_t, all_ranks=True) if config.w_pixel else None
        self.region_queue = (
            ClassQueue(classes, config.region_queue, channels_t, all_ranks=True) if config.w_region else None
        )

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        feat_s, feat_t = match_size(self.projector(student.taps[self.config.tap]), teacher.taps[self.config.tap])
        label_bhw, valid_bhw = labels_at(target_bhw, feat_s.shape[-2:])
        classes = self.info.num_classes
        unit_t = unit(feat_t, 1)
        rows_s, rows_t = unit(pixels(feat_s)), pixels(unit_t)
        valid_n = valid_bhw.flatten()
        weight_n = valid_n.to(rows_s.dtype) / valid_n.sum().clamp_min(1)

        def against(queue: ClassQueue, keys: int) -> Tensor:
            keys_knc, present_k = queue.sample(keys // classes + 1)
            keys_mc = keys_knc.flatten(0, 1).to(rows_s.dtype)
            keep_m = present_k[:, None].expand(keys_knc.shape[:2]).flatten()
            return relation_kl(rows_s, rows_t, keys_mc, keys_mc, weight_n, keep_m, self.config.tau)

        total = rows_s.new_zeros(())
        if self.pixel_queue is not None:
            if self.training:
                self.pixel_queue.push(unit_t, label_bhw, valid_bhw, self.config.pixels_per_class)
            total = total + self.config.w_pixel * against(self.pixel_queue, PIXEL_KEYS)
        if self.region_queue is not None:
            if self.training:
                sums_bkc, count_bk = class_sums(unit_t, label_bhw, valid_bhw, classes)
                self.region_queue.store(sums_bkc.transpose(0, 1), count_bk.T > 0)
            total = total + self.config.w_region * against(self.region_queue, REGION_KEYS)
        return total

    def estimate_bytes(self, batch: int) -> int:
        tap, classes = self.config.tap, self.info.num_classes
        (_, height, width), (channels_t, _, _) = self.shapes_s[tap], self.shapes_t[tap]
        rows = batch * matched_pixels(tap, self.shapes_s, self.shapes_t)
        projected = {tap: (channels_t, height, width)}
        resized = resized_bytes(tap, projected, self.shapes_t, batch)
        projector = 3 * FLOAT * batch * height * width * channels_t
        parameters = FLOAT * sum(parameter.numel() for parameter in self.projector.parameters())
        copies, sweep = 4, 0  # plus one gradient per queue
        for queue, total in ((self.pixel_queue, PIXEL_KEYS), (self.region_queue, REGION_KEYS)):
            if queue is not None:
                keys = classes * min(total // classes + 1, queue.entries_kqc.shape[1])
                sweep = max(sweep, 3 * block_rows(rows, keys) * keys + keys * channels_t)
                copies += 1
        return resized + projector + parameters + FLOAT * (copies * rows * channels_t + sweep)
