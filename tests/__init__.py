"""The tests of bn_spec itself: every file guards the module of its name."""

import pytest

pytest.register_assert_rewrite(f"{__name__}.conventions")
