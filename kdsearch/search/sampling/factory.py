"""Samplers by name: those of Optuna that `search.sampler` knows, and those of plug-ins.

Plug-ins list samplers in `SAMPLERS`, a mapping from a name to one of

- a class of `optuna.samplers.BaseSampler`;
- the import path of one, `"package.module:Class"`;
- a class with a pydantic model `Config` and a static or class method `build(config: Config, seed: int)` that returns
  an Optuna sampler.

The options of `search.sampler: {name: ..., options: {...}}` are keyword arguments of the class, or fields of `Config`.
A class that takes `seed` receives one: that of the study, changed at each resume so that no draw is repeated.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import warnings
from typing import Any

import optuna

from kdsearch.config.sampler import (
    SAMPLER,
    AnySampler,
    GPConfig,
    NSGA2Config,
    PluginSamplerConfig,
    QMCConfig,
    RandomConfig,
    TPEConfig,
)
from kdsearch.errors import UserError, did_you_mean
from kdsearch.search.sampling.optuna_private import tpe_sampler


def make_sampler(config: AnySampler, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler that `config` names. Raises `UserError` for a missing package or a wrong entry of a plug-in."""
    options = config.model_dump(exclude={"name", "history"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match config:
            case TPEConfig():
                return tpe_sampler(seed=seed, **options)
            case NSGA2Config():
                return optuna.samplers.NSGAIISampler(seed=seed, **options)
            case GPConfig():
                _require("gp", "scipy", "torch")
                return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False, **options)
            case RandomConfig():
                return optuna.samplers.RandomSampler(seed=seed)
            case QMCConfig():
                _require("qmc", "scipy")
                return optuna.samplers.QMCSampler(
                    seed=seed, warn_independent_sampling=False, warn_asynchronous_seeding=False, **options
                )
            case PluginSamplerConfig():
                return _plugin_sampler(config, seed)


def _require(sampler: str, *packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"search.sampler {sampler} needs {' and '.join(missing)}: pip install {' '.join(missing)}, "
            "or choose tpe, nsga2 or random."
        )


# ---- plug-ins --------------------------------------------------------------------------------------------------------


def _plugin_sampler(config: PluginSamplerConfig, seed: int) -> optuna.samplers.BaseSampler:
    entry = SAMPLER.plugins()[config.name]
    if isinstance(entry, str):
        entry = _imported(config.name, entry)
    if hasattr(entry, "Config") and hasattr(entry, "build"):
        sampler = entry.build(entry.Config.model_validate(config.options), seed)
        if not isinstance(sampler, optuna.samplers.BaseSampler):
            raise UserError(f"SAMPLERS['{config.name}']: build returned {sampler!r}, not an Optuna sampler.")
        return sampler
    if not (isinstance(entry, type) and issubclass(entry, optuna.samplers.BaseSampler)):
        raise UserError(
            f"SAMPLERS['{config.name}'] is {entry!r}: expected a class of optuna.samplers.BaseSampler, its import path "
            "'package.module:Class', or a class with Config and build."
        )
    return _of_class(config, entry, seed)


def _imported(name: str, path: str) -> Any:
    """The object at `"package.module:Class"`."""
    module_name, colon, attribute = path.partition(":")
    if not colon:
        raise UserError(f"SAMPLERS['{name}'] is '{path}': expected an import path 'package.module:Class'.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(f"SAMPLERS['{name}'] is '{path}', but {error}; install the package.") from error
    if not hasattr(module, attribute):
        raise UserError(
            f"SAMPLERS['{name}'] is '{path}', but {module_name} has no {attribute}."
            f"{did_you_mean(attribute, [each for each in dir(module) if not each.startswith('_')])}"
        )
    return getattr(module, attribute)


def _of_class(
    config: PluginSamplerConfig, kind: type[optuna.samplers.BaseSampler], seed: int
) -> optuna.samplers.BaseSampler:
    parameters = inspect.signature(kind).parameters
    any_name = any(each.kind == inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    known = [name for name in parameters if name not in ("args", "kwargs", "seed")]
    for option in config.options:
        if option not in known and not any_name:
            raise UserError(
                f"search.sampler.options: sampler '{config.name}' has no option '{option}'."
                f"{did_you_mean(option, known)}"
            )
    seeded = {"seed": seed} if "seed" in parameters else {}
    try:
        return kind(**seeded, **config.options)
    except (TypeError, ValueError) as error:
        raise UserError(f"search.sampler.options: sampler '{config.name}' refuses them: {error}") from error
