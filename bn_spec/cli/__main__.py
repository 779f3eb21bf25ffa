"""``python -m bn_spec.cli`` is the ``bn-spec`` command."""

from bn_spec.cli import main

main()
