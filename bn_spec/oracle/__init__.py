"""What the right answer is: the reference, error bounds, and the expectation of each step."""
