"""``jailctl import``: a root for a jail made of a tar archive, by a process that can reach nothing but that root."""

from __future__ import annotations

import bz2
import getopt
import gzip
import lzma
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from jailng.core import hostpath
from jailng.ctl import carrier, hostfile, place, sizes, stanza
from jailng.ctl.tarin import Manner, Writer
from jailng.ctl.told import Limits, Told
from jailng.errors import JailError, UsageError
from jailng.linux import mount, mountfd, ns
from jailng.params.values import visible

USAGE = """\
usage: jailctl import [--jail name [--address address,...] [--hostname name]]
                      [--max-files number] [--max-size bytes] [--strip number]
                      archive | - path"""
_OPTIONS = ["jail=", "address=", "hostname=", "strip=", *sizes.OPTIONS]
_ZSTD = b"\x28\xb5\x2f\xfd"
_NOBODY = 65534


@dataclass
class Wanted:
    """The command line."""

    archive: str
    path: Path
    jail: str = ""
    hostname: str = ""
    addresses: list[str] = field(default_factory=list)
    strip: int = 0
    limits: Limits = field(default_factory=Limits)


def parse(argv: list[str]) -> Wanted:
    """The words after the verb. Raises UsageError, JailError."""
    try:
        options, words = getopt.gnu_getopt(argv, "", _OPTIONS)
    except getopt.GetoptError as error:
        raise UsageError(f"jailctl: import: {error.msg}\n{USAGE}") from None
    if len(words) != 2 or not all(words):
        raise UsageError(USAGE)
    if "\n" in words[1]:
        raise JailError(f"import: {words[1]}: a path with a line break in it")
    wanted = Wanted(words[0], Path(os.path.abspath(words[1])))
    for option, value in options:
        if not sizes.take("import", wanted.limits, option, value):
            _take(wanted, option, value)
    for option, given in (("--address", wanted.addresses), ("--hostname", wanted.hostname)):
        if given and not wanted.jail:
            raise UsageError(f"jailctl: import: {option} is for a jail's stanza, so it needs --jail\n{USAGE}")
    return wanted


def _take(wanted: Wanted, option: str, value: str) -> None:
    match option:
        case "--jail":
            wanted.jail = stanza.check_name(value, "import")
        case "--address":
            wanted.addresses += stanza.check_addresses(value, "import")
        case "--hostname":
            wanted.hostname = stanza.check_hostname(value, "import")
        case _:
            if not (value.isascii() and value.isdigit() and len(value) < 3):
                raise JailError(f"import: --strip {value}: not a number of components")
            wanted.strip = int(value)


def main(argv: list[str]) -> int:
    """Run it: 0 when the root is there. Raises UsageError, JailError, OSError."""
    wanted = parse(argv)
    if os.geteuid() != 0 or ns.is_jailed():
        raise JailError("import: only the host's root can")
    if wanted.jail:
        stanza.check_free(wanted.jail, "import")
    source = 0 if wanted.archive == "-" else _opened(wanted.archive)
    with place.taken(wanted.path, "import"):
        return _make(wanted, source)


def _opened(path: str) -> int:
    """The archive. A pipe of the host's may be waited for, and in a jail's tree there is none. Raises JailError."""
    source = hostfile.opened(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(source).st_mode):
        owner = hostpath.owner(path)
        if owner:
            raise JailError(f"import: {visible(path)}: in the tree of jail {visible(owner)}, and no file")
        hostpath.wait_for(source)
    return source


def _make(wanted: Wanted, source: int) -> int:
    written: Path | None = None
    partial = place.partial(wanted.path)
    with place.alone(wanted.path, "import", lambda: _remove(partial)):
        partial.mkdir(mode=0o700)
        top = os.open(partial, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            one = _unpack(wanted, source, top)
            if not os.listdir(partial):
                raise JailError(f"import: {wanted.archive}: nothing in it")
            booted = _has(top, b"etc/rc")
        finally:
            os.close(top)
        if partial.stat().st_mode & 0o777 == 0o700:
            partial.chmod(0o755)  # the archive says nothing of its root; what is above keeps others out
        os.sync()  # which may take its time: killed then, there is no stanza of a jail without a root
        if wanted.jail:
            names = (wanted.jail, str(wanted.path), wanted.hostname or wanted.jail, wanted.addresses)
            written = stanza.write(
                wanted.jail, stanza.text(*names, verb="import", booted=booted), stanza.DIRECTORY, "import"
            )
        try:
            partial.rename(wanted.path)
        except BaseException:
            if written is not None:
                written.unlink(missing_ok=True)
            raise
    status = carrier.report("import", [one])
    if written is not None:
        print(f"{written}: jail {wanted.jail}", file=sys.stderr)
    return status


def _remove(partial: Path) -> None:
    if os.path.lexists(partial):
        if os.path.ismount(partial) or partial.is_symlink():
            raise JailError(f"import: {partial}: is there already")
        # It may be deeper than a process can have directories open.
        subprocess.run(["rm", "-rf", "--one-file-system", "--", str(partial)], capture_output=True)
        if os.path.lexists(partial):
            raise JailError(f"import: {partial}: cannot be removed")


def _unpack(wanted: Wanted, source: int, top: int) -> carrier.Carrier:
    manner = Manner(strip=wanted.strip, whole=not wanted.strip, owners=True, special=True, fifos=True, attributes=True)
    first = os.read(source, carrier.BUFFER)
    stream, to = carrier.pipe()
    zstd = _zstd(stream) if first.startswith(_ZSTD) else None
    if zstd is not None:
        assert zstd.stdout is not None
        os.dup2(zstd.stdout.fileno(), stream, inheritable=False)
        zstd.stdout.close()

    def run(told: Told) -> None:
        try:
            with os.fdopen(stream, "rb", carrier.BUFFER) as packed, _unpacked(packed, first) as whole:
                Writer(top, manner, wanted.limits, told).write(whole)
        except (zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise tarfile.ReadError(str(error)) from None
        except OSError as error:
            if error.errno is None:  # bz2's
                raise tarfile.ReadError(str(error)) from None
            raise

    one = carrier.on_host(wanted.archive, run, (stream, top), top)
    os.close(stream)
    carrier.Pump(source, to, outside_is_source=True, first=first).start()
    try:
        carrier.wait([one])
        if zstd is not None and zstd.wait():
            raise JailError(f"{wanted.archive}: not a whole archive: zstd says so")
    except JailError as error:
        raise JailError(f"import: {error}") from None
    finally:
        if zstd is not None:
            zstd.kill()
            zstd.wait()
    return one


def _unpacked(stream: BinaryIO, first: bytes) -> BinaryIO:
    """What an archive is in its wrapping, whose check sums count: tarfile's own way with a stream passes them over."""
    if first.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    if first.startswith(b"BZh"):
        return cast(BinaryIO, bz2.BZ2File(stream))
    if first.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
        return cast(BinaryIO, lzma.LZMAFile(stream))
    return stream


def _zstd(source: int) -> subprocess.Popen[bytes]:
    """What unpacks zstd, which tarfile learns with Python 3.14; as nobody, and with so much memory and no more."""
    if not shutil.which("zstd"):
        raise JailError("import: zstd: not installed: apt-get install zstd")
    return subprocess.Popen(
        ["zstd", "-dcq"], stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/",
        user=_NOBODY, group=_NOBODY, extra_groups=[], env={"PATH": "/usr/bin:/bin"},
        preexec_fn=carrier.take_little,
    )  # fmt: skip


def _has(top: int, path: bytes) -> bool:
    try:
        os.close(mountfd.openat2(top, path, os.O_PATH | os.O_NOFOLLOW, mount.IN_ROOT))
    except OSError:
        return False
    return True
