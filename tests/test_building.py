"""What is built from these sources: an sdist from a clean directory, and wheels with and without a C compiler.

Nothing is fetched: the builds run without isolation, in the interpreter of the tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "src/credenza/memory"
SUFFIX = str(sysconfig.get_config_var("EXT_SUFFIX"))
SOURCES = [
    "CHANGELOG.md",
    "LICENSE",
    "MANIFEST.in",
    "Makefile",
    "README.md",
    "pyproject.toml",
    "setup.py",
    "src",
    "tests",
]
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
REPORT = "import credenza.memory as m, credenza.memory.implementation as i; print(i.implementation(), m.__file__)"
FAST = "-O0 -g0"  # CFLAGS of a build that is soon done
NO_COMPILER = "no-such-compiler"

# A build, beside other tests that keep the processors busy.
pytestmark = pytest.mark.timeout(180)
without_compiler = pytest.mark.skipif(sys.platform == "win32", reason="CC names the compiler elsewhere only")


def build(kind: str, tree: Path, into: Path, **environment: str) -> tuple[Path, str]:
    """Run one hook of the build backend as `pip` does, such as "build_wheel"; return what came of it and what it said."""
    into.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, kind, str(into)],
        cwd=tree,
        env={**os.environ, "CFLAGS": FAST, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout
    (made,) = into.iterdir()
    return made, done.stdout


def names_in(wheel: Path) -> set[str]:
    """Return the names of the files of a wheel."""
    with zipfile.ZipFile(wheel) as opened:
        return set(opened.namelist())


def table_of(wheel: Path, into: Path, **environment: str) -> str:
    """Unpack a wheel and tell which table it runs, in a process of its own that sees no other credenza."""
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(into)
    inherited = {name: value for name, value in os.environ.items() if name != "CREDENZA_PURE"}
    done = subprocess.run(
        [sys.executable, "-c", REPORT],
        cwd=into,
        env={**inherited, "PYTHONPATH": str(into), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    name, file = done.stdout.split()
    assert Path(file).is_relative_to(into)
    return name


def has_compiler() -> bool:
    """Say whether the C files compile here, headers of Python included."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return False
    command = [compiler, "-I" + sysconfig.get_path("include"), "-fsyntax-only", "-x", "c", "-"]
    done = subprocess.run(command, input="#include <Python.h>\n", text=True, capture_output=True, timeout=60)
    return done.returncode == 0


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, made from a copy of the tree in which nothing was ever built but for leftovers of other builds."""
    tree = tmp_path_factory.mktemp("clean")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__"))
        else:
            shutil.copy(source, tree / name)
    (tree / FOLDER / "_table.leftover.so").write_bytes(b"not for others")
    made, _ = build("build_sdist", tree, tree / "dist")
    return made


@pytest.fixture
def unpacked(sdist: Path, tmp_path: Path) -> Path:
    """The sdist, unpacked: all that the builds of these tests may know."""
    with tarfile.open(sdist) as opened:
        opened.extractall(tmp_path, filter="data")
    return tmp_path / sdist.name.removesuffix(".tar.gz")


def test_sdist_from_a_clean_directory_has_all_sources(unpacked: Path) -> None:
    """All of the package is in it, C files, headers, stubs, scripts and pages too, and nothing that was built."""
    here, there = ROOT / "src/credenza", unpacked / "src/credenza"
    built = {".pyc", ".so", ".pyd"}
    expected = {path.relative_to(here) for path in here.rglob("*") if path.is_file() and path.suffix not in built}
    assert {path.relative_to(there) for path in there.rglob("*") if path.is_file()} == expected
    assert {path.suffix for path in expected} >= {".py", ".c", ".h", ".typed", ".lua", ".html"}
    assert {"setup.py", "pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md"} <= {
        path.name for path in unpacked.iterdir()
    }


def test_sdist_has_the_tests(unpacked: Path) -> None:
    """Who packages the library can run its tests."""
    here, there = ROOT / "tests", unpacked / "tests"
    assert {path.relative_to(there) for path in there.rglob("*.py")} == {
        path.relative_to(here) for path in here.rglob("*.py")
    }


@without_compiler
def test_wheel_without_a_compiler_is_built_and_says_so(unpacked: Path, tmp_path: Path) -> None:
    """Where nothing compiles, the wheel has the pure table, works, and the build says in words what happened."""
    wheel, said = build("build_wheel", unpacked, tmp_path / "wheel", CC=NO_COMPILER)
    assert "credenza: the compiled table was not built: " in said
    assert "credenza: the pure Python table serves instead." in said
    assert not [name for name in names_in(wheel) if name.endswith((".so", ".pyd"))]
    assert table_of(wheel, tmp_path / "site") == "pure"


def test_wheel_with_a_compiler_has_the_compiled_table(unpacked: Path, tmp_path: Path) -> None:
    """The wheel from the sdist has the extension, the types and the scripts, no C file, and `CREDENZA_PURE=1` is heard."""
    if not has_compiler():
        pytest.skip("no C compiler with Python's headers here")
    wheel, said = build("build_wheel", unpacked, tmp_path / "wheel")
    names = names_in(wheel)
    assert "was not built" not in said
    assert f"credenza/memory/_table{SUFFIX}" in names
    assert "credenza/py.typed" in names
    assert not [name for name in names if name.endswith((".c", ".h", ".leftover.so"))]
    assert {f"credenza/memory/{path.name}" for path in (ROOT / FOLDER).glob("*.pyi")} <= names
    scripts = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.lua")}
    assert scripts <= names
    assert table_of(wheel, tmp_path / "site") == "compiled"
    assert table_of(wheel, tmp_path / "site", CREDENZA_PURE="1") == "pure"


@without_compiler
def test_failed_build_leaves_no_older_extension_behind(unpacked: Path, tmp_path: Path) -> None:
    """What was compiled from older sources is not shipped with newer ones that do not compile."""
    folder = f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    stale = unpacked / "build" / folder / f"credenza/memory/_table{SUFFIX}"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"from older sources")
    os.utime(stale, (0, 0))
    wheel, _ = build("build_wheel", unpacked, tmp_path / "wheel", CC=NO_COMPILER)
    assert not stale.exists()
    assert f"credenza/memory/_table{SUFFIX}" not in names_in(wheel)


def test_wheels_are_tested_with_the_tests_of_the_table() -> None:
    """What `make` runs on both tables, each wheel runs: there is one list, though it is written down twice."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    lines = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", " ").splitlines()
    (listed,) = [line.partition(":=")[2].split() for line in lines if line.startswith("MEMORY_TESTS")]
    assert all((ROOT / name).exists() for name in listed)
    command = project["tool"]["cibuildwheel"]["test-command"][-1]
    assert command.split() == ["python", "-m", "pytest", *listed]
