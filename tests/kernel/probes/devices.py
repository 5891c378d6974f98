"""Devices: hostile-root.md, section 2, and what a terminal can be made to do."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from functools import partial

from .attempt import ESCAPED, EXPOSED, HELD, Facts, Verdict, attempt, call, found, tried, why

_BLOCK, _CHARACTER = 0o060000, 0o020000
# Opened where it can be made, and nothing else is done with it. No watchdog: opening one starts it.
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
# All that ruleset 4 and design.md give a jail.
_EXPECTED = frozenset(
    "null zero full random urandom tty fd stdin stdout stderr ptmx pts shm mqueue console log .jailng".split()
)


def _node(kind: int, major: int, minor: int, facts: Facts) -> Verdict:
    try:
        os.mknod("node", kind | 0o600, os.makedev(major, minor))
    except OSError as error:
        return HELD, f"mknod: {why(error)}"
    try:
        os.close(os.open("node", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError as error:
        # On a file system without devices the node is a name and no more.
        return (HELD if error.errno == errno.EACCES else EXPOSED), f"made; open: {why(error)}"
    return ESCAPED, "made and opened"


for _name, (_kind, _major, _minor) in _NODES.items():
    attempt(f"devices: mknod {_name}")(partial(_node, _kind, _major, _minor))


@attempt("devices: mknod the host's disk")
def _disk(facts: Facts) -> Verdict:
    device = int(facts["disk"])
    return _node(_BLOCK, os.major(device), os.minor(device), facts)


def _node_in(directory: str, facts: Facts) -> Verdict:
    path = f"{directory}/attempt"
    verdict = tried(lambda: os.mknod(path, _CHARACTER | 0o600, os.makedev(1, 11)))
    if verdict[0] != HELD:
        os.unlink(path)
    return verdict


for _name in ("/dev", "/dev/shm", "/dev/pts", "/tmp", "/run"):
    attempt(f"devices: mknod in {_name}")(partial(_node_in, _name))


@attempt("devices: what is in /dev")
def _content(facts: Facts) -> Verdict:
    strange = [name for name in os.listdir("/dev") if name not in _EXPECTED]
    return found(strange)


@attempt("devices: device nodes anywhere in the tree")
def _anywhere(facts: Facts) -> Verdict:
    for where, below, names in os.walk("/"):
        if where.startswith(("/proc", "/dev")) or where.count("/") >= 4:
            below.clear()  # a host's tree may be large, where it is the jail's
        if where.startswith(("/proc", "/dev")):
            continue
        for name in names:
            path = f"{where}/{name}"
            try:
                mode = os.lstat(path).st_mode
            except OSError:
                continue
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                try:
                    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
                    return ESCAPED, f"{path} opens"
                except OSError as error:
                    if error.errno not in (errno.EACCES, errno.EPERM):
                        return EXPOSED, f"{path}: {why(error)}"
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
        return tried(lambda: os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))

    attempt(f"devices: open /dev/{_name}")(partial(_open, _name))


@attempt("devices: the nodes are the host's own")
def _mode(facts: Facts) -> Verdict:
    same = str(os.stat("/dev/null").st_dev) == facts["dev_device"]
    return (ESCAPED, "/dev is the host's") if same else (HELD, "/dev is a file system of the jail's")


@attempt("devices: pseudo-terminals of the host")
def _terminals(facts: Facts) -> Verdict:
    if str(os.stat("/dev/pts").st_dev) == facts["pts_device"]:
        return ESCAPED, "/dev/pts is the host's"
    mine = [name for name in os.listdir("/dev/pts") if name != "ptmx"]
    for name in mine:
        path = f"/dev/pts/{name}"
        if os.stat(path).st_uid >= 65534:
            try:
                os.close(os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
                return ESCAPED, f"{path}, whose owner is no one here, opens"
            except OSError:
                pass
    return HELD, f"own ones: {' '.join(mine) or 'none'}"


_TERMINAL = {
    "TIOCSTI": (0x5412, b"x"),
    "TIOCLINUX": (0x541C, b"\x06" + bytes(15)),
    "TIOCCONS": (0x541D, None),
    "TIOCSETD": (0x5423, (3).to_bytes(4, "little")),
    "TIOCSLCKTRMIOS": (0x5457, bytes(64)),
    "TIOCSSERIAL": (0x541F, bytes(128)),
}


def _terminal(request: int, content: bytes | None, facts: Facts) -> Verdict:
    """On a terminal of the jail's own: that it works there says that it would on the administrator's."""
    try:
        _, slave = os.openpty()
    except OSError as error:
        return HELD, f"no terminal: {why(error)}"
    fcntl.ioctl(slave, 0x540E, 0)  # TIOCSCTTY
    try:
        call(16, slave, request, content)
    except OSError as error:
        return HELD, why(error)
    return ESCAPED, "it works"


for _name, (_request, _content_) in _TERMINAL.items():
    attempt(f"devices: {_name}")(partial(_terminal, _request, _content_))
    attempt(f"devices: {_name}, its high half garbage")(partial(_terminal, _request | 0x7EADBEEF << 32, _content_))


@attempt("devices: the caller's terminal")
def _callers(facts: Facts) -> Verdict:
    return tried(lambda: os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
