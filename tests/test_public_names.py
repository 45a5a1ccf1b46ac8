"""The public names are a promise: adding or removing one is a decision that shows here."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import inspect
import types

import credenza
import credenza.testing

PUBLIC = """
    DELETED MISSING AsyncCache AsyncCachedFunction AsyncRepository AsyncSource AsyncWriteFence Cache CacheAside
    CacheClosed CacheError CacheInfo CachedFunction Change Codec ConfigurationError DeadLetter DeadlockError DrainReport
    Event EventKind FeedError FenceLost Fetched Flights Follower FollowerStatus Health JournalError JournalFull
    JournalInUse JournalStatus LoadTimeout Loaded NoCache NotFound Pickle Policy Repository Source Stats Status
    TierError UsageError WriteBatch WriteBehind WriteFence WriteThrough attach_journal cached
    implementation record_key
""".split()


def test_all_lists_exactly_the_public_names() -> None:
    """`credenza.__all__` is this list."""
    assert sorted(credenza.__all__) == sorted(PUBLIC)


def test_all_is_sorted() -> None:
    """Constants first, then classes, then functions, each in the order of the alphabet."""
    groups = [str.isupper, lambda name: name[0].isupper(), lambda name: True]
    ranks = [(next(rank for rank, is_in in enumerate(groups) if is_in(name)), name) for name in credenza.__all__]
    assert ranks == sorted(ranks)


def test_nothing_else_is_visible() -> None:
    """Besides the listed names the package shows modules and private names only."""
    visible = {
        name
        for name, value in vars(credenza).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "annotations"
    }
    assert visible == set(PUBLIC)


def test_public_objects_have_docstrings() -> None:
    """Every public class and function says what it is, in a first line that is a sentence."""
    for name in PUBLIC:
        thing = getattr(credenza, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            lines = (inspect.getdoc(thing) or "").splitlines()
            assert lines, name
            assert lines[0].rstrip().endswith((".", ";", ":")) or len(lines) > 1, name


def test_errors_form_the_documented_tree() -> None:
    """Whatever the library raises is a `CacheError`, and also the built-in class that fits."""
    tree = {
        "ConfigurationError": ValueError,
        "UsageError": TypeError,
        "NotFound": LookupError,
        "LoadTimeout": TimeoutError,
        "DeadlockError": RuntimeError,
        "CacheClosed": RuntimeError,
    }
    for name, built_in in tree.items():
        assert issubclass(getattr(credenza, name), credenza.CacheError)
        assert issubclass(getattr(credenza, name), built_in)


def test_both_faces_have_the_same_methods() -> None:
    """What the async face has, the sync face has under the same name, with the same parameters."""
    for async_face, face in [
        (credenza.AsyncCache, credenza.Cache),
        (credenza.AsyncRepository, credenza.Repository),
        (type(credenza.Flights().aio), credenza.Flights),
    ]:
        for name, method in vars(async_face).items():
            if not name.startswith("_") and inspect.isfunction(method):
                twin = inspect.signature(getattr(face, name)).parameters
                assert list(inspect.signature(method).parameters) == list(twin), f"{async_face.__name__}.{name}"


def test_version_is_that_of_the_distribution() -> None:
    """`credenza.__version__` and the installed metadata agree, and the core has no dependencies."""
    assert credenza.__version__ == importlib.metadata.version("credenza")
    requires = importlib.metadata.requires("credenza") or []
    assert [line for line in requires if "extra ==" not in line] == []


def test_package_says_that_it_is_typed() -> None:
    """`py.typed` is part of the package."""
    assert importlib.resources.files("credenza").joinpath("py.typed").is_file()
