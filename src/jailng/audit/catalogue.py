"""The ways by which root in a container has reached its host or its neighbours, and the probes that go each.

Numbered, in the sections that docs/attacks.md has. Every probe is of one row at least, and every row has a probe:
tests/unit/test_audit.py.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cache

SECTIONS = {
    1: "out of the file tree",
    17: "devices",
    20: "processes, and the runtime",
    27: "/proc, /sys and sysctls",
    32: "cgroups and resources",
    36: "entry points of the kernel",
    45: "IPC and names",
    48: "the network",
}

# number: what it is, and the names of its probes, as patterns.
ROWS: dict[int, tuple[str, str]] = {
    1: (
        "chroot(2) left by a second one, by a directory that is open, or by ..",
        "files: chroot*|files: a directory*|files: ..*|files: the host's path*",
    ),
    2: (
        "a descriptor or a current directory that came in from outside (CVE-2024-21626, CVE-2016-9962)",
        "ipc: pipes*|leaks: descriptors*|files: /proc/PID/cwd*",
    ),
    3: (
        "a directory handed over by a friend outside (CVE-2025-15576)",
        "ipc: another jail's*|files: /proc/PID/fd*",
    ),
    4: (
        "open_by_handle_at(2) with a guessed handle (shocker)",
        "files: handle of the*|files: name_to_handle_at|calls: *_handle_at*",
    ),
    5: (
        "handles of namespaces and processes (Linux 6.18)",
        "files: handle of a*|calls: listns*",
    ),
    6: (
        "/proc/PID/root, cwd, fd and map_files of a process of the host",
        "files: /proc/PID/*",
    ),
    7: (
        "setns(2) to a namespace of the host",
        "namespaces: setns*|calls: setns*|processes: others, namespaces",
    ),
    8: (
        "mounting anything",
        """mounts: mount *|mounts: fs*|mounts: open_tree*|mounts: pivot_root|calls: *mount*|calls: fs*
        calls: open_tree*|calls: pivot_root*""",
    ),
    9: (
        "a bind mount that breaks the look-up of .. (CVE-2025-15547)",
        "mounts: *bind mount*|mounts: what is masked*",
    ),
    10: (
        "remounting /proc/sys, unmounting what masks",
        """mounts: *remount*|mounts: unmount*|mounts: /proc/sys*|mounts: mount_setattr*|mounts: take*
        calls: mount_setattr*""",
    ),
    11: (
        "mounts that propagate to the host",
        "mounts: mount propagation*",
    ),
    12: (
        "the host's paths, disk and its size in mountinfo and statfs(2)",
        "leaks: the root's path*|leaks: the host's disk*|leaks: the file system's size",
    ),
    13: (
        "fanotify(7) on the whole file system",
        "files: watch*|calls: fanotify*",
    ),
    14: (
        "freezing, trimming or shutting down the file system, quotas, keys and leases",
        "files: F*|files: EXT4*|files: quotactl|files: keep waiting*|calls: quotactl*",
    ),
    15: (
        "file flags, project ids, trusted attributes",
        "files: chattr*|files: project*|files: extended*|calls: file_setattr*",
    ),
    16: (
        "a set-user-ID file for a user of the host",
        "files: a set-user-ID file*",
    ),
    17: (
        "mknod(2) of a disk, of memory, of any device",
        "devices: mknod*",
    ),
    18: (
        "the host's /dev, devtmpfs, or nodes that an image holds",
        "devices: open*|devices: what is*|devices: device nodes*|devices: the nodes*|mounts: mount devtmpfs",
    ),
    19: (
        "/dev/console, which is the host's",
        "devices: open /dev/console|devices: mknod console|devices: TIOCCONS*",
    ),
    20: (
        "seeing, signalling, tracing or reading processes of the host or of a neighbour",
        """processes: others*|processes: see*|processes: the host's*|processes: signal*|processes: PID 1*
        processes: a child*
        leaks: numbers of*|calls: kcmp*""",
    ),
    21: (
        "overwriting the runtime by /proc/self/exe (CVE-2019-5736)",
        "processes: the program of PID 1*|processes: PID 1, exe",
    ),
    22: (
        "what enters while it still has privilege (CVE-2019-14271)",
        """processes: PID 1, mem|processes: PID 1, environ|processes: PID 1, PTRACE*
        processes: PID 1, process_vm*|processes: PID 1, fd*|processes: PID 1, maps""",
    ),
    23: (
        "sockets of the runtime",
        "ipc: the process at the other end*|leaks: who is at*|files: sockets of the host's*",
    ),
    24: (
        "the caller's environment and arguments",
        "leaks: the caller's*|leaks: the root's path in the environment",
    ),
    25: (
        "a file of the host as a standard stream, opened anew",
        "ipc: standard stream*",
    ),
    26: (
        "typing into the caller's terminal (CVE-2017-5226, CVE-2016-7545)",
        "devices: TIOC*|devices: the caller's*|devices: *pseudo-terminals*",
    ),
    27: (
        "writing what runs a program on the host: core_pattern, modprobe, binfmt_misc, uevent_helper",
        """proc: write sys/*|proc: write anything below*|proc: a sysctl by*|sys: write kernel/uevent_helper
        calls: a core file*|mounts: mount binfmt_misc""",
    ),
    28: (
        "sysrq-trigger, interrupts, power, queues of disks",
        """proc: write sysrq*|proc: write mtrr|proc: write irq*|proc: write acpi*|proc: write anything that*
        proc: write [bdfks]*|proc: write timer*|proc: write latency*|proc: write pressure*|sys: write*""",
    ),
    29: (
        "what /proc and /sys tell of the machine",
        "proc: read*|proc: any other*|proc: /sys|sys: read*|leaks: *",
    ),
    30: (
        "masks and writes that are led elsewhere while they are made (CVE-2025-31133, -52565, -52881)",
        """proc: a masked file*|proc: give*|proc: open the directory*|proc: keep*|proc: write /proc/self/*
        proc: write anything in the jail's*""",
    ),
    31: (
        "links exchanged while mounts are made (CVE-2021-30465, CVE-2019-16884)",
        "mounts: take*",
    ),
    32: (
        "release_agent of a cgroup (CVE-2022-0492)",
        "cgroups: write release_agent|cgroups: write notify*|mounts: mount cgroup",
    ),
    33: (
        "another cgroup, limits raised, cgroups without one",
        """cgroups: *|mounts: mount cgroup2|sys: write fs/cgroup*|sys: read fs/cgroup|leaks: the cgroup*
        leaks: how many cgroups*""",
    ),
    34: (
        "bombs of processes, memory, files",
        "resources: a limit*|resources: huge*|resources: secret*",
    ),
    35: (
        "real-time scheduling, priority, locked memory, limits raised",
        "resources: *|calls: ioprio_set*",
    ),
    36: (
        "modules, kexec, ports, reboot, clocks, swap, accounting, the kernel's messages",
        """calls: *module*|calls: kexec*|calls: io*|calls: reboot*|calls: *clock*|calls: *time*|calls: swap*
        calls: acct*|calls: syslog*|calls: vhangup*|calls: read the kernel*|calls: *adj*
        calls: get_kernel_syms*|calls: nfsservctl*""",
    ),
    37: (
        "bpf(2), perf_event_open(2)",
        "calls: bpf*|calls: perf*|mounts: mount bpf",
    ),
    38: (
        "io_uring, userfaultfd(2), LDTs, and another ABI to pass the filter",
        """calls: io_uring*|calls: userfault*|calls: modify_ldt*|calls: *x32*|calls: *i386
        calls: lookup_dcookie*|calls: uselib*|calls: ustat*|calls: sysfs*|calls: _sysctl*|calls: the next*
        calls: map page zero|calls: personality*|calls: vmsplice*|calls: *mempolicy*|calls: mbind*
        calls: m*_pages*|calls: process_madvise*|calls: lsm*""",
    ),
    39: (
        "user namespaces inside, and the kernel behind them (CVE-2022-0185, CVE-2024-1086, ...)",
        "namespaces: *|calls: unshare*|calls: clone3*",
    ),
    40: (
        "keyrings, which all of a user namespace share",
        "calls: *key*|leaks: the host's keys",
    ),
    41: (
        "families of sockets that no namespace holds",
        "sockets: *",
    ),
    42: (
        "modules that a socket, a mount or a terminal loads",
        "sockets: family*|sockets: netlink*|sockets: other*|mounts: mount *|devices: TIOCSETD*|network: SIOCGIFBR",
    ),
    43: (
        "the audit system",
        "sockets: netlink 9*",
    ),
    44: (
        "listmount(2), statmount(2) and the parents of namespaces",
        """mounts: listmount|calls: *stmount*|calls: statmount*|namespaces: NS_GET*|namespaces: the mount*
        namespaces: PID 1's*""",
    ),
    45: (
        "System V and POSIX IPC of the host",
        "ipc: *shared memory*|ipc: *semaphores|ipc: *queue*|ipc: what /proc*",
    ),
    46: (
        "abstract sockets (CVE-2020-15257)",
        "ipc: *abstract*|ipc: unix sockets*",
    ),
    47: (
        "the host's names",
        "calls: host name|calls: domain name|leaks: the host's name",
    ),
    48: (
        "raw and packet sockets",
        "sockets: raw*|sockets: packet*|sockets: ping*|sockets: family 17*",
    ),
    49: (
        "changing addresses, routes, links; sources that are not the jail's",
        """network: add*|network: set*|network: change*|network: rename*|network: make*|network: move*
        network: attach*|network: bind*|network: SIOC*|sockets: option*|network: name*""",
    ),
    50: (
        "services on the host's loopback and other addresses",
        "network: a service*",
    ),
    51: (
        "the host's packet filter and settings of its network",
        "network: nftables|proc: write sys/net*|proc: write anything in the jail's*",
    ),
    52: (
        "seeing the host's sockets and interfaces",
        "network: the host's*|network: sock_diag|sys: read class/net",
    ),
}


def matches(name: str, patterns: str) -> bool:
    """Whether a probe's name is one of those in a list: patterns of shells, with | or the end of a line between."""
    words = [one.strip() for line in patterns.splitlines() for one in line.split("|")]
    return any(fnmatchcase(name, word) for word in words)


@cache
def rows_of(name: str) -> tuple[int, ...]:
    """The numbers of the rows that a probe of that name is of."""
    return tuple(number for number, (_, patterns) in ROWS.items() if matches(name, patterns))
