"""The ``bn-spec`` command."""

from __future__ import annotations

import click

from bn_spec import __version__
from bn_spec.cli.audit_command import audit
from bn_spec.cli.backends_command import backends
from bn_spec.cli.compare_command import compare
from bn_spec.cli.doctor_command import doctor
from bn_spec.cli.new_backend_command import new_backend
from bn_spec.cli.replay_command import replay
from bn_spec.cli.report_command import report
from bn_spec.cli.requirements_command import requirements
from bn_spec.cli.run_command import run
from bn_spec.cli.vectors_command import vectors


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bn-spec")
def main() -> None:
    """Check BatchNorm2d implementations against the specification."""


for command in (
    run,
    report,
    compare,
    replay,
    backends,
    doctor,
    new_backend,
    requirements,
    vectors,
    audit,
):
    main.add_command(command)
