"""Change feeds: whether anything stale is left, how long an invalidation takes, and what triggers cost writers."""
