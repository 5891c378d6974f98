"""A value of ng.sockets: the families of which the processes of a jail may make sockets, as jailng of 2001 had them."""

from __future__ import annotations

from jailng.errors import JailError
from jailng.params.values import visible

FAMILIES = ("ipv4", "unix", "route")
_NONE = "none"
_USUAL = ("unix", "route")  # of every jail; and ipv4 where it has an address


def parse(text: str) -> tuple[str, ...] | None:
    """The families that are named, None where nothing is: jail(8)'s own. Raises JailError."""
    words = text.replace(",", " ").split()
    if not words:
        return None
    for word in words:
        if word not in FAMILIES and (word != _NONE or len(words) > 1):
            raise JailError(f'ng.sockets: "{visible(word)}" is none of {", ".join([*FAMILIES, _NONE])}')
    return tuple([family for family in FAMILIES if family in words])


def written(families: tuple[str, ...]) -> str:
    """The value that names these."""
    return ",".join([family for family in FAMILIES if family in families]) or _NONE


def permitted(text: str, ipv4: bool) -> tuple[str, ...]:
    """The families that a jail may have by that value. ``ipv4``: it has an address, its own network, or the host's."""
    named = parse(text)
    if named is not None:
        return named
    return ("ipv4", *_USUAL) if ipv4 else _USUAL
