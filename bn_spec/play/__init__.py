"""Playing a case on a backend: what was observed, in this process or in another."""
