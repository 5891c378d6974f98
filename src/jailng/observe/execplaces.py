"""Where this kernel has what the programs about processes look at (``execprogram``): BTF tells."""

from __future__ import annotations

from jailng.observe.offsets import Offsets

# Each of Places: the structure, the member, a member of that.
_MEMBERS: dict[str, tuple[str, ...]] = {
    "tgid": ("task_struct", "tgid"),
    "pid": ("task_struct", "pid"),
    "parent": ("task_struct", "real_parent"),
    "signal": ("task_struct", "signal"),
    "thread_pid": ("task_struct", "thread_pid"),
    "cred": ("task_struct", "cred"),
    "mm": ("task_struct", "mm"),
    "files": ("task_struct", "files"),
    "exit_code": ("task_struct", "exit_code"),
    "session": ("signal_struct", "pids"),
    "tty": ("signal_struct", "tty"),
    "live": ("signal_struct", "live"),
    "level": ("pid", "level"),
    "numbers": ("pid", "numbers"),
    "argument_start": ("mm_struct", "arg_start"),
    "argument_end": ("mm_struct", "arg_end"),
    "executed": ("mm_struct", "exe_file"),
    "path_mount": ("file", "f_path", "mnt"),
    "path_dentry": ("file", "f_path", "dentry"),
    "file_inode": ("file", "f_inode"),
    "private": ("file", "private_data"),
    "filename": ("linux_binprm", "filename"),
    "interpreter": ("linux_binprm", "interp"),
    "name": ("dentry", "d_name", "name"),
    "above": ("dentry", "d_parent"),
    "mount_root": ("vfsmount", "mnt_root"),
    "mount": ("mount", "mnt"),
    "mount_parent": ("mount", "mnt_parent"),
    "mountpoint": ("mount", "mnt_mountpoint"),
    "links": ("inode", "i_nlink"),
    "inode": ("inode", "i_ino"),
    "super_block": ("inode", "i_sb"),
    "mode": ("inode", "i_mode"),
    "device": ("super_block", "s_dev"),
    "tty_name": ("tty_struct", "name"),
    "table": ("files_struct", "fdt"),
    "descriptors": ("fdtable", "fd"),
    "most": ("fdtable", "max_fds"),
    "sock": ("socket", "sk"),
    "family": ("sock_common", "skc_family"),
    "state": ("sock_common", "skc_state"),
    "remote": ("sock_common", "skc_daddr"),
    "local": ("sock_common", "skc_rcv_saddr"),
    "remote6": ("sock_common", "skc_v6_daddr"),
    "local6": ("sock_common", "skc_v6_rcv_saddr"),
    "port": ("sock_common", "skc_num"),
    "remote_port": ("sock_common", "skc_dport"),
    "protocol": ("sock", "sk_protocol"),
    "uid": ("cred", "uid"),
    "euid": ("cred", "euid"),
    "gid": ("cred", "gid"),
}
_SESSION = 8 * 3  # PIDTYPE_SID, of the pids in struct signal_struct


class Places:
    """Where in the kernel's structures things are, in bytes, as ``places`` has found it."""

    def __init__(self, found: dict[str, int]) -> None:
        self.tgid = found["tgid"]
        self.pid = found["pid"]
        self.parent = found["parent"]
        self.signal = found["signal"]
        self.thread_pid = found["thread_pid"]
        self.cred = found["cred"]
        self.mm = found["mm"]
        self.files = found["files"]
        self.exit_code = found["exit_code"]
        self.session = found["session"]
        self.tty = found["tty"]
        self.live = found["live"]
        self.level = found["level"]
        self.numbers = found["numbers"]
        self.argument_start = found["argument_start"]
        self.argument_end = found["argument_end"]
        self.executed = found["executed"]
        self.path_mount = found["path_mount"]
        self.path_dentry = found["path_dentry"]
        self.file_inode = found["file_inode"]
        self.private = found["private"]
        self.filename = found["filename"]
        self.interpreter = found["interpreter"]
        self.name = found["name"]
        self.above = found["above"]
        self.mount_root = found["mount_root"]
        self.mount = found["mount"]
        self.mount_parent = found["mount_parent"]
        self.mountpoint = found["mountpoint"]
        self.links = found["links"]
        self.inode = found["inode"]
        self.super_block = found["super_block"]
        self.mode = found["mode"]
        self.device = found["device"]
        self.tty_name = found["tty_name"]
        self.table = found["table"]
        self.descriptors = found["descriptors"]
        self.most = found["most"]
        self.sock = found["sock"]
        self.family = found["family"]
        self.state = found["state"]
        self.remote = found["remote"]
        self.local = found["local"]
        self.remote6 = found["remote6"]
        self.local6 = found["local6"]
        self.port = found["port"]
        self.remote_port = found["remote_port"]
        self.protocol = found["protocol"]
        self.uid = found["uid"]
        self.euid = found["euid"]
        self.gid = found["gid"]


def places() -> Places:
    """Those of this kernel. Raises OSError."""
    offsets = Offsets()
    found = {name: offsets[member] for name, member in _MEMBERS.items()}
    found["session"] += _SESSION
    found["numbers"] += offsets["upid", "nr"]
    offsets.keep()
    return Places(found)
