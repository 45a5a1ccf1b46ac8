"""What a cached function can do besides being called."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine, Hashable, Iterable
from typing import Any

from .codec import TypedCodec
from .engine import Engine
from .errors import ConfigurationError, NotFound, UsageError
from .flight import Flight
from .flow.read import attempt, finish, read, single_load
from .keys import Binder, Instances, Template, check_hashable, check_tags, has_attributes
from .memory.implementation import Scope
from .policy import Policy
from .quick import make_shortcut, may_be_quick
from .runtime.base import block
from .runtime.tasks import Tasks, is_coroutine_function
from .runtime.threads import check_no_coroutine
from .sentinel import MISSING
from .shared.shared import Shared, scope_tag
from .sharing import result_type
from .state import State
from .stats import CacheInfo
from .steps.landing import fail, land
from .steps.request import AGAIN, LEAD, Request

KeyMaker = Callable[[tuple[Any, ...]], Hashable]  # Any: the arguments of a call, in the order of the parameters


class Recipe:
    """How the calls of one function become requests.

    Args:
        engine: the cache.
        function: what loads.
        key: a template, a callable of the arguments, or None for the arguments themselves.
        tags: names and templates.
        typed: keep arguments of different types apart.
        policy: the function's options.
        in_class: it was defined in the body of a class, and may turn out to be a method.
        annotation: the type of the values, where the function does not tell.
    """

    def __init__(
        self,
        engine: Engine,
        function: Callable[..., Any],  # Any: the decorated function's own result
        *,
        key: str | Callable[..., Hashable] | None,
        tags: Iterable[str],
        typed: bool,
        policy: Policy,
        in_class: bool,
        annotation: Any = MISSING,  # Any: an annotation
    ) -> None:
        self.engine = engine
        self.function = function
        self.policy = policy
        self.is_async = is_coroutine_function(function)
        self.is_method = False  # told by Python if nothing stands above the decorator, else by the first name
        self.scope = Scope(
            f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"
        )
        self.tally = engine.state.new_tally()
        is_quick = may_be_quick(engine.state, policy)
        self.shortcut = make_shortcut(engine.state, policy, self.tally) if is_quick else None
        self.binder = Binder(function)
        self._has_one_argument = len(self.binder.names) == 1
        self.instances = Instances()
        self.is_method = in_class and self.binder.names[:1] in (("self",), ("cls",))
        self._typed = typed
        self._key = self._key_maker(key)
        self.tag: object = self.scope
        self._annotation = annotation
        self._typed_codec: TypedCodec | None = None
        if engine.state.shared is not None:
            self._join(engine.state.shared)
        self._tags = [self._template(tag) for tag in check_tags(tags)]
        has_parameters = self.binder.has_only_positional and not in_class
        self.has_argument_keys = key is None and not typed
        self.has_plain_keys = self.has_argument_keys and not self._tags and has_parameters
        self.has_lasting_keys = not callable(key) and not (isinstance(key, str) and has_attributes(key))

    def _join(self, shared: Shared) -> None:
        """Have a name in the shared tier, the same in all processes."""
        if self._key is None and (self.is_method or "<" in self.scope.name):
            what = "a method is keyed by its instance" if self.is_method else "it has no name of its own"
            raise ConfigurationError(
                f"other processes cannot tell the entries of {self.scope.name}, as {what}; pass key= with a template such as "
                '"user:{user_id}"'
            )
        self.tag = scope_tag(self.scope)
        if self._key is None:
            shared.names.scopes[self.scope.name] = self.scope

    def _carry(self, request: Request) -> Request:
        """Let a request know how its values travel; the annotations are read at the first call, when all names are there."""
        shared = self.engine.state.shared
        if shared is not None:
            if self._typed_codec is None:
                annotation = result_type(self.function) if self._annotation is MISSING else self._annotation
                self._typed_codec = shared.codec.of(annotation)
            request.typed = self._typed_codec
        return request

    def _key_maker(self, key: str | Callable[..., Hashable] | None) -> KeyMaker | None:
        if key is None:
            return None
        if isinstance(key, str):
            return self._template(key)
        if not callable(key):
            raise ConfigurationError(f"key must be a template or a callable of the arguments, got {key!r}")
        return lambda bound: key(*self.binder.positional(bound), **self.binder.keywords(bound))

    def _template(self, text: str) -> KeyMaker:
        template = Template(text)
        if not template.fields:
            constant = template.render(())
            return lambda bound: constant
        values_of = self.binder.values_of(template)
        return lambda bound: template.render(values_of(bound))

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Hashable, tuple[Any, ...]]:
        """Return the key of a call, and its arguments in the order of the parameters."""  # Any: a call's arguments
        bound = self.binder.bind(args, kwargs)
        key = self._key
        if key is not None:
            made = key(bound)
            check_hashable(made)
            return made, bound
        named = (self.instances.token_of(bound[0]), *bound[1:]) if self.is_method else bound
        try:
            hash(named)
        except TypeError as error:
            raise UsageError(
                f"an argument of {self.scope.name} is not hashable ({error}); pass key= with a template such as "
                '"user:{user.id}", or a callable of the arguments'
            ) from error
        if self._typed:
            return (self.scope, (named, self.binder.types_of(bound))), bound
        return (self.scope, named[0] if self._has_one_argument else named), bound

    def fast(self, key: Hashable) -> Any:  # Any: a value of any type
        """Return the value of a key of this function if a look at the clock is all that it takes, else `MISSING`."""
        if self._key is None:
            slot = key[1]  # type: ignore[index]  # a key of a scope is a pair
            return self.engine.fast(self.scope.entries, slot, self.tally)
        return self.engine.fast(self.engine.state.table.entries, key, self.tally)

    def tags_of(self, bound: tuple[Any, ...]) -> tuple[object, ...]:  # Any: a call's arguments
        """Return the tags of a call, its arguments in the order of the parameters."""
        own: tuple[object, ...] = () if self._key is None else (self.tag,)
        return own + tuple(dict.fromkeys(tag(bound) for tag in self._tags)) if self._tags else own

    def request(
        self, key: Hashable, tags: tuple[object, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Request:
        """Return what a call asks for."""  # Any: a call's arguments
        loader = functools.partial(self.function, *args, **kwargs)
        return self._carry(Request(key, loader, self.policy, tags, self.tally, self.is_async))

    def key_for(self, *args: Any, **kwargs: Any) -> Hashable:  # Any: a call's arguments
        """Return the key of these arguments."""
        return self.key_of(args, kwargs)[0]

    def invalidate(self, *args: Any, **kwargs: Any) -> None:  # Any: a call's arguments
        """Forget the result for these arguments. With a shared tier it blocks for a round trip."""
        block(self.engine.invalidate(self.engine.threads, (self.key_of(args, kwargs)[0],)))

    def peek(self, *args: Any, **kwargs: Any) -> Any:  # Any: a call's arguments and result
        """Return the fresh result if it is at hand, else None."""
        value = self.engine.peek(self.key_of(args, kwargs)[0])
        return None if value is MISSING else value

    def cache_info(self) -> CacheInfo:
        """Return hits, misses, maxsize and currsize of this function; joined loads count as misses."""
        state, tally = self.engine.state, self.tally
        if self._key is None:
            size = len(self.scope.entries)
        else:
            with state.lock:
                size = state.table.count_of(self.tag)
        return CacheInfo(tally.hits + tally.stale_hits, tally.misses + tally.joins, state.table.maxsize, size)

    def cache_clear(self) -> None:
        """Forget all results of this function. With a shared tier it blocks for a round trip."""
        if self.engine.state.shared is not None:
            block(self.engine.invalidate_tags(self.engine.threads, (self.tag,)))
        if self._key is None:
            self.engine.state.clear_scope(self.scope)
        else:
            self.engine.state.invalidate_tags((self.tag,))


class FunctionCache:
    """The calls of a plain function."""

    __slots__ = ("_recipe",)

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def call(self, *args: Any, **kwargs: Any) -> Any:  # Any: a call's arguments and result
        """Return the result for these arguments, loading it if it is not at hand."""
        recipe = self._recipe
        key, bound = recipe.key_of(args, kwargs)
        value = recipe.fast(key)
        return value if value is not MISSING else self._load(key, recipe.tags_of(bound), args, kwargs)

    def miss(self, slot: Hashable, *args: Any) -> Any:  # Any: a call's arguments and result
        """Do as `call` for arguments whose key is `(scope, slot)`, and which have no tags."""
        return self._load((self._recipe.scope, slot), (), args, {})

    def load(self, key: Hashable, *bound: Any) -> Any:  # Any: a call's arguments and result
        """Do as `call` for arguments whose key is known, all of them in the order of the parameters."""
        return self._load(key, self._recipe.tags_of(bound), bound, {})

    def _load(self, key: Hashable, tags: tuple[object, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        recipe = self._recipe  # Any: a call's arguments and result
        shortcut, engine = recipe.shortcut, recipe.engine
        if shortcut is None:
            return self._load_among_others(key, tags, args, kwargs)
        flight = shortcut.flight_to(key)
        try:
            if not shortcut.take_off(flight):
                return self._load_among_others(key, tags, args, kwargs)
            recipe.tally.misses += 1
            loader = functools.partial(recipe.function, **kwargs) if kwargs else recipe.function
            try:
                value = engine.threads.run_now(flight, loader, args)
                if shortcut.touch_down(flight, value, tags):
                    return value
            except BaseException as error:
                fail(engine.state, flight, error, recipe.request(key, tags, args, kwargs))
                raise
            return self._settle(flight, recipe.request(key, tags, args, kwargs), value)
        except BaseException:
            shortcut.strike(flight)  # there may have been no room for the calls that end it
            raise

    def _load_among_others(
        self, key: Hashable, tags: tuple[object, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # Any: a call's arguments and result
        engine = self._recipe.engine
        request = self._recipe.request(key, tags, args, kwargs)
        value = attempt(engine.state, engine.threads, request)
        return value if value is not AGAIN else block(finish(engine.state, engine.threads, request))

    def settle(self, flight: Flight, tags: tuple[object, ...], args: tuple[Any, ...], value: Any) -> Any:
        """End a flight whose value the shortcut could not store, and return the value."""  # Any: as above
        return self._settle(flight, self._recipe.request(flight.key, tags, args, {}), value)

    def fail(self, flight: Flight, tags: tuple[object, ...], args: tuple[Any, ...], error: BaseException) -> None:
        """End a flight whose load or whose storing raised."""  # Any: a call's arguments
        fail(self._recipe.engine.state, flight, error, self._recipe.request(flight.key, tags, args, {}))

    def _settle(self, flight: Flight, request: Request, value: Any) -> Any:  # Any: a call's arguments and result
        state = self._recipe.engine.state
        try:
            land(state, flight, check_no_coroutine(value), request)
        except BaseException as error:
            fail(state, flight, error, request)
            raise
        if flight.error is not None:
            raise flight.error
        return flight.value

    def refresh(self, *args: Any, **kwargs: Any) -> Any:  # Any: a call's arguments and result
        """Load now, even if a fresh value is at hand."""
        recipe, engine = self._recipe, self._recipe.engine
        key, bound = recipe.key_of(args, kwargs)
        request = recipe.request(key, recipe.tags_of(bound), args, kwargs)
        request.is_forced = True
        return block(read(engine.state, engine.threads, request))

    def many(self, *arguments: Any) -> dict[Any, Any]:  # Any: the only argument's values, and the results
        """Return the results for many values of the only argument, without those that are not found."""
        *bound, values = arguments
        results = {}
        for argument in dict.fromkeys(values):
            with contextlib.suppress(NotFound):
                results[argument] = self.call(*bound, argument)
        return results


class AsyncFunctionCache:
    """The calls of a coroutine function."""

    __slots__ = ("_recipe",)

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    async def call(self, *args: Any, **kwargs: Any) -> Any:  # Any: a call's arguments and result
        """Return the result for these arguments, loading it if it is not at hand."""
        recipe = self._recipe
        key, bound = recipe.key_of(args, kwargs)
        value = recipe.fast(key)
        return value if value is not MISSING else await self._load(key, recipe.tags_of(bound), args, kwargs)

    def miss(self, slot: Hashable, *args: Any) -> Coroutine[Any, Any, Any]:  # Any: a call's arguments and result
        """Do as `call` for arguments whose key is `(scope, slot)`, and which have no tags."""
        return self._load((self._recipe.scope, slot), (), args, {})

    async def load(self, key: Hashable, *bound: Any) -> Any:  # Any: a call's arguments and result
        """Do as `call` for arguments whose key is known, all of them in the order of the parameters."""
        return await self._load(key, self._recipe.tags_of(bound), bound, {})

    async def _load(
        self, key: Hashable, tags: tuple[object, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # Any: a call's arguments and result
        recipe = self._recipe
        shortcut, engine = recipe.shortcut, recipe.engine
        state = engine.state
        request = recipe.request(key, tags, args, kwargs)  # before there is a flight that could be left behind
        if shortcut is None:
            return await _load_among_others(state, engine.tasks, request)
        flight = shortcut.flight_to(key)
        try:
            if not shortcut.take_off(flight):
                return await _load_among_others(state, engine.tasks, request)
            recipe.tally.misses += 1
            request.flight, request.move = flight, LEAD
            try:
                value = engine.tasks.run_now(state, single_load, flight, request)
                if value is not AGAIN:
                    if shortcut.touch_down(flight, value, tags):
                        return value
                    land(state, flight, value, request)
            except BaseException as error:
                fail(state, flight, error, request)
                raise
        except BaseException:
            shortcut.strike(flight)  # as for a plain function
            raise
        if value is AGAIN:
            return await finish(state, engine.tasks, request)
        if flight.error is not None:
            raise flight.error
        return flight.value

    async def refresh(self, *args: Any, **kwargs: Any) -> Any:  # Any: a call's arguments and result
        """Load now, even if a fresh value is at hand."""
        recipe, engine = self._recipe, self._recipe.engine
        key, bound = recipe.key_of(args, kwargs)
        request = recipe.request(key, recipe.tags_of(bound), args, kwargs)
        request.is_forced = True
        return await read(engine.state, engine.tasks, request)

    async def many(self, *arguments: Any) -> dict[Any, Any]:  # Any: the only argument's values, and the results
        """Return the results for many values of the only argument, without those that are not found.

        The loads run concurrently; one that fails cancels the call, and others that wait for the rest notice nothing.
        """
        *bound, values = arguments
        results: dict[Any, Any] = {}

        async def collect(argument: Any) -> None:  # Any: the only argument
            with contextlib.suppress(NotFound):
                results[argument] = await self.call(*bound, argument)

        unique = list(dict.fromkeys(values))
        await gather_or_cancel([collect(argument) for argument in unique])
        return {argument: results[argument] for argument in unique if argument in results}


async def _load_among_others(state: State, tasks: Tasks, request: Request) -> Any:  # Any: what the function returns
    value = attempt(state, tasks, request)
    return value if value is not AGAIN else await finish(state, tasks, request)


async def gather_or_cancel(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all; on the first error cancel the others, and raise it."""  # Any: what coroutines send and yield
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
