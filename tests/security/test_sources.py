"""What the sources must not do, whatever a test forgets: unpickle, evaluate text, start a shell."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parents[2] / "kdsearch").rglob("*.py"))
FORBIDDEN = {
    "eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "cloudpickle.load", "cloudpickle.loads",
    "pd.read_pickle", "pandas.read_pickle", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "joblib.load",
    "subprocess.getoutput", "subprocess.getstatusoutput",
}  # fmt: skip


def calls(source: str) -> list[tuple[str, dict[str, object]]]:
    """The calls in a source by dotted name, with those keyword arguments that are constants."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            constants = {k.arg: k.value.value for k in node.keywords if k.arg and isinstance(k.value, ast.Constant)}
            found.append((ast.unparse(node.func), constants))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_source_neither_unpickles_nor_starts_a_shell(path: Path) -> None:
    for name, constants in calls(path.read_text()):
        assert name not in FORBIDDEN, f"{path} calls {name}"
        assert constants.get("shell") is not True, f"{path}: {name} starts a shell"
        assert constants.get("allow_pickle") is not True, f"{path}: {name} unpickles"
        if name == "torch.load":
            assert constants.get("weights_only") is True, f"{path}: torch.load without weights_only"


def test_the_check_sees_what_it_should() -> None:
    assert calls("import os\nos.system(f'rm {x}')\ntorch.load(p, weights_only=True)") == [
        ("os.system", {}),
        ("torch.load", {"weights_only": True}),
    ]
