"""Weights from files: of an encoder (ImageNet weights, in several spellings) or of a whole network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from kdsearch.errors import UserError
from kdsearch.io.state_dict import PREFIXES, SUFFIXES, listed, load_state, read_state
from kdsearch.models.network import Network, reason_of

_PREFIXES = (*PREFIXES, "encoder.", "backbone.", "state_dict.")


def load_encoders(network: Network, encoder: str, source: str) -> None:
    """Fill the encoders of `network`, of the kind named `encoder`, from `source`.

    `source` is a file (.safetensors, .pt, .pth, .ckpt), a folder that holds one named after the encoder
    (`mobilenet_v2_imagenet.safetensors`), or "imagenet" for the weights that smp and timm download. Keys may be
    those of torchvision, timm or smp, with any of the known prefixes, `encoder.` and `backbone.`; keys that
    the encoder lacks, such as a classifier, are skipped. Three-channel weights extend to RGB and thermal: the
    fourth filter is the mean of the others, and all are scaled by 3/4, so that equal channels give equal responses.

    Raises `UserError` for a missing or unreadable file and, with counts and names, for weights that do not cover the
    whole encoder.
    """
    if source == "imagenet":
        state, origin = _download(encoder), f"the ImageNet weights of {encoder}"
    else:
        path = find_weights(source, encoder)
        state, origin = read_state(path), str(path)
    for module in network.encoders():
        load_encoder(module, state, origin)


def load_encoder(encoder: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Fill one encoder from `state`; `origin` names it in the `UserError` for keys that are missing or do not fit."""
    given: dict[str, Tensor] = {}
    for key, tensor in state.items():
        given.setdefault(_canonical(key), tensor)  # the network's own come before their average
    wanted = encoder.state_dict()
    missing, mismatched = [], []
    found: dict[str, Tensor] = {}
    for key, tensor in wanted.items():
        value = given.get(_canonical(key))
        if value is None:
            if not key.endswith("num_batches_tracked"):
                missing.append(key)
            continue
        value = _fit_channels(value, tensor)
        if value.shape != tensor.shape:
            mismatched.append(f"{key} {tuple(value.shape)} for {tuple(tensor.shape)}")
        found[key] = value
    if missing or mismatched:
        raise UserError(
            f"{origin} does not hold the weights of this encoder: of {len(wanted)} tensors "
            f"{listed('missing', missing)}, {listed('of another shape', mismatched)}. "
            "Give the file of the same encoder."
        )
    nn.Module.load_state_dict(encoder, found, strict=False)  # some smp encoders narrow load_state_dict


def load_network(network: nn.Module, path: str | Path) -> None:
    """Fill a whole network, such as a teacher, from a checkpoint, whatever has wrapped it; see `load_state`.

    `UserError` for a missing or unreadable file and, with counts and names, unless the keys and shapes are those of the
    network, apart from known prefixes and the modules in `Network.dropped`.
    """
    load_state(network, Path(path), unused=getattr(network, "dropped", ()))


def find_weights(source: str, encoder: str) -> Path:
    """The file `source`, or the one in the folder `source` that is named after the encoder. Else `UserError`."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"There is no file or folder of encoder weights '{source}'. Correct encoder_weights.")
    plain = encoder.removeprefix("tu-")
    named = re.compile(rf"{re.escape(plain)}([._-].*)?")
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and named.fullmatch(file.stem))
    files = [file for file in files if file.stem == plain] or files
    if not files:
        raise UserError(f"No file in '{source}' is named after {encoder}. Add {plain}.safetensors, or name a file.")
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise UserError(f"Several files in '{source}' are named after {encoder}: {names}. Name one as encoder_weights.")
    return files[0]


def _download(encoder: str) -> Mapping[str, Tensor]:
    from segmentation_models_pytorch.encoders import get_encoder

    try:
        pretrained = get_encoder(encoder, weights=True if encoder.startswith("tu-") else "imagenet")
    except Exception as error:  # a proxy, a firewall or a hub: each library that downloads has errors of its own
        raise UserError(
            f"The ImageNet weights of {encoder} cannot be downloaded ({reason_of(error)}). Check the network and "
            "HTTPS_PROXY, or name a file or folder as encoder_weights."
        ) from error
    state: Mapping[str, Tensor] = pretrained.state_dict()
    return state


def _canonical(key: str) -> str:
    """A key without prefixes, and with `stages.0` for the `stages_0` of flattened timm encoders."""
    while key.startswith(_PREFIXES):
        key = key.split(".", 1)[1]
    return re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", key)


def _fit_channels(value: Tensor, wanted: Tensor) -> Tensor:
    """Three-channel filters `[O, 3, k, k]` as four-channel ones when those are wanted."""
    if value.ndim != 4 or value.shape[1] != 3 or tuple(wanted.shape[:2]) != (value.shape[0], 4):
        return value
    return torch.cat((value, value.mean(1, keepdim=True)), 1) * 0.75
