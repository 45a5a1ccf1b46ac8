"""Situations that are rare among seeds: what a seed stands for under one of them."""

from __future__ import annotations

import dataclasses
from typing import Any

from credenza.tiers.base import Fence

from .config import Config, make_config

_NO_FAULTS: dict[str, Any] = dict.fromkeys(
    "fault_rate load_errors lost late twice refused pauses kills cuts jumps evictions losses".split(), 0.0
)
_BOUNDED: dict[str, Any] = _NO_FAULTS | {"coherence": "bounded", "processes": 2, "rates": (1.0, 1.0, 1.0), "ttl": 60}

SITUATIONS: dict[str, dict[str, Any]] = {
    # Who reads the log every second misses announcements of one key for those of the other.
    "short log": _BOUNDED
    | {"maxsize": 10, "log_entries": 2, "keys": ("a", "b"), "staleness": 4.0}
    | {"clients": 3, "writers": 2, "calls": 6, "think_pace": 0.3, "write_pace": 0.05}
    | {"weights": {"load": 13, "then_invalidate": 10, "writing": 10}},
    # The reply to a reading of the log arrives when a process goes on after others have written.
    "pauses": _BOUNDED
    | {"maxsize": 10, "keys": ("a",), "staleness": 1.0, "slow": 0.3, "pauses": 0.5}
    | {"calls": 6, "reads": 30, "think_pace": 0.3, "write_pace": 0.05}
    | {"weights": {"load": 13, "writing": 10}},
    # Stamps are on their way when their tags are invalidated.
    "slow tags": _BOUNDED
    | {"maxsize": 10, "keys": ("a",), "staleness": 4.0, "slow": 0.45, "has_tags": True}
    | {"clients": 4, "writers": 1, "calls": 6, "reads": 15, "think_pace": 0.5, "load_pace": 0.02, "write_pace": 0.02}
    | {"weights": {"load": 13, "then_invalidate_tags": 10}},
    # Writes that could not be fenced are owed, and others are while those are delivered.
    "refused fences": _BOUNDED
    | {"maxsize": 0, "keys": ("a",), "slow": 0.9, "refused": 0.9, "refusable": (Fence,)}
    | {"clients": 5, "writers": 3, "calls": 6, "reads": 30, "think_pace": 0.02, "load_pace": 0.02, "write_pace": 0.2}
    | {"policy": {"tier_timeout": 4, "on_fence_failure": "owe"}, "weights": {"load": 10, "writing": 20}},
    # Values are set while the fence of a write stands that may yet be committed.
    "unknown outcomes": _BOUNDED
    | {"maxsize": 0, "keys": ("a",), "slow": 0.005, "load_errors": 0.3}
    | {"writers": 1, "calls": 6, "reads": 30, "think_pace": 0.02, "load_pace": 0.05, "write_pace": 0.05}
    | {"weights": {"load": 13, "writing": 10, "then_set": 10}},
}
"""What is fixed under each; the rest is as the seed has it."""


def config_under(situation: str | None, seed: int) -> Config:
    """Return what `seed` stands for, under a situation if one is named."""
    config = make_config(seed)
    if situation is None:
        return config
    fixed = dict(SITUATIONS[situation])
    policy = fixed.pop("policy", {})
    config = dataclasses.replace(config, **fixed)
    config.policy = config.policy | {"ttl": config.ttl, "max_staleness": config.staleness, "tier_timeout": 1} | policy
    return config
