"""stc_pair, stc_motion, stc_frames, stc_temporal_kd and adversarial."""

from kdsearch.testing.terms import TermCase

HEAD = {"head": 6}
BRANCHES = {"head": 6, "cnn.head": 6, "transformer.head": 5}
# Cosines between places and frames read no labels (SKD, ETC), nor does the motion loss (ETC): every pixel counts.
NO_LABELS = {"masks_ignored": False}
# The batch is samples and later frames: in another order others would be the labelled ones.
VIDEO = {"video": True, "order_free": False}
# The discriminator sees whole maps, and has layers over classes; its scores have any sign.
SCORES = NO_LABELS | {"class_free": False, "may_be_negative": True}

CASES = [
    TermCase("stc_pair", {}, HEAD, BRANCHES, channel_free=True, **NO_LABELS),
    TermCase("stc_pair", {"node": "none", "beta_c": 0.2}, {"head": 3}, BRANCHES, channel_free=True, **NO_LABELS),
    TermCase("stc_pair", {"beta_c": 1.0, "node": "grid3"}, HEAD, {"head": 6, "cnn.head": 6}, **NO_LABELS),
    TermCase("stc_pair", {"tap": "c4"}, {"c4": 4}, {"c4": 4, "cnn.c4": 4, "transformer.c4": 7}, **NO_LABELS),
    TermCase("stc_motion", **VIDEO, **NO_LABELS),
    TermCase("stc_motion", {"space": "logit", "stop_gradient": True}, whole_gradient=False, **VIDEO, **NO_LABELS),
    TermCase("stc_motion", {"resolution": "full", "mask_out_of_frame": False}, **VIDEO, **NO_LABELS),
    TermCase("stc_frames", {}, HEAD, HEAD, channel_free=True, zero_at_equality=True, **VIDEO, **NO_LABELS),
    TermCase("stc_frames", {"node": "grid2"}, {"head": 3}, {"head": 5}, channel_free=True, **VIDEO, **NO_LABELS),
    TermCase("stc_temporal_kd", **VIDEO),
    TermCase("stc_temporal_kd", {"temperature": 3.0}, **VIDEO),
    TermCase("adversarial", {"width": 4}, **SCORES),
    TermCase("adversarial", {"width": 4, "mode": "wgan_gp"}, **SCORES),
]
