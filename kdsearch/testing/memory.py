"""Peak memory of a piece of torch code, as recorded by the allocator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def peak_extra_bytes(function: Callable[[], Any], device: torch.device | str = "cpu") -> int:
    """Peak of the bytes that `function` allocates beyond those in use before, buffers inside operators included.

    On the CPU the profiler records every allocation; on a GPU torch's allocator keeps the peak itself.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = function()
    del result
    held = peak = 0
    results = profile.profiler.kineto_results
    memory = [event for event in results.events() if event.name() == "[memory]"]
    for event in sorted(memory, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
