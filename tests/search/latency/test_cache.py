"""The students that are measured, the cache of latencies, and refused files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kdsearch.config.networks import AnyNetwork
from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.config.target import Target
from kdsearch.config.trial import TrialConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.evolution.warm_start import warm_start
from kdsearch.search.latency.cache import ROUNDS, Latencies, measure_latencies, rank_correlation
from kdsearch.search.latency.enumerate import MOST, network_key, student_name, students
from kdsearch.search.storage.earlier_study import read_earlier
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.study_record import StudyRecord
from tests.search.conftest import SPACE, cost_of

INFO = DatasetInfo("toy", ("a", "b"), ((0, 0, 0), (1, 1, 1)), 3, (0.0,) * 3, (1.0,) * 3)
CPU = Target("cpu")


@dataclass
class FakeProbe:
    """A probe that returns the times of `answers` and lists the networks it measured."""

    answers: dict[str, list[float | str]]
    device: str = "a processor"
    torch: str = "9.9"
    measured: list[str] = field(default_factory=list)

    def time(self, network: str, info: DatasetInfo, size: tuple[int, int]) -> float | str:
        encoder = json.loads(network)["encoder"]
        self.measured.append(encoder)
        answers = self.answers[encoder]
        return answers[min(self.measured.count(encoder), len(answers)) - 1]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder.at(str(tmp_path / "runs"), "one")
    run.create()
    return run


def networks(space: SearchSpace) -> list[AnyNetwork]:
    return [sample.trial.student for sample in students(space).values()]


def measure(run: RunFolder, space: SearchSpace, probe: FakeProbe | None, target: Target = CPU) -> Latencies:
    def open_probe(device: str | None) -> FakeProbe:
        assert probe is not None, "nothing was to be measured"
        return probe

    return measure_latencies(run, target, networks(space), INFO, (64, 96), open_probe)


def by_encoder(found: Latencies) -> dict[str, float]:
    return {json.loads(key)["encoder"]: each.ms for key, each in found.networks.items()}


QUIET: dict[str, list[float | str]] = {"resnet18": [3.0, 2.0, 4.0], "resnet34": [9.0], "mobilenet_v2": [5.0]}
BUSY: dict[str, list[float | str]] = {"resnet18": [30.0], "resnet34": [90.0], "mobilenet_v2": [50.0]}


class TestStudents:
    def test_each_distinct_student_comes_once_the_default_first(self, space: SearchSpace) -> None:
        found = list(students(space).values())
        assert [sample.trial.student.encoder for sample in found] == ["resnet18", "resnet34", "mobilenet_v2"]

    def test_branches_have_their_own_settings(self) -> None:
        found = [student_name(sample) for sample in students(load_space("clfd", profile="demo")).values()]
        assert len(found) == len(set(found)) == 8
        assert "clnet mit_b0 w8" in found
        assert "fpn mobilenet_v2" in found

    @pytest.mark.parametrize(
        "width", ["{int: [1, 5000], default: 8}", f"{{choice: {list(range(1, MOST + 2))}, default: 1}}"]
    )
    def test_too_many_are_refused(self, width: str) -> None:
        space = load_space("clfd", profile="demo", overrides=[f"student[clnet].width={width}"])
        with pytest.raises(UserError, match="before training; give"):
            students(space)

    def test_weights_make_no_other_network(self) -> None:
        student = load_space("clfd", profile="demo").default().trial.student
        assert network_key(student) == network_key(student.model_copy(update={"encoder_weights": "imagenet"}))


class TestKept:
    def test_the_quickest_round_counts_and_the_spread_is_kept(self, run: RunFolder, space: SearchSpace) -> None:
        probe = FakeProbe(QUIET)
        found = measure(run, space, probe)
        assert by_encoder(found) == {"resnet18": 2.0, "resnet34": 9.0, "mobilenet_v2": 5.0}
        assert next(iter(found.networks.values())).spread == pytest.approx(1.0)
        # In turns: what slows the device for a while falls on one round of each.
        assert probe.measured == ["resnet18", "resnet34", "mobilenet_v2"] * ROUNDS

    def test_resuming_measures_nothing_again(self, run: RunFolder, space: SearchSpace) -> None:
        before = measure(run, space, FakeProbe(QUIET))
        run.journal.write_text("")
        assert measure(run, space, None) == before

    def test_a_wider_space_measures_what_is_new(self, run: RunFolder, space: SearchSpace, tmp_path: Path) -> None:
        before = measure(run, space, FakeProbe(QUIET))
        (tmp_path / "wide.yaml").write_text(SPACE.replace("mobilenet_v2]", "mobilenet_v2, resnet50]"))
        probe = FakeProbe(BUSY | {"resnet50": [11.0]})
        after = measure(run, load_space(tmp_path / "wide.yaml"), probe)
        assert set(probe.measured) == {"resnet50"}
        assert by_encoder(after) == by_encoder(before) | {"resnet50": 11.0}

    def test_the_next_study_finds_them(self, run: RunFolder, space: SearchSpace) -> None:
        measure(run, space, FakeProbe(QUIET))
        other = RunFolder(run.path.parent / "two")
        other.create()
        probe = FakeProbe(BUSY)
        assert by_encoder(measure(other, space, probe))["resnet18"] == 2.0
        assert probe.measured == []

    @pytest.mark.parametrize("other", [{"device": "another"}, {"torch": "9.10"}])
    def test_another_device_or_version_is_measured_anew(
        self, other: dict[str, str], run: RunFolder, space: SearchSpace
    ) -> None:
        measure(run, space, FakeProbe(QUIET))
        second = RunFolder(run.path.parent / "two")
        second.create()
        assert by_encoder(measure(second, space, FakeProbe(BUSY, **other)))["resnet18"] == 30.0

    def test_other_threads_are_measured_anew(self, run: RunFolder, space: SearchSpace) -> None:
        measure(run, space, FakeProbe(QUIET))
        second = RunFolder(run.path.parent / "two")
        second.create()
        assert by_encoder(measure(second, space, FakeProbe(BUSY), Target("cpu", 4)))["resnet18"] == 30.0

    def test_one_study_keeps_to_one_device(self, run: RunFolder, space: SearchSpace, tmp_path: Path) -> None:
        measure(run, space, FakeProbe(QUIET))
        (tmp_path / "wide.yaml").write_text(SPACE.replace("mobilenet_v2]", "mobilenet_v2, resnet50]"))
        with pytest.raises(UserError, match=r"from a processor with torch 9\.9"):
            measure(run, load_space(tmp_path / "wide.yaml"), FakeProbe(BUSY, device="another"))

    def test_a_failure_is_measured_again_by_the_next_study_only(self, run: RunFolder, space: SearchSpace) -> None:
        found = measure(run, space, FakeProbe(QUIET | {"resnet34": ["out of memory"]}))
        with pytest.raises(UserError, match="out of memory"):
            found.ms(networks(space)[1])
        assert sorted(found.measured()) == [2.0, 5.0]
        assert measure(run, space, None) == found
        second = RunFolder(run.path.parent / "two")
        second.create()
        probe = FakeProbe(QUIET)
        assert by_encoder(measure(second, space, probe))["resnet34"] == 9.0
        assert set(probe.measured) == {"resnet34"}

    @pytest.mark.parametrize(
        "text",
        [
            "{", "[]", '{"networks": {}}',
            '{"target": "cpu:2", "device": "d", "torch": "t", "networks": {}}',
            *(
                '{"target": "cpu", "device": "d", "torch": "t", "networks": '
                f'{{"x": {{"ms": {ms}, "spread": 0, "problem": ""}}}}}}'
                for ms in ("NaN", "0", "1e999")
            ),
        ],
    )  # fmt: skip
    def test_a_damaged_file_is_one_sentence(self, text: str, run: RunFolder, space: SearchSpace) -> None:
        run.latency.write_text(text)
        with pytest.raises(UserError, match="holds no latencies"):
            measure(run, space, FakeProbe(QUIET))

    def test_a_lost_file_is_not_measured_anew(self, run: RunFolder, space: SearchSpace) -> None:
        run.journal.write_text("")
        with pytest.raises(UserError, match="is missing"):
            measure(run, space, FakeProbe(QUIET))


class TestCorrelation:
    def test_known_cases(self) -> None:
        # One swap of neighbours among four: rho = 1 - 6 * 2 / (4 * 15), tau = (5 - 1) / 6.
        found = rank_correlation([1.0, 2.0, 3.0, 4.0], [10.0, 30.0, 20.0, 40.0])
        assert found["spearman"] == pytest.approx(0.8)
        assert found["kendall"] == pytest.approx(2 / 3)
        assert rank_correlation([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])["spearman"] == pytest.approx(-1)

    @pytest.mark.parametrize(("a", "b"), [([1.0, 2.0], [1.0, 2.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])])
    def test_not_defined(self, a: list[float], b: list[float]) -> None:
        assert rank_correlation(a, b) == {"spearman": None, "kendall": None}


MS = {"resnet18": 12.0, "resnet34": 30.0, "mobilenet_v2": 8.0}


def timed(ms: dict[str, float]) -> Callable[[TrialConfig], dict[str, float]]:
    return lambda config: cost_of(config) | {"latency_ms": ms[config.student.encoder]}


def timed_space(tmp_path: Path, search: str) -> SearchSpace:
    text = SPACE.replace('constraints: {gflops: "<= 5"}', f"latency: cpu, {search}")
    (tmp_path / "timed.yaml").write_text(text)
    return load_space(tmp_path / "timed.yaml")


class TestRecord:
    def test_a_bound_on_latency_costs_no_slot(self, tmp_path: Path) -> None:
        space = timed_space(tmp_path, 'objectives: {miou: max, latency_ms: min}, constraints: {latency_ms: "<= 10"}')
        storage = StudyStorage.open(None, space, timed(MS))
        asked = [storage.ask() for _ in range(6)]
        assert all(r is not None and r.config.student.encoder == "mobilenet_v2" for r in asked)
        infeasible = [r for r in storage.trials if r.state == "INFEASIBLE"]
        assert infeasible
        assert infeasible[0].reason == "latency_ms 12 is not <= 10"
        assert storage.searched() == 6

    def test_three_objectives_keep_what_any_pair_would(self, tmp_path: Path) -> None:
        space = timed_space(tmp_path, "objectives: {miou: max, gflops: min, latency_ms: min}")
        storage = StudyStorage.open(None, space, timed({"resnet18": 12.0, "resnet34": 6.0, "mobilenet_v2": 8.0}))
        seen: dict[str, str] = {}
        while len(seen) < 3:
            trial = storage.ask()
            assert trial is not None
            encoder = trial.config.student.encoder
            trial.epoch, trial.metrics = 4, {"val/miou": 0.5 if encoder not in seen else 0.1}
            seen.setdefault(encoder, trial.id)
            storage.tell(trial, "COMPLETE")
        # Equal mIoU: resnet34 is the quickest, mobilenet_v2 the one of least FLOPs, and both beat resnet18.
        assert {r.config.student.encoder for r in storage.frontier()} == {"resnet34", "mobilenet_v2"}

    def test_warm_start_takes_results_and_not_their_latencies(self, tmp_path: Path) -> None:
        space = timed_space(tmp_path, "objectives: {miou: max, latency_ms: min}")
        earlier = RunFolder.at(str(tmp_path / "runs"), "earlier")
        earlier.create()
        earlier.space.write_text(space.to_yaml())
        storage = StudyStorage.open(earlier.journal, space, timed(MS))
        for _ in range(2):
            trial = storage.ask()
            assert trial is not None
            trial.epoch, trial.metrics = 4, {"val/miou": 0.5 + 0.1 * MS[trial.config.student.encoder]}
            storage.tell(trial, "COMPLETE")
            earlier.student(trial.id).mkdir()
        storage.close()
        record = StudyRecord("content", {})
        record.save(earlier)
        run = RunFolder.at(str(tmp_path / "runs"), "next")
        run.create()
        slower = {name: 10 * ms for name, ms in MS.items()}
        storage = StudyStorage.open(run.journal, space, timed(slower))
        warm_start(storage, space, run, [read_earlier(str(earlier.path))], record)
        adopted = [r for r in storage.trials if r.origin]
        assert adopted
        assert all(r.cost["latency_ms"] == slower[r.config.student.encoder] for r in adopted)
        storage.close()

    def test_the_device_of_a_study_stays(self, tmp_path: Path) -> None:
        space = timed_space(tmp_path, "objectives: {miou: max, latency_ms: min}")
        StudyStorage.open(tmp_path / "study.journal", space, timed(MS)).close()
        (tmp_path / "other.yaml").write_text(space.to_yaml().replace("latency: cpu", "latency: cpu:2"))
        with pytest.raises(UserError, match=r"search\.latency cannot change on resume=True"):
            StudyStorage.open(tmp_path / "study.journal", load_space(tmp_path / "other.yaml"), timed(MS))
