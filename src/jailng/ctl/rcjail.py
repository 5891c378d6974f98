"""A jail as rc.d/jail knows it: by its name, which names variables of rc.conf(5) and files too."""

from __future__ import annotations

import os
import re
from pathlib import Path

from jailng.ctl import rcconf
from jailng.ctl.rcconf import Settings
from jailng.ctl.rcobsolete import Obsolete, is_one

RUN = Path("/run")
ETC = Path("/etc")


def name_of(word: str) -> str:
    """The jail's name, for a word on the command line."""
    return re.sub(r"[/.]", "_", word)


def variable_of(word: str) -> str:
    """The name as a part of a variable's."""
    return re.sub(r"[^A-Za-z0-9]", "_", word)


class Target:
    """A jail that is asked for by name; ``file`` is where jail(8) finds it, or None, of which was warned then.

    One that is ``obsolete`` has its parameters in variables, and the file is made of them. ``title`` is what it is
    called in messages.
    """

    def __init__(self, settings: Settings, word: str) -> None:
        self.name = name_of(word)
        self.title = self.name
        variable = variable_of(self.name)
        self.flags = settings.words(f"jail_{variable}_flags", "jail_flags")
        self.obsolete = is_one(settings, variable)
        if self.obsolete:
            self.title = settings.text(f"jail_{variable}_hostname")
        self.file = own_file(settings, self.name) or _readable(Path(settings.text("jail_conf")))
        if self.file is None:
            rcconf.warn(
                f"Invalid configuration for {self.name}  (no jail.conf, no hostname, or no path).   "
                f"Jail {self.name} was ignored."
            )
            return
        others = (Path(settings.text("jail_conf")), _named(settings, self.name))
        if self.obsolete and any(map(_readable, others)) and not settings.yes("jail_parallel_start"):
            rcconf.warn(f"{self.file} is created and used for jail {self.name}.")


def own_file(settings: Settings, name: str) -> Path | None:
    """The file for jail(8) that is this jail's alone, if it has one: rc.d/jail, parse_options. Raises OSError."""
    if is_one(settings, variable_of(name)):
        return Obsolete(settings, name, variable_of(name)).write(RUN)
    if found := _readable(_named(settings, name)):
        return found
    found = _readable(ETC / "jail.conf.d" / f"{name}.conf")
    return None if found and _includes(Path(settings.text("jail_conf")), found.parent) else found


def _named(settings: Settings, name: str) -> Path:
    return Path(settings.text(f"jail_{variable_of(name)}_conf") or ETC / f"jail.{name}.conf")


def _readable(file: Path) -> Path | None:
    return file if os.access(file, os.R_OK) else None


def _includes(file: Path, directory: Path) -> bool:
    try:
        text = file.read_text(errors="surrogateescape")
    except OSError:
        return False
    words = re.findall(r"^\s*\.include\s*[\"']?([^\"';\s]+)", text, re.MULTILINE)
    return any(os.path.normpath(file.parent / word).startswith(f"{directory}/") for word in words)
