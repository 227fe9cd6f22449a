"""Settings of a space that would change nothing: a new study refuses them, since whoever wrote them expects an effect.

Earlier studies may have them, and stay readable; so these are no errors of the configuration itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from kdsearch.config.search import SearchConfig
from kdsearch.config.space.problems import Problem
from kdsearch.config.space.ranges import ends
from kdsearch.config.space.tree import Parameter
from kdsearch.config.space.yaml_tree import Origin, Tree
from kdsearch.config.trial import TrialConfig
from kdsearch.errors import UserError


def of_trial(trial: TrialConfig) -> Iterator[tuple[str, str]]:
    """Names of settings without an effect in this trial, and why."""
    epochs = trial.train.epochs
    for name, term in trial.distill.items():
        if term.warmup_epochs >= epochs:
            yield (
                f"distill.{name}.warmup_epochs",
                f"{term.warmup_epochs} leaves no epoch in which {name} counts: the training has {epochs}; set it below "
                f"{epochs}, or leave {name} out",
            )
    for section, train in (("train", trial.train), ("teacher.train", trial.teacher and trial.teacher.train)):
        if train and train.detail_weight == 0 and train.edge_width != type(train).model_fields["edge_width"].default:
            yield f"{section}.edge_width", "has no effect with detail_weight 0; leave it out"


def check_effects(trial: TrialConfig) -> None:
    """Raise `UserError` for the settings of `of_trial`."""
    problems = [f"{name}: {why}" for name, why in of_trial(trial)]
    if problems:
        raise UserError("\n".join(problems))


def of_search(tree: Tree, found: list[Parameter], trial: TrialConfig, search: SearchConfig) -> Iterator[Problem]:
    """Settings of the section `search` without an effect, at their place. `found` are the parameters of the space.

    `--set search.stop=none` replaces the rule of a file together with its settings, so those are no mistake.
    """
    section = tree.get("search")
    if not isinstance(section, Tree):
        return
    longest = max(
        (value for each in found if each.name == "train.epochs" for value in ends(each.domain)),
        default=trial.train.epochs,
    )
    late = [rung for rung in search.rungs if rung >= longest]
    if late:
        kept = [rung for rung in search.rungs if rung < longest]
        yield Problem(
            section.origins["rungs"], "search.rungs",
            f"{late[0]} has no effect: a trial ends after {longest} epochs; set search.rungs={kept}",
        )  # fmt: skip
    fields = SearchConfig.model_fields
    for cause, where in (("stop", "with stop none"), ("rungs", "without rungs")):
        if (search.stop != "none") if cause == "stop" else search.rungs:
            continue
        for name in ("reduction", "audit"):
            default = fields[name].default
            if getattr(search, name) == default or _replaced(section, cause, name):
                continue
            yield Problem(
                section.origins[name], f"search.{name}",
                f"has no effect {where}: no trial is stopped; leave it out, or set search.{name}={default}",
            )  # fmt: skip
        return


def _replaced(section: Tree, cause: str, name: str) -> bool:
    """Whether the setting `cause` comes from the command line and `name` does not."""
    return _is_override(section.origins.get(cause, "")) and not _is_override(section.origins[name])


def _is_override(origin: Origin) -> bool:
    return str(origin).startswith("--set")
