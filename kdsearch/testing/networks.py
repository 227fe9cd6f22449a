"""Conformance suite of networks: the contract of `kdsearch.models.network.Network` as tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kdsearch.config.networks import AnyNetwork
from kdsearch.data.info import DatasetInfo
from kdsearch.errors import UserError
from kdsearch.models.cost import network_cost, tap_shapes
from kdsearch.models.network import Network
from kdsearch.models.registry import build_network
from kdsearch.models.seg_output import SegOutput
from kdsearch.models.weights import load_network

__all__ = ["NetworkCase", "NetworkConformance"]


@dataclass(frozen=True)
class NetworkCase:
    """A network to test: its configuration, a data set and an image size (height, width) that it accepts."""

    config: AnyNetwork
    info: DatasetInfo
    size: tuple[int, int]

    def build(self, seed: int = 0) -> Network:
        torch.manual_seed(seed)
        return build_network(self.config, self.info)

    def images(self, batch: int = 2) -> Tensor:
        """Random images `[batch, C, H, W]`, always the same."""
        return torch.randn(batch, self.info.channels, *self.size, generator=torch.Generator().manual_seed(1))


class NetworkConformance:
    """Inherit, with a fixture `case` that returns a `NetworkCase`, or with a parameter `case` of the class."""

    _built: ClassVar[tuple[NetworkCase, Network] | None] = None

    @pytest.fixture
    def case(self) -> NetworkCase:
        raise NotImplementedError

    @pytest.fixture
    def network(self, case: NetworkCase) -> Network:
        """The network of the case, built once for successive tests of the same case."""
        kind = type(self)
        if kind._built is None or kind._built[0] is not case:
            kind._built = case, case.build()
        return kind._built[1]

    def test_output_has_the_announced_shapes(self, case: NetworkCase, network: Network) -> None:
        """Finite logits `[B, K, h, w]` and taps; their shapes without B are those of `tap_shapes` for any batch."""
        announced = tap_shapes(case.config, case.info, case.size)
        for batch in (1, 2):
            with torch.no_grad():
                output = network.eval()(case.images(batch))
            assert isinstance(output, SegOutput)
            maps = {"logits": output.logits, **output.taps}
            assert {name: tuple(feat.shape[1:]) for name, feat in maps.items()} == announced
            assert all(feat.shape[0] == batch and feat.isfinite().all() for feat in maps.values())
            assert output.logits.shape[1] == case.info.num_classes

    def test_size_divisor(self, case: NetworkCase, network: Network) -> None:
        """`size_divisor` divides the accepted sizes; another size is refused before any training."""
        divisor = network.size_divisor
        assert all(length % divisor == 0 for length in case.size)
        if divisor > 1:
            with pytest.raises(UserError, match=f"multiples of {divisor}"):
                network_cost(case.config, case.info, (case.size[0] + 1, case.size[1]))

    def test_cost_on_the_meta_device_is_that_of_a_forward_pass(self, case: NetworkCase, network: Network) -> None:
        """GFLOPs and millions of parameters, both without detail heads."""
        network.eval().detail_taps = False
        unfused = sdpa_kernel(SDPBackend.MATH)  # torch's counter misses the fused attention of the CPU
        with FlopCounterMode(display=False) as counter, torch.no_grad(), unfused:
            network(case.images(1))
        network.detail_taps = True
        found = network_cost(case.config, case.info, case.size)
        assert found.gflops == counter.get_total_flops() / 1e9
        heads = {parameter for head in network.detail_heads() for parameter in head.parameters()}
        rest = [parameter for parameter in network.parameters() if parameter not in heads]
        assert found.params_m == sum(parameter.numel() for parameter in rest) / 1e6

    def test_without_details_the_detail_heads_alone_are_idle(self, case: NetworkCase, network: Network) -> None:
        """The parameters that are counted are those that the logits, or a tap, need."""
        network.eval().detail_taps = False
        output = network(case.images())
        network.detail_taps = True
        total = torch.stack([feat.float().sum() for feat in (output.logits, *output.taps.values())]).sum()
        named = dict(network.named_parameters())
        slopes = torch.autograd.grad(total, list(named.values()), allow_unused=True)
        idle = {named[name] for name, slope in zip(named, slopes, strict=True) if slope is None}
        assert idle == {parameter for head in network.detail_heads() for parameter in head.parameters()}

    def test_every_parameter_gets_a_gradient(self, case: NetworkCase, network: Network) -> None:
        """From the logits and the supervised taps: detail heads and gates."""
        network.train().zero_grad()
        output = network(case.images())
        supervised = [feat for name, feat in output.taps.items() if name.startswith(("bound", "bin", "gate"))]
        total = torch.stack([feat.square().mean() for feat in (output.logits, *supervised)]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all(), name

    def test_evaluation_is_deterministic(self, case: NetworkCase, network: Network) -> None:
        network.eval()
        with torch.no_grad():
            first, second = (network(case.images()) for _ in range(2))
        assert torch.equal(first.logits, second.logits)

    def test_state_dict_round_trip(self, case: NetworkCase, network: Network, tmp_path: Path) -> None:
        """A network of other initial values gives the same logits once it has the weights from a safetensors file."""
        state = {name: tensor.contiguous() for name, tensor in network.eval().state_dict().items()}
        save_file(state, tmp_path / "model.safetensors")
        other = case.build(seed=99).eval()
        load_network(other, tmp_path / "model.safetensors")
        with torch.no_grad():
            assert torch.equal(other(case.images()).logits, network(case.images()).logits)

    def test_encoders_are_parts_of_the_network(self, network: Network) -> None:
        own = {id(parameter) for parameter in network.parameters()}
        for encoder in network.encoders():
            parameters = {id(parameter) for parameter in encoder.parameters()}
            assert parameters
            assert parameters <= own
