"""Which files a command string of the host's would make, change or remove, as far as it can be seen in it.

By a path in a jail's tree they are the jail's, unless its root has made a link there that leads out of it: then they
are the host's. FreeBSD-SA-07:01.jail was that.
"""

from __future__ import annotations

from jailng.engine.hooktables import AT, INTO, KEPT, NOT_FOLLOWED, THROUGH, WORKERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from jailng.core.trees import Trees

KINDS = (AT, INTO, THROUGH)


def worked_on(name: str, operands: list[str | None]) -> Iterator[tuple[int, str]]:
    """What a program works on, and how a link counts that is there: THROUGH is followed, INTO to a directory, AT not.

    Those on the way to it are followed ever.
    """
    kind = WORKERS.get(name)
    if kind is None or (name == "find" and "-delete" not in operands):
        return
    if any(word and _keeps(name, word) for word in operands):
        kind = AT
    for word in operands:
        if word and (named := word.partition("=")[2] if word[0] == "-" or name == "dd" else word):
            yield kind, named


def _keeps(name: str, word: str) -> bool:
    """Whether an option has links at the end not followed."""
    return word in NOT_FOLLOWED or (word[0] == "-" and word[1:2] != "-" and bool(set(word) & set(KEPT.get(name, ""))))


def refusal(kind: int, word: str, cwd: str, enemies: Trees) -> str:
    """Why the host must not work on it, or ""."""
    from jailng.params.values import visible

    if not word.startswith("/") and not cwd:
        return ""
    try:
        name = enemies.left(word if word.startswith("/") else f"{cwd}/{word}", kind == THROUGH, kind == INTO)
    except (OSError, ValueError):
        return ""
    if name is None:
        return ""
    return f"{visible(word)}: a link in the tree of jail {visible(name)} leads out of that (or set ng.lenient)"
