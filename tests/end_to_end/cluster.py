"""A Ray cluster of several nodes on this machine, whose nodes can be killed and added."""

from __future__ import annotations

from typing import Any

from ray.cluster_utils import Cluster

from tests.end_to_end.conftest import descendants, kill_all

# The environment in which nodes and drivers have to be started.
SETTINGS = {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0", "RAY_health_check_period_ms": "2000"}


class Nodes:
    """Nodes of one CPU core each; the head is the first."""

    def __init__(self) -> None:
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.head = self._cluster.head_node
        self._seen: set[int] = set()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self) -> Any:
        return self._cluster.add_node(num_cpus=1)

    def workers(self, node: Any) -> list[int]:
        """The processes on `node` that train."""
        return [pid for pid, title in self._below(node) if "RayTrainWorker" in title]

    def kill(self, node: Any) -> None:
        """What a power cut does: everything on the node ends at once."""
        kill_all([pid for pid, _ in self._below(node)])
        self._cluster.remove_node(node, allow_graceful=False)

    def shutdown(self) -> None:
        """End all nodes, and whatever they leave behind."""
        for node in [*self._cluster.worker_nodes, self.head]:
            self._below(node)
        self._cluster.shutdown()
        kill_all(self._seen)

    def _below(self, node: Any) -> list[tuple[int, str]]:
        found = []
        for processes in node.all_processes.values():
            for each in processes:
                found += descendants(each.process.pid)
        self._seen |= {pid for pid, _ in found}
        return found
