"""Simulations of a whole cache: seeds become histories, and rules are checked over them."""
