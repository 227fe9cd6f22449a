"""Source of the later frame for terms that read two frames."""

from __future__ import annotations

from typing import Literal

from kdsearch.config.data import DataConfig
from kdsearch.data.info import DatasetInfo


def frame_source(config: DataConfig, info: DatasetInfo) -> Literal["video", "views"]:
    """The next frame of a video set, or a second view of the same image."""
    if config.frames == "auto":
        return "video" if info.video else "views"
    return config.frames
