"""jail_get: which jails there are, and what their parameters are, defaults and read-only ones included.

What it knows it reads from the registry; it asks no jail. The records hold text, and most callers want text, so values
are parsed for ``value`` alone.
"""

from __future__ import annotations

from jailng.core import index
from jailng.errors import JailError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from jailng.params.table import Parameter
    from jailng.params.values import Value

    class Record(Protocol):
        """What is asked of a jail's record: jailng.core.registry.Record has it."""

        jid: int
        name: str
        parent: int
        up: bool  # whether its start is complete
        params: dict[str, str]

        @property
        def dying(self) -> bool:
            """Whether it is on its way out."""

    class Registry(Protocol):
        """What is asked of the registry: the module jailng.core.registry has it."""

        def jails(self) -> Sequence[Record]:
            """The running jails by ascending jid."""

        def find(self, text: str, /) -> Record | None:
            """The running jail of that jid or name."""


class Column:
    """A parameter as it is asked for: by its name, by the "no" form of a boolean, or a key of meta or env.

    ``default`` is its default as text, and ``off`` the "no" form of its name.
    """

    __slots__ = ("name", "parameter", "negated", "key", "default", "off")

    def __init__(self, name: str, parameter: Parameter, negated: bool = False, key: str | None = None) -> None:
        from jailng.params.table import negated as without
        from jailng.params.values import show

        self.name = name
        self.parameter = parameter
        self.negated = negated
        self.key = key
        self.default = show(parameter.default)
        self.off = without(parameter.name)


def column(name: str) -> Column:
    """What a name asks for. Raises JailError: unknown parameter."""
    from jailng.params.table import resolve
    from jailng.params.values import visible

    found = resolve(name)
    if found is None or found[0].pseudo:
        raise JailError(f"unknown parameter: {visible(name)}")
    return Column(name, *found)


def everything() -> list[Column]:
    """What ``all`` asks for: every parameter that a jail has, in the order of jls(8)."""
    from jailng.params.table import listed

    return [column(name) for name in listed()]


def living(registry: Registry, dying: bool = False) -> list[Record]:
    """The jails by ascending jid, with or without those on their way out."""
    return [record for record in registry.jails() if dying or not record.dying]


def find(registry: Registry, text: str, dying: bool = False) -> Record:
    """The jail of that jid or name. Raises JailError: jail 7 not found, jail "x" not found."""
    # As jls(8) and jexec(8) have it: a number that is not 0 is a jid, all else is a name.
    jid = index.jid_in(text) or 0
    record = registry.find(str(jid) if jid else text)
    if record is None or (record.dying and not dying):
        from jailng.params.values import visible

        raise JailError(f"jail {jid} not found" if jid else f'jail "{visible(text)}" not found')
    return record


def addresses(record: Record, name: str) -> list[str]:
    """The bare addresses of ip4.addr or ip6.addr, without interface and prefix: all that FreeBSD's kernel keeps."""
    known = record.params.get(name, "")
    items = known.split(",") if known else []
    return [item[item.find("|") + 1 :].partition(" ")[0].partition("/")[0] for item in items]


def hostname(record: Record) -> str:
    """The host name that is seen inside."""
    return host_name(record, "host.hostname")


def host_name(record: Record, name: str) -> str:
    """``host.hostname`` or ``host.domainname``, as it is inside. What root in there has set root alone can see here."""
    known = record.params.get(name)
    if known is None:
        if record.params.get("host") == "inherit":
            return _inherited(record, name)
        known = ""
    return _now(record, name, known) if record.params.get("allow.set_hostname") == "true" else known


def _now(record: Record, name: str, known: str) -> str:
    from jailng.core import registry

    if not isinstance(record, registry.Record) or record.remote:
        return known
    import posix

    from jailng.core import attach
    from jailng.linux import ns
    from jailng.linux.visit import InNamespace

    try:
        init = attach.open_init(record)
        try:
            with InNamespace(init, ns.CLONE_NEWUTS):
                return _of_the_host(name)
        finally:
            posix.close(init)
    except (JailError, OSError):  # not root, or it has just ended
        return known


def text(record: Record, asked: Column) -> str | None:
    """A parameter's value as libjail exports it: true and false, words, numbers, addresses joined by commas.

    None: the key of meta or env that was asked for is not there.
    """
    parameter = asked.parameter
    if asked.key is not None:
        front = f"{asked.key}="
        for line in record.params.get(parameter.name, "").split("\n"):
            if line.startswith(front):
                return line[len(front) :]
        return None
    known = _known(record, asked)
    if asked.negated:
        return "false" if known == "true" else "true"
    return known


def value(record: Record, name: str) -> Value:
    """A parameter's value with its type. Raises JailError: unknown parameter."""
    from jailng.params.values import parse

    asked = column(name)
    if asked.parameter.kind in ("ip4", "ip6"):
        return parse(asked.parameter, record.params.get(asked.parameter.name, ""))
    return parse(asked.parameter, text(record, asked))


# Where Linux has what a jail with host=inherit follows.
_OF_THE_HOST = {"host.hostname": "/proc/sys/kernel/hostname", "host.domainname": "/proc/sys/kernel/domainname"}


def _inherited(record: Record, name: str) -> str:
    """What a jail with host=inherit has from the one that it is in, or, if all of these inherit it, from the host."""
    if record.parent:
        from jailng.core import registry

        for above in registry.upwards(registry.load(record.parent)):
            if above.params.get("host") != "inherit":
                return host_name(above, name)
    return _of_the_host(name)


def _of_the_host(name: str) -> str:
    import posix

    file = posix.open(_OF_THE_HOST[name], posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        text = posix.read(file, 256).decode("utf-8", "surrogateescape").rstrip("\n")
    finally:
        posix.close(file)
    return "" if text == "(none)" else text  # what the kernel calls a domain that was never set


def _known(record: Record, asked: Column) -> str:
    parameter = asked.parameter
    name = parameter.name
    if name in ("jid", "cpuset.id"):
        # FreeBSD numbers its sets of processors apart; here a jail's set is its cgroup's, which the jid names.
        return str(record.jid)
    if name == "name":
        return record.name
    if name == "parent":
        return str(record.parent)
    if name == "children.cur":
        from jailng.core import hierarchy

        return str(hierarchy.children(record.name))
    if name == "dying":
        return "true" if record.dying else "false"
    if name == "persist" and not record.up:
        return "true"  # as each does while it is being started (create_jail in jail.c)
    if parameter.kind in ("ip4", "ip6"):
        return ",".join(addresses(record, name))
    if name in _OF_THE_HOST:
        return host_name(record, name)
    recorded = record.params.get(name)
    if recorded is not None:
        return recorded
    if name == "osrelease":
        import posix

        return posix.uname().release
    if name in ("ip4", "ip6") and record.params.get("vnet") == "new":
        return "inherit"  # the stack is the jail's, of which nothing is kept from it: jail(8) takes nothing else there
    # A jail without addresses has ip4=new all the same, and one with addresses too: that is what was set, and what
    # jls -s has to print for jail(8). FreeBSD's jail_get tests for "disable" first, by the very flag that "new" sets,
    # and so reads both back as ip4=disable; its pr_flag_jailsys table has still that order in main.
    return asked.default
