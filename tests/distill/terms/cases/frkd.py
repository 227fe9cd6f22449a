"""frkd_refine, frkd_location, frkd_inter and frkd_intra."""

from kdsearch.testing.terms import TermCase

HEAD = {"head": 6}
CASES = [
    TermCase("frkd_refine", {}, HEAD, HEAD, zero_at_equality=True, channel_free=True),
    TermCase("frkd_refine", {"thr": "quantile", "norm": "l2", "filter_wrong": True}, {"head": 3}, HEAD),
    TermCase(
        "frkd_refine", {"tap": "c4", "norm": "none", "bg_ratio": 0.0}, {"c4": 6}, {"c4": 6}, zero_at_equality=True
    ),
    TermCase("frkd_refine", {"soft": True, "filter_wrong": True}, HEAD, HEAD, zero_at_equality=True),
    TermCase("frkd_location", {}, HEAD, {"head": 4}, zero_at_equality=True, channel_free=True),
    TermCase("frkd_location", {"mask": "foreground", "tap": "c4"}, {"c4": 3}, {"c4": 3}, zero_at_equality=True),
    TermCase("frkd_inter", {}, HEAD, {"head": 4}, zero_at_equality=True, channel_free=True),
    TermCase("frkd_intra", {}, HEAD, {"head": 4}, zero_at_equality=True, channel_free=True),
]
