"""A configuration: the jails that files of jail.conf(5) define, and what each of them is set to.

``load`` reads the files. A jail's settings are worked out when they are asked for, since who starts one of many jails
need not know the others'.
"""

from __future__ import annotations

from jailng.conf.parse import parse
from jailng.errors import JailError, Mistakes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from jailng.conf.parse import Block
    from jailng.params.model import Parameters

    class Files(Protocol):
        """Where the text of configurations comes from; the caller's, so that nothing here touches a file."""

        def read(self, path: str) -> bytes:
            """All of a file; "-" is standard input. Raises OSError."""
            ...

        def glob(self, pattern: str) -> list[str]:
            """The paths that match, sorted; there may be none."""
            ...


class Setting:
    """What a jail sets one parameter to.

    ``name`` is the parameter as it was given last ("allow.nomount", "exec.start"). ``values`` are all that a list has;
    of what is no list the last one counts. ``bare``: no value was given at all, as in ``persist;``.
    """

    __slots__ = ("name", "values")

    def __init__(self, name: str, values: tuple[str, ...]) -> None:
        self.name = name
        self.values = values

    @property
    def bare(self) -> bool:
        """Whether the name stands alone."""
        return not self.values

    def __repr__(self) -> str:
        return f"<Setting {self.name}={self.values}>"


class Jail:
    """One jail of a configuration. ``key`` is the name of its block: in a block ``a``, ``b`` is ``a.b``."""

    __slots__ = ("key", "_blocks", "_settings", "_errors")

    def __init__(self, key: str, blocks: list[Block]) -> None:
        self.key = key
        self._blocks = blocks  # those that apply to it, in their order
        self._settings: list[Setting] | None = None  # not known yet
        self._errors: list[str] = []

    def settings(self) -> list[Setting]:
        """What the jail sets, in jail(8)'s order. Raises Mistakes, each time, if something is wrong with it."""
        if errors := self.errors():
            raise Mistakes(errors)
        return self.sound()

    def errors(self) -> list[str]:
        """All that is wrong with the jail, as FreeBSD words it; to be printed after ``jail: KEY: ``."""
        self.sound()
        return self._errors

    def named(self, name: str) -> Setting | None:
        """One setting, whether it is given as it is named here or with "no" before it. Raises JailError as above."""
        from jailng.conf.merge import similar

        names = (name, *similar(name))
        for setting in self.settings():
            if setting.name in names:
                return setting
        return None

    def gives(self, name: str, value: str) -> bool:
        """Whether an assignment of that name applies to the jail, and makes it that value in the end."""
        if not any(one.name == name for block in self._blocks for one in block.assignments):
            return False
        return any(setting.name == name and setting.values[-1:] == (value,) for setting in self.sound())

    def sound(self) -> list[Setting]:
        """What the jail sets, were it not for what is wrong with it."""
        if self._settings is None:
            from jailng.conf.merge import Merge

            merged = Merge()
            merged.imply("jid" if _is_number(self.key) else "name", self.key)
            for block in self._blocks:
                for assignment in block.assignments:
                    merged.add(assignment)
            if merged.find("name") is None:
                merged.imply("name", self.key)
            merged.substitute()
            self._errors = merged.errors
            self._settings = [Setting(one.name, tuple(one.strings)) for one in merged.entries if not one.variable]
        return self._settings


class Config:
    """All that a file and those that it includes define. ``jails`` are in the order in which they stand there.

    A jail that is defined twice is there twice, as on FreeBSD.
    """

    __slots__ = ("jails", "_keys")

    def __init__(self, blocks: list[Block]) -> None:
        wild = [(number, block) for number, block in enumerate(blocks) if is_pattern(block.name)]
        self.jails: list[Jail] = []
        for number, block in enumerate(blocks):
            if not is_pattern(block.name):
                apply = [(place, other) for place, other in wild if matches(block.name, other.name)]
                apply.append((number, block))
                apply.sort(key=lambda pair: pair[0])
                self.jails.append(Jail(block.name, [other for _, other in apply]))
        self._keys: dict[str, Jail] = {}

    def find(self, name: str) -> Jail | None:
        """The jail whose block has that name; if there is none, the one that sets ``name``, or ``jid``, to it."""
        if not self._keys:
            for jail in reversed(self.jails):
                self._keys[jail.key] = jail
        if name in self._keys:
            return self._keys[name]
        for parameter in ("name", "jid"):
            for jail in self.jails:
                if jail.gives(parameter, name):
                    return jail
        return None

    def match(self, pattern: str) -> list[Jail]:
        """The jails whose blocks' names a wildcard of the command line matches: ``*``, ``foo.*``."""
        return [jail for jail in self.jails if matches(jail.key, pattern)]


def load(path: str, files: Files) -> Config:
    """Read a configuration; "-" is standard input. Raises JailError with what jail(8) says for the first error."""
    return Config(parse(path, files))


def parameters(settings: list[Setting]) -> Parameters:
    """Settings as parameters of a jail. Raises Mistakes: unknown parameters, and values that they cannot have.

    As jail(8) has it all of those are told that are wrong with its own parameters (check_intparams), and only if none
    is, all that are wrong with the others (import_params).
    """
    from jailng.params.model import Parameters
    from jailng.params.table import resolve

    made = Parameters()
    wrong: dict[bool, list[str]] = {True: [], False: []}
    for setting in settings:
        found = resolve(setting.name)
        try:
            _add(made, setting, found is not None and found[0].kind in ("list", "ip4", "ip6"))
        except JailError as error:
            wrong[found is not None and found[0].pseudo].append(str(error))
    if wrong[True] or wrong[False]:
        raise Mistakes(wrong[True] or wrong[False])
    return made


def _add(made: Parameters, setting: Setting, several: bool) -> None:
    if setting.bare:
        made.add(setting.name)
    elif several:
        made.extend(setting.name, setting.values)
    else:
        made.add(setting.name, setting.values[-1])


def exported(jail: Jail, separator: str) -> str:
    """A jail as ``jail -e`` prints it: ``name=a`` and the rest, ``jid`` excepted; lists with commas.

    Raises JailError where something is wrong with the jail.
    """
    from jailng.params.values import quoted

    return separator.join(
        [
            setting.name if setting.bare else f"{setting.name}={','.join([quoted(value) for value in setting.values])}"
            for setting in jail.settings()
            if setting.name != "jid"
        ]
    )


def is_pattern(name: str) -> bool:
    """Whether a name stands for several jails: one of its components is ``*`` (wild_jail_name)."""
    return "*" in name and "*" in name.split(".")


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern stands for a jail: ``*`` for one component, at the end for one or more (wild_jail_match)."""
    if pattern == "*":
        return True
    names, patterns = name.split("."), pattern.split(".")
    if len(names) < len(patterns) or (len(names) > len(patterns) and patterns[-1] != "*"):
        return False
    return all(have == want or want == "*" for have, want in zip(names, patterns, strict=False))


def _is_number(name: str) -> bool:
    """Whether strtol(3) takes the whole of a name for a number other than 0."""
    digits = name.lstrip(" \t\n\v\f\r")
    digits = digits[1:] if digits[:1] in ("+", "-") else digits
    return digits.isascii() and digits.isdigit() and digits.strip("0") != ""
