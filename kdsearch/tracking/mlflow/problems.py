"""What MLflow, or what stands before it, answered instead of doing a call: in one sentence, with the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from kdsearch.errors import UserError
from kdsearch.tracking.mlflow.address import without_password

LONGEST = 300
"""Characters of an answer that are shown; a proxy answers with a page."""
_USER = re.compile(r"://[^/\s@]*@")
UNKNOWN_HOST = "Invalid Host header"
"""MLflow's answer to a host name that is not among its allowed hosts."""


def reason_of(error: BaseException) -> str:
    """An exception as one line."""
    text = " ".join(str(getattr(error, "message", "") or error).split())
    if not text or not hasattr(error, "message"):
        text = f"{type(error).__name__}: {text}".rstrip(": ")
    text = _USER.sub("://", text)
    return text if len(text) <= LONGEST else text[:LONGEST].rstrip() + " …"


def remedy_of(error: BaseException) -> str:
    """What to do about a refused call."""
    if UNKNOWN_HOST in str(error):
        return "start the server with --allowed-hosts and the HOST:PORT of the address"
    if isinstance(error, ImportError):
        return f"install {error.name or 'what is missing'}"
    remedies = {
        401: "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        403: "ask for the permission to write there",
        404: "correct host, port and path of --tracking-uri",
    }
    return remedies.get(_status(error) or 0, "look into the server's log, or correct --tracking-uri")


def may_pass(error: BaseException) -> bool:
    """Whether the same call may succeed later: the server is away or busy. A refused value is refused again."""
    status = _status(error)
    if status is None:
        return isinstance(error, OSError)
    return status in (408, 429, 499) or (status >= 500 and status != 501)


@contextmanager
def plain_errors(subject: str, uri: str) -> Iterator[None]:
    """Turn whatever a client raises for an address into `UserError`: `subject` cannot be read.

    A client parses what a server sends, so that anything may be raised where that is no MLflow.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{subject} cannot be read from {without_password(uri)} ({reason_of(error)}); {remedy_of(error)}."
        ) from error


def _status(error: BaseException) -> int | None:
    """The HTTP status of an answer: of MLflow, of its store of artifacts, or of S3; None where there was none."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None
