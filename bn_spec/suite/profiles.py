"""Profiles: how many examples a run draws, and whether every run draws the same ones.

The profiles are registered with Hypothesis under names of bn-spec's own, and apply to the suite
only. The Hypothesis profile of a user's own tests stays as it is. The table itself does not import
Hypothesis, so options can be checked and headers printed without it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypothesis import settings


@dataclass(frozen=True)
class Profile:
    """How hard a run looks.

    Attributes:
        name: Name of the profile.
        examples: Number of examples per property, backend and dtype.
        deterministic: Draw the same examples in every run.
        deep: Also check the properties whose examples each take long.

    """

    name: str
    examples: int
    deterministic: bool
    deep: bool = False

    def seed(self) -> int:
        """Return the seed for a run: 0 for a deterministic profile, a new one otherwise."""
        return 0 if self.deterministic else secrets.randbits(32)

    def settings(self, examples: int | None = None, *, shrink: bool = True) -> settings:
        """Return the settings for Hypothesis.

        Args:
            examples: Number of examples, if not the profile's.
            shrink: Look for a smaller case once one fails.

        """
        from hypothesis import Phase, settings

        _register()
        profile = settings.get_profile(f"bn-{self.name}")
        phases = [phase for phase in profile.phases if shrink or phase != Phase.shrink]
        return settings(profile, max_examples=examples or self.examples, phases=phases)


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile("smoke", 15, deterministic=True),
            Profile("ci", 100, deterministic=True),
            Profile("nightly", 5000, deterministic=False, deep=True),
        )
    }
)


@cache
def _register() -> None:
    from hypothesis import HealthCheck, Phase, settings

    for profile in PROFILES.values():
        settings.register_profile(
            f"bn-{profile.name}",
            max_examples=profile.examples,
            # The seed alone decides what is drawn: nothing is kept between runs, unless the user
            # names a database.
            database=None,
            # Wall-clock limits fail on busy machines, not on wrong kernels.
            deadline=None,
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.data_too_large,
                HealthCheck.large_base_example,
            ],
            # Phase.explain traces every line, which is slow, and findings explain themselves.
            phases=[Phase.explicit, Phase.generate, Phase.target, Phase.shrink],
            report_multiple_bugs=False,
            print_blob=False,
        )
