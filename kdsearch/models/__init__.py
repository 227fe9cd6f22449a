"""Students and teachers: built, costed and described from their configuration. smp is imported on first use."""

from kdsearch.models.checkpoint import checkpoint_file
from kdsearch.models.cost import Cost, cost, tap_shapes
from kdsearch.models.network import Network
from kdsearch.models.output import SegOutput
from kdsearch.models.registry import build
from kdsearch.models.weights import load_network

__all__ = ["Cost", "Network", "SegOutput", "build", "checkpoint_file", "cost", "load_network", "tap_shapes"]
