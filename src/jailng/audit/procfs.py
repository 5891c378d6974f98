"""/proc, /sys and the sysctls. Files are opened for writing, never written to."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from functools import partial

from .probe import ABSENT, ESCAPED, EXPOSED, HELD, Facts, Verdict, found, probe, why

# What no jail needs, and what tells of the machine or of others.
_TOLD = (
    "acpi asound kcore keys key-users latency_stats timer_list timer_stats sched_debug scsi cmdline "
    "interrupts softirqs diskstats partitions pressure kallsyms iomem ioports modules slabinfo "
    "vmallocinfo pagetypeinfo kpagecount kpageflags kpagecgroup zoneinfo buddyinfo swaps config.gz kmsg "
    "mtrr locks schedstat vmstat bootconfig driver fs irq bus tty dma misc consoles execdomains "
    "sysrq-trigger mdstat allocinfo dynamic_debug lockdep lock_stat cgroups crypto devices fb vmcore spl"
).split()
# What is in every procfs and tells of the machine no more than uname(2) or cpuid does, or of the jail alone.
_KNOWN = frozenset(
    "self thread-self mounts net sys sysvipc cpuinfo meminfo stat uptime version filesystems loadavg".split()
)
_PATIENT = os.O_RDONLY | os.O_NONBLOCK


def _tells(name: str, facts: Facts) -> Verdict:
    path = f"/proc/{name}"
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            return found(os.listdir(path))
        fd = os.open(path, _PATIENT)
        if name == "kmsg" and os.fstat(fd).st_dev == os.stat("/proc/self/stat").st_dev:
            os.close(fd)
            return EXPOSED, "it opens"  # what one reads of it the host's logger never sees
        try:
            content = os.read(fd, 64)
        finally:
            os.close(fd)
    except OSError as error:
        # Nothing to be read yet is an open door; no such file, or no right to it, is a shut one.
        return (EXPOSED if error.errno in (errno.EAGAIN, errno.EINVAL, errno.EIO) else HELD), why(error)
    return (EXPOSED, "it can be read") if content else (HELD, "empty")


for _name in _TOLD:
    probe(f"proc: read {_name}", light=True)(partial(_tells, _name))


@probe("proc: any other entry")
def _others(facts: Facts) -> Verdict:
    """Whatever a newer kernel has there that nobody has judged."""
    names = [name for name in os.listdir("/proc") if not name.isdigit() and name not in _KNOWN and name not in _TOLD]
    return found([name for name in names if _tells(name, facts)[0] != HELD])


def _writable(path: str) -> str:
    """Why it cannot be opened for writing; nothing if it can. One without a bit for it has nothing behind it."""
    try:
        if not os.stat(path).st_mode & 0o222:
            return "nobody may write to it"
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError as error:
        return why(error)
    return ""


def _write(path: str, facts: Facts) -> Verdict:
    refused = _writable(path)
    if refused:
        return HELD, refused
    return (EXPOSED if "/pressure/" in path else ESCAPED), "opens for writing"


for _name in (
    "sysrq-trigger",
    "mtrr",
    "kcore",
    "kmsg",
    "irq/default_smp_affinity",
    "acpi/wakeup",
    "bus/pci/devices",
    "scsi/scsi",
    "timer_stats",
    "latency_stats",
    "slabinfo",
    "pressure/memory",
    "sys/kernel/core_pattern",
    "sys/kernel/core_pipe_limit",
    "sys/kernel/modprobe",
    "sys/kernel/hotplug",
    "sys/kernel/poweroff_cmd",
    "sys/kernel/usermodehelper/bset",
    "sys/kernel/sysrq",
    "sys/kernel/ctrl-alt-del",
    "sys/kernel/panic",
    "sys/kernel/printk",
    "sys/kernel/hostname",
    "sys/kernel/domainname",
    "sys/kernel/shmmni",
    "sys/kernel/msgmax",
    "sys/kernel/sem",
    "sys/kernel/pid_max",
    "sys/kernel/threads-max",
    "sys/kernel/ns_last_pid",
    "sys/kernel/randomize_va_space",
    "sys/kernel/kptr_restrict",
    "sys/kernel/dmesg_restrict",
    "sys/kernel/perf_event_paranoid",
    "sys/kernel/unprivileged_bpf_disabled",
    "sys/kernel/io_uring_disabled",
    "sys/kernel/keys/maxkeys",
    "sys/kernel/pty/max",
    "sys/kernel/random/boot_id",
    "sys/kernel/sched_rt_runtime_us",
    "sys/kernel/oops_limit",
    "sys/kernel/ftrace_enabled",
    "sys/user/max_user_namespaces",
    "sys/user/max_inotify_instances",
    "sys/fs/file-max",
    "sys/fs/suid_dumpable",
    "sys/fs/protected_symlinks",
    "sys/fs/pipe-max-size",
    "sys/fs/aio-max-nr",
    "sys/fs/mqueue/queues_max",
    "sys/fs/inotify/max_user_instances",
    "sys/fs/binfmt_misc/register",
    "sys/vm/overcommit_memory",
    "sys/vm/drop_caches",
    "sys/vm/mmap_min_addr",
    "sys/vm/unprivileged_userfaultfd",
    "sys/vm/panic_on_oom",
    "sys/net/ipv4/ip_forward",
    "sys/net/ipv4/ip_unprivileged_port_start",
    "sys/net/ipv4/ping_group_range",
    "sys/net/ipv4/conf/all/accept_source_route",
    "sys/net/core/somaxconn",
    "sys/net/ipv6/conf/all/forwarding",
    "sys/dev/tty/legacy_tiocsti",
    "sys/debug/exception-trace",
):
    probe(f"proc: write {_name}", light=True)(partial(_write, f"/proc/{_name}"))


@probe("proc: open the directory from which the host serves files of /proc")
def _served(facts: Facts) -> Verdict:
    """In a jail it is /proc/driver, mounted to be written to; else it is the kernel's, and tells of drivers."""
    for flags in (os.O_RDONLY | os.O_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME):
        try:
            fd = os.open("/proc/driver", flags)
        except FileNotFoundError:
            return ABSENT, "there is no /proc/driver"
        except OSError:
            continue
        names = os.listdir(fd)
        os.close(fd)
        return (EXPOSED, " ".join(names)) if names else (HELD, "empty")
    last = ""
    for act in (
        lambda: os.chmod("/proc/driver", os.stat("/proc/driver").st_mode & 0o7777),
        lambda: os.chown("/proc/driver", 0, 0),
        lambda: os.chdir("/proc/driver"),
        lambda: os.stat("/proc/driver/state"),
        lambda: os.rmdir("/proc/driver/none"),
        lambda: os.setxattr("/proc/driver", "user.own", b"1"),
    ):
        try:
            act()
        except OSError as error:
            last = why(error)
            if error.errno == errno.ENOENT:
                return ESCAPED, "it is searched"
        else:
            return ESCAPED, "done"
    return HELD, last


@probe("proc: keep who writes waiting, by a lease on a file of /proc")
def _lease(facts: Facts) -> Verdict:
    """fcntl(2), F_SETLEASE: whose the file is may. The host writes some of them."""
    had = []
    for name in ("meminfo", "stat", "loadavg", "cpuinfo", "driver/state", "sys/kernel/core_pattern"):
        try:
            fd = os.open(f"/proc/{name}", os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            had.append(name)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError:
            pass
        finally:
            os.close(fd)
    return found(had)


@probe("proc: write anything below /proc/sys")
def _any_sysctl(facts: Facts) -> Verdict:
    paths = [f"{where}/{name}" for where, _, names in os.walk("/proc/sys") for name in names]
    return found([path for path in paths if not _writable(path)], ESCAPED)


@probe("proc: write anything that is no process's and no sysctl")
def _any_file(facts: Facts) -> Verdict:
    paths = []
    for where, directories, names in os.walk("/proc"):
        if where == "/proc":
            directories[:] = [name for name in directories if not name.isdigit() and name != "sys"]
        paths += [f"{where}/{name}" for name in names if not os.path.islink(f"{where}/{name}")]
    real = os.stat("/proc").st_dev
    paths = [path for path in paths if not _writable(path) and os.stat(path).st_dev == real]
    # What is written to a file of these asks to be told of pressure, and no more.
    serious = [path for path in paths if not path.startswith("/proc/pressure/")]
    return found(serious, ESCAPED) if serious else found(paths)


@probe("proc: write anything in the jail's own network's files")
def _any_network_file(facts: Facts) -> Verdict:
    paths = [f"{where}/{name}" for where, _, names in os.walk("/proc/self/net") for name in names]
    return found([path for path in paths if not _writable(path)], ESCAPED)


@probe("proc: a sysctl by way of another road to it")
def _other_roads(facts: Facts) -> Verdict:
    roads = ("/proc/self/root/proc/sys", "/proc/1/root/proc/sys", "/proc/thread-self/root/proc/sys", "/proc/sys/../sys")
    return found([road for road in roads if not _writable(f"{road}/kernel/core_pattern")], ESCAPED)


@probe("proc: a masked file by way of another road to it")
def _other_roads_to_mask(facts: Facts) -> Verdict:
    roads = ("/proc/self/root/proc", "/proc/1/root/proc", "/proc/self/cwd/../../../../../proc")
    return found([road for road in roads if _tells(f"..{road}/keys", facts)[0] != HELD])


@probe("proc: give a masked file away (chown, chmod, unlink)")
def _change_mask(facts: Facts) -> Verdict:
    done = []
    for name in ("kcore", "keys", "sysrq-trigger", "sys/kernel/core_pattern"):
        for verb, action in (
            ("chmod", lambda path: os.chmod(path, os.stat(path).st_mode & 0o7777)),
            ("unlink", os.unlink),
        ):
            try:
                action(f"/proc/{name}")
                done.append(f"{verb} {name}")
            except OSError:
                pass
    return found(done, ESCAPED)


@probe("proc: /sys")
def _sys(facts: Facts) -> Verdict:
    try:
        names = os.listdir("/sys")
    except OSError as error:
        return HELD, why(error)
    return found(names)


for _name in (
    "kernel/uevent_helper",
    "kernel/mm/ksm/run",
    "kernel/mm/transparent_hugepage/enabled",
    "kernel/debug",
    "kernel/security",
    "kernel/kexec_crash_size",
    "power/state",
    "devices/system/cpu/cpu1/online",
    "block/vda/queue/nr_requests",
    "fs/cgroup/cgroup.procs",
    "fs/cgroup/unified/cgroup.procs",
    "fs/cgroup/memory/cgroup.procs",
    "fs/cgroup/devices/devices.allow",
    "fs/cgroup/release_agent",
    "firmware/efi/efivars",
    "module/kernel/parameters/panic",
):
    probe(f"sys: write {_name}", light=True)(partial(_write, f"/sys/{_name}"))
for _name in (
    "kernel/notes",
    "kernel/vmcoreinfo",
    "class/net",
    "class/dmi/id/product_uuid",
    "kernel/boot_params/data",
    "fs/cgroup",
):
    probe(f"sys: read {_name}", light=True)(partial(_tells, f"../sys/{_name}"))

# Files of the process itself which steer more than the process.
for _name in (
    "uid_map",
    "gid_map",
    "projid_map",
    "timens_offsets",
    "make-it-fail",
    "fail-nth",
    "attr/exec",
    "attr/keycreate",
):

    def _own(name: str, facts: Facts) -> Verdict:
        try:
            fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
            os.write(fd, b"0 0 1\n")
        except OSError as error:
            return HELD, why(error)
        return EXPOSED, "written"

    probe(f"proc: write /proc/self/{_name}")(partial(_own, _name))
