"""Tests that need what a machine may lack."""

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip the calling test, or fail it if BN_SPEC_NO_SKIPS is set, as it is in CI."""
    if os.environ.get("BN_SPEC_NO_SKIPS"):
        pytest.fail(f"{reason}, and BN_SPEC_NO_SKIPS is set", pytrace=False)
    pytest.skip(reason)
