"""`kdsearch completion`: the script that lets a shell complete this command."""

from __future__ import annotations

import argparse

from kdsearch.cli.output import CommandOutput
from kdsearch.cli.parser import Commands, add_command

ABOUT = """\
To enable completion in every new shell:

  bash   echo 'eval "$(kdsearch completion bash)"' >> ~/.bashrc
  zsh    echo 'eval "$(kdsearch completion zsh)"' >> ~/.zshrc   (after compinit)
  fish   kdsearch completion fish > ~/.config/fish/completions/kdsearch.fish

Commands, options, spaces with their profiles and settings, data sets, run folders and files are completed.
"""


def add_to(commands: Commands) -> None:
    command = add_command(
        commands, "completion", _completion, help="print the script that lets a shell complete this command",
        about=ABOUT, examples=["completion bash"],
    )  # fmt: skip
    command.add_argument("shell", choices=("bash", "zsh", "fish"), metavar="SHELL", help="bash, zsh or fish")


def _completion(options: argparse.Namespace) -> CommandOutput:
    import argcomplete

    script: str = argcomplete.shellcode(["kdsearch"], shell=options.shell)
    return CommandOutput(show=lambda: print(script))
