from __future__ import annotations

import pytest
import torch

from kdsearch.config.space.search_space import load_space
from kdsearch.config.target import Target
from kdsearch.data.registry import open_reader
from kdsearch.errors import UserError
from kdsearch.models.latency import device_name, latency_ms
from kdsearch.search.latency.enumerate import students


def test_a_network_that_was_never_built_before_is_measured() -> None:
    space = load_space("clfd", profile="demo")
    info = open_reader(space.default().trial.data).info
    threads = torch.get_num_threads()
    for sample in list(students(space).values())[:3]:
        found = latency_ms(sample.trial.student, info, (64, 96), Target("cpu"))
        assert 0 < found < 60_000
    assert torch.get_num_threads() == threads
    assert device_name(Target("cpu"))


def test_what_cannot_be_built_is_refused() -> None:
    space = load_space("clfd", profile="demo")
    student = space.default().trial.student.model_copy(update={"encoder": "resnet999"})
    with pytest.raises(UserError):
        latency_ms(student, open_reader(space.default().trial.data).info, (64, 96), Target("cpu"))
