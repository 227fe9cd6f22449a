from __future__ import annotations

import pytest

from kdsearch.config.target import Target


@pytest.mark.parametrize(
    ("text", "target"), [("cpu", Target("cpu")), ("cpu:4", Target("cpu", 4)), ("cuda", Target("cuda"))]
)
def test_a_target_reads_as_it_is_written(text: str, target: Target) -> None:
    assert Target.parse(text) == target
    assert str(target) == text


@pytest.mark.parametrize("text", ["gpu", "cpu:0", "cpu:", "cuda:1", "cpu:4 ", 4])
def test_other_text_is_no_target(text: object) -> None:
    with pytest.raises(ValueError, match="should be cpu"):
        Target.parse(text)
