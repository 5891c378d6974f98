"""Interfaces that are lent to a jail's network namespace (vnet.interface), and their way back, whatever becomes of it.

Most interfaces die with the network namespace that they are in, and hardware would go to the machine's first, by
whatever name root inside has given it. So as soon as a jail has one its namespace is held, by a mount below ``_PINS``,
until whoever undoes the jail has taken them back: each is known by its number in there, which root inside cannot
change, and gets its old name, MAC address and the like again (docs/decisions/0017-vnet.md). Loaded for jails that have
any.
"""

from __future__ import annotations

import errno
import posix
import time

from jailng.core import keeper, proxies, registry, undo
from jailng.errors import JailError
from jailng.linux import cgroupend, interface, mount, ns, processid
from jailng.linux.libc import ENOENT, SHORTAGES, syscall
from jailng.linux.netlink import Netlink
from jailng.linux.visit import InNamespace
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.core.registry import Record
    from jailng.linux.interface import Device

_PINS = "/run/jailng/net"
_OPEN = posix.O_RDONLY | posix.O_CLOEXEC
_HERE = "/proc/self/ns/net"
_NEW = posix.O_CREAT | posix.O_WRONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW
_SECONDS = 10.0


def lend(record: Record, name: str, lender: Record | None = None) -> None:
    """Take the interface ``name`` to the jail, whose lock this process has: one of the host's, or of that ``lender``.

    Raises JailError: there is no such jail or interface; OSError where the kernel does not move it, or the ``lender``
    has no stack of its own (EPERM).
    """
    there = _namespace(record)
    home = -1
    try:
        if there < 0:
            raise JailError(f"jail {record.jid} not found", errno=ENOENT)
        if lender is not None:
            home = _namespace(lender) if lender.params.get("vnet") == "new" else -1
            if home < 0:
                raise OSError(errno.EPERM, posix.strerror(errno.EPERM))
        with _sockets(home) as at_home, _sockets(there) as inside:
            _move(record, name, lender.jid if lender is not None else 0, at_home, inside, there)
        keeper.ensure(record)
        if record.posts:
            from jailng.observe import posts

            posts.follow(record)
    finally:
        for fd in (there, home):
            if fd >= 0:
                posix.close(fd)


def _move(record: Record, name: str, lender: int, at_home: Netlink, inside: Netlink, there: int) -> None:
    try:
        device = _found(at_home, name=name)
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ERANGE, errno.EINVAL):
            raise JailError(f"interface {visible(name)} does not exist") from None
        raise
    taken = [found.index for found in _everyone(inside)]
    number = device.index if device.index not in taken else max(taken) + 1
    pin = f"netns {record.jid} {posix.fstat(there).st_ino}"
    lines = [] if pin in record.undo else [f"undo {pin}"]
    words = [str(record.jid), str(lender), str(number), *device.words()]
    record.append([*lines, f"undo {' '.join(['vnet', *words])}"])
    if lines:
        _hold(record.jid, there)
    try:
        at_home.batch([interface.move(device.index, there, number)])
    except OSError:
        if _is_absent(inside, number):  # else it was the answer that got lost (ENOBUFS), and it has to come back
            record.append(["undone"])
        raise


def _is_absent(netlink: Netlink, index: int) -> bool:
    try:
        _found(netlink, index)
    except OSError as error:
        return error.errno == errno.ENODEV
    return False


def _found(netlink: Netlink, index: int = 0, name: str = "") -> Device:
    return interface.Device.read(netlink.ask(interface.get(index, name))[0][1])


def _everyone(netlink: Netlink) -> list[Device]:
    return [interface.Device.read(body) for _, body in netlink.ask(interface.everyone())]


def _sockets(namespace: int) -> Netlink:
    """A socket for questions in a network namespace, which this process is in for a moment; -1: in its own."""
    if namespace < 0:
        return Netlink()
    with InNamespace(namespace, ns.CLONE_NEWNET):
        return Netlink()


# The namespace, and what holds it


def _namespace(record: Record) -> int:
    """A descriptor of the jail's network namespace, by its PID 1 or by what holds it; -1: there is none any more."""
    if record.alive():
        try:
            return processid.open_namespace(record.init, "net")
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
    return _held(record)


def _held(record: Record) -> int:
    for line in record.undo:
        if line.startswith(f"netns {record.jid} "):
            return _open_pin(record.jid, int(line.rpartition(" ")[2]))
    return -1


def _open_pin(jid: int, inode: int) -> int:
    """What holds the namespace of that inode, or else whoever is still in it; -1: nothing does."""
    try:
        fd = posix.open(f"{_PINS}/{jid}", _OPEN | posix.O_NOFOLLOW)
    except OSError as error:
        if error.errno in SHORTAGES:  # the interfaces in there would be taken for gone
            raise
        fd = -1
    if fd >= 0:
        status, own = posix.fstat(fd), posix.stat(_HERE)
        if (status.st_dev, status.st_ino) == (own.st_dev, inode):
            return fd
        posix.close(fd)
    from jailng.core import elsewhere

    return elsewhere.find("net", inode)


def _hold(jid: int, namespace: int) -> None:
    """Keep the namespace when all that are in it have left: nsfs, mounted on a file as ip-netns(8) does it."""
    path = f"{_PINS}/{jid}"
    try:
        posix.mkdir(_PINS, 0o700)
    except FileExistsError:
        pass
    posix.close(posix.open(path, _NEW, 0o600))
    syscall(
        "mount", f"/proc/self/fd/{namespace}".encode(), path.encode(), None, mount.MS_BIND, None, path=path.encode()
    )


def _let_go(words: list[str]) -> None:
    """``netns JID INODE``: hold it no longer. What is still in it dies with it. Raises OSError."""
    path = f"{_PINS}/{words[0]}"
    held = _open_pin(int(words[0]), int(words[1]))
    if held >= 0:
        try:
            proxies.clear_in(held)
        finally:
            posix.close(held)
    while True:
        try:
            syscall("umount2", path.encode(), mount.MNT_DETACH)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
            break
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass


# The way back


def _give_back(words: list[str]) -> None:
    """``vnet JID LENDER NUMBER DEVICE...``: fetch an interface from the jail. Raises OSError, JailError."""
    jid, lender, number = [int(word) for word in words[:3]]
    was = interface.Device.of_words(words[3:])
    record = registry.load(jid)
    if record is None:
        return
    _end(record)  # who is dead changes nothing any more while it is moved
    there = _held(record)
    if there < 0:
        return
    home = -1
    try:
        if lender:
            above = registry.load(lender)
            home = _namespace(above) if above is not None else -1
            if home < 0:
                return  # it goes with what it came from
        with _sockets(there) as inside, _sockets(home) as at_home:
            _fetch(inside, at_home, number, was, home)
    finally:
        for fd in (there, home):
            if fd >= 0:
                posix.close(fd)


def _end(record: Record) -> None:
    """Kill what is in the jail, and wait until it has ended."""
    cgroupend.end(record.cgroup, undo.LEAVES, time.monotonic() + _SECONDS)


def _fetch(inside: Netlink, at_home: Netlink, number: int, was: Device, home: int) -> None:
    try:
        now = _found(inside, number)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return  # root inside has destroyed it, or the host has taken it back
        raise
    if now.kind != was.kind:
        return  # one that root inside has made in its place
    there, here = _everyone(inside), _everyone(at_home)
    name = _free_name(was.name, {device.name for device in there} - {now.name}, here)
    # Names that somebody has at home would keep it from getting there, and those that root inside has thought of are
    # not to be seen there.
    steps = [interface.prepare(number, was)]
    if now.others:
        steps.append(interface.take_names(number, now.others))
    if now.name != name:
        steps.append(interface.rename(number, name))
    inside.batch(steps)
    taken = [device.index for device in here]
    if home >= 0 and was.index in taken:
        # By its number in there it is found again when that jail ends, too, so whatever its root has put there goes.
        at_home.batch([interface.delete(was.index)], ignored=(errno.EOPNOTSUPP,))
        taken = [device.index for device in _everyone(at_home)]
    index = was.index if was.index not in taken else max(taken) + 1
    target = home if home >= 0 else posix.open(_HERE, _OPEN)
    try:
        inside.batch([interface.move(number, target, index)])
    except OSError as error:
        if error.errno == errno.EINVAL:  # one that the kernel moves nowhere has not come from elsewhere
            return
        raise
    finally:
        if home < 0:
            posix.close(target)
    _make_as_it_was(at_home, index, was, name, here)


def _free_name(wanted: str, inside: set[str], at_home: list[Device]) -> str:
    """The name by which it can go home: its old one, unless that is another's on either side."""
    others = [interface.text(name) for one in at_home for name in one.others]
    taken = inside.union([device.name for device in at_home], others)
    names = [wanted, *[f"dev{number}" for number in range(len(taken) + 1)]]
    return next(name for name in names if name not in taken)


def _make_as_it_was(at_home: Netlink, index: int, was: Device, name: str, here: list[Device]) -> None:
    messages = interface.restore(index, was)
    if name != was.name and was.name not in [device.name for device in here]:
        messages.append(interface.rename(index, was.name))  # it was one inside that had the name
    messages += [interface.give_names(index, [other]) for other in was.others]
    for message in messages:
        try:
            at_home.batch([message])
        except OSError:
            pass  # not every kind of interface takes each


UNDO: dict[str, Callable[[list[str]], None]] = {"netns": _let_go, "vnet": _give_back}
