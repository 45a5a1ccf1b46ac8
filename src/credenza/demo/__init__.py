"""The profile-page service: a real page over a real database, and what a cache does for it."""
