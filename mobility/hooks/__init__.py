"""Putting our hook lines into the files of jail managers, and taking them out again."""
