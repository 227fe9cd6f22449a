"""`kdsearch spaces`: the shipped search spaces, and the content of one."""

from __future__ import annotations

import argparse
from typing import Any

from kdsearch.cli import completion as complete
from kdsearch.cli.output import CommandOutput, print_columns, print_json
from kdsearch.cli.parser import Commands, add_command, add_json, add_profile

SHOW = """\
The whole tree: ranges with their defaults, and every setting that the file leaves at its default. The output is itself
a search space: write it to a file, edit it, and search it with 'kdsearch run FILE'.
"""
SCHEMA = """\
For editors: put '# yaml-language-server: $schema=space.schema.json' on the first line of a space.
"""


def add_to(commands: Commands) -> None:
    spaces = add_command(
        commands, "spaces", _list, help="list the search spaces, show the content of one",
        about="Without an action the shipped spaces are listed, one per line.",
        examples=["spaces", "spaces show clfd", "spaces show clfd --profile demo > mine.yaml"],
    )  # fmt: skip
    add_json(spaces, "a list of name, description, data, profiles, path")
    actions = spaces.add_subparsers(metavar="ACTION", title="actions")

    show = add_command(
        actions, "show", _show, help="show a space in full, with ranges and defaults", about=SHOW,
        examples=["spaces show clfd", "spaces show clfd --profile demo > mine.yaml", "spaces show mine.yaml --json"],
    )  # fmt: skip
    complete.by(show.add_argument("space", metavar="SPACE", help="name or YAML file"), complete.spaces)
    add_profile(show, "profile of the space to apply")
    add_json(show, "the sections of the space, and the names of its profiles")

    add_command(
        actions, "schema", _schema, help="print the JSON schema of the format", about=SCHEMA,
        examples=["spaces schema > space.schema.json"],
    )  # fmt: skip


def _list(options: argparse.Namespace) -> CommandOutput:
    from kdsearch.config.space.shipped import find_space, shipped_spaces
    from kdsearch.config.space.yaml_tree import parse_yaml

    found: list[dict[str, Any]] = []
    for name in shipped_spaces():
        path = find_space(name)
        # Parsed only: validating six spaces takes a second.
        tree = parse_yaml(path.read_bytes(), lambda line, path=path: f"{path}:{line}")  # type: ignore[misc]
        found.append(
            {
                "name": name, "description": tree["description"], "data": tree["data"]["name"],
                "profiles": list(tree.get("profiles", {})), "path": str(path),
            }
        )  # fmt: skip
    rows = [(each["name"], each["description"].partition(". ")[0].rstrip(".")) for each in found]
    return CommandOutput(found, lambda: print_columns(("NAME", "DESCRIPTION"), rows))


def _show(options: argparse.Namespace) -> CommandOutput:
    from kdsearch.config.space.search_space import load_space, profile_names
    from kdsearch.config.space.yaml_tree import dump_yaml

    space = load_space(options.space, profile=options.profile)
    complete = space.complete()
    profiles = [] if options.profile else profile_names(options.space)

    def show() -> None:
        if profiles:
            print(f"# profiles, shown with --profile NAME: {', '.join(profiles)}")
        print(dump_yaml(complete), end="")

    return CommandOutput({**complete, "profiles": profiles}, show)


def _schema(options: argparse.Namespace) -> CommandOutput:
    from kdsearch.config.space.schema import json_schema

    schema = json_schema()
    return CommandOutput(schema, lambda: print_json(schema))
