"""Networks from their configuration, with values or on the meta device, without unused parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterable
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
    of the encoder that serve no output (such as stages beyond `encoder_depth`) are removed.

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
        _drop(network, _unneeded(network, info.channels, size))
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


def _unneeded(network: Network, channels: int, size: Size) -> tuple[str, ...]:
    """Names of the modules with parameters that no output depends on.

    Some never run; some run and their result is thrown away, such as the stage behind the last one that `encoder_depth`
    asks of smp's MobileNets. Of the latter the outermost are named, if the network does without them.
    """
    ran: set[nn.Module] = set()
    hooks = [module.register_forward_hook(lambda module, *_: ran.add(module)) for module in network.modules()]
    output = _probe(network, channels, size)
    for hook in hooks:
        hook.remove()
    needed = _leaves(output)
    trained = {name: {p for p in module.parameters() if p.requires_grad} for name, module in network.named_modules()}
    unneeded = {name: network.get_submodule(name) for name, own in trained.items() if own and needed.isdisjoint(own)}
    idle = _outermost(
        name
        for name, module in unneeded.items()
        if module not in ran and next(module.parameters(recurse=False), None) is not None
    )
    in_vain = _outermost(name for name, module in unneeded.items() if module in ran)
    if in_vain:
        names = _outermost([*in_vain, *idle])
        smaller = copy.deepcopy(network)
        _drop(smaller, names)
        try:
            same = _shapes(_probe(smaller, channels, size)) == _shapes(output)
        except (UserError, TypeError, AttributeError, IndexError, ValueError):
            same = False  # the encoder reads more of the module than its output
        if same:
            return names
    return idle


def _shapes(output: SegOutput) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in {"logits": output.logits, **output.taps}.items()}


def _leaves(output: SegOutput) -> set[torch.Tensor]:
    """The parameters that an output depends on, from its graph."""
    found: set[torch.Tensor] = set()
    seen: set[Any] = set()
    open_nodes = [feat.grad_fn for feat in (output.logits, *output.taps.values())]
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(node.variable)
        open_nodes += [before for before, _ in node.next_functions]
    return found


def _outermost(names: Iterable[str]) -> tuple[str, ...]:
    """The names without those of modules inside others that are named before."""
    found: list[str] = []
    for name in names:
        if not name.startswith(tuple(f"{outer}." for outer in found)):
            found.append(name)
    return tuple(found)


def _probe(network: Network, channels: int, size: Size) -> SegOutput:
    """The output on two images of `size`, or of the first of `PROBE_SIZES` that the network takes."""
    reasons: list[str] = []
    for height, width in (size, *PROBE_SIZES):
        try:
            with torch.enable_grad():
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
