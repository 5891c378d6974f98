"""rc.subr(8): what scripts of rc.d have in common, in its words. Settings are in /etc/default/jail (rcconf.py)."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from jailng.ctl import rcconf
from jailng.ctl.rcconf import Settings
from jailng.errors import UsageError
from jailng.params.values import visible

_PREFIXES = ("fast", "force", "one", "quiet")
NOT_RUNNING = 3  # Linux Standard Base, init script actions: what `status` exits with
# What each script has beside its own, in the order in which rc.subr's usage has them.
COMMON = ("rcvar", "enable", "disable", "enabled", "describe", "extracommands")


def usage(script: str, directives: Iterable[str]) -> str:
    """What is said to whoever asks for something else."""
    return f"Usage: {script} [{'|'.join(_PREFIXES)}]({'|'.join(directives)})"


def parted(word: str, script: str, directives: Iterable[str]) -> tuple[str, str]:
    """What stands before a directive, and the directive. Debian's policy knows force-reload, which is a restart.

    Raises UsageError.
    """
    prefix = "" if word == "force-reload" else next((prefix for prefix in _PREFIXES if word.startswith(prefix)), "")
    directive = "restart" if word == "force-reload" else word.removeprefix(prefix)
    if not directive:
        raise UsageError(usage(script, directives))
    if directive not in directives:
        raise UsageError(f"{script}: unknown directive '{visible(directive)}'.\n{usage(script, directives)}")
    return prefix, directive


def forbidden(name: str, prefix: str, directive: str, settings: Settings) -> bool:
    """Whether NAME_enable says no, and nobody says that it does not matter; it is told, unless that was not wanted."""
    if prefix in ("force", "one"):
        settings.set_here(f"{name}_enable", "YES")
    if settings.yes(f"{name}_enable"):
        return False
    if prefix not in ("fast", "quiet"):
        tell(
            f"Cannot '{directive}' {name}. Set {name}_enable to YES in {rcconf.FILE} or use 'one{directive}' "
            f"instead of '{directive}'.\n"
        )
    return True


def common(name: str, what: str, extra: str, directive: str, settings: Settings) -> int:
    """One of ``COMMON``, of the script ``name``, which is there for ``what`` and has ``extra`` commands."""
    if directive == "rcvar":
        value, default = visible(settings.text(f"{name}_enable")), Settings({}).text(f"{name}_enable")
        tell(f'# {name} : {what}\n#\n{name}_enable="{value}"\n#   (default: "{default}")\n\n')
    elif directive == "enabled":
        return int(not settings.yes(f"{name}_enable"))
    elif directive == "describe":
        tell(f"{what}\n")
    elif directive == "extracommands":
        tell(f"{extra}\n")
    else:
        rcconf.write(f"{name}_enable", "YES" if directive == "enable" else "NO")
        tell(f"{name} {directive}d in {rcconf.FILE}\n")
    return 0


def tell(text: str) -> None:
    """Write to standard output, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
