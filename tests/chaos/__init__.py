"""Chaos: kills at every step, and random walks. Short forms run with the other tests, `make soak` runs the long ones."""
