"""The rules of DESIGN section 3, checked over a history by somebody who does not know how the cache works.

A value knows the load, the `set` or the write that it comes from, so the checks compare moments: when the origin began, when
invalidations were called and had returned, when a call began. Where moments overlap either order is right.

Two loads of one key may overlap only if, after the first one's flight was registered and before the second one's was,
- the key, one of the tags or everything was invalidated, `set` or written (the first one is detached, I1-I3); or
- the first one ran into its `load_timeout`; or
- a caller left it, by cancellation or timeout, and it is async (it was asked to stop, and has not stopped yet, L5).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from .call_rules import CallRules
from .config import Config
from .facts import Facts
from .history import History
from .load_rules import LoadRules


def violations(history: History, config: Config, function_keys: dict[Hashable, Any]) -> list[str]:
    """Return what is wrong with a history, one line each."""
    facts = Facts(history, config, function_keys)
    calls = CallRules(facts)
    found = list(history.broken)
    for call in history.calls:
        found.extend(f"{problem} ({call}: {call.kind})" for problem in calls.of(call))
    found.extend(LoadRules(facts).violations())
    return found
