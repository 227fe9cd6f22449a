"""skd_pair, ifvd, cwd, cwd_feature, dist, at and fitnet."""

from typing import Any

from kdsearch.testing.terms import TermCase

HEAD = {"head": 6}
SAME: dict[str, Any] = {"student": HEAD, "teacher": HEAD, "zero_at_equality": True, "channel_free": True}
OTHER: dict[str, Any] = {"student": {"head": 3}, "teacher": {"head": 5}}
NO_LABELS = {"masks_ignored": False}  # these terms read no labels, as published: every pixel counts
CASES = [
    TermCase("skd_pair", {"node": "none"}, **SAME, **NO_LABELS),  # 20 nodes, 6 channels: the expanded form
    TermCase("skd_pair", {"node": "stride2"}, **OTHER, **NO_LABELS),
    TermCase("skd_pair", {"node": "grid2"}, **SAME, **NO_LABELS),  # fewer nodes than channels: the direct form
    TermCase("skd_pair", {"tap": "c4", "node": "grid3"}, {"c4": 3}, {"c4": 5}, channel_free=True, **NO_LABELS),
    TermCase("skd_pair", {"node": "half"}, **OTHER, **NO_LABELS),
    TermCase("skd_pair", {"node": "stride4"}, **SAME, **NO_LABELS),
    TermCase("skd_pair", {"node": "grid8"}, **SAME, **NO_LABELS),
    TermCase("ifvd", {}, **SAME),
    TermCase("ifvd", {"count_ignored": True}, channel_free=True, **OTHER),
    TermCase("cwd", zero_at_equality=True, **NO_LABELS),
    TermCase("cwd_feature", {}, **SAME, **NO_LABELS),
    TermCase("cwd_feature", {"tau": 1.0}, **OTHER, **NO_LABELS),
    TermCase("dist", zero_at_equality=True),
    TermCase("dist", {"beta": 0.0, "temperature": 2.0}, zero_at_equality=True),
    TermCase("dist", {"gamma": 0.0, "temperature": 2.0}, zero_at_equality=True),
    TermCase("dist", {"mask_ignored": False}, zero_at_equality=True, masks_ignored=False),
    TermCase("at", {}, **SAME, **NO_LABELS),
    TermCase("at", {"tap": "c4"}, {"c4": 3}, {"c4": 5}, channel_free=True, **NO_LABELS),
    TermCase("fitnet", {}, **SAME, **NO_LABELS),
    TermCase("fitnet", {"tap": "con1"}, {"con1": 3}, {"con1": 5}, **NO_LABELS),
]
