"""The ``bn-spec`` command."""

from __future__ import annotations

import click

from . import __version__
from .commands.audit import audit
from .commands.backends import backends
from .commands.compare import compare
from .commands.doctor import doctor
from .commands.new_backend import new_backend
from .commands.replay import replay
from .commands.report import report
from .commands.requirements import requirements
from .commands.run import run
from .commands.vectors import vectors


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bn-spec")
def main() -> None:
    """Check BatchNorm2d implementations against the specification."""


for command in (run, report, compare, replay, backends, doctor, new_backend, requirements, vectors, audit):
    main.add_command(command)


if __name__ == "__main__":
    main()
