"""Simulations of several processes over one shared tier: seeds become histories, and the promise is checked over them."""
