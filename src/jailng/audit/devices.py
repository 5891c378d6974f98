"""Devices, and what a terminal can be made to do."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from functools import partial

from .probe import ESCAPED, EXPOSED, HELD, SEEN, Facts, Verdict, call, found, opens, probe, tried, why

_BLOCK, _CHARACTER = 0o060000, 0o020000
_NODES = {
    "mem": (_CHARACTER, 1, 1),
    "port": (_CHARACTER, 1, 4),
    "kmsg": (_CHARACTER, 1, 11),
    "null": (_CHARACTER, 1, 3),
    "zero": (_CHARACTER, 1, 5),
    "tty0": (_CHARACTER, 4, 0),
    "ttyS0": (_CHARACTER, 4, 64),
    "console": (_CHARACTER, 5, 1),
    "ptmx": (_CHARACTER, 5, 2),
    "vcs": (_CHARACTER, 7, 0),
    "input event0": (_CHARACTER, 13, 64),
    "sg0": (_CHARACTER, 21, 0),
    "fb0": (_CHARACTER, 29, 0),
    "misc nvram": (_CHARACTER, 10, 144),
    "misc hwrng": (_CHARACTER, 10, 183),
    "misc tun": (_CHARACTER, 10, 200),
    "misc vhost-net": (_CHARACTER, 10, 238),
    "misc vhost-vsock": (_CHARACTER, 10, 241),
    "misc fuse": (_CHARACTER, 10, 229),
    "misc kvm": (_CHARACTER, 10, 232),
    "misc btrfs-control": (_CHARACTER, 10, 234),
    "misc loop-control": (_CHARACTER, 10, 237),
    "misc autofs": (_CHARACTER, 10, 235),
    "misc userfaultfd": (_CHARACTER, 10, 126),
    "misc uinput": (_CHARACTER, 10, 223),
    "misc rfkill": (_CHARACTER, 10, 242),
    "misc device-mapper": (_CHARACTER, 10, 236),
    "cpu msr": (_CHARACTER, 202, 0),
    "cpu cpuid": (_CHARACTER, 203, 0),
    "dri card0": (_CHARACTER, 226, 0),
    "loop0": (_BLOCK, 7, 0),
    "ram0": (_BLOCK, 1, 0),
    "sda": (_BLOCK, 8, 0),
    "vda": (_BLOCK, 254, 0),
    "nvme": (_BLOCK, 259, 0),
    "dm-0": (_BLOCK, 253, 0),
}
# Those that are opened where they can be made. To open others wakes hardware or has the kernel load a driver.
_QUIET = frozenset(["mem", "kmsg", "null", "zero", "the host's disk"])
# All that ruleset 4 and design.md give a jail.
_EXPECTED = frozenset(
    "null zero full random urandom tty fd stdin stdout stderr ptmx pts shm mqueue console log .jailng".split()
)


def _node(name: str, kind: int, major: int, minor: int, facts: Facts) -> Verdict:
    try:
        os.mknod("node", kind | 0o600, os.makedev(major, minor))
    except OSError as error:
        return HELD, f"mknod: {why(error)}"
    try:
        return _reach(name)
    finally:
        os.unlink("node")


def _reach(name: str) -> Verdict:
    """On a file system without devices a node is a name and no more."""
    if os.statvfs("node").f_flag & os.ST_NODEV:
        return HELD, "made, on a file system without devices"
    if name not in _QUIET:
        verdict, line = opens("node")
        return (EXPOSED if verdict == HELD else verdict), f"made; {line}"
    try:
        os.close(os.open("node", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError as error:
        return EXPOSED, f"made; open: {why(error)}"
    return ESCAPED, "made and opened"


for _name, (_kind, _major, _minor) in _NODES.items():
    probe(f"devices: mknod {_name}", light=True)(partial(_node, _name, _kind, _major, _minor))


@probe("devices: mknod the host's disk")
def _disk(facts: Facts) -> Verdict:
    device = int(facts["disk"])
    return _node("the host's disk", _BLOCK, os.major(device), os.minor(device), facts)


def _node_in(directory: str, facts: Facts) -> Verdict:
    path = f"{directory}/attempt"
    verdict = tried(lambda: os.mknod(path, _CHARACTER | 0o600, os.makedev(1, 11)))
    if verdict[0] != HELD:
        os.unlink(path)
    return verdict


for _name in ("/dev", "/dev/shm", "/tmp", "/run"):
    probe(f"devices: mknod in {_name}")(partial(_node_in, _name))


@probe("devices: what is in /dev")
def _content(facts: Facts) -> Verdict:
    strange = [name for name in os.listdir("/dev") if name not in _EXPECTED]
    return found(strange)


@probe("devices: device nodes anywhere in the tree")
def _anywhere(facts: Facts) -> Verdict:
    until = time.monotonic() + 1  # a host's tree may be large, where it is the jail's
    for where, below, names in os.walk("/"):
        if where.startswith(("/proc", "/dev", "/sys")) or where.count("/") >= 4 or time.monotonic() > until:
            below.clear()
        if where.startswith(("/proc", "/dev")):
            continue
        for name in names:
            path = f"{where}/{name}"
            try:
                mode = os.lstat(path).st_mode
            except OSError:
                continue
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                verdict = opens(path)
                if verdict[0] != HELD:
                    return verdict
    return HELD, "none that opens"


for _name in (
    "console",
    "kmsg",
    "mem",
    "tty0",
    "tty1",
    "ttyS0",
    "kvm",
    "fuse",
    "net/tun",
    "loop-control",
    "hwrng",
    "cpu_dma_latency",
):

    def _open(name: str, facts: Facts) -> Verdict:
        return opens(f"/dev/{name}")

    probe(f"devices: open /dev/{_name}", light=True)(partial(_open, _name))


def _same_device(seen: str, facts: Facts) -> Verdict:
    return (ESCAPED, "/dev is the host's") if seen == facts["dev device"] else (HELD, "a file system of its own")


@probe("devices: the nodes are the host's own", _same_device)
def _mode(facts: Facts) -> Verdict:
    return SEEN, str(os.stat("/dev/null").st_dev)


def _same_terminals(seen: str, facts: Facts) -> Verdict:
    return (ESCAPED, "/dev/pts is the host's") if seen == facts["pts device"] else (HELD, "its own")


@probe("devices: the pseudo-terminals are the host's own", _same_terminals)
def _file_system(facts: Facts) -> Verdict:
    try:
        return SEEN, str(os.stat("/dev/pts").st_dev)
    except OSError as error:
        return HELD, why(error)


@probe("devices: pseudo-terminals of others")
def _terminals(facts: Facts) -> Verdict:
    mine = [name for name in os.listdir("/dev/pts") if name != "ptmx"] if os.path.isdir("/dev/pts") else []
    for name in mine:
        path = f"/dev/pts/{name}"
        if os.stat(path).st_uid >= 65534 or os.stat("/dev/pts").st_dev == os.stat("/dev").st_dev:
            try:
                os.close(os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
                return ESCAPED, f"{path}, whose owner is no one here, opens"
            except OSError:
                pass
    return HELD, f"own ones: {len(mine)}"


# TIOCLINUX asks for what no console knows; TIOCCONS is asked of a descriptor that it does not take; there is no line
# discipline of that number. So each fails, but for TIOCSTI, and with another error than who may not.
_TERMINAL = {
    "TIOCSTI": (0x5412, b"x"),
    "TIOCLINUX": (0x541C, b"\x63" + bytes(15)),
    "TIOCCONS": (0x541D, None),
    "TIOCSETD": (0x5423, (30).to_bytes(4, "little")),
    "TIOCSLCKTRMIOS": (0x5457, bytes(64)),
}


def _terminal(request: int, content: bytes | None, facts: Facts) -> Verdict:
    """On a terminal of the jail's own: that it works there says that it would on the administrator's."""
    try:
        _, slave = os.openpty()
    except OSError as error:
        return HELD, f"no terminal: {why(error)}"
    fcntl.ioctl(slave, 0x540E, 0)  # TIOCSCTTY
    target = os.open(os.ttyname(slave), os.O_RDONLY | os.O_NOCTTY) if request & 0xFFFF == 0x541D else slave
    try:
        call("ioctl", target, request, content)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EIO, errno.EACCES):
            return HELD, why(error)
        return EXPOSED, f"not refused: {why(error)}"
    return EXPOSED, "it works"


for _name, (_request, _content_) in _TERMINAL.items():
    probe(f"devices: {_name}")(partial(_terminal, _request, _content_))
    probe(f"devices: {_name}, its high half garbage")(partial(_terminal, _request | 0x7EADBEEF << 32, _content_))


@probe("devices: the caller's terminal", session=False)
def _callers(facts: Facts) -> Verdict:
    """Into which TIOCSTI types."""
    return tried(lambda: os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)))
