"""Networks from their configuration, with values or on the meta device, without unused parameters."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn
from torch.overrides import TorchFunctionMode

from kdsearch.config.networks import AnyNetwork, CLNetConfig, NetworkConfig, TwoBranchConfig, without_weights
from kdsearch.data.info import DatasetInfo
from kdsearch.errors import UserError
from kdsearch.models.network import DOES_NOT_RUN, Network, reason_of
from kdsearch.models.seg_output import SegOutput
from kdsearch.models.weights import load_encoders

Size = tuple[int, int]
PROBE_SIZES: tuple[Size, ...] = ((256, 256), (224, 224), (384, 384))
"""Sizes at which a network is probed that does not run at its own: every smp decoder accepts them, and encoders that
take a single size have one of them. The first is that of a network without a size of its own."""


def build_network(config: AnyNetwork, info: DatasetInfo, size: Size = PROBE_SIZES[0]) -> Network:
    """The network of `config` for the classes and channels of `info`, on the CPU in training mode.

    `size` is the height and width of its images; it matters for encoders that run at one size alone.

    Initial values come from torch's global generator, and those of the encoder from `encoder_weights` if set. Modules
    of the encoder that never run (such as stages beyond `encoder_depth`) are removed.

    `UserError` for a network that cannot be built, and for weights that cannot be loaded.
    """
    network = _construct(config, info)
    _drop(network, meta_network(config, info, size).dropped)
    _load_encoders(network, config)
    return network


def _load_encoders(network: Network, config: AnyNetwork) -> None:
    from kdsearch.models.networks.two_branch import TwoBranch

    if isinstance(config, TwoBranchConfig):
        assert isinstance(network, TwoBranch)
        _load_encoders(network.cnn, config.cnn)
        _load_encoders(network.transformer, config.transformer)
    elif config.encoder_weights is not None:
        load_encoders(network, config.encoder, config.encoder_weights)


def meta_network(config: AnyNetwork, info: DatasetInfo, size: Size = PROBE_SIZES[0]) -> Network:
    """The same network on the meta device, in eval mode: shapes without values. Cached, so do not change it."""
    return _meta_network(without_weights(config).model_dump_json(), info, size)


@lru_cache(maxsize=64)
def _meta_network(config_json: str, info: DatasetInfo, size: Size) -> Network:
    config: AnyNetwork = TypeAdapter(NetworkConfig).validate_json(config_json)
    with torch.random.fork_rng(devices=[]), _EmptyOnMeta():
        network = _construct(config, info)
    network.to("meta").eval()
    if not isinstance(config, CLNetConfig):
        _drop(network, _never_run(network, info.channels, size))
    return network


def _construct(config: AnyNetwork, info: DatasetInfo) -> Network:
    if isinstance(config, CLNetConfig):
        from kdsearch.models.networks.clnet import CLNet

        return CLNet(config, info)
    if isinstance(config, TwoBranchConfig):
        from kdsearch.models.networks.two_branch import TwoBranch

        return TwoBranch(config, info)
    from kdsearch.models.networks.smp import SmpNetwork

    return SmpNetwork(config, info)


class _EmptyOnMeta(TorchFunctionMode):
    """Creates parameters on the meta device, which makes their initialisation free.

    `torch.device("meta")` would also affect the small tensors that constructors compute with and read back.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)


def _never_run(network: Network, channels: int, size: Size) -> tuple[str, ...]:
    """Names of the modules with own parameters that are neither called nor reached by a gradient of the outputs.

    They are the same at every size that the network takes; where it does not take `size`, another one is tried.
    """
    idle = {
        name: module
        for name, module in network.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    }
    names = {module: name for name, module in idle.items()}

    def called(module: nn.Module, *_: Any) -> None:
        idle.pop(names[module], None)

    hooks = [module.register_forward_hook(called) for module in names]
    try:
        output = _probe(network, channels, size)
    finally:
        for hook in hooks:
            hook.remove()
    if not idle:
        return ()
    total = torch.stack([feat.sum() for feat in (output.logits, *output.taps.values())]).sum()
    unused: list[str] = []
    for name, module in idle.items():
        if name.startswith(tuple(f"{parent}." for parent in unused)):
            continue
        gradients = torch.autograd.grad(
            total, list(module.parameters(recurse=False)), retain_graph=True, allow_unused=True
        )
        if all(gradient is None for gradient in gradients):
            unused.append(name)
    return tuple(unused)


def _probe(network: Network, channels: int, size: Size) -> SegOutput:
    """The output on two images of `size`, or of the first of `PROBE_SIZES` that the network takes."""
    reasons: list[str] = []
    for height, width in (size, *PROBE_SIZES):
        try:
            output: SegOutput = network(torch.empty(2, channels, height, width, device="meta"))
        except DOES_NOT_RUN as error:
            reasons.append(reason_of(error))
        else:
            return output
    raise UserError(
        f"This network runs neither at {size[0]}x{size[1]} ({reasons[0]}) nor at any usual size. Take another encoder."
    )


def _drop(network: Network, names: tuple[str, ...]) -> None:
    """Replace each named module by an identity."""
    for name in names:
        network.set_submodule(name, nn.Identity())
    network.dropped = names
