"""A finished study of version 0.1, as its run folder was left: opened, reported, exported and resumed.

The folder in `tests/fixtures` has everything but the weights of its students, which are made here: networks of the same
configurations with random weights.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from safetensors.torch import save_file

import kdsearch
from kdsearch.config.networks import NetworkConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.io.run_folder import RunFolder
from kdsearch.models.registry import build_network
from kdsearch.models.student import read_config
from kdsearch.search.storage.listing import list_runs

FIXTURE = Path(__file__).parents[1] / "fixtures" / "study_0_1"


@pytest.fixture
def old(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "runs" / "old")
    shutil.copytree(FIXTURE, run.path)
    run.create()
    for folder in run.students.iterdir():
        config = read_config(folder)
        info = DatasetInfo(
            **{name: tuple(map(tuple, v)) if name == "palette" else tuple(v) if isinstance(v, list) else v
               for name, v in config["dataset"].items()}
        )  # fmt: skip
        network = build_network(TypeAdapter(NetworkConfig).validate_python(config["network"]), info)
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "model.safetensors")
    return run


def test_it_is_opened_and_listed(old: RunFolder) -> None:
    study = kdsearch.load_study(old.path)
    assert (study.name, study.status) == ("old", "done")
    frame = study.trials_dataframe()
    assert list(frame[frame.stage == "search"].trial) == ["t0000", "t0001", "t0002", "t0003"]
    assert list(study.frontier().trial) == ["t0000"]
    assert study.frontier().gain[0] == pytest.approx(study.summary().frontier[0].gain)
    assert len(study.trial("t0000").history()) == 3
    assert len(study.optuna().trials) >= 4
    (listed,) = list_runs(str(old.path.parent))
    assert (listed.status, listed.trials, listed.frontier) == ("done", 4, 1)


def test_it_is_reported_and_exported(old: RunFolder, tmp_path: Path) -> None:
    study = kdsearch.load_study(old.path)
    assert "t0000" in study.report().read_text()
    assert kdsearch.load_student(study.export(tmp_path / "bundle")).size == (32, 64)


@pytest.mark.ray
def test_it_is_resumed(old: RunFolder) -> None:
    before = kdsearch.load_study(old.path).trials_dataframe().set_index("trial")
    study = kdsearch.search(
        "tiny", resume=True, name="old", storage=old.path.parent, trials=5, confirm=False, progress="none"
    )
    after = study.trials_dataframe().set_index("trial")
    assert after.loc["t0004"].state in ("COMPLETE", "PRUNED")
    for name in before.index:
        assert after.loc[name].miou == pytest.approx(before.loc[name].miou, nan_ok=True)
