"""How hard a run looks: three profiles, registered with Hypothesis under names of our own.

They are applied to our properties only; whatever profile a user's own tests have stays as it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import hypothesis


@dataclass(frozen=True)
class Profile:
    """A number of examples per property, backend and dtype, and whether they are the same in every run."""

    name: str
    examples: int
    deterministic: bool

    def seed(self) -> int:
        """Return the seed for a run: 0 for a deterministic profile, a new one otherwise."""
        return 0 if self.deterministic else secrets.randbits(32)

    def settings(self, examples: int | None = None) -> hypothesis.settings:
        """Return the settings for Hypothesis; ``examples`` overrides the profile's number."""
        registered = hypothesis.settings.get_profile(f"bn-{self.name}")
        return hypothesis.settings(registered, max_examples=examples or self.examples)


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile("smoke", 15, deterministic=True),
            Profile("ci", 100, deterministic=True),
            Profile("nightly", 5000, deterministic=False),
        )
    }
)

for _profile in PROFILES.values():
    hypothesis.settings.register_profile(
        f"bn-{_profile.name}",
        max_examples=_profile.examples,
        # Every run is reproduced by its seed alone, so nothing is kept between runs.
        database=None,
        # Wall-clock limits fail on busy machines, not on wrong kernels.
        deadline=None,
        suppress_health_check=[
            hypothesis.HealthCheck.too_slow,
            hypothesis.HealthCheck.data_too_large,
            hypothesis.HealthCheck.large_base_example,
        ],
        # Explaining traces every line, and our findings explain themselves.
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink],
        report_multiple_bugs=False,
        print_blob=False,
    )
