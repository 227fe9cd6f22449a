"""Spatial-temporal consistency and the discriminator as plain loops, in fp64: what the terms must equal."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdsearch.data.info import IGNORE_INDEX

from .reference import direction, softmax


def sample(map_chw: Tensor, x: float, y: float) -> Tensor:
    """The map at a place: bilinear between the four pixels around it, after moving it into the frame."""
    height, width = map_chw.shape[-2:]
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    left, top = math.floor(x), math.floor(y)
    value = 0
    for row, share_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, share_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            if row < height and column < width:
                value = value + share_y * share_x * map_chw[:, row, column]
    return value


def warp(map_bchw: Tensor, flow_b2hw: Tensor) -> Tensor:
    out = torch.zeros_like(map_bchw)
    for b in range(len(map_bchw)):
        for i in range(map_bchw.shape[2]):
            for j in range(map_bchw.shape[3]):
                u, v = flow_b2hw[b, :, i, j].tolist()
                out[b, :, i, j] = sample(map_bchw[b], j + u, i + v)
    return out


def inside(flow_b2hw: Tensor, b: int, i: int, j: int) -> bool:
    height, width = flow_b2hw.shape[-2:]
    u, v = flow_b2hw[b, :, i, j].tolist()
    return 0 <= j + u <= width - 1 and 0 <= i + v <= height - 1


def visibility(image: Tensor, later: Tensor, flow: Tensor) -> Tensor:
    """V of every pixel."""
    moved = warp(later, flow)
    out = torch.zeros(image.shape[0], *image.shape[2:], dtype=image.dtype)
    for b in range(out.shape[0]):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                difference = sum((image[b, c, i, j] - moved[b, c, i, j]).item() for c in range(image.shape[1]))
                out[b, i, j] = math.exp(-abs(difference))
    return out


def halved(image: Tensor, later: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Flow and V at half the size: the flow in the map's pixels where its cells lie, V the mean of 2x2 pixels."""
    seen = visibility(image, later, flow)
    batch, height, width = seen.shape
    small_flow = torch.zeros(batch, 2, height // 2, width // 2, dtype=flow.dtype)
    small_seen = torch.zeros(batch, height // 2, width // 2, dtype=flow.dtype)
    for i in range(height // 2):
        for j in range(width // 2):
            window = [(2 * i, 2 * j), (2 * i, 2 * j + 1), (2 * i + 1, 2 * j), (2 * i + 1, 2 * j + 1)]
            grow_y, grow_x = (height - 1) / (height // 2 - 1), (width - 1) / (width // 2 - 1)
            for b in range(batch):
                u, v = sample(flow[b], j * grow_x, i * grow_y)
                small_flow[b, :, i, j] = torch.stack([u / grow_x, v / grow_y])
            small_seen[:, i, j] = sum(seen[:, a, b] for a, b in window) / 4
    return small_flow, small_seen


def motion(now: Tensor, later: Tensor, flow: Tensor, seen: Tensor, prob: bool, mask: bool) -> Tensor:
    """`now` and `later` are the student's logits of both frames, at the size of flow and V."""
    total, places = 0, 0
    for b in range(len(now)):
        for i in range(now.shape[2]):
            for j in range(now.shape[3]):
                if mask and not inside(flow, b, i, j):
                    continue
                places += 1
                here = list(now[b, :, i, j])
                picture = torch.stack([torch.stack(softmax(list(p))) for p in later[b].flatten(1).T], 1)
                picture = picture.view_as(later[b]) if prob else later[b]
                u, v = flow[b, :, i, j].tolist()
                there = list(sample(picture, j + u, i + v))
                for a, c in zip(softmax(here) if prob else here, there, strict=True):
                    total = total + (seen[b, i, j] * (a - c)) ** 2 / len(here)
    return total / places


def temporal_kd(
    student: Tensor, teacher: Tensor, later: Tensor, flow: Tensor, seen: Tensor, target: Tensor, temperature: float
) -> Tensor:
    total, places = 0, 0
    for b, i, j in (target != IGNORE_INDEX).nonzero().tolist():
        if not inside(flow, b, i, j):
            continue
        places += 1
        picture = torch.stack([torch.stack(softmax(list(p / temperature))) for p in later[b].flatten(1).T], 1)
        u, v = flow[b, :, i, j].tolist()
        q_t = list(sample(picture.view_as(later[b]), j + u, i + v))
        own = teacher[b, :, i, j].tolist()
        if max(range(len(q_t)), key=lambda k: q_t[k].item()) != max(range(len(own)), key=lambda k: own[k]):
            continue
        q_s = softmax([z / temperature for z in student[b, :, i, j]])
        divergence = sum(t * (t.log() - s.log()) for s, t in zip(q_s, q_t, strict=True))
        total = total + seen[b, i, j] * temperature**2 * divergence
    return total / places


def nodes(feat_chw: Tensor, size: int) -> list[Tensor]:
    """The maxima of size x size windows, at the border of what is left of one; unit vectors."""
    _, height, width = feat_chw.shape
    return [
        direction(torch.stack([window.max() for window in feat_chw[:, i : i + size, j : j + size]]))
        for i in range(0, height, size)
        for j in range(0, width, size)
    ]


def frames(now_s: Tensor, later_s: Tensor, now_t: Tensor, later_t: Tensor, size: int = 1) -> Tensor:
    """Pair-wise-frame dependency: every node of a frame against every node of the later one."""
    total = 0
    for b in range(len(now_s)):
        x_s, y_s, x_t, y_t = (nodes(feat[b], size) for feat in (now_s, later_s, now_t, later_t))
        for p in range(len(x_s)):
            for q in range(len(x_s)):
                total = total + (x_s[p] @ y_s[q] - x_t[p] @ y_t[q]) ** 2 / len(x_s) ** 2
    return total / len(now_s)


def pairs(student: Tensor, teacher: Tensor, size: int) -> Tensor:
    return frames(student, student, teacher, teacher, size)


def convolution(feat: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    batch, _, height, width = feat.shape
    out_channels, _, kernel, _ = weight.shape
    padded = feat.new_zeros(batch, feat.shape[1], height + 2 * padding, width + 2 * padding)
    padded[:, :, padding : padding + height, padding : padding + width] = feat
    rows, columns = ((n + 2 * padding - kernel) // stride + 1 for n in (height, width))
    out = feat.new_zeros(batch, out_channels, rows, columns)
    for i in range(rows):
        for j in range(columns):
            window = padded[:, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
            for o in range(out_channels):
                out[:, o, i, j] = (window * weight[o]).sum((1, 2, 3)) + bias[o]
    return out


def attention(feat: Tensor, state: dict[str, Tensor]) -> Tensor:
    """Each place gets gamma times the mean of all places' values, weighted by the softmax of query times key."""
    query, key, value = (
        convolution(feat, state[f"{name}.weight"], state[f"{name}.bias"], 1, 0) for name in ("query", "key", "value")
    )
    places = [(i, j) for i in range(feat.shape[2]) for j in range(feat.shape[3])]
    out = feat.clone()
    for b in range(len(feat)):
        for i, j in places:
            shares = softmax([query[b, :, i, j] @ key[b, :, k, m] for k, m in places])
            mixed = sum(share * value[b, :, k, m] for share, (k, m) in zip(shares, places, strict=True))
            out[b, :, i, j] = feat[b, :, i, j] + state["gamma"] * mixed
    return out


def discriminator(logits: Tensor, state: dict[str, Tensor]) -> Tensor:
    """Scores of tiny maps, from the discriminator's `state_dict`."""
    channels = []
    for k in range(logits.shape[1]):
        values = logits[:, k]
        variance = ((values - values.mean()) ** 2).mean()
        scaled = (values - values.mean()) / (variance + 1e-5).sqrt()
        channels.append(scaled * state["layers.0.weight"][k] + state["layers.0.bias"][k])
    feat = torch.stack(channels, 1)
    for layer in (1, 3, 5, 8):
        prefix = f"layers.{layer}.parametrizations.weight"
        weight, u, v = (state[f"{prefix}.{name}"] for name in ("original", "0._u", "0._v"))
        norm = u @ weight.flatten(1) @ v
        halves = weight.shape[2] == 4
        feat = convolution(feat, weight / norm, state[f"layers.{layer}.bias"], 2 if halves else 1, 1)
        feat = torch.where(feat > 0, feat, 0.1 * feat)
        if layer >= 5:
            own = f"layers.{layer + 2}."
            feat = attention(feat, {name[len(own) :]: value for name, value in state.items() if name.startswith(own)})
    mean = feat.mean((2, 3), keepdim=True)
    return convolution(mean, state["layers.12.weight"], state["layers.12.bias"], 1, 0)
