"""The suite of bn-spec as tests of this package, one for each requirement; its options are in pyproject.toml."""

from bn_spec.suite.chapters import suite_tests

globals().update(suite_tests())
