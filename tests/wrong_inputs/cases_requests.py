"""Requests of each command that it cannot carry out."""
# ruff: noqa: E501  (a table, one case a line)

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.wrong_inputs.case import Case

LONG = "n" * 300
TRIAL = """data: {name: scenes, size: [32, 64], options: {train: 4, val: 2, height: 32, width: 64}}
student: {arch: fpn, encoder: tu-mobilenetv3_small_050}
train: {epochs: 1, batch_size: 2}
"""
SPACE = f"name: tiny\n{TRIAL}"
TEACHER = "teacher: {arch: fpn, encoder: resnet18, train: {epochs: 1, batch_size: 2}}\ndistill: {kd: {weight: 1.0}}\n"


def file(name: str, text: str | bytes = "") -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    return prepare


def both(*all_of_them: Callable[[Path], None]) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        for each in all_of_them:
            each(folder)

    return prepare


def unwritable(folder: Path) -> None:
    """A file where a folder is wanted: root may write anywhere else."""
    (folder / "file").write_text("")


def student(folder: Path) -> None:
    """The folder of a student whose weights are damaged."""
    from kdsearch.config.trial import TrialConfig
    from kdsearch.data.readers.scenes import Scenes
    from kdsearch.models.registry import build_network
    from kdsearch.models.student import save_student

    config = TrialConfig.model_validate(
        {
            "data": {"name": "scenes", "size": (32, 64)},
            "student": {"arch": "fpn", "encoder": "tu-mobilenetv3_small_050"},
        }
    )
    (folder / "student").mkdir()
    info = Scenes().info
    save_student(folder / "student", build_network(config.student, info), config, info, (32, 64), {"val/miou": 0.5})


def student_without(name: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        student(folder)
        (folder / "student" / name).unlink()

    return prepare


def student_with(name: str, content: bytes) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        student(folder)
        (folder / "student" / name).write_bytes(content)

    return prepare


def finished(folder: Path) -> None:
    """A run folder with a summary and nothing else."""
    point = {"trial": "t0000", "miou": 0.5, "gflops": 0.1, "params_m": 1.0}
    (folder / "runs" / "a").mkdir(parents=True)
    (folder / "runs" / "a" / "summary.json").write_text(
        json.dumps({"kdsearch": "0", "space": "tiny", "frontier": [point]})
    )


def started(folder: Path) -> None:
    """A run folder as a study leaves it at its start."""
    run = folder / "runs" / "a"
    run.mkdir(parents=True)
    (run / "space.yaml").write_text(SPACE)
    (run / "study.journal").write_text("")


DASHBOARD = {"RAY_ADDRESS": "http://127.0.0.1:8265"}
SCENES = "--profile demo"

RUN = [
    Case("no-such-command", "rnu clfd", r"unknown command 'rnu'. Did you mean 'run'\?"),
    Case("no-such-option", "--jsn", r"unknown option --jsn"),
    Case("run-without-a-space", "run", "arguments are required: SPACE"),
    Case("run-unknown-space", "run clfb", r"unknown search space 'clfb'. Did you mean 'clfd'\?"),
    Case("run-two-spaces", "run clfd afdcd", "unexpected argument 'afdcd'"),
    Case("run-abbreviated-option", "run clfd --trial 3", r"unknown option --trial. Did you mean '--trials'\?"),
    Case("run-no-trials", "run clfd --trials 0", "0 is not a positive number"),
    Case("run-half-a-trial", "run clfd --trials 1.5", "'1.5' is not a whole number"),
    Case("run-negative-time", "run clfd --time-limit -5", "--time-limit -5: give a positive number"),
    Case("run-time-that-is-no-number", "run clfd --time-limit nan", "--time-limit nan: give a positive number"),
    Case("run-a-folder-as-space", "run {folder}/", "is a folder; name the YAML file in it"),
    Case("run-an-empty-file-as-space", "run {folder}/a.yaml", "should hold the sections", file("a.yaml")),
    Case("run-a-list-as-space", "run {folder}/a.yaml", "should hold the sections", file("a.yaml", "- 1\n")),
    Case("run-bytes-as-space", "run {folder}/a.yaml", "not valid YAML", file("a.yaml", b"name: \xe9t\xe9\n")),
    Case("run-torn-yaml", "run {folder}/a.yaml", r"a.yaml:1: not valid YAML", file("a.yaml", "a: [1")),
    Case("run-picture-as-space", "run {folder}/a.yaml", "not valid YAML", file("a.yaml", b"\x89PNG\r\n\x1a\n\x00\x00")),
    Case("run-no-such-file", "run {folder}/absent.yaml", r"absent.yaml"),
    Case("run-space-with-a-long-name", f"run {LONG}", "unknown search space"),
    Case("run-file-with-a-long-name", f"run {{folder}}/{LONG}.yaml", "cannot be read .File name too long.; name another file"),
    Case("run-unknown-profile", "run clfd --profile demoo", r"Did you mean 'demo'\?"),
    Case("run-data-without-name", "run clfd --data /data/mfnet", "expected NAME=PATH"),
    Case("run-data-of-unknown-kind", "run clfd --data mfnett={folder}", r"unknown data set 'mfnett'. Did you mean"),
    Case("run-data-in-no-folder", "run clfd --data mfnet=/nowhere", "folder /nowhere does not exist; give --data mfnet="),
    Case("run-data-that-is-a-file", "run clfd --data mfnet={folder}/file", "file", unwritable),
    Case("run-empty-data", "run clfd --data mfnet={folder}", "train.txt|images"),
    Case("run-built-in-with-a-path", "run clfd --data scenes={folder}", "built in and takes no path"),
    Case("run-data-with-a-long-path", f"run clfd --data mfnet=/{LONG}", "cannot be used .File name too long.; name another path"),
    Case("run-unknown-setting", f"run clfd {SCENES} --set train.lrr=1", r"train.lrr: unknown key. Did you mean 'lr'\?"),
    Case("run-setting-without-value", "run clfd --set train.lr", "should have the form --set section.key=value"),
    Case("run-text-for-a-number", f"run clfd {SCENES} --set train.lr=fast", "should be a valid number, got 'fast'"),
    Case("run-log-from-zero", f"run clfd {SCENES} --set 'train.lr={{log: [0, 1]}}'", "log cannot start at 0"),
    Case("run-negative-seed", f"run clfd {SCENES} --set search.seed=-1", "search.seed: should be greater than or equal to 0"),
    Case("run-seed-too-large", f"run clfd {SCENES} --set search.seed=4294967296", "search.seed: should be less than 4294967296"),
    Case("run-training-seed-too-large", f"run clfd {SCENES} --set train.seed=9223372036854775808", "train.seed: should be less than"),
    Case("run-no-epochs", f"run clfd {SCENES} --set train.epochs=0", "train.epochs"),
    Case("run-size-of-one-number", f"run clfd {SCENES} --set data.size=64", "data.size"),
    Case("run-negative-size", f"run clfd {SCENES} --set 'data.size=[-32, 64]'", "data.size"),
    Case("run-size-of-networks", f"run clfd {SCENES} --set 'data.size=[70, 100]' --set 'student={{arch: fpn, encoder: resnet18}}'", "multiples of 32, not 70x100. The nearest size that it takes is 64x96"),
    Case("run-unknown-encoder", f"run clfd {SCENES} --set 'student={{arch: fpn, encoder: resnet81}}'", r"no encoder 'resnet81'. Did you mean 'resnet18'"),
    Case("run-encoder-of-one-size", f"run clfd {SCENES} --set 'student={{arch: unet, encoder: tu-swin_tiny_patch4_window7_224}}'", "does not run at .*224.*. The nearest size that it takes is 224x224"),
    Case("run-encoder-not-for-this-decoder", f"run clfd {SCENES} --set 'student={{arch: pan, encoder: tu-vgg11}}'", "smp cannot build pan on tu-vgg11 .*Take another encoder, arch"),
    Case("run-weights-that-are-nowhere", f"run clfd {SCENES} --set 'student={{arch: fpn, encoder: resnet18, encoder_weights: /nowhere}}'", "no file or folder of encoder weights '/nowhere'"),
    Case("run-weights-that-are-none", f"run clfd {SCENES} --set 'student={{arch: fpn, encoder: resnet18, encoder_weights: {{folder}}/a.pt}}'", "cannot be read as plain weights", file("a.pt", b"no weights")),
    Case("run-teacher-that-is-nowhere", f"run clfd {SCENES} --set teacher.checkpoint=/nowhere.pt", "no checkpoint '/nowhere.pt'"),
    Case("run-one-image-a-rank", f"run clfd {SCENES} --workers-per-trial 8 --gpus-per-worker 0 --set train.batch_size=8 --set 'student={{arch: deeplabv3plus, encoder: mobilenet_v2}}'", "train.batch_size 8 over 8 workers a trial: .*one image of .* Set train.batch_size to 16 or more, or fewer --workers-per-trial"),
    Case("run-batch-that-does-not-divide", f"run clfd {SCENES} --workers-per-trial 3", "does not divide over 3 workers a trial"),
    Case("run-part-of-many-gpus", f"run clfd {SCENES} --gpus-per-worker 1.5", "--gpus-per-worker 1.5: give a share of one GPU"),
    Case("run-negative-gpus", f"run clfd {SCENES} --gpus-per-worker -1", "--gpus-per-worker -1"),
    Case("run-ray-address-of-a-dashboard", f"run clfd {SCENES}", "RAY_ADDRESS is http://127.0.0.1:8265.*unset it", env=DASHBOARD),
    Case("run-address-of-a-dashboard", f"run clfd {SCENES} --address http://head:8265", "--address is http://head:8265.*leave it out"),
    Case("run-address-without-a-port", f"run clfd {SCENES} --address head", "No Ray cluster answers at head .*HOST:PORT"),
    Case("run-address-that-does-not-answer", f"run clfd {SCENES} --address 127.0.0.1:9", "No Ray cluster answers at 127.0.0.1:9 .*correct --address"),
    Case("run-long-tmpdir", f"run clfd {SCENES}", "TMPDIR is .* too long for the sockets of Ray.*set RAY_TMPDIR", env={"RAY_TMPDIR": f"/tmp/{'x' * 60}"}),
    Case("run-long-name", f"run clfd {SCENES} --name {LONG}", "a run's name has at most 200 bytes, not 300; give a shorter"),
    Case("run-name-that-is-a-path", f"run clfd {SCENES} --name ../elsewhere", "one plain folder name"),
    Case("run-hidden-name", f"run clfd {SCENES} --name .hidden", "no leading dot"),
    Case("run-empty-name", f"run clfd {SCENES} --name ''", "one plain folder name"),
    Case("run-remote-storage", f"run clfd {SCENES} --storage s3://bucket/runs", "only local .or mounted. folders"),
    Case("run-storage-that-is-a-file", f"run clfd {SCENES} --storage {{folder}}/file", "--storage .* cannot be written: .*/file is a file, not a folder; give another", unwritable),
    Case("run-long-storage", f"run clfd {SCENES} --storage {{folder}}/{LONG}", "cannot be used .File name too long.; name another path"),
    Case("run-name-that-is-taken", f"run clfd {SCENES} --name a", "holds a study already; add --resume", started),
    Case("run-nothing-to-resume", "run clfd --resume", "no study of clfd to resume in runs; name it with --name"),
    Case("run-no-such-study-to-resume", "run clfd --resume --name b", "no study to resume in .*check --storage and --name"),
    Case("run-extend-without-resume", f"run clfd {SCENES} --extend clfd", "add --resume"),
    Case("run-resume-on-another-device", "run clfd --resume --latency cpu", "leave --latency out"),
    Case("run-resume-with-a-profile", "run clfd --resume --profile demo", "leave --profile"),
    Case("run-resume-with-warm-start", "run tiny --resume --name a --warm-start runs/b", "--warm-start belongs to the start", started),
    Case("run-warm-start-from-nothing", f"run clfd {SCENES} --warm-start {{folder}}", "--warm-start .* holds no study"),
    Case("run-latency-of-an-unknown-device", f"run clfd {SCENES} --latency gpu", "--latency should be cpu"),
    Case("run-tracking-server-that-does-not-answer", f"run clfd {SCENES} --tracking-uri http://127.0.0.1:9", "http://127.0.0.1:9 does not answer"),
]  # fmt: skip

PLAN = [
    Case("plan-unknown-space", "plan clfb", r"Did you mean 'clfd'\?"),
    Case("plan-no-slots", "plan clfd --slots 0", "0 is not a positive number"),
    Case("plan-size-of-networks", f"plan clfd {SCENES} --set 'data.size=[70, 100]' --set 'student={{arch: fpn, encoder: resnet18}}'", "multiples of 32, not 70x100"),
    Case("plan-negative-seconds", f"plan clfd {SCENES} --seconds -1", "--seconds -1: give a positive number"),
    Case("plan-limit-that-is-no-number", f"plan clfd {SCENES} --limit nan", "--limit nan: give a positive number"),
    Case("plan-part-of-many-gpus", f"plan clfd {SCENES} --gpus-per-worker 1.5", "--gpus-per-worker 1.5: give a share"),
    Case("plan-batch-that-does-not-divide", f"plan clfd {SCENES} --workers-per-trial 3", "does not divide over 3 workers"),
    Case("plan-data-in-no-folder", "plan clfd --data mfnet=/nowhere", "folder /nowhere does not exist"),
]  # fmt: skip

TRAIN = [
    Case("train-no-such-file", "train {folder}/a.yaml --out s", "a.yaml: no such file"),
    Case("train-a-folder", "train {folder} --out s", "is a folder; name the YAML file in it"),
    Case("train-long-file", f"train {LONG}.yaml --out s", "cannot be read .File name too long.; name another file"),
    Case("train-without-out", "train a.yaml", "arguments are required: --out"),
    Case("train-an-empty-file", "train a.yaml --out s", "should hold the sections", file("a.yaml")),
    Case("train-a-space-with-ranges", "train a.yaml --out s", "a trial has one value here", file("a.yaml", TRIAL.replace("epochs: 1", "epochs: {int: [1, 3]}"))),
    Case("train-a-whole-space", "train a.yaml --out s", "a.yaml:5: search: belongs to a study", file("a.yaml", f"{SPACE}search: {{trials: 3}}\n")),
    Case("train-size-of-networks", "train a.yaml --out s", "multiples of 32, not 70x100. The nearest size that it takes is 64x96", file("a.yaml", TRIAL.replace("[32, 64]", "[70, 100]"))),
    Case("train-one-image-a-step", "train a.yaml --out s", "train.batch_size 1: .*one image of 32x64.*Set train.batch_size to 2", file("a.yaml", TRIAL.replace("fpn, encoder: tu-mobilenetv3_small_050", "deeplabv3, encoder: mobilenet_v2").replace("batch_size: 2", "batch_size: 1"))),
    Case("train-unknown-encoder", "train a.yaml --out s", "There is no encoder", file("a.yaml", TRIAL.replace("tu-mobilenetv3_small_050", "resnet81"))),
    Case("train-out-that-exists", "train a.yaml --out {folder}", "exists already; give another --out", file("a.yaml", TRIAL)),
    Case("train-out-in-a-file", "train a.yaml --out file/s", "--out file/s cannot be written: .*/file is a file, not a folder; give another", both(file("a.yaml", TRIAL), unwritable)),
    Case("train-long-out", f"train a.yaml --out {LONG}", "--out nnn.*: a name has at most .* bytes; give a shorter one", file("a.yaml", TRIAL)),
    Case("train-storage-in-a-file", "train a.yaml --out s --storage file", "file.*--storage", both(file("a.yaml", TRIAL), unwritable)),
    Case("train-remote-storage", "train a.yaml --out s --storage s3://b/runs", "only local", file("a.yaml", TRIAL)),
    Case("train-teacher-that-is-nowhere", "train a.yaml --out s", "no checkpoint '/nowhere.pt'", file("a.yaml", f"{TRIAL}{TEACHER}".replace("resnet18,", "resnet18, checkpoint: /nowhere.pt,"))),
    Case("train-teacher-of-another-size", "train a.yaml --out s", "does not run at 32x64", file("a.yaml", f"{TRIAL}{TEACHER}".replace("resnet18,", "tu-swin_tiny_patch4_window7_224,"))),
    Case("train-unknown-option-of-data", "train a.yaml --out s", "has no option 'trian'. Did you mean 'train'", file("a.yaml", TRIAL.replace("train: 4", "trian: 4"))),
    Case("train-no-images", "train a.yaml --out s", "train", file("a.yaml", TRIAL.replace("train: 4", "train: 0"))),
]  # fmt: skip

TEACHERS = [
    Case("teacher-without-an-action", "teacher", "arguments are required: ACTION"),
    Case("teacher-unknown-action", "teacher trian clfd", r"unknown action 'trian'. Did you mean 'train'\?"),
    Case("teacher-of-a-space-without-one", "teacher train a.yaml", "has no teacher: add a `teacher` section", file("a.yaml", SPACE)),
    Case("teacher-train-a-checkpoint", "teacher train a.yaml", "comes as a checkpoint", both(file("a.yaml", f"{SPACE}{TEACHER}".replace("resnet18,", "resnet18, checkpoint: a.pt,")), file("a.pt"))),
    Case("teacher-size-of-networks", "teacher train a.yaml", "multiples of 32", file("a.yaml", f"{SPACE}{TEACHER}".replace("[32, 64]", "[70, 100]"))),
    Case("teacher-storage-in-a-file", "teacher train a.yaml --storage file", "file.*--storage", both(file("a.yaml", f"{SPACE}{TEACHER}"), unwritable)),
    Case("teacher-long-storage", f"teacher train a.yaml --storage {LONG}", "too long", file("a.yaml", f"{SPACE}{TEACHER}")),
]  # fmt: skip

DATA = [
    Case("data-without-an-action", "data", "arguments are required: ACTION"),
    Case("data-check-nothing", "data check", "arguments are required"),
    Case("data-check-a-path", "data check {folder}", "expected NAME=PATH|unknown data set"),
    Case("data-check-no-path", "data check mfnet=", "expected NAME=PATH"),
    Case("data-check-needs-a-path", "data check mfnet", "needs a folder"),
    Case("data-check-unknown", "data check mfnett={folder}", r"Did you mean 'mfnet'\?"),
    Case("data-check-nowhere", "data check mfnet=/nowhere", "folder /nowhere does not exist"),
    Case("data-check-long-path", f"data check mfnet=/{LONG}", "too long|does not exist"),
    Case("data-check-no-picture-format", "data check scenes --picture a.txt", "'.txt' is not a picture format; use .png"),
    Case("data-check-picture-nowhere", "data check scenes --picture /nowhere/a.png", "/nowhere does not exist; create it"),
    Case("data-check-long-picture", f"data check scenes --option train=1 --option val=1 --picture {LONG}.png", "--picture nnn.*: a name has at most"),
    Case("data-check-option-without-value", "data check scenes --option train", "expected NAME=VALUE"),
    Case("data-check-option-of-no-kind", "data check scenes --option train=many", "train"),
    Case("data-check-negative-option", "data check scenes --option train=-1", "train"),
    Case("data-check-list-option", "data check scenes --option 'train=[1]'", "not a single value"),
    Case("data-check-other-setting", "data check scenes --set train.lr=1", "only data.options.NAME=VALUE can be set here"),
    Case("data-check-empty-folder", "data check mfnet={folder}", "train.txt|images"),
    Case("data-build-without-size", "data build scenes", "arguments are required: --size"),
    Case("data-build-one-length", "data build scenes --size 32", "expected 2 arguments"),
    Case("data-build-negative-size", "data build scenes --size -32 64", "--size"),
    Case("data-build-no-size", "data build scenes --size 0 64", "0 is not a positive number"),
    Case("data-build-storage-in-a-file", "data build scenes --size 32 64 --option train=1 --option val=1 --storage file", "file.*--storage", unwritable),
    Case("data-build-long-storage", f"data build scenes --size 32 64 --option train=1 --option val=1 --storage {LONG}", "too long"),
    Case("data-build-huge", "data build scenes --size 1000000000 1000000000 --option train=1 --option val=1", "GB free, the store needs .* GB; make room"),
]  # fmt: skip

EXPORT = [
    Case("export-nothing", "export --out s", "arguments are required: RUN"),
    Case("export-nowhere", "export /nowhere --out s", "/nowhere .*not a run folder|no folder"),
    Case("export-a-file", "export file --out s", "not a run folder", unwritable),
    Case("export-an-empty-folder", "export {folder} --out s", "is not a run folder: it has no summary.json"),
    Case("export-long-run", f"export {LONG} --out s", "cannot be used .File name too long"),
    Case("export-damaged-summary", "export runs/a --out s", "is no summary of a study", file("runs/a/summary.json", "{")),
    Case("export-missing-student", "export runs/a --out s", "student t0000 is missing", finished),
    Case("export-unknown-best", "export runs/a --out s --best mious", r"Did you mean 'miou'\?", finished),
    Case("export-no-budget", "export runs/a --out s --budget cheap", "expected METRIC<=NUMBER", finished),
    Case("export-unknown-budget", "export runs/a --out s --budget 'gflop<=5'", r"Did you mean 'gflops'\?", finished),
    Case("export-nothing-within", "export runs/a --out s --budget 'gflops<=0.01'", "The cheapest has 0.1 GFLOPs", finished),
    Case("export-budget-not-measured", "export runs/a --out s --budget 'latency_ms<=5'", "measured no latency", finished),
    Case("export-unknown-format", "export runs/a --out s --formats onx", "--formats onx: unknown format", finished),
    Case("export-no-format", "export runs/a --out s --formats ''", "--formats", finished),
    Case("export-out-that-is-full", "export runs/a --out runs", "is not an empty folder; give another --out", finished),
    Case("export-long-out", f"export student --out {LONG}", "--out nnn.*: a name has at most", student),
    Case("export-out-in-a-file", "export student --out file/s", "--out file/s cannot be written: .* is a file, not a folder", both(student, unwritable)),
    Case("export-server-for-a-folder", "export runs/a --out s --tracking-uri http://h:1", "--tracking-uri is for runs:/ID", finished),
    Case("export-run-without-a-server", "export runs:/abc --out s", "Name the tracking server: --tracking-uri"),
    Case("export-no-database", "export runs:/abc --out s --tracking-uri sqlite:///{folder}/absent.db", "no database at .*correct --tracking-uri"),
    Case("export-choice-of-one", "export student --best knee --out s", "holds one student; leave --best and --budget out", student),
    Case("export-student-without-metrics", "export student --out s", "metrics.json is missing; copy the folder whole", student_without("metrics.json")),
    Case("export-student-without-weights", "export student --out s", "model.safetensors is missing|is not a run folder", student_without("model.safetensors")),
    Case("export-student-with-torn-weights", "export student --out s", "cannot be read as plain weights", student_with("model.safetensors", b"\x00")),
    Case("export-student-with-other-config", "export student --out s", "not a student of this version", student_with("config.json", b"{}")),
    Case("export-student-with-torn-config", "export student --out s", "config.json is damaged", student_with("config.json", b"{")),
    Case("export-student-without-miou", "export student --out s", "has no val/miou", student_with("metrics.json", b"{}")),
    Case("export-student-with-text-metrics", "export student --out s", "metrics.json cannot be read", student_with("metrics.json", b'{"val/miou": "good"}')),
]  # fmt: skip

OTHERS = [
    Case("report-nowhere", "report /nowhere", "/nowhere"),
    Case("report-an-empty-folder", "report {folder}", "not a run folder|no study"),
    Case("report-damaged", "report runs/a", "space.yaml|study", both(started, file("runs/a/space.yaml", "a: ["))),
    Case("report-long-run", f"report {LONG}", "too long|no study|not a run folder"),
    Case("report-server-for-a-folder", "report runs/a --tracking-uri http://h:1", "leave it out for a run folder", started),
    Case("report-without-a-server", "report runs:/abc", "Name the tracking server: --tracking-uri"),
    Case("report-no-database", "report runs:/abc --tracking-uri sqlite:///{folder}/absent.db", "no database"),
    Case("report-server-that-does-not-answer", "report runs:/abc --tracking-uri http://127.0.0.1:9", "127.0.0.1:9"),
    Case("runs-nowhere", "runs --storage /nowhere", "no folder /nowhere; name the folder of the runs with --storage"),
    Case("runs-of-a-file", "runs --storage file", "file", unwritable),
    Case("runs-long-storage", f"runs --storage {LONG}", "too long|no folder"),
    Case("spaces-unknown-action", "spaces shw", r"Did you mean 'show'\?"),
    Case("spaces-show-nothing", "spaces show", "arguments are required: SPACE"),
    Case("spaces-show-unknown", "spaces show clfb", r"Did you mean 'clfd'\?"),
    Case("spaces-show-unknown-profile", "spaces show clfd --profile demoo", r"Did you mean 'demo'\?"),
    Case("replay-nowhere", "replay /nowhere", "/nowhere"),
    Case("replay-an-empty-folder", "replay {folder}", "no study|not a run folder|space.yaml"),
    Case("replay-an-empty-study", "replay runs/a", "needs at least 8 trials that were trained to their last epoch, found 0", started),
    Case("replay-long-out", f"replay runs/a --out {LONG}", "--out nnn.*: a name has at most", started),
    Case("completion-without-a-shell", "completion", "arguments are required: SHELL"),
    Case("completion-of-another-shell", "completion tcsh", "unknown 'tcsh'"),
]  # fmt: skip

CASES = [*RUN, *PLAN, *TRAIN, *TEACHERS, *DATA, *EXPORT, *OTHERS]
