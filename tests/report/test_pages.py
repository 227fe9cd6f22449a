"""report.html and frontier.html: complete, harmless, and written from the run folder in any state of the study."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from kdsearch.cli.main import main
from kdsearch.config.space.trial_file import load_trial
from kdsearch.data.store.store import Store
from kdsearch.io.atomic import write_json
from kdsearch.io.run_folder import RunFolder
from kdsearch.report import sentences
from kdsearch.report.pages import frontier_page, report_page, write_pages
from kdsearch.report.results import read_results
from kdsearch.tracking.retention import RetentionCallback
from tests.export.cases import POINT
from tests.tracking.made_up import HOSTILE, MadeUp

LIMIT = 3_000_000
LATENCY: dict[str, Any] = {
    "target": "cpu:4", "device": f"a processor {HOSTILE}", "torch": "9.9", "size": [32, 64], "spearman": 0.4,
    "kendall": 0.3,
    "students": [
        {"student": HOSTILE, "gflops": 0.9, "params_m": 1.0, "latency_ms": 3.25, "spread": 0.02},
        {"student": "b", "gflops": 0.1, "params_m": 2.0, "latency_ms": 7.5, "spread": 0.12},
        {"student": "c", "gflops": 0.5, "params_m": 2.0, "latency_ms": 9.5, "spread": 0.01},
    ],
}  # fmt: skip


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def data(self) -> dict[str, Any]:
        found = re.search(r'<script type="application/json" id="data">(.*?)</script>', self.source, re.S)
        assert found is not None
        read: dict[str, Any] = json.loads(found[1], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        return read


def pages(run: RunFolder) -> tuple[Page, Page]:
    return Page(run.path / "report.html"), Page(run.path / "frontier.html")


def test_a_running_studys_report_has_its_numbers(study: MadeUp, capsys: pytest.CaptureFixture[str]) -> None:
    folder = study.run.path
    before = {path: path.read_bytes() for path in folder.iterdir() if path.suffix not in ("", ".html")}
    assert main(["report", str(folder)]) == 0, "the journal is locked by this process, as by a driver"
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    elsewhere = folder.parent / "new" / "folder" / "report.html"
    assert main(["report", str(folder), "--out", str(elsewhere)]) == 0
    assert elsewhere.is_file()
    capsys.readouterr()
    assert main(["report", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(folder / "report.html")}
    assert {path: path.read_bytes() for path in before} == before
    report, _ = pages(study.run)
    assert "still running" in report.text
    for member in study.members:
        assert f"{member.id}" in report.text
        assert f"{member.miou:.3f}" in report.text
        assert f"{member.cost['gflops']:.3g}" in report.text
    # repeats 0.40, 0.38 and controls 0.35, 0.31: mean 0.390, gain 0.05 and 0.07.
    for text in (
        "0.390 ± 0.014 (2)", "0.330", "+0.060 [-0.067, +0.187]", "4 trained to the end",
        "1 stopped early", "1 failed", "kd.weight", "0.1 to 10 (log scale)", "torch 9.9",
    ):  # fmt: skip
        assert text in report.text, text
    assert "the interval includes zero" in sentences.gain(read_results(study.run).points[0])
    assert not {"NaN", "nan", "None"} & set(re.findall(r"\w+", report.text))


def test_names_and_reasons_stay_text(study: MadeUp) -> None:
    write_pages(study.run)
    for page in pages(study.run):
        assert "<script>alert" not in page.source
        assert "<i>toy</i>" not in page.source
        assert "<b>study" not in page.source
    report, frontier = pages(study.run)
    assert HOSTILE in report.text, "the reason of the failed trial, and a class"
    assert "script" not in {tag for tag, _ in report.tags}
    assert frontier.source.count("<script") == frontier.source.count("</script>") == 2
    assert HOSTILE in {trial["reason"] for trial in frontier.data()["trials"]}


def test_pages_stand_alone_and_are_small(study: MadeUp) -> None:
    write_pages(study.run)
    for page in pages(study.run):
        assert len(page.source) < LIMIT
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)[^\s\"'\\)]{4,}", page.source)
        assert not [attributes for tag, attributes in page.tags if tag in ("link", "iframe", "object", "base")]
        for _, attributes in page.tags:
            for name in ("src", "href"):
                assert (attributes.get(name) or "data:").startswith(("data:", "#"))


def test_a_large_studys_report_stays_small(study: MadeUp) -> None:
    from dataclasses import replace

    results = read_results(study.run)
    curve = {epoch: epoch / 500 for epoch in range(1, 301)}
    many = [
        replace(results.search[0], id=f"t{i:05d}", curve=curve, reason="r" * 5000, state="FAIL") for i in range(3000)
    ]
    page = report_page(replace(results, trials=[*results.trials, *many]), None, "")
    assert len(page) < LIMIT


def test_the_frontiers_page_holds_every_trial(study: MadeUp) -> None:
    write_pages(study.run)
    _, page = pages(study.run)
    data = page.data()
    assert [trial["id"] for trial in data["trials"]] == [record.id for record in study.record.trials]
    first, *_ = data["frontier"]
    assert (first["id"], first["seeds"]) == (study.members[0].id, 2)
    assert first["gain"] == pytest.approx(0.06)
    assert data["hypervolume"] == sorted(data["hypervolume"])
    assert len(data["hypervolume"]) == 4
    stopped = next(trial for trial in data["trials"] if trial["state"] == "PRUNED")
    assert set(stopped["settings"]) == {"student.encoder", "distill.kd.weight", "train.lr"}


@pytest.mark.parametrize(("server", "linked"), [("http://mlflow:5000", True), ("javascript:alert(1)//", False)])
def test_links_lead_to_web_pages_alone(study: MadeUp, server: str, linked: bool) -> None:
    runs = {"t0000": "a" * 32, "t0001": "x/../../evil"}
    write_json(study.run.path / "tracking.json", {"server": server, "experiment": "7", "runs": runs})
    results = read_results(study.run)
    assert results.server == (server if linked else "")
    assert [trial.run for trial in results.trials[:3]] == [f"#/experiments/7/runs/{'a' * 32}", "", ""]


def test_the_commands_for_a_point_name_its_own_trial(study: MadeUp) -> None:
    member = study.members[0]
    folder = study.run.student(member.id)
    folder.mkdir()
    write_json(folder / "config.json", {"format": 1, "trial": member.config.model_dump(mode="json")})
    (point, *_) = read_results(study.run).points
    assert str(folder / "config.json") in point.reproduce.replace("'", "")
    assert load_trial(folder / "config.json") == member.config


def test_pictures_of_the_best_compromise_beside_its_control(tmp_path: Path, store: Store) -> None:
    import torch
    from safetensors.torch import save_file

    from kdsearch.models.registry import build_network
    from kdsearch.models.student import FORMAT

    study = MadeUp(tmp_path, store.path.name)
    study.run.stores.rmdir()
    study.run.stores.symlink_to(store.path.parent)
    study.search("done")
    point = read_results(study.run).knee()
    assert point is not None
    study.members = [record for record in study.members if record.id == point.trial.id]
    controls = study.confirm()
    for record in (*study.members, *controls):
        folder = study.run.student(record.id)
        folder.mkdir()
        torch.manual_seed(0)
        save_file(build_network(record.config.student, store.info).state_dict(), folder / "model.safetensors")
        config = {
            "format": FORMAT, "network": record.config.student.model_dump(mode="json"), "size": list(store.size),
            "dataset": dataclasses.asdict(store.info), "trial": record.config.model_dump(mode="json"),
        }  # fmt: skip
        write_json(folder / "config.json", config)
    retention = RetentionCallback(study.space, study.run, study.record)
    retention.on_frontier(study.members, 0.7)
    retention.on_trial_end(controls[-1])
    study.close()
    kept = {path.name for path in study.run.students.iterdir()}
    assert kept == {study.members[0].id, controls[0].id}, "one control's weights are kept, for the pictures"
    write_pages(study.run)
    report, _ = pages(study.run)
    images = [attributes for tag, attributes in report.tags if tag == "img"]
    assert len(images) == 4 * 4, "image, truth, student and control on four samples; there is no teacher"
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in images)
    assert "same student alone" in report.text
    assert len(report.source) < LIMIT


@pytest.mark.parametrize("arguments", [["/nowhere"], ["."], ["runs:/0123"], [".", "--tracking-uri", "http://x"]])
def test_a_wrong_request_is_one_sentence(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"kdsearch: [^\n]+\.\n", error), error
    assert not list(tmp_path.iterdir())


def test_a_damaged_run_folder_is_refused(study: MadeUp, capsys: pytest.CaptureFixture[str]) -> None:
    study.run.summary.write_text('{"frontier": [7]}')
    assert main(["report", str(study.run.path)]) == 2
    assert "is no summary of a study (space: it is missing)" in capsys.readouterr().err
    summary = {"space": "toy", "status": "done", "frontier": [POINT | {"trial": "../../etc"}]}
    study.run.summary.write_text(json.dumps(summary))
    assert main(["report", str(study.run.path)]) == 2
    assert "is no trial's name" in capsys.readouterr().err
    study.run.summary.write_text(json.dumps(summary | {"frontier": [POINT | {"trial": "t0099"}]}))
    assert main(["report", str(study.run.path)]) == 0, "a trial that is not on record is nobody's point"
    assert "No trial is complete yet" in (study.run.path / "report.html").read_text()


def test_the_pages_have_it_and_escape_it(tmp_path: Path) -> None:
    made = MadeUp(tmp_path)
    made.search("done")
    made.record.close()
    results = read_results(made.run)
    assert "Latency and FLOPs" not in report_page(results, None, "")
    assert "latency_ms" not in frontier_page(results).partition("<script>")[0].partition('id="data"')[0]
    trials = {t.id: dataclasses.replace(t, latency_ms=10.0 + i) for i, t in enumerate(results.trials)}
    timed = dataclasses.replace(
        results,
        objectives={"miou": "max", "latency_ms": "min"},
        summary=dataclasses.replace(results.summary, latency=LATENCY),
        trials=list(trials.values()),
        points=[dataclasses.replace(point, trial=trials[point.trial.id]) for point in results.points],
    )
    report, page = report_page(timed, None, ""), frontier_page(timed)
    assert "Latency and FLOPs" in report
    assert "latency per image (ms)" in report
    assert '<option value="latency_ms" selected>' in page
    for text in (report, page):
        assert HOSTILE not in text
