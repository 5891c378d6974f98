"""jail.instance.NAME.*, the variables of jailng of 2001, for each jail that runs: params/instance.py is their table."""

from __future__ import annotations

from jailng.core import privileges, registry
from jailng.core.registry import Record
from jailng.ctl.mib import INTEGER, NODE, STRING, Variable, View
from jailng.engine import modify
from jailng.errors import JailError
from jailng.params import instance, sockets
from jailng.params.model import SYSV, Parameters

_TREE = "jail.instance"
_GONE = "the jail has ended"


def variables() -> list[Variable]:
    """A node for each jail, and its seven variables in the mail's order."""
    jails = registry.jails()
    found = [Variable(_TREE, NODE, "Jails")] if jails else []
    for record in jails:
        found.append(Variable(f"{_TREE}.{record.name}", NODE, "One jail"))
        found += [_variable(record, name) for name in instance.NAMES]
    return found


def _variable(record: Record, name: str) -> Variable:
    _, _, description = instance.ROWS[name]

    def read(_: View) -> str:
        return value(name, _now(record))

    def write(_: View, text: str) -> None:
        found = registry.load(record.jid)
        if found is None or found.init != record.init:
            raise JailError(_GONE)
        modify.modify(found, changes(name, text, _now(record)))

    kind = STRING if name == "ipv4addr" else INTEGER
    return Variable(f"{_TREE}.{record.name}.{name}", kind, description, read, write)


def _now(record: Record) -> Parameters:
    """What the jail has by now. Raises JailError."""
    found = registry.load(record.jid)
    if found is None or found.init != record.init:
        raise JailError(_GONE)
    return Parameters.from_texts(found.params)


def value(name: str, params: Parameters) -> str:
    """A variable of a jail with these parameters."""
    if name == "ipv4addr":
        return ",".join([address.bare for address in params.addresses("ip4.addr")]) or "0"
    family = instance.family(name)
    if family:
        return str(int(family in privileges.permitted(params)))
    if name == "sysvipc_permitted":
        return str(int(all(params.text(one) != "disable" for one in SYSV)))
    (parameter,) = instance.ROWS[name][0]
    return str(int(params.flag(parameter)))


def changes(name: str, text: str, params: Parameters) -> Parameters:
    """What ``jail -m`` is to change of a jail with these parameters for the variable to have that value.

    Raises JailError for what it cannot have.
    """
    asked = Parameters()
    if name == "ipv4addr":
        asked.add("ip4.addr", "" if text == "0" else text)
        return asked
    on = text != "0"
    family = instance.family(name)
    if family:
        others = [one for one in privileges.permitted(params) if one != family]
        asked.add("ng.sockets", sockets.written((*others, family) if on else tuple(others)))
    elif name == "sysvipc_permitted":
        for one in SYSV:
            if (params.text(one) != "disable") is not on:
                asked.add(one, "new" if on else "disable")
    else:
        (parameter,) = instance.ROWS[name][0]
        asked.add(parameter, "true" if on else "false")
    return asked
