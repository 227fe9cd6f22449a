"""Names and values as MLflow accepts them. MLflow refuses a whole call for one name that it does not like."""

from __future__ import annotations

import hashlib
import re

LONGEST_NAME, LONGEST_PARAM, LONGEST_TAG = 250, 6000, 5000
"""Characters of a name, of a parameter and of a tag; MLflow refuses longer ones, or cuts them in silence."""
CUT = " … (cut)"

_ESCAPE = re.compile(r"_x([0-9a-f]{1,6})_")


def escape(name: str) -> str:
    """`name` as a name of a metric or parameter: different names stay different, and `unescape` gives them back.

    MLflow takes letters, digits and `_-. /` that read as a path without empty or dotted parts. Any other character
    becomes `_x<hex>_`, such as `_x2b_` for "+". A name beyond 250 characters ends in a hash of the whole.
    """
    name = re.sub(r"_(?=x[0-9a-f])", _code("_"), name)  # what looks like an escape is none
    name = "".join(c if c.isalnum() or c in "_-. /" else _code(c) for c in name)
    name = re.sub(r"^/|/$|(?<=/)/", _code("/"), name)
    name = re.sub(r"^\.\.|(?:^|(?<=/))\.{1,2}(?=/|$)", lambda dots: _code(".") * len(dots[0]), name)
    if len(name) <= LONGEST_NAME:
        return name
    ending = f"_{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return name[: LONGEST_NAME - len(ending)] + ending


def unescape(name: str) -> str:
    """The name that `escape` was given."""
    return _ESCAPE.sub(lambda code: chr(int(code[1], 16)) if int(code[1], 16) < 0x110000 else code[0], name)


def model_name(study: str) -> str:
    """The registered model of a study. MLflow takes no "/" or ":" in it, and its filters no quotes."""
    name = re.sub(r"_(?=x[0-9a-f])", _code("_"), study)
    return re.sub(r"[^\w. -]", lambda c: _code(c[0]), name)


def cut(value: str, longest: int) -> str:
    """`value`, or as much of it as fits, with a mark that something is missing."""
    return value if len(value) <= longest else value[: longest - len(CUT)] + CUT


def _code(character: str) -> str:
    return f"_x{ord(character):x}_"
