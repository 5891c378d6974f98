"""What every process gives up on its way into a jail: PID 1 and each one that enters later. No way leads back.

The order is the kernel's (docs/design.md, "Entering"): the filter is attached while CAP_SYS_ADMIN in the jail's user
namespace is still held, since no_new_privs would take su and sudo away from the jail; capabilities go last.
"""

from __future__ import annotations

import posix
import sys

from jailng.core.program import kept
from jailng.linux import caps, controller
from jailng.linux.libc import EMFILE, ENOENT, ENOSYS, buffer, syscall, words
from jailng.linux.mount import O_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from jailng.core.confinement import Confinement
    from jailng.core.program import Program

_ROOM = 16  # above what is open when a program is laid down, for what is opened after that
NOBODYS = 0x6FFFFFFF  # a uid that no jail has: above 65535, below the first of the private ranges
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_SECUREBITS = 28
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
KEYCTL_JOIN_SESSION_KEYRING = 1
_SECCOMP_SET_MODE_FILTER = 1
# SECCOMP_FILTER_FLAG_NEW_LISTENER, and _WAIT_KILLABLE_RECV (Linux 5.19): what is being answered no signal interrupts.
_LISTENED = 8 | 32
_SOL_SOCKET, _SCM_RIGHTS, _MSG_NOSIGNAL = 1, 1, 0x4000
_TASKS = 900  # and from here on what is kept: the files by which a process joins cgroups of v1
_TOPS = 910  # and from here on: hierarchies of v1
PROCESSORS = 1024  # bytes of a cpu_set_t: more bits than a kernel has processors
IOPRIO_WHO_PROCESS = 1
_FIRST = -20  # nice(2)
SCORE = "/proc/self/oom_score_adj"
_ENDING = (0, 1, 2, 9)  # RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_DATA, RLIMIT_AS: who meets one is ended, or his work is
_NO_LIMIT = 0xFFFFFFFFFFFFFFFF
_NO_PRIVILEGED_ROOT = 0b1111  # SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP and their locks
_CAPABILITY_VERSION_3 = 0x20080522


def not_dumpable(program: Program) -> None:
    """Let nobody look into the process: to be called before it can be seen. Exec sets it anew."""
    program.must("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)


def usual_priority(program: Program, slice_of: int = 0) -> None:
    """Shed what the caller's processes are preferred by: to be called with the host's capabilities.

    What the caller is put back by stays where this process has not the privilege to leave it: that harms nobody.
    ``slice_of`` is the slice in nanoseconds, 0 the kernel's own: core/timeslice.py.
    """
    program.must("sched_setaffinity", 0, PROCESSORS, program.data(b"\xff" * PROCESSORS))
    program.must("ioprio_set", IOPRIO_WHO_PROCESS, 0, 0)
    nice = posix.getpriority(posix.PRIO_PROCESS, 0)
    program.may("sched_setattr", 0, program.data(scheduling(posix.SCHED_OTHER, nice, slice_of)), 0)
    if nice != 0:
        program.may("setpriority", posix.PRIO_PROCESS, 0, 0)
    score = posix.open(SCORE, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        usual = posix.read(score, 8) == b"0\n"
    finally:
        posix.close(score)
    if not usual:
        program.must("openat", -1, program.text(SCORE), posix.O_WRONLY | posix.O_CLOEXEC, 0, keep=1)
        program.may("write", kept(1), program.text("0"), 1)


def hurry(program: Program, on: bool = True) -> None:
    """Come before all that are in the jail, for the few calls of the way in, or no longer: with the host's privileges.

    Where fifty keep a jail with little processor time busy, each turn takes seconds (docs/decisions/0019-limits.md).
    """
    program.may("setpriority", posix.PRIO_PROCESS, 0, _FIRST if on else 0)


def scheduling(policy: int, nice: int, slice_of: int) -> bytes:
    """The struct sched_attr of a process that is not of real time."""
    return words(48 | policy << 32, 0, nice & 0xFFFFFFFF, slice_of, 0, 0)


def leave_keys(program: Program) -> None:
    """Shed the caller's keys: while the real uid is still root's, who has a million, and 200 has everybody else."""
    # A kernel without keys has none to leave.
    program.must("keyctl", KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0, label="session keyring", unless=ENOSYS)


def open_cgroups(program: Program, controllers: list[str], path: str, apart: bool) -> list[int]:
    """Open the jail's directories in hierarchies of v1, for ``join_cgroups``: while files of the host's can be.

    ``apart``: there are others in it beside its own processes (``controller.own``).
    """
    for number, name in enumerate(controllers):
        directory = controller.own(path) if apart and name == "cpu" else controller.directory(name, path)
        held = controller.held(directory)
        if held >= 0:
            program.fds.append(held)
        tasks = program.text(f"{directory}/tasks")
        how = posix.O_WRONLY | posix.O_CLOEXEC
        program.must("openat", -1, tasks, how, 0, keep=_TASKS + number, label=f"cgroup {name}")
    return [kept(_TASKS + number) for number in range(len(controllers))]


def join_cgroups(program: Program, opened: list[int]) -> None:
    """Join them. Who is alone in his thread group, and moves himself by ``tasks``, waits for no RCU grace period.

    The descriptors are left to whoever closes what the host's process has open.
    """
    for tasks in opened:
        program.must("write", tasks, program.text("0"), 1, label="cgroup")


def open_later(program: Program, controllers: list[str]) -> list[tuple[str, int]]:
    """Open the hierarchies of v1 in which a jail may be given a directory once it runs, for ``join_later``."""
    found = []
    for number, name in enumerate(controller.LATER):
        top = "" if name in controllers else controller.usual(name)
        if top:
            keep, how = _TOPS + number, O_PATH | posix.O_CLOEXEC
            program.must("openat", -1, program.text(top), how, 0, keep=keep, label=f"cgroup {name}")
            found.append((name, kept(keep)))
    return found


def join_later(program: Program, tops: list[tuple[str, int]], path: str) -> None:
    """Join the jail's directories there, those that it has by now; if it has none, that of the jail that it is in.

    To be called with the host's privileges by a process that is a member already: whoever gives the jail a directory
    makes it first, and then moves the members that there are.
    """
    for name, top in tops:
        how = posix.O_WRONLY | posix.O_CLOEXEC
        for directory in dict.fromkeys([controller.below(name, ".", one) for one in controller.outwards(path)[::-1]]):
            tasks = program.text(f"{directory}/tasks")
            opening = program.here()
            program.must("openat", top, tasks, how, 0, keep=_TASKS, unless=ENOENT, label=f"cgroup {name}")
            join_cgroups(program, [kept(_TASKS)])
            program.skip(opening)


def orphan(program: Program, home: int, given: Sequence[int], label: str = "", slice_of: int = 0) -> None:
    """Go on in a child of init's, born into the cgroup ``home``, in a session of its own and the host's /.

    ``given`` are its descriptors from 0 on. The others stay, with the one by which it tells what has failed.
    ``slice_of`` is that of the jail that it works for. Raises OSError.
    """
    program.fds += given
    usual_priority(program, slice_of)
    program.may("keyctl", KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
    for which, amount in lifted_limits():
        program.may("prlimit64", 0, which, program.data(words(amount, amount)), 0)
    program.fork(0, home, label=label, orphan=True)
    program.must("setsid")
    program.must("chdir", program.text("/"))
    program.must("umask", 0o022)
    aside = _high(len(given))
    for number, fd in zip(aside, given, strict=True):
        program.must("dup3", fd, number, 0)
    for number, fd in enumerate(aside):
        program.must("dup3", fd, number, 0)


def lifted_limits() -> list[tuple[int, int]]:
    """Limits, soft and hard, for what outlives this process, to be taken one after the other as far as may be.

    Without CAP_SYS_RESOURCE that is as far as this process's own hard ones.
    """
    wanted = []
    for which in _ENDING:
        found = buffer(16)
        syscall("prlimit64", 0, which, None, found)
        soft, hard = (int.from_bytes(found.raw[at : at + 8], sys.byteorder) for at in (0, 8))
        wanted += [(which, amount) for amount in (hard, _NO_LIMIT) if soft != amount and soft != _NO_LIMIT]
    return wanted


def _high(count: int) -> list[int]:
    """So many numbers of descriptors that are not open.

    Not one for that by which a program tells what has failed: it will have the lowest. Nor one above RLIMIT_NOFILE,
    which what is open may be, since that can be lowered.
    """
    opened = {int(name) for name in posix.listdir("/proc/self/fd")}
    number = min(max(opened) + _ROOM + count, posix.sysconf("SC_OPEN_MAX"))
    found: list[int] = []
    while len(found) < count and number > 0:
        number -= 1
        if number not in opened:
            found.append(number)
    if len(found) < count:
        raise OSError(EMFILE, posix.strerror(EMFILE))
    return found


def leave_the_caller(program: Program, confinement: Confinement) -> None:
    """Shed what was inherited from whoever ran the command: session, limits, the mask for new files."""
    program.must("setsid")
    program.must("umask", 0o022)
    limit(program, confinement.rlimits)


def limit(program: Program, rlimits: list[tuple[int, int, int]]) -> None:
    """Take these limits: resource, soft, hard."""
    for resource, soft, hard in rlimits:
        program.must("prlimit64", 0, resource, program.data(words(soft, hard)), 0, label="rlimit")


def limit_as_member(program: Program, rlimits: list[tuple[int, int, int]]) -> None:
    """Take those of the jail, of which somebody may have lowered one since this process is in there: that stays.

    To be called where there is no privilege to raise it again, which is all that can fail.
    """
    for resource, soft, hard in rlimits:
        program.may("prlimit64", 0, resource, program.data(words(soft, hard)), 0)


def become(program: Program, uid: int, gid: int, groups: list[int]) -> None:
    """Take these ids: real, effective and saved."""
    listed = program.data(words(*groups, size=4)) if groups else 0
    program.must("setgroups", len(groups), listed)
    program.must("setresgid", gid, gid, gid)
    program.must("setresuid", uid, uid, uid)


def give_up(
    program: Program, confinement: Confinement, privileged: bool = True, listener: tuple[int, int] | None = None
) -> None:
    """Take the filter and the capability set for good; not ``privileged``: uid 0 becomes a user like any other.

    ``listener``: whom the filter asks is sent by the first descriptor, and has the number of the second meanwhile.
    """
    if not privileged:
        program.must("prctl", _PR_SET_SECUREBITS, _NO_PRIVILEGED_ROOT, 0, 0, 0)
    if confinement.landlock:
        program.must("landlock_create_ruleset", program.data(words(0, 0, confinement.landlock)), 24, 0, keep=1)
        program.must("landlock_restrict_self", kept(1), 0)
    code = program.data(confinement.program)
    filtering = program.data(words(len(confinement.program) // 8) + words(code), (8,))
    if listener is None:
        program.must("seccomp", _SECCOMP_SET_MODE_FILTER, 0, filtering)
    else:
        _send_listener(program, filtering, *listener)
    bound(program, confinement.caps)
    program.must("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    capset(program, confinement.caps)


def _send_listener(program: Program, filtering: int, channel: int, number: int) -> None:
    program.must("seccomp", _SECCOMP_SET_MODE_FILTER, _LISTENED, filtering, keep=1)
    program.must("dup3", kept(1), number, posix.O_CLOEXEC)
    # struct cmsghdr: length level type, and the descriptor; struct msghdr: name namelen iov iovlen control controllen
    control = program.data(words(20) + words(_SOL_SOCKET, _SCM_RIGHTS, number, 0, size=4))
    part = program.data(words(program.text("."), 1), (0,))
    message = program.data(words(0, 0, part, 1, control, 24, 0), (16, 32))
    program.must("sendmsg", channel, message, _MSG_NOSIGNAL, label="ng.stack=shared: the broker of the jail's sockets")


def bound(program: Program, held: int) -> None:
    """Let no other capabilities than these be had by exec."""
    program.must("prctl", _PR_CAPBSET_DROP, 0, 0, 0, 0)
    program.each(1, [number for number in range(caps.last() + 1) if not held >> number & 1])


def capset(program: Program, held: int) -> None:
    """Hold exactly these capabilities, effective and permitted."""
    sets = b"".join([words(*(held >> shift & 0xFFFFFFFF,) * 2, 0, size=4) for shift in (0, 32)])
    program.must("capset", program.data(words(_CAPABILITY_VERSION_3, 0, size=4)), program.data(sets))
