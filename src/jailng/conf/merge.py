"""What holds for one jail: the assignments of several blocks merged, and their variables substituted, as config.c does.

FreeBSD goes on after an error, to tell all that is wrong with a jail; so do these: errors are lines in a list.
"""

from __future__ import annotations

from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from jailng.conf.parse import Assignment, Text

_IMMUTABLE = ("jid", "name")
# What jail(8) itself looks at (intparams in config.c), which no variable may be called.
_RESERVED = frozenset(
    """
    allow.dying command depend exec.clean exec.consolelog exec.fib exec.jail_user exec.poststart exec.poststop
    exec.prepare exec.prestart exec.prestop exec.release exec.created exec.start exec.stop exec.system_jail_user
    exec.system_user exec.timeout interface ip_hostname mount mount.devfs mount.fdescfs mount.procfs mount.fstab
    stop.timeout vnet.interface zfs.dataset allow.chflags allow.mount allow.raw_sockets allow.set_hostname
    allow.socket_af allow.sysvipc devfs_ruleset host.hostname ip4.addr ip6.addr jid name path persist
    securelevel vnet
    """.split()
)
_LONGEST = 255  # bytes of a name that may be a boolean's
_LARGEST = 16 << 20  # characters that variables may make of one jail: each can double what the one before holds


class Entry:
    """A parameter or variable of one jail: what it has been given so far, and in the end ``strings``."""

    __slots__ = ("name", "values", "strings", "variable", "immutable", "index", "pending", "work", "round", "bad")

    def __init__(self, name: str, values: list[Text], variable: bool, index: int) -> None:
        self.name = name
        self.values = values
        self.strings: list[str] = []
        self.variable = variable
        self.immutable = False
        self.index = index
        # For ``substitute``: whether variables are left in the values, who replaces them, in what round last, and
        # whether something was wrong with them.
        self.pending = False
        self.work: Iterator[Entry] | None = None
        self.round = 0
        self.bad = False


class Merge:
    """One jail's entries: ``add`` as the blocks have them, then ``substitute`` once."""

    __slots__ = ("entries", "errors", "_names", "_negated", "_doubled", "_left", "_round")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.errors: list[str] = []
        self._names: dict[str, Entry] = {}
        self._negated = False  # whether any name has a component that begins with "no"
        self._doubled = False  # whether two entries have the same name
        self._left = _LARGEST
        self._round = 0

    def imply(self, name: str, value: str) -> None:
        """Enter what the block's own name says: ``jid`` or ``name``."""
        self._new(name, [value], False).immutable = True

    def find(self, name: str, alike: tuple[str, ...] | None = None) -> Entry | None:
        """The entry of that name, with or without a "no" in it; of several the first."""
        found = self._names.get(name)
        if not self._negated and not _is_negated(name):
            return found
        for other in similar(name) if alike is None else alike:
            entry = self._names.get(other)
            if entry is not None and (found is None or entry.index < found.index):
                found = entry
        return found

    def add(self, given: Assignment) -> None:
        """Add, replace or extend, as add_param does."""
        if given.alike is None:
            given.alike = tuple(similar(given.name))
        entry = self.find(given.name, given.alike)
        if entry is None:
            if given.variable and not _RESERVED.isdisjoint((given.name, *given.alike)):
                self._clash(given.name)
            entry = self._new(given.name, list(given.values), given.variable)
            entry.immutable = given.name in _IMMUTABLE
        elif entry.variable != given.variable:
            self._clash(given.name)
        elif entry.immutable:
            self.errors.append(f'cannot redefine parameter "{entry.name}".')
        else:
            if entry.name != given.name:
                self._rename(entry, given.name)
            if given.append and given.values:
                entry.values.extend(given.values)
            else:
                entry.values = list(given.values)

    def _rename(self, entry: Entry, name: str) -> None:
        del self._names[entry.name]
        entry.name = name
        self._negated = True
        if name in self._names or self._doubled:
            # "nonoa" and "a" are two parameters, and after "noa", which is either, and "a" again both have one name. It
            # means the first.
            self._doubled = True
            self._names = {one.name: one for one in reversed(self.entries)}
        else:
            self._names[name] = entry

    def _new(self, name: str, values: list[Text], variable: bool) -> Entry:
        entry = Entry(name, values, variable, len(self.entries))
        self.entries.append(entry)
        self._names[name] = entry
        self._negated = self._negated or _is_negated(name)
        return entry

    def _clash(self, name: str) -> None:
        self.errors.append(f'variable "${visible(name)}" cannot have the same name as a parameter.')

    # Variables

    def substitute(self) -> None:
        """Put values where variables stand. What another one refers to comes to stand before it, as with jail(8)."""
        for entry in self.entries:
            entry.strings = [value for value in entry.values if isinstance(value, str)]
            entry.pending = len(entry.strings) < len(entry.values)
        done: list[Entry] = []
        for entry in self.entries:
            if entry.pending:
                self._settle(entry, done)
            elif entry.work is None:
                done.append(entry)
        self.entries = done

    def _settle(self, entry: Entry, done: list[Entry]) -> None:
        """Substitute in an entry and in those that it needs, and add them to ``done``, what is needed first."""
        stack = [entry]
        entry.work = self._substitute(entry, stack)
        while stack:
            self._round += 1
            stack[-1].round = self._round
            while (needed := next(stack[-1].work or iter(()), None)) is not None:
                if needed.work is None:
                    needed.work = self._substitute(needed, stack)
                else:
                    stack.remove(needed)  # it waits further down, and will see the loop
                needed.round = self._round
                stack.append(needed)
            done.append(stack.pop())

    def _substitute(self, entry: Entry, stack: list[Entry]) -> Iterator[Entry]:
        """Substitute in one entry; yields each other one that has to be done before it can go on."""
        strings: list[str] = []
        for value in entry.values:
            if isinstance(value, str):
                strings.append(value)
                continue
            texts: list[str] = []
            more: list[str] = []  # where a list stands alone it becomes as many values
            for place, part in enumerate(value):
                if isinstance(part, str):
                    texts.append(part)
                    continue
                while (found := self._lookup(entry, part.name, stack)) is not None and found.pending:
                    yield found
                first, *others = found.strings if found is not None else [""]
                if others and (place + 1 < len(value) or any(texts)):
                    self._fail(f"{visible(entry.name)}: array cannot be substituted inline", stack)
                else:
                    texts.append(first)
                    more = others
            strings.append(self._joined(entry, texts, more, stack))
            strings.extend(more)
        entry.strings = strings
        entry.pending = False

    def _joined(self, entry: Entry, texts: list[str], more: list[str], stack: list[Entry]) -> str:
        """The text, within the limit of what variables may make of a jail."""
        told = self._left < 0
        self._left -= sum([1 + len(text) for text in texts]) + sum([1 + len(text) for text in more])
        if self._left >= 0:
            return "".join(texts)
        error = f"{visible(entry.name)}: variables make more than {_LARGEST} characters of this jail"
        self._fail("" if told else error, stack)
        more.clear()
        return ""

    def _lookup(self, entry: Entry, name: str, stack: list[Entry]) -> Entry | None:
        """What a variable's name refers to. None, and the error noted, where it cannot be used."""
        found = self._names.get(name)
        if found is None or not found.values:
            self._fail(f'{visible(entry.name)}: variable "{visible(name)}" not found', stack)
        elif found.bad:
            self._fail("", stack)
        elif found.round == self._round:
            self._fail(f"{visible(name)}: variable loop", stack)
        else:
            return found
        return None

    def _fail(self, error: str, stack: list[Entry]) -> None:
        """Note an error, or none if it has been told; those that are being substituted in this round are bad by it."""
        if error:
            self.errors.append(error)
        for entry in reversed(stack):
            if entry.round != self._round:
                break
            entry.bad = True


def _is_negated(name: str) -> bool:
    """Whether one of the name's components begins with "no"."""
    return name.startswith("no") or ".no" in name


def similar(name: str) -> Iterator[str]:
    """The names that are another form of this one (equalopts): with a "no" before one of its components, or without."""
    if len(name) > _LONGEST:
        return
    at = 0
    while True:
        head, tail = name[:at], name[at:]
        if tail.startswith("no"):
            yield head + tail[2:]
        yield f"{head}no{tail}"
        at = name.find(".", at) + 1
        if not at:
            return
