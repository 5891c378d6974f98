"""A jail's stanza for /etc/jail.conf.d: jail.conf(5), so that `service jail start NAME` finds it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from jailng.errors import JailError
from jailng.params.address import addresses

DIRECTORY = Path("/etc/jail.conf.d")
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOSTNAME = re.compile(rf"(?=.{{1,64}}$){_LABEL}(\.{_LABEL})*")


def check_name(name: str, verb: str = "bootstrap") -> str:
    """A name that a jail may have, which is also that of its file. Raises JailError."""
    # jail(8): no dots but between parents, not a number, nothing that a shell or a path would take for its own.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
        raise JailError(f"{verb}: --jail {name}: not a name for a jail and its file: letters, digits, _ and -")
    return name


def check_free(name: str, verb: str = "bootstrap") -> None:
    """Raises JailError where a jail of that name has a file already."""
    if (DIRECTORY / f"{name}.conf").exists():
        raise JailError(f"{verb}: {DIRECTORY / name}.conf: File exists")


def check_hostname(name: str, verb: str = "bootstrap") -> str:
    """A host name. Raises JailError."""
    if not _HOSTNAME.fullmatch(name):
        raise JailError(f"{verb}: --hostname {name}: not a host name")
    return name


def check_addresses(text: str, verb: str = "bootstrap") -> list[str]:
    """IPv4 and IPv6 addresses, with commas between them, as ip4.addr and ip6.addr take them. Raises JailError."""
    found = []
    for word in text.split(","):
        family = "ip6" if word.count(":") > 1 else "ip4"
        try:
            addresses(family, f"{family}.addr", word)
        except JailError as error:
            raise JailError(f"{verb}: --address {word}: {error}") from None
        if not word:
            raise JailError(f"{verb}: --address {text}: an address is missing")
        found.append(word)
    return found


def text(
    name: str, path: str, hostname: str, addresses: list[str], verb: str = "bootstrap", booted: bool = True
) -> str:
    """The stanza; ``booted``: its root has an /etc/rc. One that has none persists, and runs what is started in it."""
    ip4 = [word for word in addresses if word.count(":") <= 1]
    ip6 = [word for word in addresses if word.count(":") > 1]
    rows = [("path", quoted(path)), ("host.hostname", quoted(hostname))]
    rows += [
        (f"{family}.addr", ", ".join(map(quoted, words))) for family, words in (("ip4", ip4), ("ip6", ip6)) if words
    ]
    if booted:
        rows += [("exec.start", '"/bin/sh /etc/rc"'), ("exec.stop", '"/bin/sh /etc/rc.shutdown"')]
    flags = ["\texec.clean;", "\tmount.devfs;", *([] if booted else ["\tpersist;"])]
    lines = [f"\t{name} = {value};" for name, value in rows] + flags
    return f"# Made by jailctl {verb}.\n{name} {{\n" + "\n".join(lines) + "\n}\n"


def quoted(word: str) -> str:
    """A word as jail.conf(5) reads it back: in double quotes, where a backslash and a dollar sign mean something."""
    return '"' + re.sub(r'(["\\$])', r"\\\1", word) + '"'


def write(name: str, content: str, directory: Path, verb: str = "bootstrap") -> Path:
    """Put it there, whole or not at all, and leave alone what is there already. Raises JailError."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    place = directory / f"{name}.conf"
    new = directory / f".{name}.conf.{os.getpid()}"
    try:
        with open(new, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(new, place)
    except FileExistsError:
        raise JailError(f"{verb}: {place}: File exists") from None
    finally:
        new.unlink(missing_ok=True)
    return place
