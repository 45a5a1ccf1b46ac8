"""The only place that knows sync from async."""
