"""The variables of a jail as jailng of 2001 has them, jail.instance.NAME.*, and what they are in jail(8)'s parameters.

``NAMES`` is their order, ``CREATED`` what ``jailctl create`` makes a jail with.
"""

from __future__ import annotations

from jailng.params import sockets

# variable: the parameters that it stands for, its value in a jail that ``jailctl create`` makes, its description
ROWS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "sysvipc_permitted": (("sysvmsg", "sysvsem", "sysvshm"), "0", "Processes can use System V IPC primitives"),
    "set_hostname_permitted": (("allow.set_hostname",), "1", "Root can set the hostname"),
    "socket_ipv4_permitted": (("ng.sockets",), "1", "Processes can create IPv4 sockets"),
    "socket_unix_permitted": (("ng.sockets",), "1", "Processes can create UNIX domain sockets"),
    "socket_route_permitted": (("ng.sockets",), "1", "Processes can create routing sockets"),
    "socket_other_permitted": (("allow.socket_af",), "0", "Processes can create sockets of other families"),
    "ipv4addr": (("ip4.addr",), "0", "IPv4 address, 0 for none"),
}
NAMES = tuple(ROWS)
_SOCKETS = {f"socket_{family}_permitted": family for family in sockets.FAMILIES}


def family(name: str) -> str:
    """Which of ``sockets.FAMILIES`` a variable is about, "" if it is about none."""
    return _SOCKETS.get(name, "")


def created() -> list[tuple[str, str]]:
    """The parameters of a jail that ``jailctl create`` makes, but for its name: those of the seven, and no others' but

    that it lives without a process, and without a root.
    """
    given = {name: value for name, (_, value, _) in ROWS.items()}
    families = tuple([one for name, one in _SOCKETS.items() if given[name] == "1"])
    return [
        ("persist", "true"),
        ("ng.root", "none"),
        *[(name, "new" if given["sysvipc_permitted"] == "1" else "disable") for name in ROWS["sysvipc_permitted"][0]],
        ("allow.set_hostname", _bool(given["set_hostname_permitted"])),
        ("ng.sockets", sockets.written(families)),
        ("allow.socket_af", _bool(given["socket_other_permitted"])),
        ("ip4.addr", "" if given["ipv4addr"] == "0" else given["ipv4addr"]),
    ]


def _bool(value: str) -> str:
    return "true" if value == "1" else "false"
