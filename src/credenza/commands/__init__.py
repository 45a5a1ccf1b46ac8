"""What the command line does, but for the demo."""
