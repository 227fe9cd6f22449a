"""Settings of IFVD."""

from __future__ import annotations

from pydantic import Field

from kdsearch.config.terms.tap import TapTermConfig


class IFVDConfig(TapTermConfig):
    """Settings of the term `ifvd`."""

    count_ignored: bool = Field(
        False,
        description="true: divide by all pixels, as the IFVD code does, although ignored ones add nothing; "
        "false: by the valid ones",
    )
