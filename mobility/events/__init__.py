"""Where news comes from: the hooks' spool and, later, devd. News is only a hint to look; the look decides."""
