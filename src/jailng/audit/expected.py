"""What is known of jails of ours: what each parameter opens, and what stays exposed in every one, with the reason."""

from __future__ import annotations

from jailng.audit.catalogue import matches

# What every jail exposes.
KNOWN = {
    "leaks: the root's path in mountinfo": "where an idmapped mount was cloned from: docs/decisions/0022-root-below.md",
    "leaks: the host's disk in mountinfo": "an idmapped mount shows the device that it was cloned from",
    "leaks: memory, load and processes by sysinfo": "it knows no namespace; refused, glibc makes the answer up",
    "leaks: the file system's size": "statfs(2), as on FreeBSD; a file system of its own closes it",
    "leaks: the range of its uids": "uid_map is the process's own file",
    "leaks: the range of its uids in mountinfo": "options of the jail's own devpts and tmpfs",
    "leaks: how long the host has been up, by time idle": "the second word of /proc/uptime, whose first must tick",
    "leaks: how long the host has been up, by the time namespace": "timens_offsets is the process's own file",
    "leaks: how long the host has been up, by when it was scheduled": "/proc/PID/sched is the process's own file",
    "leaks: how many sessions there were, by autogroup": "/proc/PID/autogroup is the process's own file",
    "leaks: how long the host has been up, by times": "times(2) knows no namespace",
    "leaks: how long the host has been up, by when an address was given": "netlink of its own addresses",
    "leaks: how many processes there were, by a pidfd": "its inode is the process's own",
    "leaks: how many processes there are, by the links of /proc": "stat(2) of the root of a procfs counts them all",
    "leaks: how many mounts and network namespaces there were": "the identities of what is its own",
    "leaks: neighbours of the machine by netlink": "one table of the kernel's for all network namespaces",
    "leaks: packets of the machine in /proc/net/softnet_stat": "/proc/net is a process's own directory",
    "leaks: memory of all sockets in /proc/net/sockstat": "/proc/net is a process's own directory",
    "leaks: routes of the machine in /proc/net/stat/rt_cache": "/proc/net is a process's own directory",
}

_SYSVIPC = """ipc: the host's shared memory|ipc: the host's semaphores|ipc: the host's message queue
    ipc: the host's POSIX message queue|ipc: any shared memory by index (SHM_STAT_ANY)
    ipc: what /proc/sysvipc and /dev/mqueue list|namespaces: those that are the host's"""
_MOUNTS = "mounts: recursive bind mount|calls: mount|calls: umount2"
_INHERITED = """ipc: unix sockets of the host in /proc/net/unix|namespaces: those that are the host's
    network: the host's interfaces|network: the host's sockets in /proc/net/*|network: a service on the host's*
    network: a service at another of the host's addresses|network: bind *"""
# PID 1 is a process of the jail's like any other, and reboot(2) ends it.
_OWN_INIT = """processes: PID 1, *|namespaces: PID 1's by pidfd ioctl|calls: reboot*|devices: open /dev/console
    devices: what is in /dev|sockets: netlink 15|sockets: option SO_ATTACH_FILTER"""
# A parameter, as jail(8) is given it, and the probes that it opens, as patterns. What root inside can do more with it
# is this, and no more.
OPENED: dict[str, str] = {
    "path=/": """files: the host's path as it is|files: chroot twice|files: chroot with a directory left open
        files: a directory moved out while one is in it|files: .. with openat|files: /proc/PID/root of every process
        files: /proc/PID/cwd of every process|files: sockets of the host's|files: a set-user-ID file""",
    "ng.lenient": "files: a set-user-ID file",
    # The files below /proc/1 are the host's uid 0's, so the jail's root may open these; what asks for more than that to
    # be read or written (memory, descriptors, program, tracing) is refused.
    "ng.uids=shared": """processes: PID 1, fd|processes: PID 1, map_files|processes: PID 1, stack
        processes: PID 1, syscall|processes: PID 1, io|processes: PID 1, personality|processes: PID 1, uid_map
        processes: PID 1, oom_score_adj|processes: PID 1, clear_refs""",
    "host=inherit": "namespaces: those that are the host's|leaks: the host's name",
    "ip4=inherit": _INHERITED,
    "ip6=inherit": _INHERITED,
    "ng.init=auto": _OWN_INIT,
    "ng.init=sysv": _OWN_INIT,
    "ng.init=openrc": _OWN_INIT,
    "ng.init=systemd": _OWN_INIT,
    "ng.stack=shared": "network: a service at another of the host's addresses",
    # What these change is the jail's own stack.
    "vnet": """network: add *|network: set a link up|network: change *|network: rename a link|network: move an interface
        network: attach an XDP program|network: make an interface|network: SIOC*|network: nftables
        network: name another network namespace|proc: write sys/net/*|proc: write anything below /proc/sys
        sockets: option SO_MARK|sockets: option SO_PRIORITY 7|sockets: option IP_TRANSPARENT
        sockets: option IPV6_TRANSPARENT|sockets: option TCP_REPAIR|sockets: option SO_ATTACH_FILTER
        sockets: option MRT*_INIT|sockets: option UDP_ENCAP
        sockets: family 17*
        sockets: netlink 12|sockets: netlink 16|sockets: other protocols of inet*|sockets: packet|sockets: raw *""",
    "allow.set_hostname": "calls: host name|calls: domain name",
    # CAP_NET_RAW; sources are filtered at the host's end, and marks do not leave the namespace. Where the kernel lets
    # everybody ping (ping_group_range), as systemd has it, the filter stood before that.
    "allow.raw_sockets": """sockets: other protocols of inet*|sockets: raw *|sockets: ping*
        sockets: option IP_TRANSPARENT|sockets: option SO_ATTACH_FILTER
        sockets: option IPV6_TRANSPARENT|sockets: option SO_MARK|sockets: option SO_PRIORITY 7""",
    # All families there are, vsock among them, whose peer is the hypervisor.
    "allow.socket_af": """sockets: family *|sockets: netlink *|sockets: pair of *|sockets: other protocols of inet*
        sockets: SCTP|sockets: DCCP|sockets: option SO_ATTACH_FILTER|sockets: option TCP_ULP|sockets: option UDP_ENCAP
        network: nftables|network: sock_diag""",
    # What the jail has among its own processes it parts; of what it has nothing is there to be written to.
    "allow.cgroup": """cgroups: write cgroup.procs|cgroups: write cgroup.subtree_control|cgroups: make one
        sys: write fs/cgroup/cgroup.procs|sys: read fs/cgroup|proc: /sys""",
    "allow.mlock": """resources: mlock|resources: mlockall|resources: memory locked by MAP_LOCKED
        resources: huge pages of the host's pool*""",
    "allow.sysvipc": _SYSVIPC,
    "sysvmsg=inherit": _SYSVIPC,
    "sysvsem=inherit": _SYSVIPC,
    "sysvshm=inherit": _SYSVIPC,
    # What the jail was given is locked, so only all of it can be had in another place, as it is.
    "allow.mount.nullfs": _MOUNTS,
    "allow.mount.tmpfs": f"{_MOUNTS}|mounts: mount tmpfs|mounts: fsopen, fsmount, move_mount",
    "allow.mount.fusefs": f"{_MOUNTS}|mounts: mount fuse|devices: open /dev/fuse|devices: what is in /dev",
    "allow.vmm": "devices: open /dev/kvm|devices: what is in /dev",
    "devfs_ruleset": "devices: open *|devices: what is in /dev|devices: device nodes anywhere in the tree",
    # The broker of a jail that may have others is there to be asked, and makes their user namespaces.
    "children.max": "namespaces: how many user namespaces may be made",
}


def opened_by(name: str, given: list[str]) -> str:
    """The first of the parameters that opens the probe of that name; "" if none does."""
    for parameter in given:
        if matches(name, OPENED.get(parameter, "")):
            return parameter
    return ""


def given(params: dict[str, str]) -> list[str]:
    """Which of the parameters in ``OPENED`` a jail has, by the texts of its record."""
    found = []
    for parameter in OPENED:
        name, _, value = parameter.partition("=")
        text = params.get(name, "/" if name == "path" else "")
        if value:
            has = text == value
        elif name == "vnet":
            has = text == "new"
        else:
            has = text not in ("", "0", "false")
        if has:
            found.append(parameter)
    return found
