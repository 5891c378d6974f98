"""The host's defaults for new jails: /etc/jailng.conf, read where it exists (jailng.conf(5)).

It takes the names of FreeBSD's sysctls security.jail.* as well. What is set with sysctl(8) itself counts before it, and
for the old form of jail(8) alone (``of_old``).
"""

from __future__ import annotations

import posix

from jailng.errors import JailError
from jailng.linux import filekind
from jailng.params.model import Parameters, check_honoured
from jailng.params.table import resolve
from jailng.params.values import visible

_BYTES = 1 << 20
# What is one jail's alone, and what whoever removes a jail has to say.
_OF_ONE_JAIL = frozenset(
    """
    jid name path host.hostname host.domainname host.hostuuid host.hostid ip4.addr ip6.addr meta env command depend
    vnet.interface ng.rdr
""".split()
)
_OF_REMOVAL = frozenset("exec.prestop exec.stop exec.poststop exec.release stop.timeout".split())
# Defaults of new jails by what they are now; a name with "no" is the reverse.
_DEFAULTS = {
    "set_hostname_allowed": "allow.set_hostname",
    "socket_unixiproute_only": "allow.nosocket_af",
    "sysvipc_allowed": "allow.sysvipc",
    "allow_raw_sockets": "allow.raw_sockets",
    "chflags_allowed": "allow.chflags",
    "mount_allowed": "allow.mount",
    "mlock_allowed": "allow.mlock",
    "enforce_statfs": "enforce_statfs",
    "devfs_ruleset": "devfs_ruleset",
}
_ESCAPES = {"n": "\n", "t": "\t"}


def parameter_of(name: str) -> str:
    """The parameter, "no" included, whose default a sysctl below security.jail is; "" for none. It need not exist."""
    if name.startswith("mount_") and name.endswith("_allowed") and name != "mount_allowed":
        return f"allow.mount.{name[len('mount_') : -len('_allowed')]}"
    return _DEFAULTS.get(name, "")


def apply(params: Parameters, file: int, path: str) -> None:
    """Let a new jail have what the file says and its own parameters do not. Closes ``file``.

    Raises JailError: ``path``, line, what, why.
    """
    try:
        params.assume(parse(_read(file)))
    except JailError as error:
        raise JailError(f"{path}: {error}") from None
    finally:
        posix.close(file)


def of_old(params: Parameters, held: dict[str, str]) -> None:
    """Let a jail of the old form have what was set with sysctl(8), where its own parameters do not say: ``tunable``."""
    params.assume(of_sysctls(held))


def of_sysctls(held: dict[str, str]) -> Parameters:
    """The defaults that sysctls are: by their names below security.jail. Raises JailError: a value it cannot have."""
    defaults = Parameters()
    for sysctl, value in held.items():
        name = parameter_of(sysctl)
        if name:
            defaults.add(name, value)
    return defaults


def _read(file: int) -> str:
    status = posix.fstat(file)
    if filekind.of(status) != filekind.REGULAR:
        raise JailError("not a regular file")
    if status.st_uid != 0:
        raise JailError("does not belong to root")
    if status.st_mode & 0o022:
        raise JailError("others than root may write to it: chmod go-w")
    content = posix.read(file, _BYTES + 1)
    if len(content) > _BYTES:
        raise JailError(f"larger than {_BYTES} bytes")
    return content.decode("utf-8", "surrogateescape")


def parse(text: str) -> Parameters:
    """The defaults of such a text. Raises JailError: line, what, why."""
    defaults = Parameters()
    for number, line in enumerate(text.split("\n"), 1):
        try:
            _take(defaults, line.strip())
        except JailError as error:
            raise JailError(f"line {number}: {error}") from None
    whole = Parameters()  # some cannot be had together
    whole.assume(defaults)
    whole.settle()
    return defaults


def _take(defaults: Parameters, line: str) -> None:
    end = next((at for at, char in enumerate(line) if char in " \t=+;#"), len(line))
    given, rest = line[:end], line[end:].lstrip()
    if not given and (not rest or rest[0] == "#"):
        return
    append = rest.startswith("+=")
    if not given or (rest[:1] not in ("", "#", ";", "=") and not append):
        raise JailError(f'"{visible(line)}": not NAME = VALUE')
    bare = rest[:1] != "=" and not append
    texts = _values(given, rest[2:] if append else rest[1:]) if not bare else []
    if bare and rest[:1] == ";" and rest[1:].lstrip()[:1] not in ("", "#"):
        raise JailError(f'{visible(given)}: after ";" a line ends')
    name = _name(given)
    if name != given and not (len(texts) == 1 and texts[0].isascii() and texts[0].isdigit()):
        raise JailError(f"{visible(given)}: a number is wanted, as sysctl(8) has it")
    if bare or not append:
        defaults.add(name, None if bare or _is_list(name) else texts[0])
    for value in texts if append or _is_list(name) else texts[1:]:
        defaults.add(name, value)
    parameter = _known(name)
    check_honoured(parameter, defaults[parameter])


def _name(given: str) -> str:
    """The parameter that is meant, "no" included. Raises JailError where it can have no default here."""
    head, _, sysctl = given.rpartition(".")
    name = given
    if head in ("jail", "security.jail"):
        name = parameter_of(sysctl) or given
    parameter = _known(name) if resolve(name) else ""
    if parameter in _OF_ONE_JAIL:
        raise JailError(f"{visible(given)}: is each jail's own and has no default")
    if parameter in _OF_REMOVAL:
        raise JailError(f"{visible(given)}: is for who removes a jail to say and has no default")
    return name


def _known(name: str) -> str:
    found = resolve(name)
    if found is None:
        raise JailError(f"unknown parameter: {visible(name)}")
    return found[0].name


def _is_list(name: str) -> bool:
    found = resolve(name)
    return found is not None and found[0].kind == "list"


def _values(name: str, text: str) -> list[str]:
    """What stands after ``=``: values with commas between them, in jail.conf's quotes or none."""
    values = []
    rest = text.lstrip()
    while True:
        value, rest = _quoted(name, rest) if rest[:1] in ("'", '"') else _plain(name, rest)
        values.append(value)
        if rest[:1] != ",":
            break
        rest = rest[1:].lstrip()
    if rest[:1] == ";":
        rest = rest[1:].lstrip()
    if rest and rest[0] != "#":
        raise JailError(f"{visible(name)}: {visible(rest)}: does not belong to the value: quote it if it does")
    if len(values) > 1 and not _is_list(name):
        raise JailError(f"{visible(name)}: takes one value")
    return values


def _plain(name: str, text: str) -> tuple[str, str]:
    end = next((at for at, char in enumerate(text) if char in " \t;#,"), len(text))
    if end == 0:
        raise JailError(f"{visible(name)}: no value")
    value = text[:end]
    if any(char in value for char in "$\\'\"{}"):
        raise JailError(f"{visible(name)}: {visible(value)}: wants quotes")
    return value, text[end:].lstrip()


def _quoted(name: str, text: str) -> tuple[str, str]:
    """A value in quotes: within double ones a backslash is C's, within single ones it is for itself and the quote."""
    mark, value, at = text[0], "", 1
    while at < len(text) and text[at] != mark:
        char = text[at]
        if char == "$" and mark == '"':
            raise JailError(f"{visible(name)}: there are no variables here: write $ in single quotes")
        if char == "\\" and at + 1 < len(text) and (mark == '"' or text[at + 1] in "\\'"):
            at += 1
            char = _ESCAPES.get(text[at], text[at]) if mark == '"' else text[at]
        value += char
        at += 1
    if at >= len(text):
        raise JailError(f"{visible(name)}: no quote at its end")
    return value, text[at + 1 :].lstrip()
