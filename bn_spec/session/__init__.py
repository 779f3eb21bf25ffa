"""A pytest session that runs the suite: its options, its inputs, and its records."""
