from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.config.space.trial_file import load_trial
from kdsearch.errors import UserError

TRIAL = """data: {name: scenes, size: [32, 64]}
student: {arch: fpn, encoder: resnet18}
"""


def test_a_name_and_a_description_label_a_trial(tmp_path: Path) -> None:
    plain, named = tmp_path / "plain.yaml", tmp_path / "named.yaml"
    plain.write_text(TRIAL)
    named.write_text(f"name: mine\ndescription: of today\n{TRIAL}")
    assert load_trial(named) == load_trial(plain)


def test_what_only_a_study_reads_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(f"name: mine\n{TRIAL}search: {{trials: 3}}\nconfirm: {{seeds: 2}}\n")
    with pytest.raises(UserError) as caught:
        load_trial(path)
    first, second = str(caught.value).splitlines()
    assert first.endswith("space.yaml:4: search: belongs to a study, a trial has no such section; remove it")
    assert ":5: confirm: belongs to a study" in second
