"""sysctl(8): FreeBSD's names of what a client asks about jails. All else is the host's own to answer."""

from __future__ import annotations

from jailng.errors import JailError, UsageError
from jailng.params import table
from jailng.params.values import visible
from jailng.procs import printed

USAGE = "usage: sysctl [-Nnq] name ..."
_TREE = "security.jail"
_PREFIX = f"{_TREE}.param."
_LETTERS = frozenset("Nnq")
_MAXHOSTNAMELEN = 256
_ADDRESSES = {"ip4": 4, "ip6": 16}


def shim(argv: list[str]) -> int:
    """Run FreeBSD's sysctl for names of its jails. Raises UsageError for all others, and JailError."""
    words = list(argv)
    letters: set[str] = set()
    while words and words[0].startswith("-") and words[0] != "-":
        letters |= set(words.pop(0)[1:])
    if not words or not letters <= _LETTERS:
        raise UsageError(USAGE)
    known = [found for word in words for found in _answers(word)]
    if "N" in letters:
        return printed.say([name for name, _ in known])
    return printed.say([value if "n" in letters else f"{name}: {value}" for name, value in known])


def _answers(word: str) -> list[tuple[str, str]]:
    """The variables of that name or below it. Raises UsageError for one that is not about jails, JailError: unknown."""
    if word != _TREE and not word.startswith(_TREE + "."):
        raise UsageError(USAGE)
    found = [(name, value) for name, value in variables().items() if f"{name}.".startswith(word.rstrip(".") + ".")]
    if not found:
        raise JailError(f"unknown oid '{visible(word)}'")
    return found


def variables() -> dict[str, str]:
    """Every variable that is answered, with its value, by alphabet.

    This is the host, which is in no jail; inside, another program of this name answers.
    """
    names = [
        name
        for name in table.names()
        if not name.startswith("ng.") and (known := table.lookup(name)) is not None and not known.pseudo
    ]
    found = {"security.jail.jailed": "0", "security.jail.vnet": "0"}
    for name in names:
        # A parameter that has others below it is a node of the tree, and its own value the nameless one in there.
        node = any(other.startswith(name + ".") for other in names)
        found[f"{_PREFIX}{name}{'.' if node else ''}"] = _size(name)
    return dict(sorted(found.items()))


def _size(name: str) -> str:
    """What the variable of a parameter holds: the bytes of a string at most, or of one address; else 0."""
    parameter = table.lookup(name)
    assert parameter is not None
    if parameter.kind in _ADDRESSES:
        return str(_ADDRESSES[parameter.kind])
    if parameter.kind in ("string", "list", "choice"):
        return str(parameter.most + 1 if parameter.most else _MAXHOSTNAMELEN)
    return "0"
