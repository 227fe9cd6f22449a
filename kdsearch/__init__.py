"""kdsearch: search for knowledge distillation of semantic segmentation networks.

`__all__` lists the stable names. Each is loaded on first use, so that `import kdsearch` costs nothing: no torch, no
Ray, no MLflow, no Optuna.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kdsearch.version import __version__

_HOMES = {
    "search": "kdsearch.api.search",
    "load_study": "kdsearch.api.functions",
    "plan": "kdsearch.api.functions",
    "evaluate": "kdsearch.api.evaluation",
    "train": "kdsearch.api.functions",
    "Study": "kdsearch.api.study",
    "Trial": "kdsearch.api.trial",
    "Space": "kdsearch.api.space",
    "uniform": "kdsearch.api.space",
    "log": "kdsearch.api.space",
    "integer": "kdsearch.api.space",
    "int_log": "kdsearch.api.space",
    "choice": "kdsearch.api.space",
    "one_of": "kdsearch.api.space",
    "load_student": "kdsearch.models.student",
    "StudyCallback": "kdsearch.search.callbacks",
    "UserError": "kdsearch.errors",
    "StudyFailedError": "kdsearch.errors",
}
"""The stable names, each with the module that defines it."""

__all__ = [
    "Space",
    "Study",
    "StudyCallback",
    "StudyFailedError",
    "Trial",
    "UserError",
    "__version__",
    "choice",
    "evaluate",
    "int_log",
    "integer",
    "load_student",
    "load_study",
    "log",
    "one_of",
    "plan",
    "search",
    "train",
    "uniform",
]  # fmt: skip

if TYPE_CHECKING:
    from kdsearch.api.evaluation import evaluate
    from kdsearch.api.functions import load_study, plan, train
    from kdsearch.api.search import search
    from kdsearch.api.space import Space, choice, int_log, integer, log, one_of, uniform
    from kdsearch.api.study import Study
    from kdsearch.api.trial import Trial
    from kdsearch.errors import StudyFailedError, UserError
    from kdsearch.models.student import load_student
    from kdsearch.search.callbacks import StudyCallback


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kdsearch' has no attribute {name!r}")
    if name == "load_student":
        from kdsearch.compat import ensure_torchvision

        ensure_torchvision()
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _CallablePackage(ModuleType):
    """The packages `kdsearch.search` and `kdsearch.train` bear the names of two functions: a call calls the
    function."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module(_HOMES[name]), name)(*arguments, **options)


for _name in ("search", "train"):
    importlib.import_module(f"kdsearch.{_name}")
    sys.modules[f"kdsearch.{_name}"].__class__ = _CallablePackage
