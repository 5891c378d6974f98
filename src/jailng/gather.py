"""Write the files that ``jailng.start`` reads: ``make`` and the package's postinst run this, nothing else does."""

from __future__ import annotations

import ast
import marshal
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jailng.start import BEGIN, COMMANDS, FILE, MORE, ROOT

if TYPE_CHECKING:
    from types import CodeType

    from jailng.start import Entry


# glibc's malloc has no more than 128 kB in memory that is used again: what is read goes where the last piece was.
_PIECE = 120_000


class _Bare(ast.NodeTransformer):
    """Take out what no run looks at: annotations, and what is imported for them. A fifteenth of a command's load."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Drop the annotations of parameters and result."""
        self.generic_visit(node)
        node.returns = None
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """Drop the annotation of a parameter."""
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """Make an annotated assignment a plain one, and nothing of a bare annotation."""
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], self.visit(node.value)), node)

    def visit_If(self, node: ast.If) -> ast.AST:
        """Drop ``if TYPE_CHECKING:``."""
        self.generic_visit(node)
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return ast.copy_location(ast.Pass(), node)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        """Drop ``from __future__ import annotations``."""
        return ast.copy_location(ast.Pass(), node) if node.module == "__future__" else node


def _compiled(file: str) -> CodeType:
    tree = _Bare().visit(ast.parse(Path(file).read_bytes(), file))
    return compile(ast.fix_missing_locations(tree), file, "exec", optimize=2, dont_inherit=True)


def _entry(name: str) -> Entry:
    file = sys.modules[name].__file__
    assert file is not None
    source = os.stat(file)
    code = _compiled(file)
    package = file.endswith("/__init__.py")
    return name, file[len(ROOT) + 1 :], source.st_size, source.st_mtime_ns, package, code


def _completed(modules: tuple[str, ...]) -> list[str]:
    """What these modules import, in the order in which the imports are completed."""
    kept = ("jailng", "jailng.start", "jailng.gather")
    for name in [name for name in sys.modules if name.startswith("jailng.") and name not in kept]:
        del sys.modules[name]
    order: list[str] = []
    finder = sys.meta_path[-1]

    class Recorder:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> object:
            spec = finder.find_spec(name, path, target)  # type: ignore[arg-type]
            if spec is not None and spec.loader is not None and name.startswith("jailng."):
                execute = spec.loader.exec_module

                def exec_module(module: object) -> None:
                    execute(module)  # type: ignore[arg-type]
                    order.append(name)

                spec.loader.exec_module = exec_module  # type: ignore[method-assign]
            return spec

    sys.meta_path.insert(0, Recorder)  # type: ignore[arg-type]
    try:
        for name in modules:
            __import__(name)
    finally:
        sys.meta_path.remove(Recorder)  # type: ignore[arg-type]
    return order


def gather() -> None:
    """Write one file a command: the code of ``jailng.start`` for the script, then what is loaded at once and later.

    The first fills ``BEGIN`` bytes. The others are lists of ``Entry``s, and so is the one that is all of a file of
    ``MORE``; each is in pieces, preceded by their length, up to one of no length.
    """
    name, file, size, mtime, package, code = _entry("jailng.start")
    start: Entry = name, file, size, mtime, package, None
    begin = marshal.dumps(code).ljust(BEGIN, b"\0")
    assert len(begin) == BEGIN, f"jailng.start is longer than what a script reads: {len(begin)} bytes"
    for command, steps in COMMANDS.items():
        parts: list[list[Entry]] = []
        there: list[str] = []
        for number in range(len(steps)):
            needed = ["jailng", *_completed(sum(steps[: number + 1], ()))]
            parts.append([_entry(name) for name in needed if name not in there])
            there = needed
        _write(FILE % command, begin, [start, *parts[0]], *parts[1:])
    for name, (command, modules) in MORE.items():
        known = _completed(COMMANDS[command][0])
        _write(FILE % name, b"", [_entry(other) for other in _completed(modules) if other not in known])


def _write(path: str, begin: bytes, *parts: list[Entry]) -> None:
    text = begin + b"".join([_pieces(part) for part in parts])
    Path(f"{path}.new").write_bytes(text)
    os.rename(f"{path}.new", path)


def _pieces(part: list[Entry]) -> bytes:
    """No piece is above ``_PIECE``, but for a module that is."""
    coded: list[bytes] = []
    first = 0
    for end in range(1, len(part) + 1):
        if end == len(part) or len(marshal.dumps(part[first : end + 1])) > _PIECE:
            coded.append(marshal.dumps(part[first:end]))
            first = end
    return b"".join([len(piece).to_bytes(4, "little") + piece for piece in [*coded, b""]])


if __name__ == "__main__":
    gather()
