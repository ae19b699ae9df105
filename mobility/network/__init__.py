"""FreeBSD's network commands: what is run, and what they answer."""
