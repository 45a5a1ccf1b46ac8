"""Credenza beside other libraries: what is here uses the public API only."""
