"""Cached functions, coroutine functions and methods."""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from types import MethodType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, Unpack, cast, overload

from .engine import Engine
from .errors import UsageError
from .functions import AsyncFunctionCache, FunctionCache, Recipe
from .hitpath import make_call, make_hit_path, may_have_hit_path
from .memory.implementation import Scope, Tally
from .policy import PolicyOptions
from .sentinel import MISSING
from .source import Loaded
from .state import State
from .stats import CacheInfo

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
D = TypeVar("D")


class CachedFunction(Protocol[P, R]):
    """A function whose calls a cache answers."""

    __name__: str
    __qualname__: str

    @property
    def __wrapped__(self) -> Callable[P, R]:
        """The function itself."""
        ...

    @property
    def cache(self) -> Any:  # Any: a `Cache` of whatever keys and values, which this module cannot import
        """The cache that answers the calls."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget the result for these arguments; see `Cache.invalidate`."""
        ...

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Load now, even if a fresh value is at hand, and store the result; others are served the old one meanwhile."""
        ...

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Return the fresh result if it is at hand, else None. Loads nothing and counts nothing."""
        ...

    def many(self, arguments: Iterable[Any], /) -> dict[Any, R]:  # Any: the one argument's type is within P
        """Return the results for many values of the only argument, without those that are `NotFound`."""
        ...

    def key_for(self, *args: P.args, **kwargs: P.kwargs) -> Hashable:
        """Return the key of these arguments."""
        ...

    def cache_info(self) -> CacheInfo:
        """Return hits, misses, maxsize and currsize of this function."""
        ...

    def cache_clear(self) -> None:
        """Forget all results of this function; its counters go on."""
        ...

    @overload
    def __get__(self, instance: None, owner: type, /) -> CachedFunction[P, R]: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[Any, Q], R], instance: object, owner: type | None = None, /
    ) -> CachedFunction[Q, R]: ...  # Any: the instance that the method is bound to


class AsyncCachedFunction(Protocol[P, R]):
    """A coroutine function whose calls a cache answers; `refresh` and `many` are coroutines too."""

    __name__: str
    __qualname__: str

    @property
    def __wrapped__(self) -> Callable[P, Awaitable[R]]:
        """The coroutine function itself."""
        ...

    @property
    def cache(self) -> Any:  # Any: as above
        """The cache that answers the calls."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """See `CachedFunction.invalidate`."""
        ...

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """See `CachedFunction.refresh`."""
        ...

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> R | None:
        """See `CachedFunction.peek`."""
        ...

    def many(self, arguments: Iterable[Any], /) -> Coroutine[Any, Any, dict[Any, R]]:
        """See `CachedFunction.many`; the loads run concurrently."""  # Any: the one argument's type is within P
        ...

    def key_for(self, *args: P.args, **kwargs: P.kwargs) -> Hashable:
        """See `CachedFunction.key_for`."""
        ...

    def cache_info(self) -> CacheInfo:
        """See `CachedFunction.cache_info`."""
        ...

    def cache_clear(self) -> None:
        """See `CachedFunction.cache_clear`."""
        ...

    @overload
    def __get__(self, instance: None, owner: type, /) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __get__(
        self: AsyncCachedFunction[Concatenate[Any, Q], R], instance: object, owner: type | None = None, /
    ) -> AsyncCachedFunction[Q, R]: ...  # Any: the instance that the method is bound to


class Decoration(Protocol):
    """What `cached(...)` with options returns: it takes the function."""

    # A coroutine function is a Callable[P, R] too: the first overload that fits is the one that is meant.
    @overload
    def __call__(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]  # see above
        self, function: Callable[P, Coroutine[Any, Any, Loaded[R]]], /
    ) -> AsyncCachedFunction[P, R]: ...  # Any: what coroutines send and yield
    @overload
    def __call__(  # type: ignore[overload-overlap]  # see above
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Loaded[R]], /) -> CachedFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...


class Decorator:
    """`cache.cached`: with or without options, for `def`, `async def` and methods."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # A coroutine function is a Callable[P, R] too: the first overload that fits is the one that is meant.
    @overload
    def __call__(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]  # see above
        self, function: Callable[P, Coroutine[Any, Any, Loaded[R]]], /
    ) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # see above
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Loaded[R]], /) -> CachedFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...
    @overload
    def __call__(
        self,
        /,
        *,
        key: str | Callable[..., Hashable] | None = None,
        tags: Iterable[str] = (),
        typed: bool = False,
        type: Any = MISSING,
        **options: Unpack[PolicyOptions],
    ) -> Decoration: ...
    def __call__(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        key: str | Callable[..., Hashable] | None = None,
        tags: Iterable[str] = (),
        typed: bool = False,
        type: Any = MISSING,
        **options: Unpack[PolicyOptions],
    ) -> Any:  # Any: one of the overloads' results
        """Let the cache answer the calls of a function.

        Args:
            function: a function, a coroutine function, or a method in the body of its class (then the entries are of one
                instance each, which is held weakly).
            key: a template of the arguments such as "user:{user_id}", or a callable that takes the arguments and
                returns a key; without it the arguments are the key.
            tags: names and templates of the same kind, for `invalidate_tags`.
            typed: keep 1, 1.0 and True apart, as with `functools.lru_cache`; templates always do.
            type: what a shared tier's bytes are decoded to; without it the function's return annotation.
            options: see `Policy`; instead of the cache's.

        Raises:
            UsageError: what is decorated is no function.
            ConfigurationError: a template names an argument that there is not, an option is wrong, or there is no `key` and
                other processes could not tell the function's entries.
        """
        if function is None:
            return functools.partial(self._decorate, key=key, tags=tags, typed=typed, annotation=type, options=options)
        return self._decorate(function, key=key, tags=tags, typed=typed, annotation=type, options=options)

    def _decorate(
        self,
        function: Callable[..., Any],
        *,
        key: str | Callable[..., Hashable] | None,
        tags: Iterable[str],
        typed: bool,
        annotation: Any,  # Any: an annotation
        options: PolicyOptions,
    ) -> Any:  # Any: one of the overloads' results
        check_function(function)
        policy = self._engine.policy.override(options)
        is_of_class = isinstance(function, classmethod)
        if isinstance(function, classmethod):
            function = function.__func__
        in_class = is_in_class_body(function)
        recipe = Recipe(
            self._engine,
            function,
            key=key,
            tags=tags,
            typed=typed,
            policy=policy,
            in_class=in_class,
            annotation=annotation,
        )
        handle = AsyncFunctionCache(recipe) if recipe.is_async else FunctionCache(recipe)
        if in_class:
            return _make_method(recipe, handle, is_of_class=is_of_class)
        fallback = make_hit_path(recipe, handle) if may_have_hit_path(recipe) else _wrap_slow(recipe, handle)
        call = make_call(recipe, handle, fallback)
        if call is None:
            return _dress(fallback, recipe, handle)
        _mark(_dress(call, recipe, handle), recipe)
        return call


def _make_method(recipe: Recipe, handle: FunctionCache | AsyncFunctionCache, *, is_of_class: bool) -> Any:
    """Return the descriptor that a decorated method is."""  # Any: one of the overloads' results
    fallback, call = _wrap_slow(recipe, handle), None
    if recipe.is_method and not is_of_class:
        call = make_call(
            recipe, handle, fallback, bind=lambda instance: BoundMethod(recipe, handle, call or fallback, instance)
        )
    if call is None:
        return CachedMethod(recipe, handle, fallback, is_of_class=is_of_class)
    _mark(_dress(call, recipe, handle), recipe)
    return call


def check_function(function: object) -> None:
    """Refuse what cannot be decorated, and say what to do instead."""
    if inspect.isclass(function):
        raise UsageError(
            f"cached decorates functions, got the class {function.__qualname__}; decorate a function that makes one"
        )
    if isinstance(function, staticmethod):
        raise UsageError("put cached below staticmethod, next to the def, not above it")
    if isinstance(function, classmethod):
        return
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(f"{function!r} is a generator, which can be read only once; return a list instead")
    if not callable(function):
        raise UsageError(
            f"cached decorates functions, got {function!r}; options are keyword arguments, as in cached(ttl=60)"
        )


def is_in_class_body(function: Callable[..., Any]) -> bool:
    """Tell whether the function was defined in the body of a class, by its qualified name."""
    outer, _, _ = getattr(function, "__qualname__", "").rpartition(".")
    return bool(outer) and not outer.endswith("<locals>")


def _wrap_slow(recipe: Recipe, handle: FunctionCache | AsyncFunctionCache) -> Any:  # Any: a cached function
    """Return the function that answers calls whose keys take more than their arguments."""
    miss: Callable[..., Any] = handle.call  # Any: the decorated function's own result

    def call(*args: Any, **kwargs: Any) -> Any:  # Any: the decorated function's own arguments and result
        return miss(*args, **kwargs)

    async def call_async(*args: Any, **kwargs: Any) -> Any:  # Any: as above
        return await miss(*args, **kwargs)

    return functools.update_wrapper(call_async if recipe.is_async else call, recipe.function)


_HELPERS = ("invalidate", "refresh", "peek", "many", "key_for", "cache_info", "cache_clear")
_COLOURED = ("refresh", "many")
_HELPERS_OF_ALL_INSTANCES = ("cache_info", "cache_clear")


def _dress(call: Any, recipe: Recipe, handle: FunctionCache | AsyncFunctionCache) -> Any:  # Any: a cached function
    """Give `call` the looks of the function that it wraps, and the helpers."""
    functools.update_wrapper(call, recipe.function)
    for name in _HELPERS:
        setattr(call, name, getattr(handle if name in _COLOURED else recipe, name))
    call.cache = recipe.engine.cache
    state, scope = weakref.ref(recipe.engine.state), weakref.ref(recipe.scope)
    weakref.finalize(call, _forget, state, recipe.tally, scope).atexit = False
    return call


def _forget(state: weakref.ref[State], tally: Tally, scope: weakref.ref[Scope]) -> None:
    """Let the cache forget a function that is gone, unless the cache went with it.

    Finalizers are known to the interpreter: one that held the cache would hold the function by way of its values.
    """
    living_state, living_scope = state(), scope()
    if living_state is not None and living_scope is not None:
        living_state.forget_function(tally, living_scope)


class CachedMethod:
    """The descriptor that a decorated method is; every instance has entries of its own and is held weakly."""

    def __init__(
        self,
        recipe: Recipe,
        handle: FunctionCache | AsyncFunctionCache,
        call: Callable[..., Any],  # Any: the decorated method's own result
        *,
        is_of_class: bool,
    ) -> None:
        self._recipe = recipe
        self._handle = handle
        self._is_of_class = is_of_class
        self._call = call
        _dress(cast("Any", self), recipe, handle)
        _mark(self, recipe)

    def __set_name__(self, owner: type, name: str) -> None:
        self._recipe.is_method = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # Any: the decorated method's own arguments and result
        return self._call(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:  # Any: this, or a bound cached function
        bound_to = (owner or type(instance)) if self._is_of_class else instance
        return self if bound_to is None else BoundMethod(self._recipe, self._handle, self._call, bound_to)

    def __reduce__(self) -> str:
        return self._recipe.function.__qualname__


class BoundMethod:
    """A cached method of one instance; its helpers speak of that instance's entries."""

    def __init__(
        self,
        recipe: Recipe,
        handle: FunctionCache | AsyncFunctionCache,
        call: Callable[..., Any],  # Any: the decorated method's own result
        instance: object,
    ) -> None:
        self._call = call
        self._handle = handle
        self._recipe = recipe
        self.__self__ = instance
        self.__func__ = recipe.function
        self.__doc__ = recipe.function.__doc__
        _mark(self, recipe)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # Any: the decorated method's own arguments and result
        return self._call(self.__self__, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:  # Any: a helper, or an attribute of the method
        if name == "__wrapped__":
            return MethodType(self.__func__, self.__self__)
        if name == "cache":
            return self._recipe.engine.cache
        if name not in _HELPERS:
            return getattr(self.__func__, name)
        helper = getattr(self._handle if name in _COLOURED else self._recipe, name)
        return helper if name in _HELPERS_OF_ALL_INSTANCES else functools.partial(helper, self.__self__)

    def __repr__(self) -> str:
        return f"<cached method {self.__func__.__qualname__} of {self.__self__!r}>"

    def __eq__(self, other: object) -> bool:
        is_alike = isinstance(other, BoundMethod) and self.__func__ is other.__func__
        return is_alike and self.__self__ is cast("BoundMethod", other).__self__

    def __hash__(self) -> int:
        return hash((id(self.__self__), self.__func__))

    def __reduce__(self) -> tuple[Any, ...]:  # Any: what pickle calls, and with what
        return getattr, (self.__self__, self.__func__.__name__)


def _mark(call: Any, recipe: Recipe) -> None:  # Any: what is called in place of the function, and is none
    """Let `inspect.iscoroutinefunction` know; before Python 3.12 it believes what has all that a function has."""
    if not recipe.is_async:
        return
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(call)
    elif not isinstance(call, BoundMethod):
        for name in ("__code__", "__defaults__", "__kwdefaults__"):
            setattr(call, name, getattr(recipe.function, name, getattr(_coroutine_function, name)))


async def _coroutine_function() -> None:
    """Be what a callable without code of its own is taken for."""
