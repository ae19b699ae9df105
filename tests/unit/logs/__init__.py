"""The log: its lines, their fields, floods of them, syslogd, and secrets."""
