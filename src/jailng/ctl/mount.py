"""mount(8) with FreeBSD's types: ``mount -t nullfs`` and its like, as jail.conf(5) has them in exec.prestart.

What it mounts the host's own mount(8) mounts, by Linux's words. All else is that one's, as it stands.
"""

from __future__ import annotations

import getopt
import os
import subprocess
import sys
from pathlib import Path

from jailng.conf import fstab
from jailng.core import filesystem, rootfs
from jailng.errors import JailError, UsageError
from jailng.params.values import visible

USAGE = """usage: mount -t type [-rvw] [-o options] special node
       mount -a -F fstab [-v]"""
_NULLFS = "usage: mount_nullfs [-o options] target mount-point"
# What of FreeBSD's Linux has in another way, and why it is not mounted by this.
_REFUSED = {
    "devfs": "a jail has a /dev of its own: mount.devfs, devfs_ruleset",
    "fdescfs": "it is in the /dev that a jail has of its own: mount.fdescfs",
    "procfs": "a jail has a /proc of its own: mount.procfs",
    "linprocfs": "a jail has a /proc of its own: mount.procfs",
    "linsysfs": "only a jail has it: mount, mount.fstab",
    "unionfs": "it takes a directory more than is said here: mount, mount.fstab",
}
_OURS = {"nullfs", "msdosfs", "cd9660", "ext2fs", *_REFUSED}
_WORDS = {"rdonly": "ro", "nosymlinks": "nosymfollow"}
# Of FreeBSD's words those that say when, or how nullfs(4) keeps names: there is nothing to be done.
_IDLE = frozenset("late failok auto noauto cache nocache userquota groupquota".split())


def answer(argv: list[str], real: str | None) -> int:
    """Become ``real``, the host's mount. Raises JailError, and UsageError for what is that one's own to answer."""
    if real is not None and (file := _file(argv)):
        return _all(*file, real)
    kind = _kind(argv)
    if kind not in _OURS or real is None:
        raise UsageError(USAGE)
    if kind in _REFUSED:
        raise JailError(f"{kind}: not mounted on the host: {_REFUSED[kind]}")
    options, words = _parsed(argv, "t:o:rvw", USAGE)
    flags = [option for option, _ in options if option in ("-r", "-v", "-w")]
    become(real, kind, ",".join([value for option, value in options if option == "-o"]), flags, words)
    return 0


def nullfs(argv: list[str], real: str | None) -> int:
    """``mount_nullfs``; ``real`` is the host's mount. Raises JailError."""
    options, words = _parsed(argv, "o:", _NULLFS)
    if real is None:
        raise JailError("the host's own mount is not to be found in PATH")
    become(real, "nullfs", ",".join([value for _, value in options]), [], words)
    return 0


def become(real: str, kind: str, options: str, flags: list[str], words: list[str]) -> None:
    """Execute the host's mount for a type."""
    os.execv(real, command(kind, options, flags, words))


def command(kind: str, options: str, flags: list[str], words: list[str]) -> list[str]:
    """How the host's mount mounts what is of a type, FreeBSD's or another."""
    known = [_WORDS.get(word, word) for word in options.split(",") if word and word not in _IDLE]
    # A bind mount of one that is shared would be a peer: what is mounted below the one appears below the other.
    how = ["--bind", "--make-private"] if kind == "nullfs" else ["-t", filesystem.LINUX.get(kind, kind)]
    chosen = ["-o", ",".join(known)] if known else []
    return ["mount", *flags, *how, *chosen, "--", *words]


def _file(argv: list[str]) -> tuple[str, list[str]] | None:
    """The file of ``-a -F FILE``, and flags. The host's own has a -F without a file, and -a takes no operands there."""
    try:
        options, words = getopt.getopt(argv, "aF:fv")
    except getopt.GetoptError:
        return None
    given = dict(options)
    file = given.get("-F", "")
    if words or "-a" not in given or not file or file.startswith("-"):
        return None
    return file, ["-v"] if "-v" in given else []


def _all(file: str, flags: list[str], real: str) -> int:
    """Mount what the file names and is not there yet, in its order; 1 if one is not. Raises OSError."""
    status = 0
    for entry in fstab.parse(Path(file).read_text(encoding="utf-8", errors="surrogateescape")):
        if "noauto" in entry.options or entry.kind == "swap" or is_mounted(entry.target):
            continue
        if entry.kind in _REFUSED:
            why = f"{entry.kind}: not mounted on the host: {_REFUSED[entry.kind]}"
            print(f"mount: {visible(entry.target)}: {why}", file=sys.stderr)
            status = 1
            continue
        argv = command(entry.kind, ",".join(entry.options), flags, [entry.device, entry.target])
        status |= int(subprocess.run(argv, executable=real, check=False).returncode != 0)
    return status


def is_mounted(target: str) -> bool:
    """Whether something is mounted there."""
    place = os.fsencode(os.path.realpath(target))
    return any(rootfs.unescape(fields[4]) == place for fields in rootfs.mounts())


def _kind(argv: list[str]) -> str:
    """The type that is asked for, whatever else is there."""
    words = iter(argv)
    for word in words:
        if word.startswith("-t"):
            return word[2:] or next(words, "")
        if word in ("-o", "-F"):
            next(words, "")
    return ""


def _parsed(argv: list[str], letters: str, usage: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Options, and the two that are none. Raises JailError: to the host's own -f, say, is something else."""
    try:
        options, words = getopt.getopt(argv, letters)
    except getopt.GetoptError as error:
        raise JailError(f"{visible(error.msg)}\n{usage}") from None
    if len(words) != 2:
        raise JailError(usage)
    return options, words
