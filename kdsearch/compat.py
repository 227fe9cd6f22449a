"""Import of torchvision with a CPU-only torch.

The Linux wheel of torchvision on PyPI is a CUDA build. With a CPU-only torch its C++ operators do not load, and the
import fails at the fake kernels of two missing operators. Declaring their schemas is enough: nothing in kdsearch, smp
or timm calls them. Call `ensure_torchvision()` before any import of torchvision.
"""

from __future__ import annotations

from typing import Any

_library: Any = None  # kept alive: the schemas vanish with the library object


def ensure_torchvision() -> None:
    """Declare `torchvision::nms` and `torchvision::qnms` if torchvision's own operators cannot load."""
    global _library
    import sys

    if _library is not None or "torchvision" in sys.modules:
        return
    import importlib.util

    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or torch.version.cuda is not None:
        return
    if _operators_load(spec.origin):
        return
    _library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        _library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _operators_load(torchvision_init: str) -> bool:
    """Whether torchvision's C++ operators load into this process; they stay loaded, as after its import."""
    from pathlib import Path

    import torch

    library = next(iter(Path(torchvision_init).parent.glob("_C*.so")), None)
    if library is None:
        return False
    try:
        torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True
