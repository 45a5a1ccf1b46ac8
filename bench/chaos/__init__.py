"""Processes, a shared tier and a database under faults, and a checker of what the readers saw."""
