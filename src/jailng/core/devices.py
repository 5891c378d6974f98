"""The host's side of a jail's /dev: its administrator's rules, the devices that it has, and its users.

Loaded only where /etc/devfs.rules exists or a parameter opens a device (core/blueprint.py).
"""

from __future__ import annotations

import posix

from jailng.core import devfs, rulesets
from jailng.errors import JailError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from jailng.core.devfs import Link, Node
    from jailng.core.rulesets import Rulesets
    from jailng.params.model import Parameters

_MOST_BYTES = 1 << 20
_MOST_DEVICES = 2048
_DEEPEST = 6
_DEV = "/dev"
_IDS = 65536
_REGULAR, _DIRECTORY, _CHARACTER, _BLOCK, _TYPE = 0o100000, 0o040000, 0o020000, 0o060000, 0o170000
# What every jail has of its own by that name.
_OWN = frozenset([*[name for name, *_ in devfs.DEVICES], *[name for name, _ in devfs.LINKS], "pts", "shm", "mqueue"])


def shown(params: Parameters, rules: int) -> tuple[list[Node], list[Link]]:
    """The nodes and links of the /dev of a jail with these parameters; closes ``rules``, /etc/devfs.rules or -1.

    Raises JailError.
    """
    number = devfs.ruleset(params)
    known = _read(rules) if rules >= 0 else rulesets.RULESETS
    opened = [name for name, parameter in devfs.GATED.items() if params.flag(parameter)]
    heads = [name for name in rulesets.named(number, known) if name not in devfs.GATED or name in opened]
    further = [node for head in heads if head not in (*_OWN, ".", "..") for node in _below(head)]
    if len(further) > _MOST_DEVICES:
        raise JailError(f"devfs ruleset {number}: names more than {_MOST_DEVICES} devices")
    return rulesets.shown(number, known, further, _id_of)


def _read(file: int) -> Rulesets:
    from jailng.conf import devfs_rules

    try:
        status = posix.fstat(file)
        if status.st_mode & _TYPE != _REGULAR:
            raise JailError(f"{devfs.RULES}: not a regular file")
        if status.st_uid != 0 or status.st_mode & 0o022:
            raise JailError(f"{devfs.RULES}: others than root may write to it: chown root, chmod go-w")
        content = posix.read(file, _MOST_BYTES + 1)
    finally:
        posix.close(file)
    if len(content) > _MOST_BYTES:
        raise JailError(f"{devfs.RULES}: larger than {_MOST_BYTES} bytes")
    try:
        return devfs_rules.parse(content.decode("utf-8", "surrogateescape"), rulesets.RULESETS, rulesets.NAMES)[0]
    except JailError as error:
        raise JailError(f"{devfs.RULES}: {error}") from None


def _below(name: str, depth: int = 0) -> Iterator[Node]:
    """The device of the host's of that name below /dev, or all those in the directory of that name; links are none."""
    try:
        status = posix.lstat(f"{_DEV}/{name}")
    except OSError:
        return
    kind = status.st_mode & _TYPE
    if kind in (_CHARACTER, _BLOCK):
        device = status.st_rdev
        ids = [number if number < _IDS else 0 for number in (status.st_uid, status.st_gid)]
        yield (name, status.st_mode & (_TYPE | 0o777), posix.major(device), posix.minor(device), ids[0], ids[1])
    elif kind == _DIRECTORY and depth < _DEEPEST:
        for entry in sorted(posix.listdir(f"{_DEV}/{name}")):
            yield from _below(f"{name}/{entry}", depth + 1)


def _id_of(kind: str, text: str) -> int:
    """The id of a user or group of the host, by name or number. Raises JailError."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        number = int(text)
    else:
        import grp
        import pwd

        try:
            number = pwd.getpwnam(text).pw_uid if kind == "user" else grp.getgrnam(text).gr_gid
        except KeyError:
            raise JailError(f"devfs: {kind} {text}: no such {kind}") from None
    if number >= _IDS:
        raise JailError(f"devfs: {kind} {text}: a jail has no {'uid' if kind == 'user' else 'gid'} {number}")
    return number
