"""The grammar of jail.conf(5), files to blocks, as FreeBSD's jailparse.y has it.

    conf   := ( NAME "{" conf "}" | param ";" | ";" )*      but for a block's NAME, which may be pieces: foo.*
    param  := name | name "=" value | name "+=" value | name value
    value  := string ( "," string )*          .include is a param of the last form

Blocks are no recursion here: however deep they nest, there is a message and no traceback.
"""

from __future__ import annotations

from jailng.conf.lex import Lexer
from jailng.errors import JailError
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.conf.config import Files
    from jailng.conf.lex import Kind

    Text = str | tuple["str | Variable", ...]

_DEPTH = 128  # of blocks in blocks: a jail's name, a component each, has 255 bytes at most
_INCLUDES = 32  # of files in files (MAX_INCLUDE_DEPTH in config.c)
# In all, since files that include others twice each would be read two to the 32nd times.
_FILES = 10000
_BYTES = 64 << 20


class Variable:
    """A place in a string where the value of a parameter or variable is to stand."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"${{{self.name}}}"


class Assignment:
    """One parameter or variable as it is written. A value is a str, or where it has variables a tuple of its parts.

    ``variable`` says that the name is a variable's, ``append`` that it stands before ``+=``. There are no ``values``
    where a name stands alone.
    """

    __slots__ = ("name", "values", "variable", "append", "alike")

    def __init__(self, name: str, values: tuple[Text, ...] = (), variable: bool = False, append: bool = False) -> None:
        self.name = name
        self.values = values
        self.variable = variable
        self.append = append
        self.alike: tuple[str, ...] | None = None  # for who merges: the other names that may mean the same


class Block:
    """A jail's, or a wildcard's, name and what stands in the braces after it. In a block ``a``, ``b`` is ``a.b``."""

    __slots__ = ("name", "assignments")

    def __init__(self, name: str) -> None:
        self.name = name
        self.assignments: list[Assignment] = []


def parse(path: str, files: Files) -> list[Block]:
    """All blocks of a file and those that it includes, in order; a second block of a name is one of its own.

    What stands outside blocks is in one block ``*``, where the first of it stands. Raises JailError in FreeBSD's words,
    for the first error that there is.
    """
    reading = _Reading(files)
    reading.file(path, standard_input=path == "-")
    return reading.blocks


class _Reading:
    """The state that lasts from file to file."""

    __slots__ = ("blocks", "_files", "_open", "_global", "_depth", "_count", "_bytes")

    def __init__(self, files: Files) -> None:
        self.blocks: list[Block] = []
        self._files = files
        self._open: list[Block] = []  # the blocks that we are in, in whatever files they began
        self._global: Block | None = None
        self._depth = 0
        self._count = 0  # of files
        self._bytes = 0

    def file(self, path: str, standard_input: bool = False) -> None:
        """Read one file."""
        self._count += 1
        if self._count > _FILES:
            raise JailError(f"{visible(path)}: more than {_FILES} files")
        try:
            if "\0" in path:
                raise FileNotFoundError(2, "No such file or directory")
            content = self._files.read("./-" if path == "-" and not standard_input else path)
        except OSError as error:
            raise JailError(f"{visible(path)}: {error.strerror or error}") from error
        self._bytes += len(content)
        if self._bytes > _BYTES:
            raise JailError(f"{visible(path)}: more than {_BYTES >> 20} MB with the files before it")
        lexer = Lexer("STDIN" if standard_input else path, content)
        outside = len(self._open)
        while kind := lexer.next():
            if kind == "}" and len(self._open) > outside:
                self._open.pop()
            elif kind != ";":
                self._statement(lexer, kind, path if not standard_input else "")
        if len(self._open) > outside:
            raise lexer.error()

    def _statement(self, lexer: Lexer, kind: Kind, path: str) -> None:
        if kind not in ("string", "variable"):
            raise lexer.error()
        variable = kind == "variable"
        name = lexer.text
        kind = lexer.next()
        wrong: JailError | None = None
        while kind == "string+" and not variable:
            wrong = wrong or lexer.error()  # only a block's name is made of pieces
            name += lexer.text
            try:
                kind = lexer.next()
            except JailError:
                raise wrong from None  # it comes first
        if kind == "{" and not variable:
            self._begin(lexer, name)
            return
        if wrong is not None:
            raise wrong
        values: tuple[Text, ...] = ()
        sign = kind
        if kind != ";":
            values = _values(lexer, lexer.next() if kind in ("=", "+=") else kind)
        if name == ".include" and values and not variable and sign not in ("=", "+="):
            for value in values:
                self._include(lexer, value, path)
        else:
            self._block().assignments.append(Assignment(name, values, variable, sign == "+="))

    def _begin(self, lexer: Lexer, name: str) -> None:
        if len(self._open) == _DEPTH:
            raise JailError(f"{lexer.place()}: blocks nest more than {_DEPTH} deep")
        block = Block(f"{self._open[-1].name}.{name}" if self._open else name)
        self.blocks.append(block)
        self._open.append(block)

    def _block(self) -> Block:
        """The block that a parameter belongs to here."""
        if self._open:
            return self._open[-1]
        if self._global is None:
            self._global = Block("*")
            self.blocks.append(self._global)
        return self._global

    def _include(self, lexer: Lexer, name: Text, path: str) -> None:
        """Read what ``.include`` names, relative to the file that says it, or to nothing for standard input."""
        if not isinstance(name, str):
            raise JailError(f"{lexer.place()}: variables not permitted in '.include' filename")
        if self._depth == _INCLUDES:
            raise JailError("maximum include depth exceeded")
        if not name.startswith("/"):
            directory, slash, _ = path.rpartition("/")
            name = directory + slash + name
        self._depth += 1
        # A pattern need not match anything; a plain name has to be there.
        from jailng.conf.pattern import is_pattern

        for found in self._files.glob(name) if is_pattern(name) else [name]:
            self.file(found)
        self._depth -= 1


def _values(lexer: Lexer, kind: Kind) -> tuple[Text, ...]:
    """The values of a parameter, of which the first token is ``kind``, and the semicolon after them."""
    values: list[Text] = []
    while kind in ("string", "variable"):
        parts: list[str | Variable] = []
        text = lexer.text
        while True:
            if kind in ("variable", "variable+"):
                parts.append(Variable(text))
            elif text:
                parts.append(text)
            kind = lexer.next()
            if kind not in ("string+", "variable+"):
                break
            text = lexer.text
        if any(isinstance(part, Variable) for part in parts):
            values.append(tuple(parts))
        else:
            values.append("".join([str(part) for part in parts]))
        if kind == ";":
            return tuple(values)
        if kind != ",":
            break
        kind = lexer.next()
    raise lexer.error()
