"""`kdsearch teacher`: train, evaluate and cache the teacher of a space without a study."""

from __future__ import annotations

import argparse

from kdsearch.cli.output import CommandOutput
from kdsearch.cli.parser import Commands, add_command, add_group, add_json, add_space, add_storage

ACTIONS = (
    (
        "train", "train the teacher of a space",
        "It is kept in the storage, and the studies of this space use it.", "teacher, trained",
    ),
    (
        "evaluate", "print mIoU and the IoU of each class",
        "The teacher is evaluated on the whole validation split.", "teacher, gflops, params_m, images, size, metrics",
    ),
    (
        "cache", "write the teacher's maps that the terms read",
        "Prints their size and the error of their format. Several of these commands at a time share the work.",
        "a list of path, bytes, errors",
    ),
)  # fmt: skip


def add_to(commands: Commands) -> None:
    actions = add_group(commands, "teacher", help="train the teacher of a space, evaluate it, cache its maps")
    for name, help_text, about, fields in ACTIONS:
        action = add_command(
            actions, name, _teacher, help=help_text, about=about,
            examples=[f"teacher {name} clfd --data mfnet=/data/MFNet", f"teacher {name} clfd --profile demo"],
        )  # fmt: skip
        action.set_defaults(action=name)
        add_space(action)
        add_storage(action, "folder of data stores and teachers (default: runs)")
        add_json(action, fields)


def _teacher(options: argparse.Namespace) -> CommandOutput:
    from kdsearch.compat import ensure_torchvision

    ensure_torchvision()
    from kdsearch.cli.space_options import space_of
    from kdsearch.io.run_folder import RunFolder
    from kdsearch.train import teacher_actions

    def log(line: str) -> None:
        print(line, flush=True)

    space = space_of(options)
    for note in space.notes:
        log(note)
    action = {
        "train": teacher_actions.train_teacher, "evaluate": teacher_actions.evaluate_teacher,
        "cache": teacher_actions.cache_teacher,
    }[options.action]  # fmt: skip
    return CommandOutput(action(space.search_space, RunFolder.at(options.storage, "teacher"), log))
