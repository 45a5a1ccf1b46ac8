"""The process's own memory tier."""
