"""The orchestration, written once for both colours."""
