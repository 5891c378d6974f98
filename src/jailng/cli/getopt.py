"""getopt(3): options in one word or several, up to the first word that is none."""

from __future__ import annotations

from jailng.errors import UsageError


def getopt(
    argv: list[str], letters: str, usage: str, long: tuple[str, ...] = ()
) -> tuple[list[tuple[str, str]], list[str]]:
    """The options in order, as (letter or long name, argument or ""), and the words that follow. Raises UsageError."""
    options: list[tuple[str, str]] = []
    rest = list(argv)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("--") and word[2:] in long:
            options.append((word[2:], ""))
            continue
        at = 1
        while at < len(word):
            letter = word[at]
            at += 1
            place = letters.find(letter) if letter != ":" else -1
            if place < 0:
                raise UsageError(usage)
            argument = ""
            if letters[place + 1 : place + 2] == ":":
                argument, at = word[at:], len(word)
                if not argument:
                    if not rest:
                        raise UsageError(usage)
                    argument = rest.pop(0)
            options.append((letter, argument))
    return options, rest
