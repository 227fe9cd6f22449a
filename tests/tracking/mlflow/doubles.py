"""A tracking server in this process, as small as a study needs, that refuses calls as it is told to."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Answer = tuple[int, Any]
Refuse = Callable[[str, dict[str, Any]], "Answer | None"]
"""From the path behind `/api/2.0/mlflow/` and the request to an answer, or None for the usual one."""


class FakeMLflow:
    """The state of the server: its experiments and runs, and the paths of all calls."""

    def __init__(self, artifacts: Path, refuse: Refuse) -> None:
        self.artifacts, self.refuse = artifacts, refuse
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.url = ""

    def answer(self, path: str, request: dict[str, Any]) -> Answer:
        self.calls.append(path)
        refused = self.refuse(path, request)
        if refused is not None:
            return refused
        handler = getattr(self, path.replace("/", "_").replace("-", "_"), None)
        return handler(request) if handler else (404, {"error_code": "ENDPOINT_NOT_FOUND", "message": path})

    def run(self, trial: str) -> dict[str, Any]:
        """The one run of a trial, with its metrics, parameters and tags by name."""
        (found,) = [run for run in self.runs.values() if _tag(run, "kdsearch.trial") == trial]
        data = found["data"]
        return {"status": found["info"]["status"], "stage": found["info"]["lifecycle_stage"]} | {
            kind: {each["key"]: each["value"] for each in data[kind]} for kind in ("metrics", "params", "tags")
        }

    # ---- calls ---------------------------------------------------------------------------------------------------

    def experiments_get_by_name(self, request: dict[str, Any]) -> Answer:
        for experiment in self.experiments.values():
            if experiment["name"] == request["experiment_name"]:
                return 200, {"experiment": experiment}
        return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}

    def experiments_create(self, request: dict[str, Any]) -> Answer:
        number = str(len(self.experiments) + 1)
        self.experiments[number] = {
            "experiment_id": number, "name": request["name"], "lifecycle_stage": "active", "tags": [],
            "artifact_location": (self.artifacts / number).as_uri(),
        }  # fmt: skip
        return 200, {"experiment_id": number}

    def experiments_get(self, request: dict[str, Any]) -> Answer:
        return 200, {"experiment": self.experiments[request["experiment_id"]]}

    def experiments_set_experiment_tag(self, request: dict[str, Any]) -> Answer:
        self.experiments[request["experiment_id"]]["tags"].append({"key": request["key"], "value": request["value"]})
        return 200, {}

    def runs_create(self, request: dict[str, Any]) -> Answer:
        run_id = uuid.uuid4().hex
        place = f"{self.experiments[request['experiment_id']]['artifact_location']}/{run_id}/artifacts"
        info = {
            "run_id": run_id, "run_uuid": run_id, "experiment_id": request["experiment_id"], "status": "RUNNING",
            "start_time": request["start_time"], "artifact_uri": place, "lifecycle_stage": "active", "user_id": "",
        }  # fmt: skip
        data = {"metrics": [], "params": [], "tags": list(request.get("tags", []))}
        self.runs[run_id] = {"info": info, "data": data, "inputs": {}}
        return 200, {"run": self.runs[run_id]}

    def runs_get(self, request: dict[str, Any]) -> Answer:
        found = self.runs.get(request["run_id"])
        missing = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"Run '{request['run_id']}' not found"}
        return (404, missing) if found is None else (200, {"run": found})

    def runs_update(self, request: dict[str, Any]) -> Answer:
        info = self.runs[request["run_id"]]["info"]
        info |= {key: request[key] for key in ("status", "end_time") if key in request}
        return 200, {"run_info": info}

    def runs_delete(self, request: dict[str, Any]) -> Answer:
        self.runs[request["run_id"]]["info"]["lifecycle_stage"] = "deleted"
        return 200, {}

    def runs_log_batch(self, request: dict[str, Any]) -> Answer:
        data = self.runs[request["run_id"]]["data"]
        for kind in ("metrics", "params", "tags"):
            data[kind] += request.get(kind, [])
        return 200, {}

    def runs_set_tag(self, request: dict[str, Any]) -> Answer:
        self.runs[request["run_id"]]["data"]["tags"].append({"key": request["key"], "value": request["value"]})
        return 200, {}

    def runs_log_inputs(self, request: dict[str, Any]) -> Answer:
        return 200, {}

    def runs_search(self, request: dict[str, Any]) -> Answer:
        return 200, {"runs": [run for run in self.runs.values() if run["info"]["lifecycle_stage"] == "active"]}


def _tag(run: dict[str, Any], name: str) -> str | None:
    return next((tag["value"] for tag in run["data"]["tags"] if tag["key"] == name), None)


@contextmanager
def fake_mlflow(artifacts: Path, refuse: Refuse = lambda path, request: None) -> Iterator[FakeMLflow]:
    """The server at `url` for the time of the context."""
    state = FakeMLflow(artifacts, refuse)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(dict(parse_qsl(urlsplit(self.path).query)))

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}"))

        def _answer(self, request: dict[str, Any]) -> None:
            path = urlsplit(self.path).path
            is_call = path.startswith("/api/2.0/mlflow/")
            status, content = state.answer(path.removeprefix("/api/2.0/mlflow/"), request) if is_call else (200, {})
            body = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Standard error is the test's."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
