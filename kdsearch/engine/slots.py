"""The number of trials that run at a time: as many as the cluster holds at the moment, between two bounds."""

from __future__ import annotations

from collections.abc import Callable, Collection

from kdsearch.engine.cluster import slots
from kdsearch.engine.messages import Placement


class Slots:
    """Call it for the present number, between `least` and `most`; `on_change` is notified when it has changed.

    Nodes whose ids `avoided` returns do not count.
    """

    def __init__(
        self,
        placement: Placement,
        least: int,
        most: int,
        on_change: Callable[[int], None],
        avoided: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._placement, self._least, self._most, self._on_change = placement, least, most, on_change
        self._avoided = avoided
        self.now = self._count()

    def __call__(self) -> int:
        if (count := self._count()) != self.now:
            self.now = count
            self._on_change(count)
        return self.now

    def _count(self) -> int:
        return min(max(slots(self._placement, self._avoided()), self._least), self._most)
