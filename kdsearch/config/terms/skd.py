"""Settings of the pair-wise term of SKD."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kdsearch.config.terms.tap import TapTermConfig

Node = Literal["none", "stride2", "stride4", "half", "grid2", "grid3", "grid8"]
"""Max-pooling of a map into the nodes of a similarity graph; see `distill/ops/similarity.py`."""


class SKDPairConfig(TapTermConfig):
    """Settings of the term `skd_pair`."""

    tap: Literal["head", "c4"] = Field("head", description="map to compare; published head; c4: last encoder stage")
    node: Node = Field(
        "stride2",
        description="max-pooling into nodes; stride2: windows of 2x2 pixels (CIRKD); half: windows of half the map a "
        "side, cut off at the border (SKD: 2x2 nodes on even maps; windows of 32, 32 and 1 on its 65x65); grid3: 3x3 "
        "equal windows; none: every pixel",
    )
