"""Class centres of a feature map, and the cosines of pixels to them."""

from __future__ import annotations

from torch import Tensor

from kdsearch.distill.ops.features import over_norm, unit
from kdsearch.distill.ops.labels import class_sums


def image_centres(feat_bchw: Tensor, label_bhw: Tensor, valid_bhw: Tensor, num_classes: int) -> Tensor:
    """Mean feature of each class in each image, `[B, K, C]`; 0 where the class is absent."""
    sums_bkc, count_bk = class_sums(feat_bchw, label_bhw, valid_bhw, num_classes)
    return sums_bkc / count_bk.clamp_min(1)[..., None]


def centre_cosines(feat_bchw: Tensor, centre: Tensor, label_bhw: Tensor) -> Tensor:
    """Cosine of each pixel to the centre of its class, `[B, h, w]`; 0, without a gradient, where either vanishes.

    `centre` is `[B, K, C]`, one an image, or `[K, C]` for the whole batch.
    """
    dot_bkn = unit(centre) @ feat_bchw.flatten(2)
    dot_b1n = dot_bkn.gather(1, label_bhw.flatten(1)[:, None])
    return over_norm(dot_b1n.view(label_bhw[:, None].shape), feat_bchw)[:, 0]


def class_cosines(feat_bchw: Tensor, centre_kc: Tensor) -> Tensor:
    """Cosine of each pixel to each centre, `[B, K, h, w]`; 0, without a gradient, where either vanishes."""
    dot_bkhw = (unit(centre_kc) @ feat_bchw.flatten(2)).view(len(feat_bchw), -1, *feat_bchw.shape[2:])
    return over_norm(dot_bkhw, feat_bchw)
