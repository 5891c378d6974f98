"""What rc.conf(5) says of jails, of ipnat and of rctl: /etc/default/jail, a script of sh(1), as /etc/rc.conf is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from jailng.errors import JailError
from jailng.params.values import visible

FILE = Path("/etc/default/jail")
# By this name its messages speak of it, as those of FreeBSD's do of /etc/rc.d/jail.
SCRIPT = "/etc/init.d/jail"
# FreeBSD: /etc/defaults/rc.conf, and rc.d/jail for jail_consolecmd.
_DEFAULTS = {
    "jail_enable": "NO",
    "jail_conf": "/etc/jail.conf",
    "jail_confwarn": "YES",
    "jail_parallel_start": "NO",
    "jail_reverse_stop": "NO",
    "jail_consolecmd": "/usr/bin/login -f root",
    "ipnat_enable": "NO",
    "ipnat_rules": "/etc/ipnat.rules",
    "rctl_enable": "YES",
    "rctl_rules": "/etc/rctl.conf",
}
_YES = ("yes", "true", "on", "1")
_NO = ("no", "false", "off", "0")


class Settings:
    """The variables whose names begin with ``jail_``, ``ipnat_`` or ``rctl_``, and PATH."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    def text(self, *names: str) -> str:
        """The first of these variables that is not empty, or its default; else the empty string."""
        for name in names:
            if found := self._values.get(name) or _DEFAULTS.get(name, ""):
                return found
        return ""

    def words(self, *names: str) -> list[str]:
        """The same, as sh(1) splits it where it stands without quotes."""
        return self.text(*names).split()

    def yes(self, name: str) -> bool:
        """rc.subr(8), checkyesno: whether it is set to YES. What is neither that nor NO is warned of, and no."""
        return is_yes(name, self.text(name))

    def set_here(self, name: str, value: str) -> None:
        """Have another value for as long as this process lives."""
        self._values[name] = value


def is_yes(name: str, value: str) -> bool:
    """rc.subr(8), checkyesno, of a value that the variable ``name`` is said to have."""
    if value.lower() not in _YES + _NO:
        warn(f"${name} is not set properly - see rc.conf(5).")
    return value.lower() in _YES


def warn(text: str) -> None:
    """rc.subr(8), warn: a line on standard error."""
    print(f"{SCRIPT}: WARNING: {visible(text)}", file=sys.stderr)


def read(file: Path | None = None) -> Settings:
    """What the file sets; where there is none, the defaults. Raises JailError with what sh(1) has against it."""
    file = file or FILE
    if not file.exists():
        return Settings({})
    argv = ["/bin/sh", "-c", 'set -a; . "$1" >&2 && exec env -0', "sh", str(file)]
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env=environment, check=False)
    if done.returncode:
        said = done.stderr.decode("utf-8", "surrogateescape").strip().splitlines()
        raise JailError(f"{file}: {said[-1] if said else f'exit status {done.returncode}'}")
    pairs = (line.partition("=") for line in done.stdout.decode("utf-8", "surrogateescape").split("\0"))
    ours = ("jail_", "ipnat_", "rctl_", "PATH")
    return Settings({name: value for name, _, value in pairs if name.startswith(ours)})


def write(name: str, value: str | None) -> None:
    """sysrc(8): set a variable in the file, or with None take it out; the rest of the file stays. Raises OSError."""
    lines = FILE.read_text().splitlines(keepends=True) if FILE.exists() else []
    ours = [at for at, line in enumerate(lines) if re.match(rf"\s*{name}=", line)]
    kept = [line for at, line in enumerate(lines) if at not in ours]
    if value is not None:
        if kept and not kept[-1].endswith("\n"):
            kept[-1] += "\n"
        kept.insert(ours[0] if ours else len(kept), f'{name}="{value}"\n')
    new = FILE.with_name(f".{FILE.name}.{os.getpid()}")
    new.touch(0o644)  # whatever the umask: root executes it
    if FILE.exists():
        new.chmod(FILE.stat().st_mode & 0o7777)
    new.write_text("".join(kept))
    new.replace(FILE)
