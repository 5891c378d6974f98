"""Patterns of file names, by the rules of glob(3) and without the module ``re``: ``*``, ``?`` and ``[a-z]``."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    # A character that stands for itself; None for a star; of "?" and brackets, whether any character but those is
    # meant, and the ranges that those are in.
    Word = str | None | tuple[bool, tuple[tuple[str, str], ...]]

_ANY = (False, (("\0", "\U0010ffff"),))
_LONGEST = 4095  # bytes of a path (PATH_MAX less the NUL)


def is_pattern(path: str) -> bool:
    """Whether glob(3) takes a path for a pattern: then nothing need match it, and else the file has to be there."""
    return len(path) <= _LONGEST and any(
        word is None or isinstance(word, tuple) for part in path.split("/") for word in words(part)
    )


def fits(name: str, part: str) -> bool:
    """Whether a pattern stands for a name; neither has a slash. A dot in front has to be written."""
    want = words(part)
    if name.startswith(".") and want[:1] != ["."]:
        return False
    at = place = 0  # in the name and in the pattern
    star = -1  # where in the pattern the last star was, and where in the name what it stands for ends
    taken = 0
    while at < len(name):
        if place < len(want) and want[place] is None:
            star, taken = place, at
            place += 1
        elif place < len(want) and _is_one(name[at], want[place]):
            at += 1
            place += 1
        elif star >= 0:
            taken += 1
            at, place = taken, star + 1
        else:
            return False
    return all(word is None for word in want[place:])


def words(part: str) -> list[Word]:
    """What a pattern consists of."""
    done: list[Word] = []
    at = 0
    while at < len(part):
        char = part[at]
        at += 1
        if char == "*":
            if done[-1:] != [None]:
                done.append(None)
        elif char == "?":
            done.append(_ANY)
        elif char == "[" and part.find("]", at + 1 + (part[at : at + 1] == "!")) >= 0:
            word, at = _set(part, at)
            done.append(word)
        else:
            if char == "\\" and at < len(part):
                char = part[at]
                at += 1
            done.append(char)
    return done


def _set(part: str, at: int) -> tuple[Word, int]:
    """The characters in brackets, from behind the first one, and where they end. A ``]`` in front is one of them."""
    other = part[at] == "!"
    at += other
    end = part.find("]", at + 1)
    ranges = []
    while at < end:
        last = at + 2 if part[at + 1] == "-" and at + 2 < end else at
        ranges.append((part[at], part[last]))
        at = last + 1
    return (other, tuple(ranges)), end + 1


def _is_one(char: str, word: Word) -> bool:
    if not isinstance(word, tuple):
        return char == word
    other, ranges = word
    return any(first <= char <= last for first, last in ranges) is not other
