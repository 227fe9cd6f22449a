from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from kdsearch.config.sampler import TPEConfig
from kdsearch.config.search import ConfirmConfig, Constraint, SearchConfig


def test_defaults() -> None:
    search = SearchConfig()
    assert (search.trials, search.rungs, search.stop, search.sampler.name) == (100, (), "forecast", "tpe")
    assert search.objectives == {"miou": "max", "gflops": "min"}
    assert ConfirmConfig().seeds == 0


def test_samplers_by_name_with_their_options() -> None:
    by_name = SearchConfig.model_validate({"sampler": "gp"})
    assert by_name.sampler == SearchConfig.model_validate({"sampler": {"name": "gp"}}).sampler
    options = SearchConfig.model_validate({"sampler": {"multivariate": True, "n_startup_trials": 3}}).sampler
    assert isinstance(options, TPEConfig)
    assert (options.multivariate, options.n_startup_trials, options.n_ei_candidates) == (True, 3, 24)
    again = SearchConfig.model_validate(by_name.model_dump(mode="json"))
    assert again == by_name


def test_constraints_on_what_trials_report() -> None:
    search = SearchConfig.model_validate({"constraints": {"val/iou/person": ">= 0.5", "time/train_s": "<= 90"}})
    assert search.constraints["val/iou/person"].violation(0.25) == 0.25


def test_constraints() -> None:
    search = SearchConfig.model_validate({"constraints": {"gflops": "<= 60", "params_m": ">=1.5"}})
    assert search.constraints == {"gflops": Constraint("<=", 60.0), "params_m": Constraint(">=", 1.5)}
    assert search.constraints["gflops"].violation(61) == 1
    assert search.constraints["params_m"].violation(2) == -0.5
    assert search.model_dump(mode="json")["constraints"] == {"gflops": "<= 60", "params_m": ">= 1.5"}
    assert SearchConfig.model_validate(search.model_dump(mode="json")) == search


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"objectives": {"miou": "min"}}, "miou has only the direction max, got min"),
        ({"objectives": {}}, "at least 1 item"),
        ({"objectives": {"iou": "max"}}, "'miou', 'gflops', 'params_m' or 'latency_ms'"),
        ({"constraints": {"miou": ">= 0.5"}}, "no metric is called 'miou'. Did you mean 'val/miou'?"),
        ({"constraints": {"gflops": "60"}}, "should be text such as '<= 60'"),
        ({"constraints": {"gflops": 60}}, "should be text such as '<= 60'"),
        ({"constraints": {"gflops": "<= -1"}}, "should be text such as '<= 60'"),
        ({"rungs": [3, 3]}, "should increase strictly"),
        ({"rungs": [0]}, "greater than 0"),
        ({"reduction": 1}, "greater than or equal to 2"),
        ({"trials": 0}, "greater than 0"),
        ({"max_failures": -1}, "greater than or equal to 0"),
        ({"sampler": "cma"}, "there is no sampler 'cma'. Known: gp, nsga2, qmc, random, tpe."),
        ({"sampler": {"name": "tpe", "n_startup": 3}}, "unknown key. Did you mean 'n_startup_trials'?"),
        ({"sampler": {"name": "random", "scramble": True}}, "unknown key"),
        ({"sampler": {"name": "tpe", "group": True}}, "group has no effect without multivariate"),
        ({"sampler": {"name": "qmc", "qmc_type": "lattice"}}, "'sobol' or 'halton'"),
        ({"trails": 3}, "unknown key. Did you mean 'trials'?"),
    ],
)
def test_errors(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        SearchConfig.model_validate(section)
    assert message in str(error.value)
