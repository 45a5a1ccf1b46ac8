"""Shared tiers: where the processes of a service keep what they share."""
