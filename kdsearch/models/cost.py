"""Exact costs and output shapes of a network at a size, computed on the meta device without running it."""

from __future__ import annotations

from functools import lru_cache

import torch
from pydantic import TypeAdapter
from torch.utils.flop_counter import FlopCounterMode

from kdsearch.config.metrics import Cost
from kdsearch.config.networks import AnyNetwork, NetworkConfig, without_weights
from kdsearch.data.info import DatasetInfo
from kdsearch.errors import UserError
from kdsearch.models.network import DOES_NOT_RUN, Network, reason_of
from kdsearch.models.registry import PROBE_SIZES, Size, meta_network
from kdsearch.models.seg_output import SegOutput


def network_cost(config: AnyNetwork, info: DatasetInfo, size: Size) -> Cost:
    """Cost of the network of `config` for one image of `size` (height and width in pixels), without latency.

    `torch.utils.flop_counter` counts the operations of convolutions, matrix products and attention. (It misses fused
    attention on the CPU, but not on the meta device.) Both counts leave out detail heads, which serve training alone.

    `UserError` for a network that cannot be built and for a size that it does not accept, with the nearest valid one.
    """
    return _cost(without_weights(config).model_dump_json(), info, size)


@lru_cache(maxsize=256)
def _cost(config_json: str, info: DatasetInfo, size: Size) -> Cost:
    network = meta_network(TypeAdapter(NetworkConfig).validate_json(config_json), info, size)
    with FlopCounterMode(display=False) as counter:
        _run(network, info, size, details=False)
    heads = {parameter for head in network.detail_heads() for parameter in head.parameters()}
    parameters = sum(parameter.numel() for parameter in network.parameters() if parameter not in heads)
    return Cost(counter.get_total_flops() / 1e9, parameters / 1e6)


@lru_cache(maxsize=256)
def _tap_shapes(config_json: str, info: DatasetInfo, size: Size) -> dict[str, tuple[int, int, int]]:
    network = meta_network(TypeAdapter(NetworkConfig).validate_json(config_json), info, size)
    output = _run(network, info, size, details=True)
    maps = {"logits": output.logits, **output.taps}
    return {name: (feat.shape[1], feat.shape[2], feat.shape[3]) for name, feat in maps.items()}


def tap_shapes(config: AnyNetwork, info: DatasetInfo, size: Size) -> dict[str, tuple[int, int, int]]:
    """Channels, height and width of `"logits"` and of every tap, including detail heads, for images of `size`.

    Raises `UserError` as `network_cost` does.
    """
    return dict(_tap_shapes(without_weights(config).model_dump_json(), info, size))


def check_batch(config: AnyNetwork, info: DatasetInfo, size: Size, images: int) -> None:
    """Raise `UserError` unless the network can be trained with `images` images of `size` in a forward pass.

    Batch normalisation of one image whose map has one pixel has nothing to normalise.
    """
    if images == 1 and (reason := _why_not_alone(without_weights(config).model_dump_json(), info, size)):
        raise UserError(f"This network cannot be trained on one image of {size[0]}x{size[1]} at a time ({reason}).")


@lru_cache(maxsize=256)
def _why_not_alone(config_json: str, info: DatasetInfo, size: Size) -> str:
    network = meta_network(TypeAdapter(NetworkConfig).validate_json(config_json), info, size)
    network.train()
    try:
        _forward(network, info, size, details=True)
    except ValueError as error:
        return reason_of(error)
    finally:
        network.eval()
    return ""


def _run(network: Network, info: DatasetInfo, size: Size, details: bool) -> SegOutput:
    divisor = network.size_divisor
    if size[0] % divisor or size[1] % divisor:
        raise UserError(
            f"This network takes heights and widths that are multiples of {divisor}, not {size[0]}x{size[1]}."
            + _nearest(network, info, size)
        )
    try:
        return _forward(network, info, size, details)
    except DOES_NOT_RUN as error:
        raise UserError(
            f"This network does not run at {size[0]}x{size[1]} ({reason_of(error)})." + _nearest(network, info, size)
        ) from error


def _forward(network: Network, info: DatasetInfo, size: Size, details: bool) -> SegOutput:
    network.detail_taps = details
    with torch.no_grad():
        output = network(torch.empty(1, info.channels, *size, device="meta"))
    assert isinstance(output, SegOutput)
    return output


def _nearest(network: Network, info: DatasetInfo, size: Size) -> str:
    """A sentence with the nearest valid size: multiples of the divisor, with a short side of up to 256 pixels."""
    divisor = network.size_divisor
    height, width = (max(1, round(length / divisor)) * divisor for length in size)
    shorter = min(height, width)
    larger = range(shorter, max(shorter, 256) + 1, max(divisor, 16))
    for candidate in (*((max(height, least), max(width, least)) for least in larger), *PROBE_SIZES):
        try:
            _forward(network, info, candidate, details=False)
        except DOES_NOT_RUN:
            continue
        return f" The nearest size that it takes is {candidate[0]}x{candidate[1]}."
    return ""
