"""``jailctl export``: the tree of a jail, or of a root that none runs in, as a tar archive."""

from __future__ import annotations

import getopt
import os
import sys

from jailng.core import image, registry
from jailng.ctl import carrier, hostfile, place, sizes
from jailng.ctl.carrier import Carrier, Pump
from jailng.ctl.tarout import Reader, Wanted
from jailng.ctl.told import Limits, Told
from jailng.errors import JailError, UsageError
from jailng.linux import mountfd, ns
from jailng.params.values import visible

USAGE = "usage: jailctl export [--max-files number] [--max-size bytes] [-o file] jail | path"
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def main(argv: list[str]) -> int:
    """Write it: 0, or 1 where a file was left behind. Raises UsageError, JailError, OSError."""
    try:
        options, words = getopt.getopt(argv, "o:", sizes.OPTIONS)
    except getopt.GetoptError as error:
        raise UsageError(f"jailctl: export: {error.msg}\n{USAGE}") from None
    if len(words) != 1 or not words[0]:
        raise UsageError(USAGE)
    limits, output = Limits(files=0, size=0), "-"
    for option, value in options:
        if not sizes.take("export", limits, option, value):
            output = value
    if os.geteuid() != 0 or ns.is_jailed():
        raise JailError("export: only the host's root can")
    if output == "-":
        if sys.stdout.isatty():
            raise JailError("export: an archive is not for a terminal")
        return _export(words[0], limits, 1)
    above, _, name = output.rpartition("/")
    there = hostfile.opened(above or ("/" if output.startswith("/") else "."), _DIRECTORY)
    try:
        return _export_into(words[0], limits, there, name)
    finally:
        os.close(there)


def _export_into(word: str, limits: Limits, there: int, name: str) -> int:
    place.heed_signals()
    new = f"{name}.{os.getpid()}"
    to = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=there)
    try:
        status = _export(word, limits, to)
        os.rename(new, name, src_dir_fd=there, dst_dir_fd=there)
    except BaseException:
        os.unlink(new, dir_fd=there)
        raise
    finally:
        os.close(to)
    return status


def _export(word: str, limits: Limits, to: int) -> int:
    source, end = carrier.pipe()
    carriers: list[Carrier] = []
    try:
        carriers.append(_reader(word, limits, end))
    finally:
        os.close(end)
    pump = Pump(source, to, outside_is_source=False)
    pump.start()
    carrier.wait_out(carriers, pump, "export")
    return carrier.report("export", carriers)


def _reader(word: str, limits: Limits, to: int) -> Carrier:
    def read(top: int, told: Told) -> None:
        with os.fdopen(to, "wb", carrier.BUFFER) as stream:
            reader = Reader(stream, limits, told)
            reader.read(Wanted(top, ".", fifos=True, attributes=True, one=True))
            reader.end()

    if "/" in word:
        top = hostfile.opened(word, _DIRECTORY)
        try:
            _check_image(top)
            return carrier.on_host("host", lambda told: read(top, told), (to, top), top)
        finally:
            os.close(top)
    record = registry.find(word)
    if record is None:
        raise JailError(f'export: "{visible(word)}" not found (a root of such a name is ./{visible(word)})')
    return carrier.in_jail(record, lambda told: read(os.open("/", _DIRECTORY), told), (to,))


def _check_image(top: int) -> None:
    """Refuse a directory with an image of ng.quota that is not mounted: in it is what was there before the image was.

    Raises JailError.
    """
    path = os.readlink(f"/proc/self/fd/{top}")
    file = image.file_of(path)
    try:
        fd = os.open(file, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        mounted = mountfd.mount_id(fd) != mountfd.mount_id(top)
    finally:
        os.close(fd)
    if not mounted:
        why = f"its files are in {visible(file)}, which is mounted while the jail runs"
        raise JailError(f"export: {visible(path)}: {why}: start that, or mount -o loop,ro {visible(file)} /mnt")
