"""Parameters as a Python program gives them, made into jail(8)'s: a name, and one text or, for a list, several."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from jailng.errors import JailError
from jailng.params import table
from jailng.params.model import Parameters
from jailng.params.values import visible

Given = dict[str, list[str]]
Argument = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_LISTS = ("ip4", "ip6", "list")
# Of the names with "_" for "." no two are the same: tests/unit/test_api_given.py.
_SPELLED = {name.replace(".", "_"): name for name in table.names()}


def resolve(*sources: Mapping[str, object]) -> Given:
    """What was given, with jail(8)'s names; of two for one parameter the later. None is as if it were not there.

    Raises JailError: unknown parameter; TypeError for a value that is nothing that a parameter can have.
    """
    found: Given = {}
    for source in sources:
        for spelled, value in source.items():
            if value is not None:
                name, texts = _texts(spelled, value)
                found[name] = texts
    return found


def _texts(spelled: str, value: object) -> tuple[str, list[str]]:
    parameter, negated, key = _row(spelled)
    if key is not None:
        return f"{parameter.name}.{key}", [_text(value)]
    if negated:
        if not isinstance(value, bool):
            raise TypeError(f"{spelled}: a bool is wanted, not {value!r}")
        return parameter.name, [_text(not value)]
    if parameter.kind == "jailsys" and value is True:
        return parameter.name, ["new"]  # as in jail.conf(5), where the name stands alone
    if parameter.kind not in _LISTS or isinstance(value, (str, bytes, os.PathLike)):
        return parameter.name, [_text(value)]
    items = [_text(item) for item in value] if isinstance(value, Iterable) else [_text(value)]
    return parameter.name, items if items or parameter.kind == "list" else [""]


def _row(spelled: str) -> tuple[table.Parameter, bool, str | None]:
    for name in (spelled, _SPELLED.get(spelled, ""), spelled.replace("_", ".", 1)):
        found = table.resolve(name)
        if found is not None:
            return found
    raise JailError(f"unknown parameter: {visible(spelled)}")


def text_of(word: Argument) -> str:
    """A word whose bytes, in whatever the program's locale has for characters, are those of this text in UTF-8.

    Raises UnicodeEncodeError where that locale has not got one, as subprocess does.
    """
    return os.fsencode(word).decode("utf-8", "surrogateescape")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, bytes, os.PathLike)):
        return text_of(value)
    if isinstance(value, (Mapping, Iterable)):
        raise TypeError(f"not a value of a parameter: {value!r}")
    return str(value)  # an int, or an address of the ipaddress module


def parse(given: Given) -> Parameters:
    """The parameters. Raises JailError for a value that one of them cannot have."""
    parameters = Parameters()
    for name, texts in given.items():
        for text in texts:
            parameters.add(name, text)
    return parameters


def check(given: Given) -> Parameters:
    """The parameters of a new jail. Raises JailError where no jail can have them, or those together."""
    parameters = parse(given)
    parameters.settle()
    return parameters


def flat(given: Given) -> list[str]:
    """Names and texts in turn, for the worker."""
    return [word for name, texts in given.items() for text in texts for word in (name, text)]
