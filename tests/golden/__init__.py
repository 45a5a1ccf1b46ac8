"""Bytes that earlier versions stored, and what they have to decode to."""
