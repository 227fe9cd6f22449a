"""Axes as SVG inside an HTML page: small, the same for the same results, and in the colours of the page.

Text stays text, in the font of the page. Colours of `PALETTE` become the page's variables, so a chart follows its dark
mode. Identifiers depend on the content alone.
"""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE = {
    "front": "#c2410c", "rest": "#8593a6", "stopped": "#b9c1cc", "seeds": "#1d4ed8", "teacher": "#334155",
    "text": "#1b2330", "soft": "#5c6778", "line": "#d5dae1", "back": "#ffffff",
}  # fmt: skip
"""Colours by the names of the variables in `templates/style.css`."""
SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "kdsearch"}
TITLES = "titles:"
SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"

_settings_lock = threading.Lock()


def titles_id(titles: Sequence[str]) -> str:
    """A group id of an artist, as for `set_gid`, that gives each of its points or lines a title to hover over."""
    return TITLES + json.dumps(list(titles))


def inline_svg(ax: Axes) -> Markup:
    """The figure of `ax` as an `<svg>` element; of axes that are switched off, their text as a paragraph."""
    if not ax.axison:
        return Markup("<p>{}</p>").format(" ".join(text.get_text() for text in ax.texts))
    buffer = io.BytesIO()
    with _svg_settings():
        FigureCanvasSVG(ax.figure).print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for group in root.iter(f"{SVG}g"):
        _clean_group(group)
    for element in root.iter():
        _clean(element)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img"}
    text = ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)
    for name, color in PALETTE.items():
        text = text.replace(color, f"var(--{name})")
    return Markup(text)


@contextmanager
def _svg_settings() -> Iterator[None]:
    """The settings of matplotlib's SVG writer, which it reads from global state only; all others stay untouched."""
    with _settings_lock:
        before = {name: mpl.rcParams[name] for name in SETTINGS}
        mpl.rcParams.update(SETTINGS)
        try:
            yield
        finally:
            mpl.rcParams.update(before)


def _clean_group(group: ElementTree.Element) -> None:
    """Replace the id of a group, which nothing refers to, by titles for its points or lines, if it holds any."""
    name = group.attrib.pop("id", "")
    if not name.startswith(TITLES):
        return
    defined = {element for defs in group.iter(f"{SVG}defs") for element in defs.iter()}
    drawn = [each for each in group.iter() if each.tag in (f"{SVG}use", f"{SVG}path") and each not in defined]
    for element, title in zip(drawn, json.loads(name.removeprefix(TITLES)), strict=True):
        ElementTree.SubElement(element, f"{SVG}title").text = title


def _clean(element: ElementTree.Element) -> None:
    """Drop namespaces, decimals that cannot be seen, the font's name and white space."""
    element.tag = element.tag.removeprefix(SVG)
    attributes: dict[str, Any] = {}
    for name, value in element.attrib.items():
        if name in ("d", "x", "y", "transform", "width", "height"):
            value = " ".join(re.sub(r"(\.\d\d)\d+", r"\1", value).split())
        elif name == "style":
            value = re.sub(r"font: ([\d.]+)px [^;]+", r"font-size: \1px", value)
        attributes[name.removeprefix(XLINK)] = value
    element.attrib = attributes
    for part in ("text", "tail"):
        if not (getattr(element, part) or "").strip():
            setattr(element, part, None)
