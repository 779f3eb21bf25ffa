"""The suite of bn-spec as tests of this package, one for each requirement.

pyproject.toml has the options of the suite.
"""

from bn_spec.suite.chapters import suite_tests

globals().update(suite_tests())
