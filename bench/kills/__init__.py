"""Writers with write-behind that are killed at random moments, and a ledger that finds what was lost."""
