"""The tests of bn_spec itself; modules named test_* are tests, all others are their helpers."""

import pytest

HELPERS = ("conventions", "every_step", "judged_histories", "kernels", "spoilt_backends")
"""Helper modules whose assertions explain themselves as those of tests do."""

pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in HELPERS))
