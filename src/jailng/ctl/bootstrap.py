"""jailctl bootstrap: a Debian root that boots as the article's jail does, the ``make world`` of a Linux host."""

from __future__ import annotations

import getopt
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from jailng.ctl import place, recipe, roots, stanza, userland
from jailng.ctl.progress import Progress
from jailng.errors import JailError, UsageError

USAGE = """\
usage: jailctl bootstrap path [--suite suite] [--include package,...]
                         [--jail name [--address address,...]] [--hostname name]
                         [--cache directory | --no-cache]"""
_OPTIONS = ["suite=", "include=", "jail=", "address=", "hostname=", "cache=", "no-cache"]


@dataclass
class Wanted:
    """The command line."""

    path: Path
    suite: str = ""
    include: list[str] = field(default_factory=list)
    jail: str = ""
    addresses: list[str] = field(default_factory=list)
    hostname: str = ""
    cache: Path = roots.CACHE
    keep: bool = True


def parse(argv: list[str]) -> Wanted:
    """The words after the verb. Raises UsageError, or JailError for a value that cannot be."""
    try:
        options, words = getopt.gnu_getopt(argv, "", _OPTIONS)
    except getopt.GetoptError as error:
        raise UsageError(f"jailctl: bootstrap: {error.msg}\n{USAGE}") from None
    if len(words) != 1 or not words[0]:
        raise UsageError(USAGE)
    if "\n" in words[0]:
        raise JailError(f"bootstrap: {words[0]}: a path with a line break in it")
    wanted = Wanted(Path(os.path.abspath(words[0])))
    for option, value in options:
        _take(wanted, option, value)
    if wanted.addresses and not wanted.jail:
        raise UsageError(f"jailctl: bootstrap: --address is for a jail's stanza, so it needs --jail\n{USAGE}")
    return wanted


def _take(wanted: Wanted, option: str, value: str) -> None:
    match option:
        case "--suite":
            wanted.suite = recipe.check_suite(value)
        case "--include":
            wanted.include.append(value)
        case "--jail":
            wanted.jail = stanza.check_name(value)
        case "--address":
            wanted.addresses += stanza.check_addresses(value)
        case "--hostname":
            wanted.hostname = stanza.check_hostname(value)
        case "--cache":
            wanted.cache = Path(os.path.abspath(value))
        case "--no-cache":
            wanted.keep = False


def main(argv: list[str]) -> int:
    """Run it: 0 when the root is there. Raises UsageError, JailError, OSError."""
    wanted = parse(argv)
    packages = recipe.packages(wanted.include)
    roots.check_tools()
    host = recipe.host_suite()
    suite = wanted.suite or host
    made = recipe.Recipe(suite, recipe.architecture(), packages, recipe.host_sources(suite, host))
    if wanted.jail:
        stanza.check_free(wanted.jail)
    with place.taken(wanted.path, "bootstrap"):
        _make(wanted, made)
    return 0


def _make(wanted: Wanted, made: recipe.Recipe) -> None:
    started = time.monotonic()
    progress = Progress()
    hostname = wanted.hostname or wanted.jail
    root = roots.Root(wanted.path, made, wanted.cache, wanted.keep, progress)
    written: Path | None = None
    try:
        with root.making():
            whence = root.fill()
            progress.writing()
            userland.install(root.partial, hostname, _sources(root))
            os.sync()  # which may take its time: killed then, there is no stanza of a jail without a root
            if wanted.jail:
                content = stanza.text(wanted.jail, str(wanted.path), hostname, wanted.addresses)
                written = stanza.write(wanted.jail, content, stanza.DIRECTORY)
            root.finish()
    except BaseException:
        progress.close("")
        if written and not wanted.path.exists():
            written.unlink(missing_ok=True)
        raise
    seconds = time.monotonic() - started
    progress.close(f"{wanted.path}: Debian {made.suite}, {len(root.installed())} packages, {whence}, {seconds:.0f} s")
    if written:
        progress.close(f"{written}: jail {wanted.jail}")


def _sources(root: roots.Root) -> str:
    """The root's own sources.list(5): the host's, and the sources of the packages, which a jail may want to build."""
    entries = []
    for source in root.recipe.sources:
        here = source if userland.has_key(root.partial, source.signed_by) else replace(source, signed_by="")
        entries.append(here.text("deb deb-src"))
    return "\n".join(entries)
