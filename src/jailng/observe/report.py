"""What was found of a log: whether it is whole (``verification``), and what is not."""

from __future__ import annotations

from dataclasses import dataclass, field

ALTERED, REMOVED, INSERTED, MISSING, SEAL = "altered", "removed", "inserted", "missing", "seal"
LOST = "lost"  # perhaps with the power


@dataclass(frozen=True)
class Problem:
    """A difference: in which file, at which line (from 1; 0: none), of which entry (-1: none), and of how many.

    ``count`` is of entries that are not there, or of lines that are no entries.
    """

    what: str
    file: str
    line: int
    entry: int
    count: int
    why: str

    @property
    def text(self) -> str:
        """In one line."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.why}"


@dataclass
class Report:
    """What was found. ``first`` is the number of the first entry that is there, ``entries`` that of the next to come.

    ``authentic`` says whether there was a key to check with. ``prev`` is the hash of the last entry.
    """

    chain: str = ""
    first: int = 0
    entries: int = 0
    prev: str = ""
    files: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    authentic: bool = False

    @property
    def status(self) -> int:
        """0: it is whole. 1: it is not. 2: no difference was found, but there was no key."""
        return 1 if self.problems else 0 if self.authentic else 2

    @property
    def incomplete(self) -> bool:
        """Whether all that is wrong is that entries are missing that may not have been on the disk yet."""
        return bool(self.problems) and all(one.what == LOST for one in self.problems)
