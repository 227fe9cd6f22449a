"""The address of a tracking server or database: its form, whether a server answers there, and how it may be shown."""

from __future__ import annotations

import os
import re
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

from kdsearch.errors import UserError, did_you_mean
from kdsearch.io.run_folder import RunFolder

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SERVERS = ("http", "https")
OPTION = "--tracking-uri"
DEFAULT = "(without --tracking-uri, trials are kept in mlflow.db in the run folder)"


def find(uri: str | None) -> str:
    """`uri`, or the address in the environment. Raises `UserError` where nothing can be read there."""
    source = OPTION if uri else "MLFLOW_TRACKING_URI"
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise UserError("Name the tracking server: --tracking-uri http://HOST:PORT, or MLFLOW_TRACKING_URI.")
    check_address(uri, source)
    path = sqlite_file(uri)
    if path is not None and not path.is_file():
        raise UserError(f"There is no database at {uri}; correct {source}.")
    check_server(uri, source)
    return uri


def check_address(uri: str, source: str = OPTION) -> None:
    """Raise `UserError` where MLflow can keep nothing at an address of this form; `source` is where it was given."""
    try:
        url = urlsplit(uri)
        host, _ = url.hostname, url.port
    except ValueError as error:
        raise UserError(f"{source}: that is no address ({error}); expected http://HOST:PORT.") from error
    scheme, shown = url.scheme.partition("+")[0], f"{source} {without_password(uri)}"
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", uri):
        raise UserError(f"{shown} has no scheme; a server is http://{uri}.")
    if scheme in SERVERS:
        if not host:
            raise UserError(f"{shown} names no server; expected {scheme}://HOST:PORT.")
    elif scheme == "sqlite":
        _check_sqlite(uri, shown)
    elif scheme in ("", "file"):
        _check_files(uri, shown)
    elif scheme not in (*DATABASES, "databricks", "databricks-uc", "uc", *_plugins()):
        raise UserError(f"{shown}: MLflow knows no scheme '{scheme}'.{did_you_mean(scheme, [*SERVERS, *DATABASES])}")


def _check_files(uri: str, shown: str) -> None:
    """MLflow has given up its store of plain files; where it is asked to, it still takes one."""
    if uri.startswith("databricks") or os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("1", "true"):
        return
    folder = uri.removeprefix("file:").removeprefix("//").rstrip("/")
    raise UserError(
        f"{shown} would be a folder of files, which MLflow writes no more; give a database, such as "
        f"sqlite:///{folder}/mlflow.db, or a server, http://HOST:PORT."
    )


def _check_sqlite(uri: str, shown: str) -> None:
    path = sqlite_file(uri)
    if path is None:
        raise UserError(
            f"{shown} names no file; expected sqlite:///PATH/mlflow.db (three slashes, four for an absolute path)."
        )
    if path.is_dir():
        raise UserError(f"{shown} is a folder; name a file in it, sqlite:///{path}/mlflow.db.")
    if not path.parent.is_dir():
        raise UserError(f"{shown}: there is no folder {path.parent}; create it, or correct the path.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"{shown}: {path} may not be written by this user; give another file.")


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite database; None for other addresses, and for one without a file."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri)
    return None if found is None or found[1] in ("/", ":memory:") else Path(found[1])


def own_database(run: RunFolder) -> str:
    """The address of the database in a run folder. Raises `UserError` for a folder that no address can name."""
    path = run.path / "mlflow.db"
    if "?" in str(path):
        raise UserError(
            f"{run.path} has a '?' in its name, which the address of MLflow's database in it cannot have; give another "
            "--name or --storage, or --tracking-uri."
        )
    return f"sqlite:///{path}"


def _plugins() -> list[str]:
    """Schemes of trackers that plug-ins of MLflow bring."""
    return [each.name for each in entry_points(group="mlflow.tracking_store")]


def check_server(uri: str, source: str = OPTION) -> None:
    """Raise `UserError` when `uri` is a server that does not answer."""
    import requests

    if not uri.startswith(("http://", "https://")):
        return
    shown = without_password(uri)
    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=5, verify=_certificates())
        reachable = answer.status_code < 500
    except requests.exceptions.SSLError as error:
        raise UserError(
            f"The certificate of the tracking server {shown} is not trusted; name that of its authority with "
            "MLFLOW_TRACKING_SERVER_CERT_PATH."
        ) from error
    except (requests.RequestException, OSError):
        reachable = False
    if not reachable:
        default = f" {DEFAULT}" * (source == OPTION)
        raise UserError(f"The tracking server {shown} does not answer; start it or correct {source}{default}.")


def _certificates() -> bool | str:
    """What MLflow's own calls go by."""
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("1", "true"):
        return False
    return os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True


def without_password(uri: str) -> str:
    """A tracking URI as it may be shown: without the user and password, and the options, that it may hold."""
    return re.sub(r"://[^/\s@]*@", "://", uri).partition("?")[0].rstrip("/") if "://" in uri else uri
