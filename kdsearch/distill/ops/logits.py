"""Logits of two networks: divergences, entropy, and the check that both predict the data set's classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import Shapes
from kdsearch.distill.ops.labels import masked_mean
from kdsearch.errors import UserError


def check_logits(student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
    """Raise `UserError` unless both networks have one logit per class of the data set."""
    for who, shapes in (("student", student), ("teacher", teacher)):
        if shapes["logits"][0] != info.num_classes:
            raise UserError(
                f"The {who} has {shapes['logits'][0]} classes and {info.name} has {info.num_classes}; "
                f"build or train the {who} for {info.name}."
            )


def soft_kl(student_bkhw: Tensor, teacher_bkhw: Tensor, temperature: float) -> Tensor:
    """`T^2 KL(teacher || student)` of each pixel, `[B, h, w]`, from logits."""
    log_s = F.log_softmax(student_bkhw / temperature, 1)
    log_t = F.log_softmax(teacher_bkhw / temperature, 1)
    return F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(1) * temperature**2


def channel_kl(student_bchw: Tensor, teacher_bchw: Tensor, tau: float, inside_bhw: Tensor | None = None) -> Tensor:
    """`tau^2 KL(teacher || student)` of the distributions over an image's places, mean over images and channels.

    Places outside the image (not `inside_bhw`) have no share in them.
    """

    def log_share(map_bchw: Tensor) -> Tensor:
        scaled_bcn = map_bchw.flatten(2) / tau
        if inside_bhw is not None:
            # Finite, so that an image without a place gives 0; half the least, so that the difference is finite too.
            least = torch.finfo(scaled_bcn.dtype).min / 2
            scaled_bcn = scaled_bcn.masked_fill(~inside_bhw.flatten(1)[:, None], least)
        return F.log_softmax(scaled_bcn, 2)

    log_s, log_t = log_share(student_bchw), log_share(teacher_bchw)
    divergence_bc = F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(2)
    shown_b = None if inside_bhw is None else inside_bhw.flatten(1).any(1)
    return masked_mean(divergence_bc.mean(1), shown_b) * tau**2


def entropy(logits_bkhw: Tensor) -> Tensor:
    """Entropy of each pixel's prediction, `[B, h, w]`: from 0, certain, to 1, all classes alike."""
    entropy_bkhw: Tensor = torch.special.entr(logits_bkhw.softmax(1))
    return entropy_bkhw.sum(1) / math.log(logits_bkhw.shape[1])


def foreground(entropy_bhw: Tensor, valid_bhw: Tensor, rho: float | None) -> Tensor:
    """Valid pixels whose entropy is at most the mean, or with `rho` that quantile, of their image's valid pixels."""
    entropy_bn, valid_bn = entropy_bhw.flatten(1), valid_bhw.flatten(1)
    count_b1 = valid_bn.sum(1, keepdim=True)
    if rho is None:
        limit_b1 = torch.where(valid_bn, entropy_bn, 0.0).sum(1, keepdim=True) / count_b1.clamp_min(1)
    else:
        ranked_bn = torch.where(valid_bn, entropy_bn, 2.0).sort(1).values  # no entropy is above 1
        place_b1 = (count_b1 - 1).clamp_min(0) * rho
        low_b1, high_b1 = (ranked_bn.gather(1, place.long()) for place in (place_b1.floor(), place_b1.ceil()))
        limit_b1 = torch.lerp(low_b1, high_b1, place_b1.frac().to(low_b1.dtype))
    return (entropy_bn <= limit_b1).view_as(valid_bhw) & valid_bhw
