"""Drivers that are killed at any moment: nothing is lost, nothing is told twice, nothing is left running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from kdsearch.config.space.search_space import load_space
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.confirm import control_to_show
from kdsearch.search.storage.study_storage import StudyStorage
from tests.end_to_end.cluster import SETTINGS, Nodes
from tests.engine.killed_driver import SLOTS
from tests.search.conftest import SPACE, cost_of

KILLS = 24
KILLS_ON_RAY = 10
"""A life of a driver on Ray takes ten seconds, and half a second without."""
FINISHED = {1, 2, 3}  # Optuna's numbers for COMPLETE, PRUNED and FAIL in a journal
STATE_OP = 6


@pytest.mark.slow
def test_a_study_whose_driver_is_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    ends_as_if_it_had_not_been(tmp_path, None, KILLS)


@pytest.mark.ray
def test_so_does_one_on_a_ray_cluster_of_two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    nodes = Nodes()
    try:
        nodes.add()
        ends_as_if_it_had_not_been(tmp_path, nodes.address, KILLS_ON_RAY)
    finally:
        nodes.shutdown()


def ends_as_if_it_had_not_been(tmp_path: Path, address: str | None, kills: int) -> None:
    """`address` is that of a Ray cluster, where the driver works on one."""
    text = SPACE.replace("trials: 8", "trials: 16").replace("epochs: 4", "epochs: 6") + "confirm: {seeds: 2}\n"
    (tmp_path / "toy.yaml").write_text(text)
    answer = subprocess.run(
        [sys.executable, "-m", "tests.engine.killed_driver", str(tmp_path), str(kills), "0", *filter(None, [address])],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
        timeout=240 if address is None else 900, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    life = json.loads(answer.stdout.splitlines()[-1])
    assert life["status"] == 0, answer.stderr
    assert life["killed"] >= 0.8 * kills

    space = load_space(tmp_path / "toy.yaml")
    run = RunFolder.at(str(tmp_path), "run")
    record = StudyStorage.open(run.journal, space, cost_of)
    records = {each.id: each for each in record.trials}
    members = {point["trial"] for point in json.loads(run.summary.read_text())["frontier"]}
    assert not list(record.running())
    assert record.searched() == 16
    assert {stage: len(record.complete(stage)) for stage in ("confirm", "control")} == {
        "confirm": 2 * len(members),
        "control": sum(each.stage == "control" for each in record.trials),
    }
    record.close()

    # Told once each, and once to the sampler, infeasible ones and copies included.
    entries = [json.loads(line) for line in run.journal.read_text().splitlines()]
    outcomes = Counter(e["trial_id"] for e in entries if "outcome" in e.get("user_attr", {}))
    assert set(outcomes.values()) == {1}
    assert len(outcomes) == len(records)
    ends = Counter(e["trial_id"] for e in entries if e["op_code"] == STATE_OP and e["state"] in FINISHED)
    assert set(ends.values()) == {1}

    # No epoch was left out, and a kill cost at most the epoch in hand.
    epochs: dict[str, list[int]] = {}
    for line in (run.path / "epochs.log").read_text().splitlines():
        name, epoch = line.split()
        epochs.setdefault(name, []).append(int(epoch))
    trained = {name for name, each in records.items() if each.state != "INFEASIBLE"}
    assert set(epochs) == trained
    again = 0
    for name, of_trial in epochs.items():
        assert sorted(set(of_trial)) == list(range(1, records[name].epoch + 1))
        assert of_trial == sorted(of_trial)
        again += len(of_trial) - len(set(of_trial))
    assert again <= life["killed"] * (1 if address is None else SLOTS)

    tables = pd.read_parquet(run.path / "trials.parquet")
    assert set(tables.trial) == set(records)
    assert json.loads(run.summary.read_text())["status"] == "done"
    shown = [control_to_show(records[name].config, list(records.values()), space.confirm) for name in members]
    controls = {control.id for control in shown if control}
    assert controls
    assert {folder.name for folder in run.students.iterdir()} == members | controls
    assert (run.path / "frontier.html").exists()
    assert not list(run.checkpoints.iterdir())
    assert not list(run.path.glob(".*"))
