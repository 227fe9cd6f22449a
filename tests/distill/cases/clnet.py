"""kd, dsrd and clfd."""

from ..conformance import Case

CON = {"con1": 6}
CASES = [
    Case("kd", zero_at_equality=True),
    Case("kd", {"temperature": 4.0}, zero_at_equality=True),
    Case("kd", {"mask_ignored": False}, masks_ignored=False, zero_at_equality=True),
    Case("dsrd", zero_at_equality=True),
    Case("dsrd", {"detail_source": "derived", "foreground": (1, 2, 3)}, zero_at_equality=True),
    Case("dsrd", {"temperature": 2.0, "form": "soft_ce"}),
    Case("dsrd", {}, {"bound1": 2, "bin1": 2}, {"bound1": 2, "bin1": 2, "bin2": 2}, zero_at_equality=True),
    Case("clfd", {}, CON, CON, channel_free=True),
    Case("clfd", {}, {"con1": 3, "con2": 5}, {"con1": 6, "con2": 5}),
    Case("clfd", {"symmetric": True, "layers": "con+sem"}, CON | {"sem": 4}, CON | {"sem": 4}, channel_free=True),
    Case("clfd", {"mode": "spatial"}, CON, {"con1": 4}, channel_free=True),
    Case("clfd", {"mode": "proto_spatial"}, {"head": 3}, {"head": 5}),
    Case("clfd", {"mode": "relation"}, CON, {"con1": 4}, channel_free=True),
    Case("clfd", {"mode": "pixel_proto"}, CON, CON, channel_free=True),
    Case("clfd", {"mode": "pixel_pixel", "anchors_per_class": None, "chunk": 7}, CON, CON, channel_free=True),
    Case("clfd", {"mode": "pixel_pixel"}, {"con1": 3}, CON),
    Case("clfd", {"mode": "memory", "chunk": 7}, CON, CON),
]
