"""Build the compiled table, an extension that the package can do without; all else is said in pyproject.toml."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

FOLDER = Path("src/credenza/memory")


class BuildTable(build_ext):
    """Builds the extension, or says that the pure table serves and why."""

    def build_extension(self, ext: Extension) -> None:
        """Build `ext`; where that fails, leave none behind that was built from older sources."""
        ext.extra_compile_args = flags_for(self.compiler.compiler_type)
        try:
            super().build_extension(ext)
        except (BaseError, CCompilerError) as error:
            Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
            if self.editable_mode:
                (FOLDER / Path(self.get_ext_filename(ext.name)).name).unlink(missing_ok=True)
            self.warn(
                f"credenza: the compiled table was not built: {error}\n"
                "credenza: the pure Python table serves instead. It does the same, and a hit takes longer.\n"
                "credenza: for the compiled one, install a C compiler and Python's headers, and then credenza again, with "
                "--no-cache-dir: pip keeps what it built."
            )


def flags_for(compiler: str) -> list[str]:
    """Return what to add to the flags of the interpreter, or to CFLAGS in their place, which has the last word."""
    if compiler == "msvc":
        return []  # setuptools passes /O2 and /DNDEBUG, and a DLL exports only what it is told to
    told, wanted = os.environ.get("CFLAGS", ""), {"-O": "-O3", "NDEBUG": "-DNDEBUG"}
    return [*(flag for word, flag in wanted.items() if word not in told), "-fvisibility=hidden"]


def extensions() -> list[Extension]:
    """Return the compiled table, from every C file of its folder; other interpreters than CPython do without."""
    sources = sorted(path.as_posix() for path in FOLDER.glob("*.c"))
    headers = sorted(path.as_posix() for path in FOLDER.glob("*.h"))
    if not sources or sys.implementation.name != "cpython":
        return []
    return [Extension("credenza.memory._table", sources, depends=headers, optional=True)]


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildTable})
