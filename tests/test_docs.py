"""Every Python example of the README and the documentation runs, and says what it shows.

The blocks of a page share one namespace and run in order. `await` is allowed at the top of a block; such a block runs
in the event loop of its page, as in `python -m asyncio`. Two comments at the end of a statement are checked:

    expression      # -> what repr() of the result (or print) shows; "..." stands for anything
    statement       # raises LoadTimeout: the beginning of its message

A block that cannot run has the title "Not run: <reason>", which readers see too. Their number is pinned below. A page that
speaks of the environment variable REDIS_URL finds a server there, and is skipped where there is none.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import importlib
import inspect
import io
import re
import sqlite3
import sys
import textwrap
import tokenize
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any  # Any: the namespace of a page

import pytest
from sqlalchemy import Engine
from tests.support.servers import running_redis

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
NOT_RUN = 0
WITH_EXAMPLES = [path for path in sorted((ROOT / "src/credenza").glob("**/*.py")) if ">>>" in path.read_text("utf-8")]

FENCE = re.compile(r"^(?P<indent> *)```python(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
MARKER = re.compile(r"#\s*(?P<kind>->|raises)\s+(?P<expected>.+?)\s*$")
TITLE = re.compile(r'title="Not run: (?P<reason>[^"]{10,})"')


class Block:
    """One fenced block: its code, its place, and the reason if it is not to be run."""

    def __init__(self, path: Path, match: re.Match[str]) -> None:
        self.code = textwrap.dedent(match["code"])
        self.path = path
        self.first_line = match.string.count("\n", 0, match.start("code"))
        title = TITLE.search(match["info"])
        self.reason = title["reason"] if title else None

    def run(self, namespace: dict[str, Any], runner: asyncio.Runner) -> None:
        """Run the block, inside the loop if any of its statements awaits."""
        codes = list(self.statements())

        async def run_inside() -> None:
            for code in codes:
                result = eval(code, namespace)
                if code.co_flags & inspect.CO_COROUTINE:
                    await result

        if any(code.co_flags & inspect.CO_COROUTINE for code in codes):
            runner.run(run_inside())
            return
        for code in codes:
            exec(code, namespace)

    def statements(self) -> Iterator[types.CodeType]:
        """Yield the code of each top-level statement, its checks built in and its lines those of the page."""
        tree = ast.fix_missing_locations(Checks(self.code).visit(ast.parse(self.code)))
        ast.increment_lineno(tree, self.first_line)
        for statement in tree.body:
            module = ast.Module([statement], [])
            yield compile(module, str(self.path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


class Checks(ast.NodeTransformer):
    """Turns the comments of a block into checks."""

    def __init__(self, code: str) -> None:
        self.markers = {}
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.type == tokenize.COMMENT and (found := MARKER.search(token.string)):
                self.markers[token.start[0]] = found

    def visit_Module(self, node: ast.Module) -> ast.Module:
        self.generic_visit(node)
        assert not self.markers, f"a check stands beside nothing that can be checked: {list(self.markers.values())}"
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Build the check of a statement that ends on a marked line, innermost first."""
        super().generic_visit(node)
        if not isinstance(node, ast.stmt) or hasattr(node, "body") or node.end_lineno not in self.markers:
            return node
        marker = self.markers.pop(node.end_lineno)
        expected = ast.Constant(marker["expected"])
        if marker["kind"] == "raises":
            guard = ast.Call(ast.Name("__raises__", ast.Load()), [expected], [])
            return ast.copy_location(ast.With([ast.withitem(guard)], [node]), node)
        assert isinstance(node, ast.Expr), f"only an expression can show a result: {ast.unparse(node)}"
        call = ast.Call(ast.Name("__shows__", ast.Load()), [expected, shown(node.value)], [])
        return ast.copy_location(ast.Expr(call), node)


def shown(value: ast.expr) -> ast.expr:
    """Return an expression for the text that `value` shows: what it prints, or its repr()."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "print":
        return ast.Call(ast.Name("__printed__", ast.Load()), value.args, value.keywords)
    return ast.Call(ast.Name("__repr__", ast.Load()), [value], [])


def matches(expected: str, text: str) -> bool:
    """Say whether `text` is `expected`, in which "..." stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, expected.split("..."))), text, re.DOTALL) is not None


def assert_shows(expected: str, text: str) -> None:
    assert matches(expected, text), f"the page says {expected!r}, the code says {text!r}"


@contextlib.contextmanager
def assert_raises(expected: str) -> Iterator[None]:
    with pytest.raises(Exception) as caught:  # the page names the error, checked below
        yield
    text = f"{type(caught.value).__name__}: {caught.value}"
    assert matches(f"{expected}...", text), f"the page says {expected!r} is raised, it was {text!r}"


def blocks_of(path: Path, text: str) -> list[Block]:
    return [Block(path, match) for match in FENCE.finditer(text)]


def run_page(path: Path, text: str, namespace: dict[str, Any]) -> int:
    """Run the blocks of one page and return how many were left out."""
    namespace |= {
        "__raises__": assert_raises,
        "__shows__": assert_shows,
        "__printed__": lambda *values, sep=" ": sep.join(map(str, values)),
        "__repr__": repr,
    }
    left_out = 0
    with asyncio.Runner() as runner:
        for block in blocks_of(path, text):
            if block.reason:
                left_out += 1
                continue
            block.run(namespace, runner)
    return left_out


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A fresh module for a page, in an empty directory; its databases are closed in the end."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    yield vars(module)
    for thing in vars(module).values():
        if isinstance(thing, sqlite3.Connection):
            thing.close()
        elif isinstance(thing, Engine):
            thing.dispose()


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """The address of an empty server."""
    with running_redis() as server:
        yield server.url


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # the page about forks
@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_page_runs(
    path: Path, namespace: dict[str, Any], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each example of the page runs and shows what the page says."""
    text = path.read_text("utf-8")
    if "REDIS_URL" in text:
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("redis_url"))
    run_page(path, text, namespace)


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_docstring_examples_run(path: Path) -> None:
    """The examples in docstrings run and show what they say."""
    name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


def test_number_of_blocks_that_are_not_run_is_pinned() -> None:
    """Leaving an example out is a decision that a reviewer sees."""
    blocks = [block for path in PAGES for block in blocks_of(path, path.read_text("utf-8"))]
    assert sum(block.reason is not None for block in blocks) == NOT_RUN
    assert len(blocks) > 50


def test_every_python_fence_is_found() -> None:
    """No example escapes by the way its fence is written."""
    for path in PAGES:
        text = path.read_text("utf-8")
        assert len(re.findall(r"```\s*\{?\.?py", text)) == len(blocks_of(path, text)), path


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_relative_links_lead_somewhere(name: str) -> None:
    """The files outside docs/, which its build does not check, name files that exist."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text("utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize(
    "code",
    [
        "1 + 1  # -> 3",
        "print('a', 1)  # -> a 2",
        "if True:\n    1 + 1  # -> 3",
        "import asyncio\nawait asyncio.sleep(0, 1)  # -> 2",
        "int('x')  # raises KeyError",
        "int('x')  # raises ValueError: something else",
        "int('1')  # raises ValueError",
        "value = 1  # -> 1",
        "# -> 1",
        "1 + 1  # the sum  # -> 3",
        "raise ValueError",
    ],
)
def test_wrong_example_fails(code: str, namespace: dict[str, Any]) -> None:
    """A page that says something untrue is a failing test."""
    with pytest.raises((AssertionError, ValueError, pytest.fail.Exception)):
        run_page(Path("page.md"), f"```python\n{code}\n```\n", namespace)


def test_right_example_passes(namespace: dict[str, Any]) -> None:
    """The conventions work in nested statements, with await, over several blocks, and a reason leaves a block out."""
    page = """
```python
import asyncio
x = 20
def f():
    int("x")  # raises ValueError: invalid literal
    return x + 1
```
Text.
```python
f()  # -> 21
async with asyncio.timeout(5):
    print("a", await asyncio.sleep(0, "b"))  # -> a b
object()  # -> <object object at ...>
```
```python title="Not run: it shows a failing example"
raise RuntimeError
```
"""
    assert run_page(Path("page.md"), page, namespace) == 1
