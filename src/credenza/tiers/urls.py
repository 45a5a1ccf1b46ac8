"""From a URL to a shared tier."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode

from ..errors import ConfigurationError
from .base import Tier

DEFAULT_NAMESPACE: Final = "credenza"
_OURS: Final = ("namespace", "codec")


def open_tier(url: str, *, namespace: str | None = None) -> Tier:
    """Return the tier that a URL describes; nothing is connected yet.

    `sqlite:///var/cache/shop.db` (an absolute path; four slashes mean the same), `sqlite:shop.db` (a relative one),
    `redis://`, `rediss://`, `unix://`, `valkey://`, `redis+sentinel://h1:p1,h2:p2/service/db`,
    `redis+cluster://h1:p1,h2:p2`. `?namespace=shop` names the cache; `codec` is left to whoever encodes; other
    parameters are options of redis-py.

    Args:
        url: the URL.
        namespace: instead of the one in the URL.

    Raises:
        ConfigurationError: it cannot be understood; the message never shows a password.
    """
    bare, options = split_options(url)
    named = namespace if namespace is not None else options.get("namespace", DEFAULT_NAMESPACE)
    scheme = bare.partition("://")[0].lower()
    if bare.partition(":")[0].lower() == "sqlite":
        return _sqlite(bare, named)
    from .redis import RedisTier  # noqa: PLC0415  # needs the extra
    from .redis.targets import SCHEMES  # noqa: PLC0415

    if scheme not in SCHEMES or "://" not in bare:
        schemes = ", ".join(("sqlite", *SCHEMES))
        raise ConfigurationError(
            f"the URL of a shared tier begins with one of {schemes}; got the scheme {_shown(bare)!r}"
        )
    return RedisTier(bare, namespace=named)


def split_options(url: str) -> tuple[str, dict[str, str]]:
    """Return a URL without the parameters that are ours, and those: `namespace` and `codec`, where they are given."""
    bare, question, query = url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    ours = {name: value for name, value in pairs if name in _OURS}
    rest = [(name, value) for name, value in pairs if name not in _OURS]
    return (f"{bare}?{urlencode(rest)}" if question and rest else bare), ours


def _sqlite(bare: str, namespace: str) -> Tier:
    from .sqlite import SqliteTier  # noqa: PLC0415  # as the others

    path, question, query = bare.partition(":")[2].partition("?")
    if question:
        name = parse_qsl(query, keep_blank_values=True)[0][0]
        raise ConfigurationError(f"unknown option {name!r} in the URL of a SQLite tier; use namespace or codec")
    if path.startswith("///"):
        path = "/" + path.lstrip("/")
    if not path.strip("/") or path.startswith("//") or path.endswith(":memory:"):
        raise ConfigurationError(
            "the URL of a SQLite tier has three slashes and an absolute path, sqlite:///var/cache/shop.db, or none and a "
            "relative one, sqlite:shop.db"
        )
    return SqliteTier(unquote(path), namespace=namespace)


def _shown(bare: str) -> str:
    """Return the scheme, or nothing of what may be a password."""
    scheme, colon, _ = bare.partition("://")
    return scheme if colon and len(scheme) < 20 else ""
