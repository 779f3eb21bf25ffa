"""A session of pytest's that runs the suite: its options, what it stands on, and what comes of it."""
