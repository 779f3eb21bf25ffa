"""What some tests need that a machine may lack."""

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip the test that calls this, or fail it where nothing may be lacking: with BN_SPEC_NO_SKIPS set, as in CI."""
    if os.environ.get("BN_SPEC_NO_SKIPS"):
        pytest.fail(f"{reason}, and BN_SPEC_NO_SKIPS is set", pytrace=False)
    pytest.skip(reason)
