"""kd, dsrd and clfd."""

from kdsearch.testing.terms import TermCase

CON = {"con1": 6}
DRAWN = {"anchors_per_class": 2}  # few enough to be drawn
CASES = [
    TermCase("kd", zero_at_equality=True),
    TermCase("kd", {"temperature": 4.0}, zero_at_equality=True),
    TermCase("kd", {"mask_ignored": False}, masks_ignored=False, zero_at_equality=True),
    TermCase("dsrd", zero_at_equality=True),
    TermCase("dsrd", {"detail_source": "derived", "foreground": (1, 2, 3)}, zero_at_equality=True),
    TermCase("dsrd", {"temperature": 2.0, "form": "soft_ce"}),
    TermCase("dsrd", {}, {"bound1": 2, "bin1": 2}, {"bound1": 2, "bin1": 2, "bin2": 2}, zero_at_equality=True),
    TermCase("clfd", {}, CON, CON, channel_free=True),
    TermCase("clfd", {}, {"con1": 3, "con2": 5}, {"con1": 6, "con2": 5}),
    TermCase("clfd", {"symmetric": True, "layers": "con+sem"}, CON | {"sem": 4}, CON | {"sem": 4}, channel_free=True),
    TermCase("clfd", {"mode": "spatial"}, CON, {"con1": 4}, channel_free=True),
    TermCase("clfd", {"mode": "proto_spatial"}, {"head": 3}, {"head": 5}),
    TermCase("clfd", {"mode": "relation"}, CON, {"con1": 4}, channel_free=True),
    TermCase("clfd", {"mode": "pixel_proto"}, CON, CON, channel_free=True),
    TermCase(
        "clfd",
        {"mode": "pixel_pixel", "anchors_per_class": None, "chunk": 7},
        CON,
        CON,
        channel_free=True,
        resumed=DRAWN,
    ),
    TermCase("clfd", {"mode": "pixel_pixel"}, {"con1": 3}, CON, resumed=DRAWN),
    TermCase("clfd", {"mode": "memory", "chunk": 7}, CON, CON),
]
