"""Limits of what a jail has of its own: its IPC namespace, its pseudo-terminals, its /dev/shm.

sysctl(2)'s kernel.shm*, sem and msg* are of the namespace (ipc/ipc_sysctl.c), and the jail's root may not write them,
since its /proc/sys is read-only; the others are options of file systems (devpts, tmpfs(5)) that the host's root alone
may change.
"""

from __future__ import annotations

import posix

from jailng.core import attach
from jailng.errors import JailError
from jailng.linux import mount, mountfd, ns, processid
from jailng.linux.libc import EINVAL, ENOENT
from jailng.linux.visit import AsUser, InNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from jailng.core.registry import Record

    Amounts = dict[str, int]

SYSV = ("shmsize", "nshm", "nsem", "nsemop", "msgqsize", "nmsgq")
RESOURCES = ("pseudoterminals", *SYSV)
TERMINALS = 1024  # of a jail of which nothing is said; core/rootfs.py
_SHM = 512 << 20  # bytes of its /dev/shm, alike
_MOST_TERMINALS = 1 << 20  # NR_UNIX98_PTY_MAX
_PAGE = 4096
_PART = 8
# Of what a guest begins with: parts of the machine's memory, and files, as core/guest.py has them.
_PERCENT = {"run": 20, "tmp": 50}
_FILES = {"shm": 128 << 10, "run": 800 << 10, "tmp": 1 << 20, "dev": 4 << 10}
_FEWEST = {"dev": 1 << 10}  # since the rules of devfs(8) may show so many
# What the kernel keeps of these, at most, goes beyond their content, stays when processes are killed as well, and no
# size tells of it: so many bytes of memoryuse for each. m: a file 1.5 kB, a queue of messages of a byte 1 MB, a set of
# one semaphore 600 bytes. (POSIX queues of all of a jail's users have 819200 bytes together: RLIMIT_MSGQUEUE.)
_FOR_FILE = {"shm": 32 << 10}
_FOR_OTHER_FILE = 64 << 10
_FOR_QUEUE, _FOR_SEMAPHORE = 16 << 20, 40 << 10
_LARGEST = 2**64 - 1 - (1 << 24)  # SHMMAX
_INT = 2**31 - 1
_SEM = (32000, 1024000000, 500, 32000)  # SEMMSL, SEMMNS, SEMOPM, SEMMNI of a new namespace
# What says, by its last number, how many there may be, and the parameter that lets there be any.
_COUNTS = {"kernel/shmmni": "sysvshm", "kernel/sem": "sysvsem", "kernel/msgmni": "sysvmsg"}


def apply(record: Record, amounts: Amounts) -> None:
    """Set all that depends on these amounts; what is not among them is as in a new jail.

    Half of memoryuse at most is in /dev/shm, and an eighth in System V segments, and in each tmpfs that a guest begins
    with: these stay when processes are killed for want of memory, and then nobody could enter. So do queues, sets of
    semaphores and empty files, of which there are as many as take a small part of it. Raises JailError where more than
    that is in use, or OSError.
    """
    tree = attach.open_tree_of(record)
    try:
        if not processid.is_alive(record.init):
            raise JailError(f'jail "{record.name}" not found', errno=ENOENT)
        _set_option(record, tree, "dev/pts", _of_terminals(record, amounts), "pseudoterminals")
        size, files = _of_shm(record)
        size = min(_shared(amounts, 2), size)
        _set_option(record, tree, "dev/shm", [_bytes(size)], "shmsize")
        _set_option(record, tree, "dev/shm", _files("shm", amounts, files), "memoryuse")
        if record.params.get("mount.devfs", "true") == "true":
            _set_option(record, tree, "dev", _files("dev", amounts), "memoryuse")
        for name in record.emptied.split():
            options = [_size_of(name, amounts), *_files(name, amounts)]
            _set_option(record, tree, name, options, "memoryuse")
    finally:
        posix.close(tree)
    if record.params.get("sysvshm") != "inherit":
        _write_sysctls(record, _sysctls(amounts), keep_shut=True)


def permit(record: Record, amounts: Amounts, params: Mapping[str, str]) -> None:
    """Set what of System V IPC the jail may make: by these amounts, and nothing where ``params`` say "disable".

    A process keeps the filter that it came in with, and so this is what a change means to those that are there: what
    they have made stays. Raises JailError or OSError.
    """
    if params.get("sysvshm") != "inherit":
        shut = [name for name, parameter in _COUNTS.items() if params.get(parameter, "disable") == "disable"]
        values = _sysctls(amounts)
        _write_sysctls(record, [(name, _none(value) if name in shut else value) for name, value in values])


def _none(value: str) -> str:
    return "\t".join([*value.split("\t")[:-1], "0"])


def _shared(amounts: Amounts, part: int) -> int:
    """What may be shared in one of both ways: of memoryuse one ``part``."""
    return min(amounts.get("shmsize", _LARGEST), amounts.get("memoryuse", part * _LARGEST) // part)


def _size_of(name: str, amounts: Amounts) -> tuple[bytes, bytes]:
    machine = posix.sysconf("SC_PHYS_PAGES") * _PAGE * _PERCENT[name] // 100
    return _bytes(min(machine, amounts.get("memoryuse", _LARGEST) // _PART))


def _bytes(size: int) -> tuple[bytes, bytes]:
    return b"size", b"%d" % max(size // _PAGE * _PAGE, _PAGE)


def _files(name: str, amounts: Amounts, usual: int = -1) -> list[tuple[bytes, bytes]]:
    """How many a tmpfs may hold. One that was made for any number cannot be held to one (shmem_reconfigure())."""
    if usual == 0:
        return []
    most = max(amounts.get("memoryuse", _LARGEST) // _FOR_FILE.get(name, _FOR_OTHER_FILE), _FEWEST.get(name, 256))
    return [(b"nr_inodes", b"%d" % min(usual if usual > 0 else _FILES[name], most))]


def _of_terminals(record: Record, amounts: Amounts) -> list[tuple[bytes, bytes]]:
    """Options that are not given again are forgotten (parse_mount_options() in fs/devpts/inode.c).

    A ``max`` of 0 is no limit there (devpts_new_index()). So for none, nobody inside may ask for one; but with
    ng.uids=shared, where the file is root's, who has one then.
    """
    most = min(amounts.get("pseudoterminals", TERMINALS), _MOST_TERMINALS)
    return [
        (b"mode", b"620"),
        (b"ptmxmode", b"666" if most else b"0"),
        (b"gid", b"%d" % (record.owner + 5)),
        (b"max", b"%d" % max(most, 1)),
    ]


def _of_shm(record: Record) -> tuple[int, int]:
    """Bytes and files, as the jail was made with."""
    from jailng.core import mounting
    from jailng.params import limit

    said = dict([option.split("=", 1) for option in mounting.shared_memory(record).split(",") if option])
    files = limit.expand(said["nr_inodes"]) if "nr_inodes" in said else None
    return limit.expand(said.get("size", "")) or _SHM, _FILES["shm"] if files is None else files


def _set_option(record: Record, tree: int, path: str, options: list[tuple[bytes, bytes]], resource: str) -> None:
    """Nothing is done where the jail has no such file system. Raises JailError or OSError.

    Root inside may have mounted one of the host's there, which came with the tree or by ``mount``.
    """
    where = _open_mounted(tree, path)
    try:
        if record.params.get("allow.mount") == "true":
            own = dict([word.split("=") for word in record.devices.split()]).get(path)
            if own != (str(posix.fstat(where).st_dev) if where >= 0 else None):
                raise JailError(f"{resource}: /{path} in the jail is not what the host has mounted there")
        if where >= 0:
            mountfd.reconfigure(where, options)
    except OSError as error:
        if error.errno != EINVAL:
            raise
        raise JailError(f"{resource}: more is in use, in /{path}") from None
    finally:
        if where >= 0:
            posix.close(where)


def _open_mounted(tree: int, path: str) -> int:
    """The descriptor of the jail's file system of that kind; -1 where there is none. Raises OSError."""
    magic = mount.DEVPTS_SUPER_MAGIC if path == "dev/pts" else mount.TMPFS_MAGIC
    return mountfd.open_mounted(tree, path.encode(), mount.O_PATH, magic)


def devices(tree: int, record: Record) -> str:
    """Which file systems are mounted where limits are set, in a jail in which nobody is yet: ``Record.devices``.

    Raises OSError.
    """
    found = []
    for path in ("dev", "dev/pts", "dev/shm", *record.emptied.split()):
        where = _open_mounted(tree, path)
        if where >= 0:
            found.append(f"{path}={posix.fstat(where).st_dev}")
            posix.close(where)
    return " ".join(found)


def _sysctls(amounts: Amounts) -> list[tuple[str, str]]:
    """Of a namespace: path below /proc/sys, and what to write."""
    memory = amounts.get("memoryuse", _LARGEST)
    semaphores = [*_SEM]
    semaphores[1] = min(amounts.get("nsem", min(max(memory // _FOR_SEMAPHORE, 1), _SEM[1])), _INT)
    semaphores[2] = min(amounts.get("nsemop", _SEM[2]), _INT)
    shared = _shared(amounts, _PART)
    queues = min(amounts.get("nmsgq", min(max(memory // _FOR_QUEUE, 1), 32000)), 32768)
    queue = min(amounts.get("msgqsize", 16384), _INT)
    return [
        ("kernel/shmmax", str(min(shared, _LARGEST))),
        ("kernel/shmall", str(min(shared // _PAGE, _LARGEST))),
        ("kernel/shmmni", str(min(amounts.get("nshm", 4096), 32768))),
        ("kernel/sem", "\t".join(map(str, semaphores))),
        ("kernel/msgmni", str(queues)),
        ("kernel/msgmnb", str(queue)),
        ("fs/mqueue/queues_max", str(min(amounts.get("nmsgq", 256), 256))),
    ]


def _write_sysctls(record: Record, values: list[tuple[str, str]], keep_shut: bool = False) -> None:
    """In the jail's namespace, as its root: nobody else may (ipc_permissions()). Raises JailError or OSError.

    ``keep_shut``: what ``permit`` has shut stays so.
    """
    init = attach.open_init(record)
    try:
        with InNamespace(init, ns.CLONE_NEWIPC):
            shut = _shut(record) if keep_shut else []
            with AsUser(record.owner):
                for name, value in values:
                    if name not in shut:
                        _write(name, value)
    finally:
        posix.close(init)


def _shut(record: Record) -> list[str]:
    """What ``permit`` has shut. A limit of none looks the same, and is lifted again."""
    refused = [name for name, parameter in _COUNTS.items() if record.params.get(parameter, "disable") == "disable"]
    return [name for name in refused if _read(name)[-1:] == ["0"]]


def _read(name: str) -> list[str]:
    try:
        file = posix.open(f"/proc/sys/{name}", posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        return posix.read(file, 4096).decode().split()
    finally:
        posix.close(file)


def _write(name: str, value: str) -> None:
    try:
        file = posix.open(f"/proc/sys/{name}", posix.O_WRONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return  # a kernel without System V IPC, or without message queues, has none to limit
    try:
        posix.write(file, value.encode())
    finally:
        posix.close(file)
