"""The import rule: data flows one way, and the modules import one way."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src"

# The layer of a module is that of its longest listed prefix. A new module is put into a layer here, on purpose.
# The vocabulary is errors, constants and plain data; the port to a shared tier is data, as is what travels over it; the
# table and the pure modules are mechanisms, which know no more than these, and the latter what is compiled; the state combines
# the mechanisms under one lock. None of these does I/O, starts a thread or knows a loop.
LAYERS = {
    "vocabulary": ["_typevars", "clock", "durations", "errors", "events", "policy", "sentinel", "source", "stats"],
    "forks": ["forks"],
    "tier": ["tiers.base", "tiers.records", "codec"],
    "logs": ["journal.base", "feeds.base"],
    "memory": ["memory"],
    "pure": ["fence", "flight", "keys", "shared"],
    "state": ["state", "steps"],
    "ports": ["runtime.base"],
    "flow": ["flow"],
    "runtime": ["runtime"],
    "faces": [
        "",
        "aio",
        "arguments",
        "cache",
        "decorate",
        "engine",
        "fetched",
        "flights",
        "functions",
        "hitpath",
        "quick",
        "repository",
        "sharing",
        "strategies",
        "testing",
        "writebehind",
        "writing",
    ],
    "tiers": ["tiers"],
    "journals": ["journal", "feeds"],
    "outside": ["__main__", "cli", "commands", "contrib", "dashboard", "demo"],
}
ALLOWED = {
    "vocabulary": {"vocabulary"},
    "forks": {"vocabulary"},
    "tier": {"vocabulary", "tier"},
    "logs": {"vocabulary", "tier", "memory", "pure"},
    "memory": {"vocabulary", "tier"},
    "pure": {"vocabulary", "tier", "memory"},
    "state": {"vocabulary", "tier", "memory", "pure", "state"},
    "ports": {"vocabulary", "tier", "memory", "pure", "state"},
    "flow": {"vocabulary", "tier", "memory", "pure", "logs", "state", "ports", "flow"},
    "runtime": {"vocabulary", "tier", "memory", "pure", "logs", "state", "ports", "runtime"},
    "tiers": {"vocabulary", "forks", "tier", "tiers"},
    "journals": {"vocabulary", "forks", "tier", "memory", "pure", "logs", "journals"},
    "faces": {
        "vocabulary",
        "forks",
        "tier",
        "memory",
        "pure",
        "logs",
        "state",
        "ports",
        "flow",
        "runtime",
        "tiers",
        "journals",
        "faces",
    },
    "outside": set(),  # the public API only: `credenza` and `credenza.testing`
}
PUBLIC = {
    "credenza",
    "credenza.testing",
    "credenza.contrib.sqlalchemy",
    "credenza.feeds.postgres",
    "credenza.feeds.sqlite",
}
# Only runtimes wait. State has a lock, and nothing below the flows knows of loops, threads or I/O otherwise.
UNWELCOME = {
    "vocabulary": {"asyncio", "concurrent", "socket", "threading"},
    "memory": {"asyncio", "concurrent", "socket"},
    "pure": {"asyncio", "concurrent", "socket"},
    "state": {"asyncio", "concurrent", "socket"},
    "flow": {"asyncio", "concurrent", "socket", "threading", "time"},
}


def layer_of(module: str) -> str:
    """Return the layer of `credenza.x.y`; a module that no layer lists is an error."""
    name = module.removeprefix("credenza").lstrip(".")
    prefixes = {prefix: layer for layer, listed in LAYERS.items() for prefix in listed}
    while name and name not in prefixes:
        name = name.rpartition(".")[0]
    if not name and module != "credenza":
        message = f"{module} belongs to no layer; add it to LAYERS"
        raise LookupError(message)
    return prefixes[name]


def imported_by(module: str, text: str, known: set[str], *, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute module name) for every import statement in `text`, wherever it stands."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in known else base


def lines_for_type_checkers(text: str) -> set[int]:
    """Return the lines of `text` that stand under `if TYPE_CHECKING:` and do not run."""
    return {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for line in range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
    }


def violations(module: str, text: str, known: set[str], *, is_package: bool = False) -> list[str]:
    """Return one line of text for every import of `module` that the rule forbids."""
    layer, found, unseen = layer_of(module), [], lines_for_type_checkers(text)
    for line, target in imported_by(module, text, known, is_package=is_package):
        package = target.partition(".")[0]
        if package != "credenza":
            if (
                layer not in {"outside", "tiers", "journals"}
                and package not in sys.stdlib_module_names
                and line not in unseen
            ):
                found.append(f"{module}:{line} imports {target}; the core has no dependencies")
            if package in UNWELCOME.get(layer, ()):
                found.append(f"{module}:{line} ({layer}) imports {target}; that is for runtimes")
        elif not may_import(module, target, is_package=is_package):
            found.append(f"{module}:{line} ({layer}) imports {target} ({layer_of(target)})")
    return found


def may_import(module: str, target: str, *, is_package: bool) -> bool:
    """Say whether the rule lets `module` import `target`."""
    layer, package = layer_of(module), module if is_package else module.rpartition(".")[0]
    if package != "credenza" and (target == package or target.startswith(f"{package}.")):
        return True  # inside one package
    if layer == "outside":
        return target in PUBLIC or same_subpackage(module, target)
    if target == "credenza":
        return False  # the core never imports its own front door
    return layer_of(target) in ALLOWED[layer]


def same_subpackage(module: str, target: str) -> bool:
    """Say whether both live in one package below `credenza`, such as `credenza.demo`; the CLI may start the demo."""
    second = [name.split(".")[1] if "." in name else "" for name in (module, target)]
    return second[0] == second[1] or (second[0] in {"cli", "__main__"} and layer_of(target) == "outside")


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    found = {}
    for path in sorted((SOURCE / "credenza").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_imports_only_what_its_layer_may(module: str) -> None:
    """Pure modules import the vocabulary, flows import ports, faces import these, the rest imports the public API."""
    path = MODULES[module]
    assert violations(module, path.read_text("utf-8"), set(MODULES), is_package=path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("credenza.fence", "from .flow.read import read"),
        ("credenza.memory.table", "from ..fence import Fences"),
        ("credenza.memory.table", "from .. import fence"),
        ("credenza.flow.read", "from ..cache import Cache"),
        ("credenza.flow.read", "from ..runtime.threads import ThreadRuntime"),
        ("credenza.flow.read", "def late():\n    import credenza.runtime.tasks"),
        ("credenza.cache", "import cachetools"),
        ("credenza.flow.read", "import asyncio"),
        ("credenza.flow.read", "from threading import Lock"),
        ("credenza.fence", "import asyncio.locks"),
        ("credenza.cache", "if TYPE_CHECKING:\n    pass\nelse:\n    import cachetools"),
        ("credenza.fence", "if TYPE_CHECKING:\n    from .cache import Cache"),
        ("credenza.cache", "from credenza import cached"),
        ("credenza.cache", "from .demo import app"),
        ("credenza.demo.app", "from credenza.cache import Cache"),
        ("credenza.demo.app", "from ..flow import read"),
        ("credenza.cli", "from .policy import Policy"),
    ],
)
def test_forbidden_import_is_reported(module: str, text: str) -> None:
    """The check finds what it is there for, in every form that an import can take."""
    known = {
        f"credenza{name}"
        for name in (".cache", ".fence", ".flow", ".flow.read", ".memory", ".runtime", ".runtime.tasks", ".policy", "")
    }
    assert len(violations(module, text, known)) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("credenza.fence", "from .errors import CacheError"),
        ("credenza.memory.table", "from .entry import Entry"),
        ("credenza.flow.read", "from ..runtime.base import Runtime\nfrom ..fence import Fences\nimport contextlib"),
        ("credenza.cache", "from .flow.read import read\nfrom .runtime.threads import ThreadRuntime"),
        ("credenza.demo.app", "import starlette\nfrom credenza import Cache\nfrom .database import query"),
        ("credenza.cli", "from .demo.app import serve\nimport typer"),
        ("credenza.cache", "if TYPE_CHECKING:\n    from typing_extensions import TypeVar"),
    ],
)
def test_allowed_import_is_not_reported(module: str, text: str) -> None:
    """The check lets pass what the design allows."""
    assert violations(module, text, {"credenza"}) == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    """No module is reached from itself by imports that run when it is imported."""
    graph = {name: set(top_level_imports(name, path)) for name, path in MODULES.items()}
    assert circle_in(graph) is None
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]


def top_level_imports(module: str, path: Path) -> Iterator[str]:
    """Yield the modules of the package that importing `module` imports, `if TYPE_CHECKING:` left out."""
    tree = ast.parse(path.read_text("utf-8"))
    body = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    text, is_package = ast.unparse(body), path.name == "__init__.py"
    for _, target in imported_by(module, text, set(MODULES), is_package=is_package):
        if target in MODULES and target != module:
            yield target


def circle_in(graph: dict[str, set[str]]) -> list[str] | None:
    """Return one circle of the graph, its first node repeated at the end, or None."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str] | None:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return None
        for target in sorted(graph.get(node, ())):
            if (found := walk(target, [*path, node])) is not None:
                return found
        done.add(node)
        return None

    return next((found for node in sorted(graph) if (found := walk(node, [])) is not None), None)
