"""The static charts: they draw in any state of a study, on given axes, in any thread, and the same each time."""

from __future__ import annotations

import dataclasses
import re
import threading
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from PIL import Image

from kdsearch.report import charts
from kdsearch.report.results import Results, read_results
from kdsearch.report.svg import inline_svg
from tests.report.test_pages import LATENCY
from tests.tracking.made_up import HOSTILE, MadeUp

CHARTS = {name: getattr(charts, name) for name in charts.__all__ if name.startswith("plot_")}
EMPTY = {
    "plot_frontier": "No trial has reported yet.",
    "plot_history": "This study&#39;s record has no mIoU by epoch.",
    "plot_importance": "The importance of the settings is not estimated",
    "plot_latency": "This study measured no latency.",
    "plot_parallel": "This needs two complete trials with different settings.",
}


@pytest.fixture
def results(study: MadeUp) -> Results:
    results = read_results(study.run)
    shares = {"student.encoder": 0.7, "distill.kd.weight": 0.2, "train.lr": 0.1}
    return dataclasses.replace(
        results,
        importance={"miou": shares, "gflops": {"student.encoder": 1.0}, "frontier": shares},
        summary=dataclasses.replace(results.summary, latency=LATENCY),
    )


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_drawn_on_given_axes(name: str, results: Results) -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    before = figure.subplotpars.left, figure.subplotpars.right
    assert CHARTS[name](results, right) is right
    assert not left.has_data()
    assert right.axison
    assert (figure.subplotpars.left, figure.subplotpars.right) == before, "the layout is the caller's"


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_of_nothing_is_one_sentence(name: str, results: Results) -> None:
    empty = dataclasses.replace(
        results, trials=[], points=[], importance={}, summary=dataclasses.replace(results.summary, latency=None)
    )
    assert inline_svg(CHARTS[name](empty)).startswith(f"<p>{EMPTY[name]}")


@pytest.mark.parametrize("name", CHARTS)
def test_svg_is_the_same_each_time_and_in_any_thread(name: str, results: Results) -> None:
    settings = dict(mpl.rcParams)
    found: list[str] = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: found.append(inline_svg(CHARTS[name](results))))
        thread.start()
        thread.join()
    assert found[0] == found[1]
    assert dict(mpl.rcParams) == settings
    assert found[0].startswith("<svg viewBox=")
    assert not re.search(r"<(style|script|metadata|clipPath id=.figure)|xmlns|https?:", found[0])


def test_the_frontier_has_teacher_members_repeats_and_controls(results: Results) -> None:
    svg = inline_svg(charts.plot_frontier(results))
    assert ">teacher 0.600</text>" in svg
    for point in results.points:
        assert f">{point.trial.id} fpn</text>" in svg
        assert f"<title>{point.trial.id}</title>" in svg
    for label in ("stopped early", "frontier", "repeats: mean ± std", "same student alone: mean"):
        assert f">{label}</text>" in svg
    assert ">GFLOPs per image (2 x MAC)</text>" in svg
    assert "var(--front)" in svg
    assert "#c2410c" not in svg


def test_labels_of_members_do_not_overlap(results: Results) -> None:
    close = [
        dataclasses.replace(
            point, trial=dataclasses.replace(point.trial, gflops=0.5 + i / 1000, miou=0.5 + i / 1000), confirmed={}
        )
        for i, point in enumerate(results.points)
    ]
    assert len(close) >= 2
    rest = [dataclasses.replace(t, gflops=0.9) for t in results.trials if t.id not in {p.trial.id for p in close}]
    ax = charts.plot_frontier(
        dataclasses.replace(results, points=close, trials=[*(p.trial for p in close), *rest], teacher_miou=None)
    )
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) == len(close)
    assert not [(i, j) for i, a in enumerate(boxes) for j, b in enumerate(boxes) if i < j and a.overlaps(b)]


def test_curves_of_members_have_the_colours_of_their_labels(results: Results) -> None:
    ax = charts.plot_history(results)
    colors = {text.get_text(): text.get_color() for text in ax.texts}
    assert list(colors) == [p.trial.id for p in sorted(results.points, key=lambda p: p.trial.miou)]
    assert {line.get_color() for line in ax.lines} == set(colors.values())


def test_a_long_curve_is_thinned_out_and_keeps_its_end(results: Results) -> None:
    long = dataclasses.replace(results.search[0], curve={epoch: epoch / 1000 for epoch in range(1, 501)})
    ax = charts.plot_history(dataclasses.replace(results, trials=[long], points=[]))
    (lines,) = ax.collections
    (points,) = lines.get_segments()  # type: ignore[attr-defined]
    assert len(points) <= charts.MAX_EPOCHS + 1
    assert tuple(points[-1]) == (500, 0.5)


def test_names_stay_text(results: Results) -> None:
    svg = inline_svg(charts.plot_latency(results))
    assert HOSTILE not in svg
    assert "&lt;/script&gt;" in svg


def test_the_frontier_as_a_picture(results: Results, tmp_path: Path) -> None:
    charts.save_frontier(results, tmp_path / "frontier.png")
    with Image.open(tmp_path / "frontier.png") as picture:
        assert picture.size == (936, 520)
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 50
