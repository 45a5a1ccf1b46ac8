"""Journals: where write-behind keeps what it owes to the source."""
