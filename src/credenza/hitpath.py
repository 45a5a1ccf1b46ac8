"""The function that answers the calls of a cached one, made for its parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .functions import AsyncFunctionCache, FunctionCache, Recipe
from .keys import check_hashable
from .memory.implementation import compiled
from .runtime.threads import Threads

_PREFIX = "_credenza_"
_MOST_PARAMETERS = 8
"""Functions with more are answered in Python."""

_SOURCE = """
{colour} call({parameters}):
    try:
        @entry = @find({slot})
    except TypeError:
        @check({slot})
        raise
    if @entry is not None:
        @value = @entry.value
        {hit}
            if @entry.freq < 3:
                @entry.freq += 1
            @tally.hits += 1
            return @value
    return {wait}@miss({slot}, {arguments})
""".replace("@", _PREFIX)


_HIT = "if @now_ns() < @entry.fast_ns:"
_PROVED_HIT = "if (@now := @now_ns()) < @entry.fast_ns and @now < @table.fresh_until_ns:"


def may_have_hit_path(recipe: Recipe) -> bool:
    """Tell whether the arguments alone make the key, and no name of theirs is one of ours."""
    return recipe.has_plain_keys and not any(name.startswith(_PREFIX) for name in recipe.binder.names)


def make_call(
    recipe: Recipe,
    handle: FunctionCache | AsyncFunctionCache,
    fallback: Callable[..., Any],  # Any: the decorated function's own result
    *,
    bind: Callable[[object], object] | None = None,
) -> Callable[..., Any] | None:
    """Return what answers the calls of a function, compiled; None where that cannot be.

    Args:
        recipe: the function.
        handle: what does the rest.
        fallback: answers all calls by itself. The compiled one hands to it whatever it cannot bind or find, so that errors
            are Python's own.
        bind: of a method, returns the bound one.
    """
    binder = recipe.binder
    parameters = binder.parameters
    may_be_compiled = recipe.has_plain_keys or recipe.has_lasting_keys
    if compiled is None or not may_be_compiled or not binder.has_only_positional or len(parameters) > _MOST_PARAMETERS:
        return None
    defaults = tuple(parameter.default for parameter in parameters if parameter.default is not parameter.empty)
    made: Callable[..., Any] = compiled.Call(
        table=recipe.engine.state.table,
        scope=recipe.scope,
        tally=recipe.tally,
        load=handle.load,
        fallback=fallback,
        function=recipe.function,
        handle=handle,
        shortcut=recipe.shortcut if _runs_at_once(recipe) else None,
        names=recipe.binder.names,
        defaults=defaults,
        positional_only=_count_positional_only(recipe),
        is_async=recipe.is_async,
        tokens=recipe.instances.tokens if bind is not None else None,
        bind=bind,
        key_for=None if recipe.has_argument_keys else recipe.key_for,
        tags_of=recipe.tags_of,
        is_plain=recipe.has_plain_keys,
    )
    return made


def make_hit_path(recipe: Recipe, handle: FunctionCache | AsyncFunctionCache) -> Callable[..., Any]:
    """Return the function that answers calls; a hit is one dictionary look-up and a look at the clock.

    It is compiled from a source with the parameters of the cached function, as `dataclasses` does with `__init__`, so
    that Python itself binds positional, keyword and default arguments and builds neither a tuple nor a dictionary of
    them: with one parameter the argument is the place in the function's own dictionary of entries.

    Such a function declares no tags, and an entry that got some all the same (`Loaded`) has no `fast_ns`; so the tags need
    no look either. With a shared tier the proof that memory is fresh is looked at, too. Reading `value` before `fast_ns`
    is what makes it safe without a lock; see `Entry`.
    """  # Any: the decorated function's own result
    state = recipe.engine.state
    hit = _HIT if state.shared is None else _PROVED_HIT
    recipe.scope.ignores_tags = True
    ours = {
        "find": recipe.scope.entries.get,
        "miss": handle.miss,
        "check": _check,
        "now_ns": state.clock_ns,
        "tally": recipe.tally,
        "table": state.table,
    }
    namespace: dict[str, Any] = {_PREFIX + name: value for name, value in ours.items()}  # Any: what the source names
    names = ", ".join(recipe.binder.names)
    source = _SOURCE.format(
        hit=hit.replace("@", _PREFIX),
        colour="async def" if recipe.is_async else "def",
        wait="await " if recipe.is_async else "",
        parameters=_parameters(recipe, namespace),
        arguments=names,
        slot=names if len(recipe.binder.names) == 1 else f"({names})",
    )
    exec(compile(source, "<credenza hit path>", "exec"), namespace)  # noqa: S102  # names come from a signature
    call: Callable[..., Any] = namespace["call"]
    return functools.update_wrapper(call, recipe.function)


def _parameters(recipe: Recipe, namespace: dict[str, Any]) -> str:
    """Return the parameter list, with the defaults as names in `namespace`."""
    parts = []
    for parameter in recipe.binder.parameters:
        text = parameter.name
        if parameter.default is not parameter.empty:
            default = f"{_PREFIX}default_{parameter.name}"
            namespace[default] = parameter.default
            text += f"={default}"
        parts.append(text)
    only_positional = _count_positional_only(recipe)
    if only_positional:
        parts.insert(only_positional, "/")
    return ", ".join(parts)


def _runs_at_once(recipe: Recipe) -> bool:
    """Tell whether a miss that meets nobody runs its load here and now: in a thread, not in a simulation of one."""
    return not recipe.is_async and type(recipe.engine.threads) is Threads


def _count_positional_only(recipe: Recipe) -> int:
    return sum(parameter.kind is parameter.POSITIONAL_ONLY for parameter in recipe.binder.parameters)


def _check(slot: object) -> None:
    """Say what to do about an argument that is not hashable."""
    check_hashable(slot, what="cached function's argument")
