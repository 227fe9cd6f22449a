"""The code of docs/python.md and of the notebook runs from the first line to the last, on one study."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kdsearch
from tests.docs.blocks import REPOSITORY, blocks

NOTEBOOK = json.loads((REPOSITORY / "examples" / "notebook.ipynb").read_text())


@pytest.fixture
def own_ray() -> Iterator[None]:
    """One Ray for all studies of a test: the library uses a running one."""
    import ray

    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    yield
    os.environ.pop("RAY_ADDRESS", None)
    ray.shutdown()


def run(code: str, origin: str, names: dict[str, Any]) -> None:
    exec(compile(code, origin, "exec", dont_inherit=True), names)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("own_ray")
def test_the_guide_runs_and_the_notebook_continues_its_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks(REPOSITORY / "docs" / "python.md"):
        if block.kind in ("file", "python"):
            run(block.text, str(block), names)
    assert list(names["study"].trials_dataframe()["trial"]) == ["t0000", "t0001", "t0002"]
    assert Path("runs/first/report.html").is_file()
    assert Path("bundle/model.safetensors").is_file()
    assert kdsearch.load_student("again").size == (32, 64)

    names = {}
    for number, cell in enumerate(NOTEBOOK["cells"]):
        if cell["cell_type"] == "code":
            run("".join(cell["source"]), f"notebook, cell {number}", names)
    assert names["study"].status == "done"
    assert len([trial for trial in names["study"].trials if trial.stage == "search"]) == 3, "nothing is trained again"
    assert names["classes_hw"].shape == (120, 200)


def test_the_notebook_is_valid_and_holds_no_outputs() -> None:
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    for cell in NOTEBOOK["cells"]:
        assert cell["cell_type"] in ("code", "markdown")
        assert cell["source"]
        assert "".join(cell["source"]).splitlines(keepends=True) == cell["source"]
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


def test_the_guide_names_everything_that_is_stable() -> None:
    text = (REPOSITORY / "docs" / "python.md").read_text()
    assert [name for name in kdsearch.__all__ if name != "__version__" and f"`{name}`" not in text] == []
