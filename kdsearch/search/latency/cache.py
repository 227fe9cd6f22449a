"""Latencies of a study's students: measured once, before training, and kept.

`latency.json` in the run folder is what the study goes by: resuming it reads them there. What was measured is also kept
under the storage, by device, versions and size, for the next study.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from kdsearch.version import __version__
from kdsearch.config.networks import AnyNetwork
from kdsearch.config.target import Target
from kdsearch.data.info import DatasetInfo
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_json
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.latency.enumerate import network_key

ROUNDS = 3
"""Times that all networks are measured, in turns. Whatever else the device does can only slow a network down, and for a
while: so the quickest of a network's rounds counts."""


class LatencyProbe(Protocol):
    """Measures networks on a device: milliseconds, or why it could not."""

    device: str
    torch: str

    def time(self, network: str, info: DatasetInfo, size: tuple[int, int]) -> float | str: ...


@dataclass(frozen=True)
class Latency:
    """Milliseconds of the quickest round, and how far the rounds lie apart, as a share of it; or the `problem`."""

    ms: float
    spread: float
    problem: str = ""


@dataclass(frozen=True)
class Latencies:
    """Latencies by `network_key`, all of them on one device with one version of torch."""

    target: Target
    device: str
    torch: str
    of: Mapping[str, Latency]

    def ms(self, config: AnyNetwork) -> float:
        """Raises `UserError` for a network that could not be measured."""
        known = self.of[network_key(config)]
        if known.problem:
            raise UserError(f"its latency on {self.device} could not be measured: {known.problem}")
        return known.ms

    def measured(self) -> list[float]:
        return [each.ms for each in self.of.values() if not each.problem]


def latencies(
    run: RunFolder,
    target: Target,
    wanted: Iterable[AnyNetwork],
    info: DatasetInfo,
    size: tuple[int, int],
    stopwatch: Callable[[str | None], LatencyProbe],
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Latencies:
    """The latencies of all networks in `wanted`; those that are not known yet are measured.

    `stopwatch` gives one on the device of that name, on any that `target` fits where the name is None; it is called
    only where something is missing in the run folder. Raises `UserError` where the study's numbers are from another
    device or version of torch.
    """
    before = _read(run.latency, target, "bring it back from a copy, or start a new study with --warm-start")
    if before is None and run.journal.exists():
        raise UserError(f"{run.latency} is missing; bring it back from a copy, or start a new study with --warm-start.")
    missing = [key for key in dict.fromkeys(map(network_key, wanted)) if before is None or key not in before.of]
    if before is not None and not missing:
        return before
    watch = stopwatch(None if before is None else before.device)
    if before is not None and (before.device, before.torch) != (watch.device, watch.torch):
        raise UserError(
            f"The latencies of this study are from {before.device} with torch {before.torch}, and new students would "
            f"be measured on {watch.device} with torch {watch.torch}: go on where it began, or start a new study with "
            "--warm-start."
        )
    cache = _cache_file(run, target, watch, info, size)
    known = _read(cache, target, "remove it")
    of: dict[str, Latency] = {} if known is None else dict(known.of)
    new = _measure([key for key in missing if key not in of], watch, info, size, advance)
    found = Latencies(target, watch.device, watch.torch, of | new)
    cache.parent.mkdir(parents=True, exist_ok=True)
    # What failed may have failed for want of memory that is there the next time.
    _write(cache, Latencies(target, watch.device, watch.torch, {k: v for k, v in found.of.items() if not v.problem}))
    kept = {} if before is None else dict(before.of)
    mine = Latencies(target, watch.device, watch.torch, kept | {key: found.of[key] for key in missing})
    _write(run.latency, mine)
    return mine


def _measure(
    networks: list[str],
    watch: LatencyProbe,
    info: DatasetInfo,
    size: tuple[int, int],
    advance: Callable[[int, int], None],
) -> dict[str, Latency]:
    rounds: dict[str, list[float]] = {network: [] for network in networks}
    found: dict[str, Latency] = {}
    for number in range(ROUNDS):
        for index, network in enumerate(networks):
            if network not in found:
                answer = watch.time(network, info, size)
                if isinstance(answer, str):
                    found[network] = Latency(0.0, 0.0, answer)
                else:
                    rounds[network].append(answer)
            advance(number * len(networks) + index + 1, ROUNDS * len(networks))
    for network, times in rounds.items():
        if network not in found:
            found[network] = Latency(min(times), max(times) / min(times) - 1)
    return found


def rank_correlation(a: list[float], b: list[float]) -> dict[str, float | None]:
    """Spearman's rho and Kendall's tau-b; None where they are not defined: under three pairs, or all of a kind."""
    from scipy.stats import kendalltau, spearmanr

    if len(a) < 3 or len(set(a)) < 2 or len(set(b)) < 2:
        return {"spearman": None, "kendall": None}
    return {"spearman": float(spearmanr(a, b).statistic), "kendall": float(kendalltau(a, b).statistic)}


# ---- files -------------------------------------------------------------------------------------------------------


def _cache_file(run: RunFolder, target: Target, watch: LatencyProbe, info: DatasetInfo, size: tuple[int, int]) -> Path:
    """Where latencies lie that are the same measurement: named by everything that they depend on."""
    packages = {name: metadata.version(name) for name in ("segmentation-models-pytorch", "timm")}
    key = [__version__, str(target), watch.device, watch.torch, packages, list(size), info.channels, len(info.classes)]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    return run.cache / "latency" / f"{target.kind}-{digest}.json"


def _write(path: Path, found: Latencies) -> None:
    networks = {key: asdict(latency) for key, latency in found.of.items()}
    write_json(path, {"target": str(found.target), "device": found.device, "torch": found.torch, "networks": networks})


def _read(path: Path, target: Target, remedy: str) -> Latencies | None:
    """A file that `_write` wrote; None where there is none. Raises `UserError` for anything else."""
    try:
        read: Any = json.loads(path.read_text())
        of = {
            str(key): Latency(float(each["ms"]), float(each["spread"]), str(each["problem"]))
            for key, each in read["networks"].items()
        }
        found = Latencies(Target.parse(read["target"]), str(read["device"]), str(read["torch"]), of)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} holds no latencies ({reason}); {remedy}.") from error
    if found.target != target or not all(each.problem or 0 < each.ms < math.inf for each in of.values()):
        raise UserError(f"{path} holds no latencies on {target}; {remedy}.")
    return found
