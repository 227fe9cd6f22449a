"""Weights from files: spelling of keys, coverage, refusals."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from kdsearch.config.networks import CLNetConfig, SmpConfig
from kdsearch.errors import UserError
from kdsearch.models.network import Network
from kdsearch.models.registry import build_network
from kdsearch.models.weights import find_weights, load_network
from tests.models.model_cases import clnet, dataset, smp

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def mobilenet() -> State:
    """MobileNetV2 weights as torchvision spells them, classifier included."""
    torch.manual_seed(3)
    (encoder,) = build_network(smp("fpn", "mobilenet_v2"), dataset(3)).encoders()
    return {**encoder.state_dict(), "classifier.1.weight": torch.zeros(10, 1280), "classifier.1.bias": torch.zeros(10)}


def with_weights(config: SmpConfig | CLNetConfig, source: Path | str) -> SmpConfig | CLNetConfig:
    return config.model_copy(update={"encoder_weights": str(source)})


@pytest.mark.parametrize("prefix", ["", "encoder.", "module.model.encoder.", "backbone."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_keys_with_any_prefix(mobilenet: State, tmp_path: Path, prefix: str, suffix: str) -> None:
    file = tmp_path / f"mobilenet_v2_imagenet{suffix}"
    state = {prefix + key: tensor for key, tensor in mobilenet.items()}
    if suffix == ".pth":
        torch.save({"epoch": 3, "state_dict": state}, file)
    else:
        save_file(state, file)
    for source in (file, tmp_path):
        (encoder,) = build_network(with_weights(smp("fpn", "mobilenet_v2"), source), dataset(3)).encoders()
        assert all(torch.equal(tensor, mobilenet[key]) for key, tensor in encoder.state_dict().items())


def test_a_fourth_channel_answers_like_the_other_three(mobilenet: State, tmp_path: Path) -> None:
    save_file(mobilenet, tmp_path / "mobilenet_v2.safetensors")
    (encoder,) = build_network(with_weights(smp("fpn", "mobilenet_v2"), tmp_path), dataset(4)).encoders()
    old, new = mobilenet["features.0.0.weight"], encoder.state_dict()["features.0.0.weight"]
    torch.testing.assert_close(new[:, :3], old * 0.75)
    torch.testing.assert_close(new[:, 3], old.mean(1) * 0.75)
    torch.testing.assert_close(new.sum(1), old.sum(1))


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "convnext_atto"])
def test_classifiers_of_timm_fill_timm_encoders(name: str, tmp_path: Path) -> None:
    import timm

    classifier = timm.create_model(name).state_dict()
    save_file(classifier, tmp_path / f"{name}.lamb_in1k.safetensors")
    (encoder,) = build_network(with_weights(smp("fpn", f"tu-{name}"), tmp_path), dataset(3)).encoders()
    loaded = {tuple(tensor.shape): tensor for tensor in encoder.state_dict().values()}
    stem = next(iter(classifier.values()))
    assert torch.equal(loaded[tuple(stem.shape)], stem)


def test_both_encoders_of_a_clnet_are_filled(tmp_path: Path) -> None:
    (source,) = build_network(clnet(width=8), dataset(4)).encoders()
    save_file({**source.state_dict(), "head.weight": torch.zeros(10, 256)}, tmp_path / "mit_b0.safetensors")
    network = build_network(with_weights(clnet(width=8, shared_encoder=False), tmp_path), dataset(4))
    assert len(network.encoders()) == 2
    for encoder in network.encoders():
        assert all(torch.equal(tensor, source.state_dict()[key]) for key, tensor in encoder.state_dict().items())


def test_imagenet_takes_the_way_of_smp(monkeypatch: pytest.MonkeyPatch) -> None:
    import segmentation_models_pytorch.encoders as smp_encoders

    original, asked = smp_encoders.get_encoder, []
    pretrained = original("mobilenet_v2")

    def fake(name: str, weights: object = None) -> torch.nn.Module:
        asked.append((name, weights))
        return pretrained

    monkeypatch.setattr(smp_encoders, "get_encoder", fake)
    (encoder,) = build_network(with_weights(smp("fpn", "mobilenet_v2"), "imagenet"), dataset(4)).encoders()
    assert asked == [("mobilenet_v2", "imagenet")]
    last = "features.18.0.weight"
    assert torch.equal(encoder.state_dict()[last], pretrained.state_dict()[last])


def test_weights_that_cannot_be_had_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    import segmentation_models_pytorch.encoders as smp_encoders

    def offline(name: str, weights: object = None) -> torch.nn.Module:
        raise OSError("no route to host")

    monkeypatch.setattr(smp_encoders, "get_encoder", offline)
    with pytest.raises(UserError, match=r"mobilenet_v2 cannot be downloaded \(no route to host\)"):
        build_network(with_weights(smp("fpn", "mobilenet_v2"), "imagenet"), dataset(3))


def test_incomplete_weights_are_counted_and_named(mobilenet: State, tmp_path: Path) -> None:
    file = tmp_path / "part.safetensors"
    part = {key: tensor for key, tensor in mobilenet.items() if not key.startswith("features.17.")}
    part["features.18.0.weight"] = torch.zeros(8, 320, 1, 1)
    save_file(part, file)
    with pytest.raises(UserError) as caught:
        build_network(with_weights(smp("fpn", "mobilenet_v2"), file), dataset(3))
    message = str(caught.value)
    assert "part.safetensors" in message
    assert "15 missing (features.17." in message
    assert "1 of another shape (features.18.0.weight (8, 320, 1, 1) for (1280, 320, 1, 1))" in message


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "is named after resnet18. Add resnet18.safetensors"),
        (["resnet18d.safetensors", "resnet180.pt"], "is named after resnet18"),
        (["resnet18.a.safetensors", "resnet18-b.pth"], "Several files"),
    ],
)
def test_a_folder_without_the_one_file(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(UserError) as caught:
        find_weights(str(tmp_path), "resnet18")
    assert message in str(caught.value)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    class Surprise:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "unpickled"),)

    torch.save({"state_dict": Surprise()}, tmp_path / "unsafe.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "torn.safetensors").write_bytes(b"\x00\x01")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "weights.bin").touch()
    network = build_network(smp("fpn", "mobilenet_v2"), dataset(3))
    for name, message in [
        ("unsafe.pt", "cannot be read as plain weights"),
        ("torn.safetensors", "cannot be read as plain weights"),
        ("empty.pth", "cannot be read as plain weights"),
        ("list.pt", "holds no state_dict"),
        ("weights.bin", "ends with none of"),
        ("absent.pt", "no file of weights"),
    ]:
        with pytest.raises(UserError, match=message):
            load_network(network, tmp_path / name)
    assert not (tmp_path / "unpickled").exists()
    with pytest.raises(UserError, match="no file or folder of encoder weights"):
        build_network(with_weights(smp("fpn", "mobilenet_v2"), tmp_path / "absent"), dataset(3))


SAVED = {
    "plain": lambda state: state,
    "ddp": lambda state: {f"module.{key}": each for key, each in state.items()},
    "compiled": lambda state: {f"_orig_mod.{key}": each for key, each in state.items()},
    "compiled-ddp": lambda state: {f"_orig_mod.module.{key}": each for key, each in state.items()},
    "lightning": lambda state: {
        "epoch": 3, "global_step": 12, "pytorch-lightning_version": "2.5", "hyper_parameters": {"lr": 1e-3},
        "state_dict": {"criterion.weight": torch.ones(9)} | {f"model.{key}": each for key, each in state.items()},
    },
    "lightning-compiled": lambda state: {
        "state_dict": {f"model._orig_mod.{key}": each for key, each in state.items()},
    },
    "averaged": lambda state: {"n_averaged": torch.tensor(7)} | {f"module.{key}": each for key, each in state.items()},
    "ema": lambda state: {"state_dict": {f"ema_model.{key}": each for key, each in state.items()}},
    "ema-alone": lambda state: {"model_ema": {f"module.{key}": each for key, each in state.items()}, "epoch": 1},
    "ema-beside": lambda state: {
        "state_dict": {f"ema.{key}": torch.zeros_like(each) for key, each in state.items()}
        | {f"net.{key}": each for key, each in state.items()},
    },
}  # fmt: skip
"""What a state_dict becomes in the hands of wrappers and trainers."""


@pytest.fixture(scope="module")
def teacher() -> Network:
    torch.manual_seed(1)
    return build_network(smp("pspnet", "resnet18"), dataset(3))


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("suffix", [".pt", ".ckpt"])
def test_a_checkpoint_of_a_whole_network(teacher: Network, saved: str, suffix: str, tmp_path: Path) -> None:
    wanted = teacher.state_dict()
    torch.save(SAVED[saved](wanted), tmp_path / f"teacher{suffix}")
    other = build_network(smp("pspnet", "resnet18"), dataset(3))
    load_network(other, tmp_path / f"teacher{suffix}")
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in other.state_dict().items())


def test_an_unknown_prefix_is_named(teacher: Network, tmp_path: Path) -> None:
    state = {f"model.inner.{key}": each for key, each in teacher.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "teacher.pt")
    with pytest.raises(UserError, match=r"begin with 'model\.inner\.', which is none of module\., .*Save the state"):
        load_network(teacher, tmp_path / "teacher.pt")


@pytest.fixture
def refusing_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A proxy on this machine, named by the environment, that lets nothing through."""

    class Refuse(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            self.send_error(403, "not on this network")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("encoder", ["mit_b0", "tu-mobilenetv3_small_050"])
@pytest.mark.usefixtures("refusing_proxy")
def test_imagenet_behind_a_proxy_that_refuses(encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        UserError, match=rf"weights of {encoder} cannot be downloaded .* Check the network and HTTPS_PROXY"
    ):
        build_network(with_weights(smp("fpn", encoder), "imagenet"), dataset(3))


def test_a_checkpoint_of_smp_with_stages_that_never_run(tmp_path: Path) -> None:
    import segmentation_models_pytorch

    original = segmentation_models_pytorch.PSPNet("resnet18", encoder_weights=None, classes=9)
    save_file(original.state_dict(), tmp_path / "smp.safetensors")
    network = build_network(smp("pspnet", "resnet18"), dataset(3))
    load_network(network, tmp_path / "smp.safetensors")
    image_bchw = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        logits_bkhw = network.eval()(image_bchw).logits
        torch.testing.assert_close(original.segmentation_head[1](logits_bkhw), original.eval()(image_bchw))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    two = build_network(clnet(width=8, shared_encoder=False), dataset(4))
    save_file(two.state_dict(), tmp_path / "two.safetensors")
    with pytest.raises(UserError, match=r"0 missing, 0 of another shape, \d+ unexpected \(thermal_encoder"):
        load_network(build_network(clnet(width=8), dataset(4)), tmp_path / "two.safetensors")
    with pytest.raises(UserError, match="0 missing, 2 of another shape"):
        load_network(
            build_network(clnet(width=8, shared_encoder=False), dataset(4, classes=5)), tmp_path / "two.safetensors"
        )


@pytest.mark.real_data
@pytest.mark.skipif("KDSEARCH_DATA" not in os.environ, reason="KDSEARCH_DATA names no folder of real data")
@pytest.mark.parametrize("channels", [3, 4])
def test_real_mobilenet_weights(channels: int) -> None:
    folder = Path(os.environ["KDSEARCH_DATA"]).parent / "weights"
    network = build_network(with_weights(smp("fpn", "mobilenet_v2"), folder), dataset(channels)).eval()
    with torch.no_grad():
        taps = network(torch.randn(1, channels, 64, 64)).taps
    assert 0.1 < taps["c4"].mean() < 10
