"""afdcd and mgd. Neither reads labels: their authors count every pixel."""

from typing import Any

from kdsearch.testing.terms import TermCase

C4 = {"c4": 6}
SMALL = {"groups": 2, "patch": 2, "pool": 1, "tau": 2.0}  # the published sizes need larger maps
CONTRAST = SMALL | {"w_fd": 0.0, "w_ctr": 1.0}
WITHOUT_GROUPS = {"patch": 2, "pool": 1, "tau": 2.0, "mode": "spatial"}
WITHOUT_PATCH = {"groups": 3, "pool": 1, "tau": 2.0, "mode": "channel"}


def case(term: str, config: dict[str, Any], student: dict[str, int] | None = None, **flags: Any) -> TermCase:
    # a random mask differs from image to image
    order_free = config.get("mask_mode", "random") != "random"
    return TermCase(term, config, student or C4, C4, masks_ignored=False, order_free=order_free, **flags)


CASES = [
    case("mgd", {}),
    case("mgd", {"mask_mode": "center"}, {"c4": 3}),
    case("mgd", {"mask_mode": "none", "projector": "enhanced"}),
    case("mgd", {"projector": "light", "light_rank": 4}),
    case("afdcd", SMALL),
    case("afdcd", SMALL | {"mask_mode": "center", "projector": "light", "light_rank": 4}, {"c4": 3}),
    case("afdcd", CONTRAST | {"mask_mode": "none"}),
    case("afdcd", CONTRAST | {"exclude_same_group": False, "pool": 2, "patch": 1}),
    case("afdcd", CONTRAST | {"metric": "cos", "mask_mode": "none", "projector": "enhanced"}),
    case("afdcd", WITHOUT_GROUPS),
    case("afdcd", WITHOUT_GROUPS | {"metric": "cos"}, {"c4": 3}),
    case("afdcd", WITHOUT_PATCH | {"mask_mode": "none"}),
    case("afdcd", WITHOUT_PATCH | {"metric": "cos", "pool": 2}),
    case("afdcd", {"w_ctr": 0.0}),
]
