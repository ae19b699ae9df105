"""What the `mobility` command shows: pure functions from answers to lines, and the little that drives a terminal."""
