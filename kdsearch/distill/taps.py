"""Shapes of two networks' outputs: shared taps, the size of comparison, and the memory of maps."""

from __future__ import annotations

from kdsearch.distill.base import Shapes
from kdsearch.errors import UserError

FLOAT = 4
"""Bytes per number in fp32, the precision of every term."""


def shared_taps(student: Shapes, teacher: Shapes) -> list[str]:
    """Names of the taps, without the logits, that both networks have."""
    return sorted(name for name in student if name in teacher and name != "logits")


def require_tap(term: str, tap: str, student: Shapes, teacher: Shapes) -> None:
    """Raise `UserError`, with the taps to choose from, unless both networks have `tap`. `term` is the term's name."""
    shared = shared_taps(student, teacher)
    if not shared:
        raise UserError(f"{term}: these networks share no tap; leave {term} out, or choose another pair of networks.")
    if tap not in shared:
        raise UserError(
            f"{term}: '{tap}' is not a tap of both networks; set it to one they share: {', '.join(shared)}."
        )


def matched_pixels(name: str, student: Shapes, teacher: Shapes) -> int:
    """Pixels per image of the map `name` at the size where `features.match_size` compares both networks."""
    return max(height * width for _, height, width in (student[name], teacher[name]))


def resized_bytes(name: str, student: Shapes, teacher: Shapes, batch: int) -> int:
    """Memory of the up-sampled copy that `features.match_size` makes of the coarser map `name`; 0 at equal sizes."""
    pixels = matched_pixels(name, student, teacher)
    return sum(FLOAT * batch * c * pixels for c, h, w in (student[name], teacher[name]) if h * w < pixels)


def adapted(name: str, student: Shapes, teacher: Shapes) -> Shapes:
    """Shape of the student's map `name` after `features.channel_adapter`, with the teacher's channels."""
    return {name: (teacher[name][0], *student[name][1:])}


def map_bytes(name: str, student: Shapes, teacher: Shapes, classes: int, batch: int) -> tuple[int, int, int, int]:
    """Memory of maps at the size where `features.match_size` compares both networks.

    In this order: the student's map `name`; a map with one number per class; the up-sampled copy of the student's map
    and that of the teacher's, each 0 where that map is the finer one.
    """
    pixels = matched_pixels(name, student, teacher)
    size = FLOAT * batch * pixels
    raised_s, raised_t = (
        size * channels if height * width < pixels else 0 for channels, height, width in (student[name], teacher[name])
    )
    return size * student[name][0], size * classes, raised_s, raised_t
