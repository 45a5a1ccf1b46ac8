"""What databases say of their changes: `feeds.postgres` and `feeds.sqlite`."""
