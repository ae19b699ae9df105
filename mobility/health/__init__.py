"""Whether a jail is ready: checks from the host, and what they conclude."""
