"""Checkpoints of whole networks: files of weights, and folders that also describe their network."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, get_args

from kdsearch.compat import ensure_torchvision
from kdsearch.config.networks import AnyNetwork, SmpArch, SmpConfig, without_weights
from kdsearch.errors import UserError
from kdsearch.models.networks.smp import OWN


def checkpoint_file(source: str, config: AnyNetwork) -> Path:
    """The file of weights that `source` names, to be loaded into the network of `config`.

    `source` is a file, or a folder with `model.safetensors` and `config.json`: written by `save_pretrained` of
    segmentation_models_pytorch (as on the Hugging Face hub), or a student of kdsearch. Nothing is downloaded.

    `UserError` if there is nothing, and for a folder with another network, whose settings the message contains.
    """
    path = Path(source)
    if not path.exists():
        raise UserError(
            f"There is no checkpoint '{source}'. Correct teacher.checkpoint; a model of the Hugging Face hub has to be "
            "downloaded first (hf download NAME --local-dir FOLDER), then name its folder."
        )
    if not path.is_dir():
        return path
    held = _read_config(path)
    wanted = without_weights(config).model_dump(mode="json", exclude={"encoder_weights"})
    if isinstance(config, SmpConfig):
        wanted["options"] = _not_default(config.arch, config.options)
    if "_model_class" in held:
        arch = _arch(held["_model_class"], path)
        found = {"arch": arch, "encoder": held.get("encoder_name"), "options": _not_default(arch, held)}
    elif isinstance(held.get("network"), dict):
        found = {name: value for name, value in held["network"].items() if name != "encoder_weights"}
    else:
        raise UserError(
            f"'{path / 'config.json'}' names no network of segmentation_models_pytorch or kdsearch. Name a file of "
            "weights as teacher.checkpoint."
        )
    changes = [f"teacher.{name}={json.dumps(value)}" for name, value in found.items() if wanted.get(name) != value]
    if changes:
        raise UserError(f"'{path}' holds another network than the teacher's: set {', '.join(changes)}.")
    return path / "model.safetensors"


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file() or not (folder / "model.safetensors").is_file():
        raise UserError(
            f"'{folder}' is no checkpoint: config.json or model.safetensors is missing. Name a file of weights, or a "
            "folder that save_pretrained has written, as teacher.checkpoint."
        )
    try:
        held = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"'{file}' is damaged ({error}). Save the network again.") from error
    return held if isinstance(held, dict) else {}


def _arch(class_name: str, path: Path) -> str:
    """The name, in kdsearch and smp, of the architecture of this class of smp."""
    ensure_torchvision()
    import segmentation_models_pytorch as smp

    for arch, constructor in smp.MODEL_ARCHITECTURES_MAPPING.items():
        if constructor.__name__ == class_name and arch in get_args(SmpArch):
            return str(arch)
    raise UserError(f"'{path}' holds a {class_name}, which kdsearch does not build. Take another teacher.")


def _not_default(arch: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of the smp constructor that differ from its defaults, as JSON values."""
    ensure_torchvision()
    import segmentation_models_pytorch as smp

    parameters = inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[arch]).parameters
    default = {name: json.loads(json.dumps(each.default)) for name, each in parameters.items() if name in options}
    return {
        name: value for name, value in json.loads(json.dumps(options)).items()
        if name not in OWN and not name.startswith("_") and (name not in default or value != default[name])
    }  # fmt: skip
