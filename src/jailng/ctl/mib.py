"""The variables that sysctl(8) of FreeBSD has about jails, what they are read from, and how some are set.

Names, types, order and descriptions are those of sys/kern/kern_jail.c, kern_jailmeta.c and kern_mib.c of FreeBSD 15;
``jail.*`` are those of FreeBSD 4. Inside a jail they tell of that jail (``core.ownfile``).
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from jailng.core import ownfile, registry, tunable, tuning
from jailng.engine import defaults, life
from jailng.errors import JailError
from jailng.linux import ns
from jailng.params import table
from jailng.params.model import Parameters, check_honoured
from jailng.params.values import JAIL_MAX, LIMITS, parse, show

if TYPE_CHECKING:
    from jailng.params.table import Parameter

NODE, INTEGER, UNSIGNED, LONG, STRING, OPAQUE = "node", "integer", "uint32_t", "unsigned long", "string", "opaque"
BYTE = "uint8_t"
_UNAVAILABLE = "value is not available"
NOT_PERMITTED = "Operation not permitted"
_JAIL = "security.jail."
_PARAM = f"{_JAIL}param."
_NO_UUID = "00000000-0000-0000-0000-000000000000"
_ADDRESSES = {"ip4": ("in_addr", 4), "ip6": ("in6_addr", 16)}
_MAXHOSTNAMELEN = 256


class View:
    """What the variables are read from: this jail, or the host."""

    def __init__(self) -> None:
        self.inside = ns.is_jailed()

    @cached_property
    def told(self) -> dict[str, str]:
        """What this jail may know of itself."""
        return ownfile.read()

    @cached_property
    def held(self) -> dict[str, str]:
        """What has been set on this host."""
        return tunable.load()

    @cached_property
    def defaults(self) -> Parameters:
        """What a jail of the old form has on this host if it is told nothing."""
        params = Parameters()
        life.assume(params, old_form=True)
        return params

    def own(self, name: str) -> str:
        """Inside: a parameter of this jail. Raises JailError where it is not to be had, or is not of its kind."""
        if name not in self.told:
            raise JailError(_UNAVAILABLE)
        return show(parse(_row(name), self.told[name]))

    def text(self, name: str) -> str:
        """A parameter: this jail's, or of the host its default for new ones. Raises JailError."""
        return self.own(name) if self.inside else show(self.defaults[name])


class Variable:
    """One variable, or a node. ``read`` has its value as text, and raises JailError, as does ``write``.

    Without ``write`` it cannot be set; ``tunable`` is what FreeBSD sets before it starts, here a parameter that is only
    taken when a jail is made.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        description: str,
        read: Callable[[View], str] = lambda _: "",
        write: Callable[[View, str], None] | None = None,
        format_: str = "",
        tunable: bool = False,
    ) -> None:
        self.name = name
        self.kind = kind
        self.description = description
        self.read = read
        self.write = write
        self.format = format_
        self.tunable = tunable


def variables(instances: bool = True) -> list[Variable]:
    """Every variable and node, in order: a node, then what is below it. ``instances``: those of each jail, too."""
    found = [
        *_kern(),
        Variable("hw", NODE, "hardware"),
        Variable("hw.machine", STRING, "System architecture", lambda _: os.uname().machine),
        Variable("hw.ncpu", INTEGER, "Number of active CPUs", lambda _: str(len(os.sched_getaffinity(0)))),
        Variable("hw.physmem", LONG, "Amount of physical memory (in bytes)", lambda _: str(_pages() * _page_size())),
        Variable("hw.pagesize", INTEGER, "System memory page size", lambda _: str(_page_size())),
        Variable("hw.machine_arch", STRING, "System architecture", lambda _: os.uname().machine),
        Variable("security", NODE, "Security"),
        Variable("security.bsd", NODE, "BSD security policy"),
        Variable(
            "security.bsd.suser_enabled",
            INTEGER,
            "Processes with uid 0 have privilege",
            lambda view: _flag(view.own("allow.suser")) if view.inside else "1",
            _of_the_host("allow.suser"),
        ),
        *_security_jail(),
        Variable("jail", NODE, "Jail rules"),
        *[_default(f"jail.{name}", name, text) for name, text in _DEFAULTS[:3]],
    ]
    if instances:
        from jailng.ctl import instances as of_jails

        found += of_jails.variables()
    return found


def _pages() -> int:
    return os.sysconf("SC_PHYS_PAGES")


def _page_size() -> int:
    return os.sysconf("SC_PAGE_SIZE")


def _kern() -> list[Variable]:
    release = os.uname().release
    return [
        Variable("kern", NODE, "High kernel, proc, limits &c"),
        Variable("kern.ostype", STRING, "Operating system type", lambda _: os.uname().sysname),
        Variable("kern.osrelease", STRING, "Operating system release", lambda _: release),
        Variable(
            "kern.securelevel",
            INTEGER,
            "Current secure level",
            lambda view: view.own("securelevel") if view.inside else "-1",
            _set_securelevel,
        ),
        Variable("kern.hostname", STRING, "Hostname", lambda _: socket.gethostname(), _set_hostname),
        Variable(
            "kern.hostid",
            LONG,
            "Host ID",
            lambda view: view.own("host.hostid") if view.inside else _host_id(),
            _of_the_host("host.hostid"),
        ),
        Variable("kern.domainname", STRING, "Name of the current YP/NIS domain", _domainname, _set_domainname),
        Variable(
            "kern.osreldate",
            INTEGER,
            "Kernel release date",
            lambda view: view.own("osreldate") if view.inside else show(table.default("osreldate")),
        ),
        Variable(
            "kern.hostuuid",
            STRING,
            "Host UUID",
            lambda view: view.own("host.hostuuid") if view.inside else _uuid(),
            _of_the_host("host.hostuuid"),
        ),
        Variable("kern.features", NODE, "Kernel Features"),
        Variable("kern.features.inet", INTEGER, "Internet Protocol version 4", lambda _: "1"),
        Variable("kern.features.inet6", INTEGER, "Internet Protocol version 6", lambda _: _inet6()),
        Variable("kern.features.vimage", INTEGER, "VIMAGE kernel virtualization", lambda _: _vimage()),
        Variable("kern.features.racct", INTEGER, "Resource Accounting", lambda _: "1"),
        Variable("kern.features.rctl", INTEGER, "Resource Limits", lambda _: "1"),
        Variable("kern.racct", NODE, "Resource Accounting"),
        Variable("kern.racct.enable", BYTE, "Enable RACCT/RCTL", lambda _: "1"),
    ]


def _inet6() -> str:
    """0 with ``ipv6.disable=1``, and where there is no IPv6 at all."""
    return "1" if os.path.exists("/proc/self/net/if_inet6") else "0"


def _vimage() -> str:
    try:
        check_honoured("vnet", "new")
    except JailError:
        return "0"
    return "1"


def _uuid() -> str:
    """The host's: machine-id(5) as a UUID, where FreeBSD has /etc/hostid."""
    try:
        text = Path("/etc/machine-id").read_text().strip()
    except OSError:
        return _NO_UUID
    return "-".join([text[:8], text[8:12], text[12:16], text[16:20], text[20:]]) if len(text) == 32 else _NO_UUID


def _host_id() -> str:
    """As FreeBSD's rc.d/hostid makes it of the UUID."""
    uuid = _uuid()
    return str(int(hashlib.md5(uuid.encode(), usedforsecurity=False).hexdigest()[:8], 16)) if uuid != _NO_UUID else "0"


def _domainname(_: View) -> str:
    name = Path("/proc/sys/kernel/domainname").read_text().strip()
    return "" if name == "(none)" else name


def _set_hostname(_: View, value: str) -> None:
    ns.sethostname(value.encode("utf-8", "surrogateescape"))


def _set_domainname(_: View, value: str) -> None:
    ns.setdomainname(value.encode("utf-8", "surrogateescape"))


def _of_the_host(parameter: str) -> Callable[[View, str], None]:
    """What FreeBSD's root can set, inside and outside, and is here for ``jail -m`` to say, of jails alone."""

    def write(view: View, value: str) -> None:
        if view.inside:
            raise JailError(f"only the host can change it: jail -m name=... {parameter}")
        raise JailError(f"Linux cannot change it; a jail has its own: jail -m name=... {parameter}")

    return write


def _set_securelevel(view: View, value: str) -> None:
    """FreeBSD lets root raise it. Here the host has none, and that of a jail is in its record."""
    now = int(view.own("securelevel")) if view.inside else -1
    if int(value) < now:
        raise JailError(NOT_PERMITTED)
    if int(value) > now and not view.inside:
        raise JailError("Linux has no securelevel of its own; jails have: jail -m name=... securelevel=" + value)
    if int(value) > now:
        raise JailError("only the host can raise it: jail -m name=... securelevel=" + value)


# Defaults of new jails, and inside what this jail has, with FreeBSD's descriptions; those of 2001 come first.
_DEFAULTS = [
    ("set_hostname_allowed", "Processes in jail can set their hostnames"),
    ("socket_unixiproute_only", "Processes in jail are limited to creating UNIX/IP/route sockets only"),
    ("sysvipc_allowed", "Processes in jail can use System V IPC primitives"),
    ("allow_raw_sockets", "Prison root can create raw sockets"),
    ("chflags_allowed", "Processes in jail can alter system file flags"),
    ("mount_allowed", "Processes in jail can mount/unmount jail-friendly file systems"),
    ("mlock_allowed", "Processes in jail can lock/unlock physical pages in memory"),
    ("enforce_statfs", "Processes in jail cannot see all mounted file systems"),
    ("devfs_ruleset", "Ruleset for the devfs filesystem in jail"),
]


def _security_jail() -> list[Variable]:
    mounts = [name.rpartition(".")[2] for name in table.names() if name.startswith("allow.mount.")]
    mounted = [(f"mount_{kind}_allowed", f"Jail may mount the {kind} file system") for kind in mounts]
    return [
        Variable("security.jail", NODE, "Jails"),
        Variable(_JAIL + "list", OPAQUE, "List of active jails", format_="S"),
        Variable(_JAIL + "jailed", INTEGER, "Process in jail?", lambda view: str(int(view.inside))),
        Variable(
            _JAIL + "vnet",
            INTEGER,
            "Jail owns vnet?",
            lambda view: str(int(view.inside and view.own("vnet") == "new")),
        ),
        Variable(_JAIL + "children", NODE, "Limits and stats of child jails"),
        Variable(
            _JAIL + "children.max",
            INTEGER,
            "Maximum number of child jails",
            lambda view: view.own("children.max") if view.inside else str(JAIL_MAX),
        ),
        Variable(
            _JAIL + "children.cur",
            INTEGER,
            "Current number of child jails",
            lambda _: str(len(registry.jails())),
        ),
        Variable(
            _JAIL + "jail_max_af_ips",
            UNSIGNED,
            "Number of IP addresses a jail may have at most per address family (deprecated)",
            lambda _: str(_row("ip4.addr").most),
        ),
        *[_default(_JAIL + name, name, f"{text} (deprecated)") for name, text in _DEFAULTS],
        *_parameters(),
        Variable(
            _JAIL + "meta_maxbufsize",
            UNSIGNED,
            "Maximum buffer size of each meta and env",
            _meta_limit,
            _set_meta_limit,
        ),
        Variable(
            _JAIL + "env",
            STRING,
            "Meta information provided by parent jail",
            lambda view: view.own("env") if view.inside else "",
        ),
        *[_default(_JAIL + name, name, f"{text} (deprecated)") for name, text in mounted],
    ]


def _flag(text: str, reverse: bool = False) -> str:
    return str(int((text == "true") is not reverse)) if text in ("true", "false") else text


def _default(name: str, sysctl: str, description: str) -> Variable:
    given = defaults.parameter_of(sysctl)
    found = table.resolve(given)
    assert found is not None, sysctl
    parameter, reverse, _ = found

    def read(view: View) -> str:
        return _flag(view.text(parameter.name), reverse)

    def write(view: View, value: str) -> None:
        if view.inside:
            raise JailError(NOT_PERMITTED)
        wanted = str(int(value != "0")) if parameter.kind == "bool" else value
        checked = defaults.of_sysctls({sysctl: wanted})
        check_honoured(parameter.name, checked[parameter.name])
        tuning.change({sysctl: wanted})
        view.__dict__.pop("defaults", None)

    fixed = sysctl == "devfs_ruleset"  # as FreeBSD has it
    return Variable(name, INTEGER, description, read, None if fixed else write)


def _meta_limit(view: View) -> str:
    if not view.inside:
        return view.held.get("meta_maxbufsize", str(LIMITS["meta_maxbufsize"]))
    limit = view.told.get("meta_maxbufsize", "")
    if not (limit.isascii() and limit.isdigit()):
        raise JailError(_UNAVAILABLE)
    return limit


def _set_meta_limit(view: View, value: str) -> None:
    if view.inside:
        raise JailError(NOT_PERMITTED)
    limit = int(value)
    if not 0 <= limit <= tunable.MOST_META:
        raise JailError(f"not from 0 to {tunable.MOST_META}")
    jails = registry.jails()
    changes = {"meta_maxbufsize": str(limit)}
    if limit >= _longest_meta(view) or not jails:
        changes[tunable.LONGEST_META] = str(limit)
    tuning.change(changes)
    view.__dict__.pop("held", None)
    tunable.load()
    for record in jails:
        if record.lock():
            ownfile.rewrite(record)
            record.unlock()


def _longest_meta(view: View) -> int:
    return int(view.held.get(tunable.LONGEST_META, LIMITS["meta_maxbufsize"]))


def _parameters() -> list[Variable]:
    """security.jail.param: that a parameter exists, its type, and of a string how long it may be."""
    names = [name for name in table.names() if not name.startswith("ng.") and not _row(name).pseudo]
    found = [Variable(_PARAM[:-1], NODE, "Jail parameters")]
    done: set[str] = set()
    for name in _in_tree_order(names):
        parts = name.split(".")
        for count in range(1, len(parts)):
            node = ".".join(parts[:count])
            if node not in done:
                done.add(node)
                found.append(Variable(_PARAM + node, NODE, f"Parameters {node}.*"))
                if node in names:
                    found.append(_parameter(node, node + "."))
        if name in done:
            continue
        if any(other.startswith(name + ".") for other in names) or _is_system(name):
            done.add(name)
            found.append(Variable(_PARAM + name, NODE, f"Parameters {name}.*"))
            found.append(_parameter(name, name + "."))
        else:
            found.append(_parameter(name, name))
    return found


def _is_system(name: str) -> bool:
    """What FreeBSD has as a node of the tree (SYSCTL_JAIL_PARAM_SYS_NODE), whether or not anything is below it."""
    return _row(name).kind == "jailsys" and name != "vnet"


def _in_tree_order(names: list[str]) -> list[str]:
    """The names with what is below one node side by side, nodes where the first of them was."""
    first: dict[str, int] = {}
    for number, name in enumerate(names):
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            first.setdefault(".".join(parts[:count]), number)

    def place(name: str) -> list[int]:
        parts = name.split(".")
        return [first[".".join(parts[:count])] for count in range(1, len(parts) + 1)]

    return sorted(names, key=place)


def _row(name: str) -> Parameter:
    parameter = table.lookup(name)
    assert parameter is not None, name
    return parameter


def _parameter(name: str, shown: str) -> Variable:
    parameter = _row(name)
    if parameter.kind in _ADDRESSES:
        structure, size = _ADDRESSES[parameter.kind]
        dump = size.to_bytes(8, "little").hex()
        return Variable(_PARAM + shown, OPAQUE, parameter.meaning, lambda _: dump, format_=f"S,{structure},a")
    kind, read = INTEGER, "0"
    if parameter.kind in ("string", "list", "choice"):
        kind, read = STRING, str(parameter.most + 1 if parameter.most else _MAXHOSTNAMELEN)
    elif name == "host.hostid":
        kind = LONG
    made = Variable(_PARAM + shown, kind, parameter.meaning, lambda _: read, tunable=parameter.create_only)
    if parameter.keyed:
        made.read = lambda view: str(_longest_meta(view))
    return made
