"""Playing a case on a backend, in this process or in another, and observing its answers."""
