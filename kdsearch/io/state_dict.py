"""Weights and training states from files, without running code that a file may hold. Loads torch on first use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt")
PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.", "ema_model.", "model_ema.", "ema.")
"""What wrappers put before the keys of a network: DDP and averaging, torch.compile, Lightning, and copies that hold a
moving average."""
_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "ema_state_dict", "ema")


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a state_dict in a .pt or .pth file; no other object is unpickled.

    `UserError` when the file is missing, cannot be read safely, or holds no tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"There is no file of weights '{path}'. Correct the path.")
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"'{path}' ends with none of {', '.join(SUFFIXES)}. Save the state_dict of the network as one of them."
        )
    if path.suffix == ".safetensors":
        try:
            content: Any = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(
                f"'{path}' cannot be read as plain weights ({error}). Save the state_dict alone."
            ) from error
    else:
        content = load_plain(path, torch.device("cpu"))
    state = _tensors(content)
    if not state:
        raise UserError(f"'{path}' holds no state_dict. Save the state_dict alone.")
    return state


def load_plain(path: Path, device: torch.device) -> Any:
    """The content of a file by `torch.save`: tensors, numbers, text and containers of them. `UserError` for all else.

    The restricted unpickler of `weights_only` runs no code, but may raise any exception for a damaged or hostile file.
    """
    import torch

    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"'{path}' cannot be read as plain weights ({reason}). Save the state_dict alone.") from error


def load_state(module: nn.Module, path: Path, unused: tuple[str, ...] = ()) -> None:
    """Fill `module` from a checkpoint: .safetensors, or a state_dict in .pt or .pth.

    All keys of the network may have one of `PREFIXES`, or several; then keys without it are those of other modules,
    such as a loss, and skipped. So are those of the sub-modules named in `unused`. `UserError` for a missing or
    unreadable file, for an unknown prefix and, with counts and names, unless all other keys and shapes are those of
    `module`.
    """
    from torch import nn

    wanted = module.state_dict()
    state = _without_prefix(read_state(path), wanted)
    skipped = tuple(f"{name}." for name in unused)
    state = {key: tensor for key, tensor in state.items() if not key.startswith(skipped)}
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    mismatched = [
        f"{key} {tuple(tensor.shape)} for {tuple(wanted[key].shape)}"
        for key, tensor in state.items()
        if key in wanted and tensor.shape != wanted[key].shape
    ]
    if missing and (prefix := _unknown_prefix(state, wanted)):
        raise UserError(
            f"The keys in {path} begin with '{prefix}', which is none of {', '.join(PREFIXES)}. Save the state_dict of "
            "the network itself."
        )
    if missing or unexpected or mismatched:
        raise UserError(
            f"{path} is of another network: of {len(wanted)} tensors {listed('missing', missing)}, "
            f"{listed('of another shape', mismatched)}, {listed('unexpected', unexpected)}. "
            "Give the checkpoint of this configuration."
        )
    nn.Module.load_state_dict(module, state)


def listed(what: str, names: list[str]) -> str:
    """`"2 missing (a, b)"`, with three names at most."""
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {what}" + (f" ({shown})" if names else "")


def _without_prefix(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The keys below the prefix that leads to most of the wanted ones. Of equal ones the network's own comes before its
    average, since `PREFIXES` has them in this order.
    """
    prefixes = sorted({_known_prefix(key) for key in state} | {""}, key=_rank)
    below = [{key[len(each) :]: state[key] for key in state if key.startswith(each)} for each in prefixes]
    return max(below, key=lambda found: len(found.keys() & wanted.keys()))


def _known_prefix(key: str) -> str:
    rest = key
    while (prefix := next((each for each in PREFIXES if rest.startswith(each)), None)) is not None:
        rest = rest[len(prefix) :]
    return key[: len(key) - len(rest)]


def _rank(prefix: str) -> tuple[int, ...]:
    parts = prefix.split(".")[:-1]
    return tuple(PREFIXES.index(f"{part}.") for part in parts)


def _unknown_prefix(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """The prefix that all wanted keys have in `state`; empty if they have none."""
    first = next(iter(wanted))
    for prefix in (key[: -len(first)] for key in state if key.endswith(f".{first}")):
        if all(f"{prefix}{key}" in state for key in wanted):
            return prefix
    return ""


def _tensors(content: Any) -> dict[str, Tensor]:
    """The state_dict in `content`, which may be one or hold one under a usual name."""
    from torch import Tensor

    if not isinstance(content, Mapping):
        return {}
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            return _tensors(content[wrapper])
    return {str(key): tensor for key, tensor in content.items() if isinstance(tensor, Tensor)}
