"""A set of parameters: what was given, what follows from it, and what Linux, or this stage of jailng, refuses."""

from __future__ import annotations

from jailng.errors import JailError, not_permitted
from jailng.params.table import default, lookup, resolve
from jailng.params.values import JAIL_MAX, escape, parse, quoted, show, unescape, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jailng.params.address import Address
    from jailng.params.table import Parameter
    from jailng.params.values import Value

SYSV = ("sysvmsg", "sysvsem", "sysvshm")
# What is decided together: where one is given, the host's defaults for the others do not count.
_TOGETHER = {
    "ip4": "ip",
    "ip4.addr": "ip",
    "ip6": "ip",
    "ip6.addr": "ip",
    "vnet": "ip",
    "sysvmsg": "allow.sysvipc",
    "sysvsem": "allow.sysvipc",
    "sysvshm": "allow.sysvipc",
}


class Parameters:
    """Parameters of one jail, in the order in which they were first given.

    Built with ``add`` and ``set``; ``settle`` makes them whole for a new jail, ``update`` applies some to a jail that
    runs. ``parameters["ip4"]`` is the value, or the table's default; ``flag``, ``number``, ``text``, ``addresses`` and
    ``strings`` are the same with a type. ``left_out`` is what ``settle`` has to say of permissions that ng.lenient goes
    without.
    """

    __slots__ = ("_values", "_forms", "_implied", "_keys", "left_out")

    def __init__(self) -> None:
        self._values: dict[str, Value] = {}
        # All that was given, in order: the name, "no" included, and the value, None where there was none. Keys of meta
        # and env are by themselves.
        self._forms: dict[str, tuple[str, str | None]] = {}
        self._implied: set[str] = set()  # names that ``settle`` has put there
        # meta, env and their keys, in order, until they are folded: None takes a key away.
        self._keys: dict[str, str | None] = {}
        self.left_out: list[str] = []

    # What is there

    def __getitem__(self, name: str) -> Value:
        """The value, or the default. Raises KeyError for a name that the table does not have."""
        if name in self._values:
            return self._values[name]
        return default(name)

    def __iter__(self) -> Iterator[str]:
        """The names that have a value of their own, given or implied."""
        return iter(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __len__(self) -> int:
        return len(self._values)

    def keys(self) -> list[str]:
        """The names, for ``dict(parameters)``."""
        return list(self._values)

    def given(self, name: str) -> bool:
        """Whether the parameter was given, rather than implied by another or the default."""
        return (name in self._values and name not in self._implied) or name in self._keys

    def flag(self, name: str) -> bool:
        """A boolean's value."""
        return self[name] is True

    def number(self, name: str) -> int:
        """An int's value."""
        value = self[name]
        assert isinstance(value, int)
        return value

    def text(self, name: str) -> str:
        """The value of a string, jailsys or choice."""
        value = self[name]
        assert isinstance(value, str)
        return value

    def addresses(self, name: str) -> tuple[Address, ...]:
        """The value of ip4.addr or ip6.addr."""
        value = self[name]
        assert isinstance(value, tuple)
        return tuple([item for item in value if not isinstance(item, str)])

    def strings(self, name: str) -> tuple[str, ...]:
        """A list's value."""
        value = self[name]
        assert isinstance(value, tuple)
        return tuple([item for item in value if isinstance(item, str)])

    # How it gets there

    def add(self, name: str, text: str | None = None, append: bool = True) -> None:
        """Add ``name=text``, or a bare ``name`` (text None), as jail(8) reads it.

        Lists grow, unless not ``append`` (jail.conf's plain ``=``) or bare, which empties them; of all else the last
        value counts. Raises JailError: unknown parameter, or a value it cannot have.
        """
        parameter, is_negated, key = _settable(name)
        if parameter.name in ("jid", "name") and parameter.name in self._values:
            raise JailError(f'cannot redefine parameter "{parameter.name}".')
        value = parse(parameter, text, name, is_negated)
        self._forms[name if parameter.keyed else parameter.name] = (name, text)
        if parameter.keyed:
            self._keys[name] = text if key else text or ""
            return
        before = self._values.get(parameter.name, ())
        if isinstance(value, tuple) and isinstance(before, tuple) and append and text is not None:
            value = before + value
        self._values[parameter.name] = value
        self._implied.discard(parameter.name)

    def extend(self, name: str, texts: Iterable[str]) -> None:
        """Add values of a list: what ``add`` does one by one, in a time that is not the square of their number."""
        parameter, is_negated, _ = _settable(name)
        values: list[Address | str] = []
        for text in texts:
            value = parse(parameter, text, name, is_negated)
            assert isinstance(value, tuple), name
            values += value
        before = self._values.get(parameter.name, ())
        assert isinstance(before, tuple)
        self._values[parameter.name] = (*before, *values)
        self._implied.discard(parameter.name)
        self._forms[parameter.name] = (name, "")

    def set(self, name: str, value: object) -> None:
        """Put a value of Python's there: bool, int, str, or an iterable of str for a list. Raises JailError."""
        if isinstance(value, bool):
            self.add(name, "true" if value else "false")
        elif isinstance(value, (str, int)):
            self.add(name, str(value), append=False)
        elif value is None:
            self.add(name, None)
        else:
            self.add(name, None)
            for item in value:  # type: ignore[attr-defined]  # a value that cannot be iterated over is the caller's fault
                self.add(name, str(item))

    def assume(self, defaults: Parameters) -> None:
        """Have of the host's defaults those for which nothing was given; they count as not given. Before ``settle``."""
        given = {_TOGETHER.get(name, name) for name in self._values}
        for name, value in defaults._values.items():
            if _TOGETHER.get(name, name) not in given:
                self._values[name] = value
                self._implied.add(name)

    # What follows from it

    def settle(self) -> None:
        """Make the parameters of a new jail whole: what implies what, the order of addresses, keys folded into meta.

        Raises JailError for a combination or value that no jail can have, and for what is not honoured.
        """
        if self._keys:
            from jailng.params import keys

            keys.settle(self)
        self._check_identity()
        self._imply()
        if self["vnet"] == "new" and any(name in self._values and self[name] != "inherit" for name in ("ip4", "ip6")):
            raise JailError("vnet jails cannot have IP address restrictions")
        if self["vnet"] != "new" and any(self.strings("vnet.interface")):
            raise JailError("vnet.interface: only a jail with vnet has interfaces of its own")
        if "osrelease" in self._values and not self["osrelease"]:
            raise JailError(f"osrelease string must be 1-{_row('osrelease').most} bytes long")
        if self.number("securelevel") < -1:
            raise not_permitted("jail_set")  # FreeBSD's: below the host's, which never rises here
        for name, value in self._values.items():
            self._check(name, value)
        for name in ("ip4.addr", "ip6.addr"):
            if name in self._values:
                self._values[name] = _in_order(name, self.addresses(name))
        self._check_sharing()

    def _check(self, name: str, value: Value) -> None:
        """Refuse what is not honoured. Without a permission that Linux never gives a jail of ng.lenient can do."""
        try:
            check_honoured(name, value)
        except JailError as error:
            if not self.goes_without(name):
                raise
            self.left_out.append(str(error))
            self._values[name] = False

    def goes_without(self, name: str) -> bool:
        """Whether ng.lenient lets the jail do without this permission, which Linux never gives."""
        return self.flag("ng.lenient") and name.startswith("allow.") and _row(name).refused

    def _imply(self) -> None:
        for family in ("ip4", "ip6"):
            # As in FreeBSD's kernel an address list has the last word, whatever ip4 was given as.
            if f"{family}.addr" in self._values:
                self.imply(family, "new")
        if any(name.startswith("host.") for name in self._values):
            self.imply("host", "new")
        if self.flag("allow.sysvipc"):
            for name in SYSV:
                if name not in self._values:
                    self.imply(name, "inherit")

    def imply(self, name: str, value: Value) -> None:
        """Put a value there that follows from something else; it does not count as given."""
        if self._values.get(name) != value:
            self._values[name] = value
            self._implied.add(name)

    def _check_identity(self) -> None:
        jid = self.number("jid")
        if jid < 0:
            raise JailError("negative jid")
        if jid > JAIL_MAX:
            raise JailError(f"jid {jid}: above {JAIL_MAX}")
        if jid == 0:
            self._values.pop("jid", None)
        if self["name"] == "":
            self._values.pop("name", None)
        else:
            check_name(self.text("name"), jid)

    def _check_sharing(self) -> None:
        for one, other in (("ip4", "ip6"), ("ip6", "ip4")):
            if self["ng.stack"] != "shared" and self[one] == "inherit" and self.addresses(f"{other}.addr"):
                raise JailError(f"{one}=inherit with {other}.addr: on Linux only with ng.stack=shared")
        six_alone = self["ip6"] == "inherit" and self["ip4"] != "inherit"
        if six_alone and self["vnet"] != "new" and self["ng.stack"] != "shared":
            raise JailError("ip6=inherit without ip4=inherit: on Linux an IPv6 socket reaches IPv4 too (::ffff:0:0/96)")
        for name in ("ng.rdr", "ng.egress"):
            if self[name]:
                self._check_policy(name)
        if self["host"] == "inherit" and self.flag("allow.set_hostname"):
            raise JailError("allow.set_hostname with host=inherit: on Linux nobody inside can change the host's name")
        shared = [name for name in SYSV if self[name] == "inherit"]
        if shared and len(shared) < len(SYSV):
            others = ", ".join([name for name in SYSV if name not in shared])
            raise JailError(f"{shared[0]}=inherit: Linux shares all System V IPC or none: not without {others}=inherit")

    def _check_policy(self, name: str) -> None:
        """Such rules are for what passes a jail's own interface on the host."""
        for other, value in (("ip4", "inherit"), ("ip6", "inherit"), ("vnet", "new"), ("ng.stack", "shared")):
            if self._values.get(other) == value:
                raise JailError(
                    f"{name}: not with {other}={value}: it takes an interface of the host's that is the jail's"
                )
        if name == "ng.rdr" and not (self.addresses("ip4.addr") or self.addresses("ip6.addr")):
            raise JailError(f"{name}: the jail has no address to lead to")

    def identify(self, jid: int) -> None:
        """The jid that a new jail has been given: enter it, and the name that follows from it where there is none."""
        self.imply("jid", jid)
        if "name" not in self._values:
            self.imply("name", str(jid))

    # A jail that runs

    def update(self, other: Parameters) -> list[str]:
        """Apply what ``other`` gives to these, the settled parameters of a running jail; the names that changed.

        Pseudo-parameters are passed over, as jail(8) does, and ``jid``, which only says what jail. For what cannot
        change while the jail runs, or could not be given to a new one, raises JailError and leaves all as it was.
        """
        from jailng.params import change

        return change.update(self, other)

    def restarts(self, other: Parameters) -> str:
        """The first parameter that ``other`` gives another value than these have and that a running jail keeps, or "".

        Those are FreeBSD's create-only ones, and the further ones that Linux cannot change for a running jail.
        """
        from jailng.params import change

        return change.restarts(self, other)

    def spelled(self, name: str) -> str:
        """A string as it was given, which ``path`` is no longer once the jail is made."""
        return self._forms.get(name, (name, None))[1] or ""

    def words(self, pseudo: bool, live: bool = False) -> list[str]:
        """What was given, as jail(8) prints it; without ``pseudo`` only what the kernel of FreeBSD would be told.

        With ``live`` without what FreeBSD's kernel takes at creation alone.
        """
        return [
            self._word(name, raw=pseudo)
            for name in self._forms
            if (row := _of_key(name)).keyed or ((pseudo or not row.pseudo) and not (live and row.create_only))
        ]

    def _word(self, name: str, raw: bool) -> str:
        given, text = self._forms[name]
        if text is None:
            return given
        row = _of_key(name)
        if row.keyed or name == "path" or (raw and row.kind in ("bool", "jailsys")):
            return f"{given}={quoted(text)}"
        value = self[name]
        if isinstance(value, bool):
            return f"{given}={'true' if value is (given == name) else 'false'}"
        shown = (
            [quoted(show((item,), bare=True)) for item in value] if isinstance(value, tuple) else [quoted(show(value))]
        )
        return f"{name}={','.join(shown)}" if shown else name

    # Its record

    def to_lines(self, only: Iterable[str] | None = None) -> list[str]:
        """``name=value`` lines for the record, of all parameters that are not pseudo, or ``only`` of some. Settled."""
        names = self._values if only is None else only
        return [f"{name}={escape(show(self[name]))}" for name in names if not _row(name).pseudo]

    def assignments(self) -> list[str]:
        """What has a value of its own and is not pseudo, as words for ``add``: ``name=value``, or the name alone."""
        known = {name: show(value) for name, value in self._values.items() if not _row(name).pseudo}
        words = [f"{name}={text}" if text or self[name] == "" else name for name, text in known.items()]
        return words + [name if text is None else f"{name}={text}" for name, text in self._keys.items()]

    @classmethod
    def from_lines(cls, lines: Iterable[str]) -> Parameters:
        """The parameters that ``to_lines`` wrote. Raises JailError if something else did."""
        parts = [line.partition("=") for line in lines]
        return cls.from_texts({name: unescape(text) for name, _, text in parts})

    @classmethod
    def from_texts(cls, texts: dict[str, str], known: bool = False) -> Parameters:
        """The parameters of a record: name to text, unescaped. Raises JailError if they are not such.

        With ``known`` what another release has written, and this one cannot read, is passed over.
        """
        made = cls()
        for name, text in texts.items():
            parameter = lookup(name)
            try:
                if parameter is None:
                    raise JailError(f"unknown parameter: {visible(name)}")
                made._values[name] = parse(parameter, text)
            except JailError:
                if not known:
                    raise
        return made


def check_name(name: str, jid: int = 0) -> None:
    """Refuse what cannot be a jail's name. ``jid`` is the jid that was asked for, or has been given, 0 for none yet.

    The rules are FreeBSD's less "/" and what is not printable, bytes that are not UTF-8 excepted. Dots part the names
    of jails in jails; whether those before the last dot exist is for the registry to say. Raises JailError.
    """
    shown = visible(name)
    parse(_row("name"), name)  # for its length
    if "/" in name:
        raise JailError(f'name "{shown}": contains "/"')
    # Also what turns the rest of a line around: names of jails in jails are names of files on the host.
    if not name.isprintable() and not all(char.isprintable() or "\udc80" <= char <= "\udcff" for char in name):
        raise JailError(f'name "{shown}": contains a control character')
    parts = name.split(".")
    if "" in parts:
        raise JailError(f'name "{shown}": a part of it is empty')
    # FreeBSD takes "+7" and " 7" for numbers too, having asked strtoul(3); as names they would only mislead.
    last = parts[-1].lstrip()
    digits = last[1:] if last[:1] in ("+", "-") else last
    if digits.isascii() and digits.isdigit() and not (jid and parts[-1] == str(jid)):
        raise JailError("name cannot be numeric (unless it is the jid)")


def _settable(name: str) -> tuple[Parameter, bool, str | None]:
    """What a name means, as ``resolve`` has it. Raises JailError: unknown parameter."""
    found = resolve(name)
    if found is None or found[0].read_only:
        # The kernel knows what is read-only but never asks for it when setting, so that is its message for it.
        raise JailError(f"unknown parameter: {visible(name)}")
    return found


def _of_key(name: str) -> Parameter:
    """The row of a parameter, or of what the name is a key of: meta.x."""
    return lookup(name) or _row(name.partition(".")[0])


def _row(name: str) -> Parameter:
    parameter = lookup(name)
    assert parameter is not None, name
    return parameter


def check_honoured(name: str, value: Value) -> None:
    """Refuse what cannot be honoured on Linux, and values that no jail can have. Raises JailError."""
    parameter = _row(name)
    if name == "osreldate" and value == 0:
        raise JailError("osreldate cannot be 0")
    if name == "ng.quota" and value:
        from jailng.params import quota

        quota.parse(str(value))
    if name == "ng.log" and isinstance(value, tuple):
        from jailng.params import log

        log.check([str(one) for one in value])
    if name == "ng.sockets" and value:
        from jailng.params import sockets

        sockets.parse(str(value))
    if name == "interface" and value:
        _check_interface(str(value))
    if not parameter.refused or value == parameter.default:
        return
    if isinstance(value, tuple) and not any(value):
        return  # a list of nothing but empty strings, which jail(8) skips
    raise JailError(f"{name}: not honoured on Linux: {parameter.linux}")


def _check_interface(name: str) -> None:
    from jailng.params.address import is_interface

    if not is_interface(name):
        raise JailError(f'interface: not the name of an interface: "{visible(name)}"')


def _in_order(name: str, given: tuple[Address, ...]) -> tuple[Address, ...]:
    from jailng.params.address import in_order

    return in_order(name, given, _row(name).most)
