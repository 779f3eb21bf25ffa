"""The right answers: the reference, the error bounds, and the expectation of each step."""
