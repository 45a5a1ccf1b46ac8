"""The cache of the profiles: in memory, and below that shared with other processes if a place for that is named."""

import hashlib
from urllib.parse import parse_qs, urlsplit

from credenza import Cache, CacheError

from .errors import DemoError
from .profile import Profile
from .settings import Settings


def make_cache(settings: Settings) -> Cache[str, Profile]:
    """Return the cache that the settings describe.

    Over several processes it is linearizable (`coherence="strict"`): what the tour shows is then promised, and no luck.

    Raises:
        ConfigurationError: an option is wrong, or the shared cache cannot be used.
    """
    if settings.cache is None:
        return Cache(maxsize=settings.maxsize, ttl=settings.ttl, negative_ttl=settings.negative_ttl, name="profiles")
    return Cache.from_url(
        settings.cache,
        namespace=_namespace(settings),
        maxsize=settings.maxsize,
        ttl=settings.ttl,
        negative_ttl=settings.negative_ttl,
        coherence="strict",
        max_staleness=settings.max_staleness,
        tier_timeout=settings.tier_timeout,
        name="profiles",
    )


def check_cache(settings: Settings) -> None:
    """See whether the cache can be used, before anything is started.

    Raises:
        DemoError: it cannot; the message says what to do.
    """
    try:
        cache = make_cache(settings)
    except CacheError as exc:
        raise DemoError(str(exc)) from exc
    with cache:
        cache.get("a look at the shared cache")
        if cache.health().tier == "away":
            error = cache.health().error
            raise DemoError(
                f"the shared cache at {_place(settings.cache)} does not answer ({error}); start it, or name another with --cache"
            )


def _namespace(settings: Settings) -> str | None:
    """Keep apart what comes from different databases; a name in the URL is somebody's own choice."""
    if "namespace" in parse_qs(urlsplit(settings.cache or "").query):
        return None
    database = settings.database.render_as_string(hide_password=True)
    return f"credenza-demo-{hashlib.sha256(database.encode()).hexdigest()[:8]}"


def _place(url: str | None) -> str:
    """Return a URL without user and password."""
    parts = urlsplit(url or "")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
