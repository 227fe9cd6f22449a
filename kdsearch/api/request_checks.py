"""Checks of a request before anything is written, and of the files that a resumed study finds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdsearch.api.request import StudyRequest
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.data.registry import open_reader
from kdsearch.engine.address import check_cluster
from kdsearch.engine.cluster import check_batches, check_share, ranks_alone
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.costs import check_space
from kdsearch.tracking.mlflow.address import check_address, check_server, own_database
from kdsearch.train.requirements import check_weights


def check_request(request: StudyRequest, space: SearchSpace, run: RunFolder) -> None:
    """Raise `UserError` for a request that no study can meet, before data are read."""
    _check_limits(request)
    check_cluster(request.address)
    check_batches(space, request.workers_per_trial)
    info = open_reader(space.default().trial.data).info
    check_space(space, info, ranks_alone(request.workers_per_trial, request.gpus_per_worker, request.address))
    check_weights(space.default().trial, info)
    if request.tracking_uri is None:
        own_database(run)
    else:
        check_address(request.tracking_uri)
        check_server(request.tracking_uri)


def _check_limits(request: StudyRequest) -> None:
    """Raise `UserError` for numbers with which no trial could start, or of which one undoes another."""
    check_share(request.gpus_per_worker)
    if request.grow_to is not None and request.max_concurrent is not None and request.grow_to > request.max_concurrent:
        raise UserError(
            f"--grow-to {request.grow_to} asks for more trials at a time than --max-concurrent "
            f"{request.max_concurrent} allows; leave one of them out, or make them equal."
        )


@contextmanager
def values_of_a_study(file: Path) -> Iterator[None]:
    """Turn errors from odd values in a file of the run folder into one sentence: it may come from somebody else."""
    try:
        yield
    except UserError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(
            f"{file} holds values that no study writes ({reason}); bring it back from a copy, or start anew under "
            "another --name."
        ) from error
