"""What is new in the parameters of a jail that runs, and what of that it cannot have."""

from __future__ import annotations

import posix

from jailng.errors import UNCHANGEABLE, JailError
from jailng.params.model import SYSV, Parameters
from jailng.params.table import lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.params.values import Value

_OWN = frozenset(["new", "disable"])


def update(params: Parameters, other: Parameters) -> list[str]:
    """What ``Parameters.update`` says."""
    held = restarts(params, other)
    if held in ("ip4", "ip6") and params["vnet"] == "new":
        raise JailError("vnet jails cannot have IP address restrictions")
    if held:
        raise JailError(f"{held} cannot be changed after creation", kind=UNCHANGEABLE)
    merged = Parameters()
    merged._values = dict(params._values)
    merged._implied = set(params._implied)
    merged._keys = dict(other._keys)
    for name, value in other._values.items():
        parameter = lookup(name)
        if name != "jid" and parameter is not None and not parameter.pseudo:
            # A name that is taken away is the jid again.
            merged._values[name] = str(params.number("jid")) if name == "name" and value == "" else value
            merged._implied.discard(name)
    if other._values.get("ip4") == "disable" and "ip4.addr" not in other._values and params.addresses("ip4.addr"):
        merged._values["ip4.addr"] = ()
    merged.settle()
    changed = [name for name in merged._values if merged[name] != params[name]]
    params._values, params._implied, params.left_out = merged._values, merged._implied, merged.left_out
    return changed


def restarts(params: Parameters, other: Parameters) -> str:
    """What ``Parameters.restarts`` says."""
    for name, value in other._values.items():
        parameter = lookup(name)
        assert parameter is not None, name
        if name.startswith("host.") and params["host"] == "inherit":
            return "host"
        held = params["ng.stack"] == "shared" and _is_about_ports(params, name)
        held |= name == "ip4.addr" and params["ip4"] == "inherit"
        held |= name in SYSV and "inherit" in (value, params[name])  # the namespace is chosen at the start
        if (parameter.live != "restart" and not held) or parameter.pseudo or name == "jid":
            continue
        if value is True and params.goes_without(name):
            continue  # as it did when it was started
        if parameter.kind in ("ip4", "ip6") and isinstance(value, tuple):
            from jailng.params.address import in_order

            value = in_order(name, other.addresses(name), parameter.most)
            if params[parameter.kind] == "inherit":
                return parameter.kind
        if name in ("ip4", "ip6") and params["vnet"] != "new" and {value, params[name]} <= _OWN:
            # To FreeBSD's kernel they are one, which a list of addresses follows: here that of IPv6 is fixed.
            follows = name == "ip4" or "ip6.addr" in other._values
            if follows or not params.addresses("ip6.addr"):
                continue
        if value not in (params[name], *_shown(params, name)):
            return name
    return ""


def _shown(params: Parameters, name: str) -> tuple[Value, ...]:
    """What jls(8), or jail(8), calls the value that a jail has by default."""
    has_vnet = params["vnet"] == "new"
    if name == "devfs_ruleset":
        by_default = (0, 5 if has_vnet else 4)
        return by_default if params[name] in by_default else ()
    if name == "osrelease":
        return () if params[name] else (posix.uname().release,)
    return ("inherit",) if has_vnet and name in ("ip4", "ip6") else ()


def _is_about_ports(params: Parameters, name: str) -> bool:
    """Whether ports below 1024 are root's by that, which where its sockets are the host's is said at the start."""
    return name == "allow.reserved_ports" or (name == "allow.suser" and params.flag("allow.reserved_ports"))
