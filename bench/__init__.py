"""Measure the cache beside its peers and replay traces of real requests.

Run it with `python -m bench`; `--help` lists the options.
"""
