from __future__ import annotations

from kdsearch.engine.timeouts import Timeouts


def test_an_epoch_may_take_ten_times_the_longest_so_far_and_never_less_than_ten_minutes() -> None:
    limits = Timeouts(900)
    assert limits.of_epoch(2.0, first=False) == 600
    assert limits.of_epoch(300.0, first=False) == 3000


def test_a_first_epoch_may_take_longer_than_anything_seen() -> None:
    limits = Timeouts(900)
    assert limits.of_epoch(0.0, first=True) == 7200
    assert limits.of_epoch(1000.0, first=True) == 10_000


def test_a_limit_that_is_given_holds() -> None:
    assert {Timeouts(900, 40).of_epoch(300.0, first) for first in (True, False)} == {40}
