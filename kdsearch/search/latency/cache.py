"""Latencies of a study's students, measured once before training and cached.

`latency.json` in the run folder holds the latencies of the study, also when it is resumed. All measurements are cached
in the storage folder too, by device, versions and size, for later studies.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from kdsearch.config.networks import AnyNetwork
from kdsearch.config.target import Target
from kdsearch.data.info import DatasetInfo
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_json
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.latency.enumerate import network_key
from kdsearch.search.latency.probe import LatencyProbe, OpenProbe
from kdsearch.version import __version__

ROUNDS = 3
"""Rounds in which each network is measured once. Other work on the device slows a network down, and only for a while,
so the quickest round of a network counts."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds of the quickest round and the range of all rounds as a share of it; or the `problem`."""

    ms: float
    spread: float
    problem: str = ""


@dataclass(frozen=True)
class Latencies:
    """Latencies by `network_key`, all on one device with one version of PyTorch."""

    target: Target
    device: str
    torch: str
    networks: Mapping[str, Latency]

    def ms(self, config: AnyNetwork) -> float:
        """Raises `UserError` for a network that could not be measured."""
        known = self.networks[network_key(config)]
        if known.problem:
            raise UserError(f"its latency on {self.device} could not be measured: {known.problem}")
        return known.ms

    def measured(self) -> list[float]:
        return [each.ms for each in self.networks.values() if not each.problem]


def measure_latencies(
    run: RunFolder,
    target: Target,
    wanted: Iterable[AnyNetwork],
    info: DatasetInfo,
    size: tuple[int, int],
    open_probe: OpenProbe,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Latencies:
    """The latencies of all networks in `wanted`; unknown ones are measured.

    A probe is opened only if the run folder lacks some. Raises `UserError` if the latencies of the study are from
    another device or version of PyTorch.
    """
    before = _read(run.latency, target, "restore it from a copy, or start a new study with --warm-start")
    if before is None and run.journal.exists():
        raise UserError(f"{run.latency} is missing; restore it from a copy, or start a new study with --warm-start.")
    missing = [key for key in dict.fromkeys(map(network_key, wanted)) if before is None or key not in before.networks]
    if before is not None and not missing:
        return before
    probe = open_probe(None if before is None else before.device)
    if before is not None and (before.device, before.torch) != (probe.device, probe.torch):
        raise UserError(
            f"The latencies of this study are from {before.device} with torch {before.torch}, and new students would "
            f"be measured on {probe.device} with torch {probe.torch}: resume it on its own device, or start a new "
            "study with --warm-start."
        )
    cache = _cache_file(run, target, probe, info, size)
    cached = _read(cache, target, "remove it")
    known: dict[str, Latency] = {} if cached is None else dict(cached.networks)
    known |= _measure([key for key in missing if key not in known], probe, info, size, on_progress)
    cache.parent.mkdir(parents=True, exist_ok=True)
    # Failures are not cached: one for lack of memory may succeed the next time.
    successes = {key: latency for key, latency in known.items() if not latency.problem}
    _write(cache, Latencies(target, probe.device, probe.torch, successes))
    of_study = {} if before is None else dict(before.networks)
    of_study |= {key: known[key] for key in missing}
    found = Latencies(target, probe.device, probe.torch, of_study)
    _write(run.latency, found)
    return found


def _measure(
    networks: list[str],
    probe: LatencyProbe,
    info: DatasetInfo,
    size: tuple[int, int],
    on_progress: Callable[[int, int], None],
) -> dict[str, Latency]:
    rounds: dict[str, list[float]] = {network: [] for network in networks}
    found: dict[str, Latency] = {}
    for number in range(ROUNDS):
        for index, network in enumerate(networks):
            if network not in found:
                measured = probe.time(network, info, size)
                if isinstance(measured, str):
                    found[network] = Latency(0.0, 0.0, measured)
                else:
                    rounds[network].append(measured)
            on_progress(number * len(networks) + index + 1, ROUNDS * len(networks))
    for network, times in rounds.items():
        if network not in found:
            found[network] = Latency(min(times), max(times) / min(times) - 1)
    return found


def rank_correlation(a: list[float], b: list[float]) -> dict[str, float | None]:
    """Spearman's rho and Kendall's tau-b; None if undefined: fewer than three pairs, or all values equal."""
    from scipy.stats import kendalltau, spearmanr

    if len(a) < 3 or len(set(a)) < 2 or len(set(b)) < 2:
        return {"spearman": None, "kendall": None}
    return {"spearman": float(spearmanr(a, b).statistic), "kendall": float(kendalltau(a, b).statistic)}


# ---- files -------------------------------------------------------------------------------------------------------


def _cache_file(run: RunFolder, target: Target, probe: LatencyProbe, info: DatasetInfo, size: tuple[int, int]) -> Path:
    """The file of the cache for equal conditions; its name contains a digest of all that a latency depends on."""
    packages = {name: metadata.version(name) for name in ("segmentation-models-pytorch", "timm")}
    key = [__version__, str(target), probe.device, probe.torch, packages, list(size), info.channels, len(info.classes)]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    return run.cache / "latency" / f"{target.kind}-{digest}.json"


def _write(path: Path, found: Latencies) -> None:
    networks = {key: asdict(latency) for key, latency in found.networks.items()}
    write_json(path, {"target": str(found.target), "device": found.device, "torch": found.torch, "networks": networks})


def _read(path: Path, target: Target, remedy: str) -> Latencies | None:
    """Read a file that `_write` wrote; None if it is missing. Raises `UserError` for other content."""
    try:
        read: Any = json.loads(path.read_text())
        networks = {
            str(key): Latency(float(each["ms"]), float(each["spread"]), str(each["problem"]))
            for key, each in read["networks"].items()
        }
        found = Latencies(Target.parse(read["target"]), str(read["device"]), str(read["torch"]), networks)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} holds no latencies ({reason}); {remedy}.") from error
    if found.target != target or not all(each.problem or 0 < each.ms < math.inf for each in networks.values()):
        raise UserError(f"{path} holds no latencies on {target}; {remedy}.")
    return found
