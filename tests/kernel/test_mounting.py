"""What ``mount`` and ``mount.fstab`` mount: seen from the host and from inside, undone, and never led astray."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jailng.conf import fstab
from jailng.core import create, mounting, registry, undo
from jailng.errors import JailError
from jailng.params.model import Parameters
from tests.kernel import debian as roots
from tests.kernel.conftest import Command
from tests.kernel.stage import MS_BIND, MS_REC, Mount, mount, mounts, unmount

MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20


class Made:
    """A jail made as jail(8) makes it: reserved, file systems mounted, created."""

    def __init__(self, root: Path, *lines: str, jexec: Command | None = None, **given: str) -> None:
        self.root = root
        self.jexec = jexec
        self.params = Parameters()
        for name, text in {"name": "m", "path": str(root), "persist": "true", **given}.items():
            self.params.add(name.replace("__", "."), text)
        self.params.settle()
        self.record = create.reserve(self.params)
        self.warnings: list[str] = []
        try:
            for line in lines:
                entry = fstab.parse_line(line.replace("ROOT", str(root)))
                assert entry is not None
                self.warnings.append(mounting.mount(self.record, str(root), entry))
        except BaseException:
            undo.walk(self.record)
            raise

    def start(self) -> None:
        try:
            self.notes = create.jail_set(self.params, self.record)
        except BaseException:
            undo.walk(self.record)
            raise
        self.record.append(["up"])

    def __enter__(self) -> Made:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        undo.walk(self.record)

    def run(self, script: str) -> str:
        assert self.jexec is not None
        done = self.jexec("m", "sh", "-c", script)
        assert (done.stderr, done.returncode) == ("", 0), (done.stdout, done.stderr)
        return done.stdout

    def fails(self, script: str) -> str:
        assert self.jexec is not None
        done = self.jexec("m", "sh", "-c", script)
        assert done.returncode != 0, done.stdout
        return done.stderr


def at(target: Path) -> list[Mount]:
    """What is mounted there on the host, the lowest first."""
    return [found for found in mounts() if found.target == str(target)]


@pytest.fixture
def root(small_root: Path) -> Path:
    (small_root / "mnt").mkdir()
    (small_root / "usr/ports").mkdir(parents=True)
    return small_root


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory of the host's that nobody but root can reach."""
    made = tmp_path / "data"
    made.mkdir()
    (made / "file").write_text("text\n")
    (made / "dir").mkdir()
    return made


@pytest.fixture
def make(root: Path, jexec: Command) -> Callable[..., Made]:
    return lambda *lines, **given: Made(root, *lines, jexec=jexec, **given)


def test_nullfs(make: Callable[..., Made], root: Path, data: Path) -> None:
    """Root's files are root's inside, and what root makes inside is root's outside."""
    with make(f"{data} ROOT/usr/ports nullfs rw") as made:
        assert (root / "usr/ports/file").read_text() == "text\n"
        assert made.run("stat -c '%u %g %a' /usr/ports/file; cat /usr/ports/file") == "0 0 644\ntext\n"
        made.run("echo new >/usr/ports/new; mkdir /usr/ports/dir/more; chown 1001:1001 /usr/ports/new")
    assert (data / "new").stat().st_uid == 1001
    assert (data / "dir/more").stat().st_uid == 0
    assert not list((root / "usr/ports").iterdir())


def test_tmpfs(make: Callable[..., Made], root: Path) -> None:
    with make("tmpfs ROOT/mnt tmpfs size=64m,mode=1777,noexec,nosuid") as made:
        (root / "mnt/of-the-host").write_text("text\n")
        said = made.run("stat -c '%u %g %a' /mnt /mnt/of-the-host; echo x >/mnt/y; stat -c %u /mnt/y; df -m /mnt")
        assert said.splitlines()[:3] == ["0 0 1777", "0 0 644", "0"]
        assert "64" in said.splitlines()[-1].split()
        options = made.run("grep ' /mnt ' /proc/self/mounts").split()[3].split(",")
        assert {"noexec", "nosuid", "nodev", "rw"} <= set(options)
    assert not at(root / "mnt")


def error(*arguments: object, **given: object) -> str:
    make, *lines = arguments
    with pytest.raises(JailError) as raised:
        make(*lines, **given)  # type: ignore[operator]
    return str(raised.value)


def test_read_only(make: Callable[..., Made], data: Path) -> None:
    with make(f"{data} ROOT/mnt nullfs ro,noatime 0 0") as made:
        assert "Read-only file system" in made.fails("echo x >/mnt/file")
        options = made.run("grep ' /mnt ' /proc/self/mounts").split()[3].split(",")
        assert {"ro", "noatime", "nodev"} <= set(options)


def test_one_file(make: Callable[..., Made], root: Path, data: Path) -> None:
    (root / "etc/motd").touch()
    with make(f"{data}/file ROOT/etc/motd nullfs ro") as made:
        assert made.run("cat /etc/motd") == "text\n"
    assert (root / "etc/motd").read_text() == ""


def test_in_shared_uids(make: Callable[..., Made], data: Path) -> None:
    with make(f"{data} ROOT/mnt bind", "swap ROOT/usr/ports tmpfs mode=0700", ng__uids="shared") as made:
        assert made.run("cat /mnt/file; stat -c '%u %a' /usr/ports") == "text\n0 700\n"


def test_what_is_mounted_below_a_directory_is_not_shown(make: Callable[..., Made], data: Path) -> None:
    """nullfs(4) shows one file system; Linux's rbind shows those below as well."""
    mount("none", data / "dir", "tmpfs")
    (data / "dir/below").touch()
    try:
        with make(f"{data} ROOT/mnt nullfs", f"{data} ROOT/usr/ports none rbind") as made:
            assert made.run("ls /mnt/dir; ls /usr/ports/dir") == "below\n"
    finally:
        unmount(data / "dir")


def test_the_root_itself(make: Callable[..., Made], root: Path, tmp_path: Path, data: Path) -> None:
    """As the FreeBSD Handbook has thin jails: a template, read-only, on the jail's path, and a directory in it."""
    template = root.rename(tmp_path / "template")
    root.mkdir()
    with make(f"{template} ROOT/ nullfs ro 0 0", f"{data} ROOT/mnt nullfs rw 0 0") as made:
        assert made.run("cat /mnt/file; echo x >/mnt/new; cat /mnt/new") == "text\nx\n"
        assert "Read-only file system" in made.fails("echo x >/etc/new")
    assert not list(root.iterdir())


def test_in_order_and_on_one_another(make: Callable[..., Made], root: Path, data: Path) -> None:
    with make("t1 ROOT/mnt tmpfs", f"{data} ROOT/mnt nullfs", "t2 ROOT/mnt/dir tmpfs mode=0711") as made:
        assert len(at(root / "mnt")) == 2
        assert made.run("cat /mnt/file; stat -c %a /mnt/dir") == "text\n711\n"
    assert not at(root / "mnt")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("<data> mnt nullfs", "mount: mnt: not an absolute pathname"),
        ("<data> <root>/link nullfs", "mount: <root>/link is a symbolic link"),
        ("<data> <root>/usr/link/mnt nullfs", "mount: <root>/usr/link is a symbolic link"),
        ("<data> <root>/usr/self/mnt nullfs", "mount: <root>/usr/self is a symbolic link"),
        ("<data> <root>/none nullfs", "mount: <root>/none: No such file or directory"),
        ("<data> <root>/none/mnt nullfs", "mount: <root>/none: No such file or directory"),
        ("<data> <root>/etc/passwd/mnt nullfs", "mount: <root>/etc/passwd/mnt: Not a directory"),
        ("<data> <root>/etc/passwd nullfs", "mount: <root>/etc/passwd: Not a directory"),
        ("<data>/file <root>/mnt nullfs", "mount: <root>/mnt: Not a directory"),
        ("<data> /var/tmp nullfs", "mount: /var/tmp: not below the jail's path <root>"),
        ("<data> <root>/../x nullfs", "mount: <root>/../x: not below the jail's path <root>"),
        ("<data> <root>/mnt/../mnt nullfs", "mount: <root>/mnt/../mnt: not below the jail's path <root>"),
        ("<data>/none <root>/mnt nullfs", "mount: <data>/none: No such file or directory"),
        ("<data> <root>/mnt nullfs ro,frob", "mount: <root>/mnt: nullfs: unknown option frob"),
        ("t <root>/mnt tmpfs frob=1", "mount: <root>/mnt: tmpfs: unknown option frob=1"),
        ("t <root>/mnt tmpfs size=x", "mount: <root>/mnt: tmpfs size=x: Invalid argument"),
        ("x <root>/mnt frobfs", "mount: <root>/mnt: unknown filesystem type 'frobfs'"),
        ("/proc <root>/mnt nullfs", "mount: /proc: a file system of type proc would show the host"),
        ("x <root>/mnt cgroup2", "mount: <root>/mnt: a file system of type cgroup2 would show the host"),
        ("/dev/none <root>/mnt ext4 nofail", "mount: <root>/mnt: mount(8) failed"),
        ("<data> <root>/mnt ext4 bind", "mount: <root>/mnt: ext4: unknown option bind"),
        ("x <root> procfs", "mount: <root>: Device or resource busy"),
        ("x <root>/dev devfs ruleset=5", "mount: <root>/dev: devfs: unknown option ruleset=5"),
        ("x <root>/proc procfs ro", "mount: <root>/proc: procfs: unknown option ro"),
        ("<data> <root>/dev nullfs", "mount: <root>/dev: not seen inside: what a jail has there is its own"),
        ("x <root>/mnt fdescfs", "mount: <root>/mnt: fdescfs is a part of /dev on Linux: mount devfs above it"),
    ],
)
def test_refused(make: Callable[..., Made], root: Path, data: Path, line: str, message: str) -> None:
    (root / "link").symlink_to("mnt")
    (root / "usr/link").symlink_to("/")
    (root / "usr/self").symlink_to(".")
    line, message = (text.replace("<root>", str(root)).replace("<data>", str(data)) for text in (line, message))
    assert error(make, line) == message


def test_an_entry_that_fails_undoes_those_before(make: Callable[..., Made], root: Path) -> None:
    error(make, "t ROOT/mnt tmpfs", "t ROOT/none tmpfs")
    assert not at(root / "mnt")


def test_an_administrators_own_mount_stays(make: Callable[..., Made], root: Path) -> None:
    """On ours or below it: then ours stays too, and the next attempt finds it."""
    made = make("t ROOT/mnt tmpfs")
    mount("own", root / "mnt", "tmpfs")
    with pytest.raises(JailError) as raised:
        undo.walk(made.record)
    assert str(raised.value) == f"mount: {root}/mnt: Device or resource busy"
    assert [found.source for found in at(root / "mnt")] == ["t", "own"]
    unmount(root / "mnt")
    undo.walk(made.record)
    assert not at(root / "mnt")


def test_a_mount_in_place_of_ours_stays(make: Callable[..., Made], root: Path) -> None:
    made = make("t ROOT/mnt tmpfs")
    unmount(root / "mnt")
    mount("own", root / "mnt", "tmpfs")
    undo.walk(made.record)
    assert [found.source for found in at(root / "mnt")] == ["own"]
    unmount(root / "mnt")


def test_a_directory_that_has_been_moved(make: Callable[..., Made], root: Path) -> None:
    """A jailed root may have renamed what is above the mount point."""
    made = make("t ROOT/usr/ports tmpfs")
    (root / "usr").rename(root / "elsewhere")
    undo.walk(made.record)
    assert not at(root / "elsewhere/ports")


def test_a_starter_that_was_killed(make: Callable[..., Made], root: Path, data: Path, jail: Command) -> None:
    """The next command that makes or removes a jail of that name finds the record, and undoes it."""
    pid = os.fork()
    if pid == 0:
        make("t ROOT/mnt tmpfs", f"{data} ROOT/usr/ports nullfs")
        os._exit(0)
    os.waitpid(pid, 0)
    assert at(root / "mnt") and at(root / "usr/ports")
    assert jail("-r", "m").returncode == 1
    assert not at(root / "mnt") and not at(root / "usr/ports")


def test_devices_are_dead(make: Callable[..., Made], data: Path) -> None:
    os.mknod(data / "zero", 0o20666, os.makedev(1, 5))
    with make(f"{data} ROOT/mnt nullfs dev") as made:
        assert "Permission denied" in made.fails("head -c 1 /mnt/zero")


@pytest.fixture
def public_data(data: Path) -> Iterator[Path]:
    """A directory that every user of the host can reach."""
    mount(str(data), "/mnt", None, MS_BIND)
    Path("/mnt").chmod(0o755)
    yield Path("/mnt")
    unmount("/mnt")


def test_a_source_that_others_can_reach(make: Callable[..., Made], public_data: Path) -> None:
    """A set-uid file that is made inside would be one for them: as with the root itself."""
    with make(f"{public_data} ROOT/mnt nullfs ro") as made:
        assert made.run("cat /mnt/file") == "text\n"
    said = error(make, f"{public_data} ROOT/mnt nullfs rw")
    assert said == (
        "mount: /mnt: other users of this host can reach it, and a set-uid file made inside "
        "would be one outside: mount it ro, keep them out by a directory of mode 0700, or set ng.lenient"
    )
    assert error(make, "/ ROOT/mnt nullfs rw").startswith("mount: /: other users of this host can reach it")
    made = make(f"{public_data} ROOT/mnt nullfs rw", ng__lenient="true")
    assert made.warnings == [said]
    undo.walk(made.record)


def test_a_source_in_a_jails_tree(make: Callable[..., Made], root: Path) -> None:
    """There an enemy has made the links."""
    (root / "usr/data").symlink_to("/etc")
    assert error(make, "ROOT/usr/data ROOT/mnt nullfs") == f"mount: {root}/usr/data: Too many levels of symbolic links"
    assert error(make, "ROOT/usr/../tmp ROOT/mnt nullfs").endswith("Too many levels of symbolic links")
    assert error(make, "ROOT/usr/data/ssl ROOT/mnt nullfs").endswith("Too many levels of symbolic links")


def test_a_file_system_in_a_jails_tree(make: Callable[..., Made], root: Path) -> None:
    """There an enemy says which disk of the host's it is, or what is on it."""
    (root / "usr/disk").symlink_to("/dev/disk")
    said = f"mount: {root}/usr/disk: in the tree of a jail, whose root says what the kernel would read there: "
    assert error(make, "ROOT/usr/disk ROOT/mnt ext4 ro") == f"{said}move it, or set ng.lenient"
    assert error(make, "ROOT/usr/disk ROOT/mnt ext4 ro", ng__lenient="true").startswith(
        "mount: ROOT/mnt: ".replace("ROOT", str(root))
    )


_LINKS = "Too many levels of symbolic links"


@pytest.mark.parametrize("written", ["{data} {root}/mnt nullfs rw", "{data} {root}/usr/ports unionfs rw"])
@pytest.mark.parametrize("first", [True, False])
def test_a_source_in_what_the_jail_writes(
    jail: Command, root: Path, data: Path, tmp_path: Path, written: str, first: bool
) -> None:
    """Another line mounts a directory of the host's to be written to; its root has put links in there since."""
    (tmp_path / "secret").mkdir()
    (data / "up").symlink_to(tmp_path / "secret")
    (root / "up").mkdir()
    lines = [f"{data}/up {root}/up nullfs rw", written.format(data=data, root=root)]
    given = [f"mount={line}" for line in (reversed(lines) if first else lines)]
    done = jail("-c", f"path={root}", *given, "command=/bin/true")
    assert (done.returncode, done.stderr) == (1, f"jail: mount: {data}/up: {_LINKS}\n")
    (data / "up").unlink()
    (data / "up").mkdir()
    done = jail("-c", f"path={root}", *given, "command=/bin/true")
    assert (done.returncode, done.stderr) == (0, "")
    lines[1] = lines[1].replace("rw", "ro")
    (data / "link").symlink_to("up")
    given = [f"mount={line.replace('data/up', 'data/link')}" for line in lines]
    done = jail("-c", f"path={root}", *given, "command=/bin/true")
    assert (done.returncode, done.stderr) == (0, ""), "whom nobody inside can write to has links of the host's"


@pytest.mark.parametrize("configured", [False, True])
def test_a_source_in_what_another_jail_writes(
    jail: Command, root: Path, data: Path, etc: Path, tmp_path: Path, configured: bool
) -> None:
    """One that runs, or that has, and is in the configuration."""
    other = roots.small(tmp_path / "other")
    (other / "mnt").mkdir()
    (etc / "fstab.o").write_text(f"{data} {other}/mnt nullfs rw\n")
    (etc / "jail.conf").write_text(f'o {{ path = "{other}"; mount.fstab = /etc/fstab.o; persist; }}')
    assert jail("-c", "o").returncode == 0
    (tmp_path / "secret").mkdir()
    (data / "up").symlink_to(tmp_path / "secret")
    (tmp_path / "data-too").symlink_to(data)
    if configured:
        assert jail("-r", "o").returncode == 0
    else:
        (etc / "jail.conf").unlink()
    try:
        for source in (f"{data}/up", f"{tmp_path}/data-too/up"):
            done = jail("-c", f"path={root}", f"mount={source} {root}/mnt nullfs ro", "command=/bin/true")
            assert (done.returncode, done.stderr) == (1, f"jail: mount: {source}: {_LINKS}\n")
        done = jail("-c", f"path={root}", f"mount={tmp_path}/data-too {root}/mnt nullfs ro", "command=/bin/true")
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        jail("-r", "o")


def test_entries(root: Path, tmp_path: Path) -> None:
    table = tmp_path / "fstab"
    table.write_text(f"# comment\nt1 {root}/mnt tmpfs rw 0 0\n\nt2 {root}/usr/ports tmpfs # more\n")
    params = Parameters()
    for name, text in (("path", str(root)), ("mount", f"t0 {root}/tmp tmpfs"), ("mount.fstab", str(table))):
        params.add(name, text)
    found = mounting.entries(params)
    assert [(name, entry.device) for name, entry in found] == [
        ("mount", "t0"),
        ("mount.fstab", "t1"),
        ("mount.fstab", "t2"),
    ]


def test_files_that_are_none(root: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (root / "etc/fstab").touch()
    for file, message in (
        (tmp_path / "none", "No such file or directory"),
        (tmp_path, "not a regular file"),
        (tmp_path / "fifo", "not a regular file"),
        (root / "etc/fstab", "in the jail's own tree, where its root can write"),
    ):
        params = Parameters()
        params.add("path", str(root))
        params.add("mount.fstab", str(file))
        with pytest.raises(JailError) as raised:
            mounting.entries(params)
        assert str(raised.value) == f"mount.fstab: {file}: {message}"


def test_a_file_system_in_a_file(make: Callable[..., Made], root: Path, tmp_path: Path) -> None:
    """What mount(8) knows: that it needs a loop device."""
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", str(image)], check=True)
    with make(f"{image} ROOT/mnt ext4 rw,noatime") as made:
        assert at(root / "mnt")[0].kind == "ext4"
        made.run("echo x >/mnt/new; stat -c %u /mnt/new | grep -qx 0")
        assert (root / "mnt/new").stat().st_uid == 0


def test_a_file_system_that_cannot_map_uids(make: Callable[..., Made], root: Path) -> None:
    made = make("ramfs ROOT/mnt ramfs")
    with pytest.raises(JailError) as raised:
        made.start()
    assert str(raised.value) == (
        f"mount: {root}/mnt: its file system (ramfs) cannot map uids (idmapped mounts): "
        "use one that can, or set ng.uids=shared"
    )
    with make("ramfs ROOT/mnt ramfs", ng__uids="shared") as again:
        assert again.run("grep -c ' /mnt ramfs ' /proc/self/mounts") == "1\n"


def test_what_the_jail_has_anyway(make: Callable[..., Made], root: Path) -> None:
    """The lines that FreeBSD's own configurations have: nothing is mounted for them on the host."""
    lines = (
        "devfs ROOT/dev devfs rw 0 0",
        "fdescfs ROOT/dev/fd fdescfs rw 0 0",
        "tmpfs ROOT/dev/shm tmpfs rw,mode=1777 0 0",
        "proc ROOT/proc procfs rw 0 0",
    )
    before = mounts()
    with make(*lines) as made:
        assert mounts() == before
        assert made.run("test -c /dev/null && test -d /proc/self/fd && ls /dev/fd/ | head -1 && mount | wc -l") != ""
        plain = made.run("cut -d' ' -f2 /proc/self/mounts | sort")
    with make() as made:
        assert made.run("cut -d' ' -f2 /proc/self/mounts | sort") == plain


def test_how_much_the_jails_shm_holds(make: Callable[..., Made], root: Path) -> None:
    """The line for Linux of FreeBSD's handbook and of BastilleBSD; what is wrong in it is said at once."""
    for options, size in (("rw,size=1g,mode=1777", "1048576k"), ("size=8m,inodes=30", "8192k"), ("rw", "524288k")):
        with make(f"tmpfs ROOT/dev/shm tmpfs {options} 0 0") as made:
            told = made.run("grep ' /dev/shm ' /proc/self/mounts").split()[3].split(",")
            assert f"size={size}" in told
            assert ("nr_inodes=30" if "inodes" in options else "nr_inodes=131072") in told
            assert made.run("stat -c %a /dev/shm") == "1777\n"
    for words, why in (
        ("size=much", "tmpfs size=much: Invalid argument"),
        ("size=", "tmpfs: unknown option size="),
        ("size=1m,nonsense", "tmpfs: unknown option nonsense"),
    ):
        assert error(make, f"tmpfs ROOT/dev/shm tmpfs rw,{words}") == f"mount: {root}/dev/shm: {why}"


def test_a_proc_and_a_dev_for_another_root_inside(make: Callable[..., Made], root: Path) -> None:
    """As FreeBSD's users have /compat/linux: masked as the jail's own."""
    for name in ("dev", "proc", "sys"):
        (root / "compat/linux" / name).mkdir(parents=True)
    lines = (
        "devfs ROOT/compat/linux/dev devfs rw",
        "fdescfs ROOT/compat/linux/dev/fd fdescfs rw,linrdlnk",
        "tmpfs ROOT/compat/linux/dev/shm tmpfs rw,mode=1777",
        "linprocfs ROOT/compat/linux/proc linprocfs rw",
    )
    with make(*lines) as made:
        assert (
            made.run("cd /compat/linux; head -c 2 dev/zero | wc -c; cat proc/self/comm; ls dev/pts") == "2\ncat\nptmx\n"
        )
        assert made.run("cat /compat/linux/proc/kallsyms | wc -c") == "0\n"
        assert "Read-only file system" in made.fails("echo 1 >/compat/linux/proc/sys/kernel/hostname")
        assert made.run("echo x >/dev/shm/y; cat /compat/linux/dev/shm/y") == "x\n"
    assert not list((root / "compat/linux/dev").iterdir())


def test_linsysfs(make: Callable[..., Made], root: Path) -> None:
    """Read-only, of the jail's own network, and silent of the machine where that steers it."""
    (root / "sys").mkdir()
    with make("linsysfs ROOT/sys linsysfs rw") as made:
        assert (
            made.run("ls /sys/class/net; ls /sys/kernel /sys/fs /sys/firmware | grep -v : | grep -c .||:") == "lo\n0\n"
        )
        assert "Read-only file system" in made.fails("echo x >/sys/class/net/lo/mtu")
        options = made.run("grep ' /sys ' /proc/self/mounts").split()[3].split(",")
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(options)
    assert not list((root / "sys").iterdir())


def test_without_dev_and_proc(make: Callable[..., Made], root: Path) -> None:
    """``mount.nodevfs`` and ``mount.noprocfs``: root inside sees the directories as they are."""
    (root / "proc/file").touch()
    (root / "dev/file").touch()
    os.mknod(root / "dev/zero", 0o20666, os.makedev(1, 5))
    with make(mount__devfs="false", mount__procfs="false") as made:
        assert made.run("ls /dev /proc") == "/dev:\nfile\nzero\n\n/proc:\nfile\n"
        assert "Permission denied" in made.fails("head -c 1 /dev/zero")
        (root / "dev/null").mkdir()  # nor does who enters take it for what it is called
        assert made.run("cat; rmdir /dev/null") == ""
        os.mknod(root / "dev/null", 0o20666, os.makedev(1, 3))
        assert made.run("cat") == ""
    with make(mount__fdescfs="false") as made:
        assert made.run("ls /dev/fd 2>&1 || :; test -e /dev/stdin && echo there").endswith("there\n")
    with make("devfs ROOT/dev devfs ruleset=4", "fd ROOT/dev/fd fdescfs", mount__fdescfs="false") as made:
        assert made.run("test -e /dev/fd/0 && echo there") == "there\n"
    with make("devfs ROOT/dev devfs", "p ROOT/proc procfs", mount__devfs="false", mount__procfs="false") as made:
        assert made.run("test -c /dev/null && test -d /proc/self && echo there") == "there\n"


def test_unionfs_above(make: Callable[..., Made], root: Path, data: Path) -> None:
    """What is written goes above, with the uids that are seen inside; what is below stays."""
    (root / "usr/ports/low").write_text("low\n")
    with make(f"{data} ROOT/usr/ports unionfs rw") as made:
        said = made.run("cd /usr/ports; cat low file; stat -c %u low file; echo x >low; echo y >new; chown 1001 new")
        assert said == "low\ntext\n0\n0\n"
        assert (root / "usr/ports/new").read_text() == "y\n"
        assert str(data) not in made.run("cat /proc/self/mountinfo")
    assert (data / "low").read_text() == "x\n"
    assert [(data / name).stat().st_uid for name in ("low", "new", "file")] == [0, 1001, 0]
    assert (root / "usr/ports/low").read_text() == "low\n"
    assert not (root / "usr/ports/new").exists()
    with make(f"{data} ROOT/usr/ports unionfs rw") as made:  # again, on what there is by now
        made.run("cd /usr/ports; rm low; ! test -e low; mkdir d; mv d e")


def test_unionfs_below(make: Callable[..., Made], root: Path, data: Path) -> None:
    with make(f"{data} ROOT/usr/ports unionfs below") as made:
        assert made.run("cd /usr/ports; cat file; echo x >file; cat file") == "text\nx\n"
    assert (data / "file").read_text() == "text\n"
    assert (root / "usr/ports/file").read_text() == "x\n"
    assert not (root / "usr/.ports.work").exists(), "nothing to work in where a jailed root could get at it"


def test_overlay_in_linux_words(make: Callable[..., Made], data: Path, tmp_path: Path) -> None:
    for name in ("low", "up", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "low/lowest").write_text("lowest\n")
    options = f"lowerdir={data}:{tmp_path}/low,upperdir={tmp_path}/up,workdir={tmp_path}/work"
    for uids in ("private", "shared"):
        with make(f"x ROOT/mnt overlay {options}", ng__uids=uids) as made:
            assert made.run("cat /mnt/file /mnt/lowest; echo x >/mnt/new; stat -c %u /mnt/new") == "text\nlowest\n0\n"
        assert (tmp_path / "up/new").stat().st_uid == 0
    with make(f"x ROOT/mnt overlay lowerdir={data}:{tmp_path}/low") as made:
        assert "Read-only file system" in made.fails("echo x >/mnt/new")


def test_overlay_refused(make: Callable[..., Made], root: Path, data: Path) -> None:
    where = f"mount: {root}/mnt"
    assert error(make, f"{data} ROOT/mnt unionfs frob") == f"{where}: unionfs: unknown option frob"
    assert error(make, "x ROOT/mnt overlay lowerdir=/proc:/sys", ng__uids="shared").endswith("would show the host")
    assert error(make, "x ROOT/mnt overlay frob").startswith(f"{where}: overlay needs lowerdir")
    assert error(make, f"x ROOT/mnt overlay lowerdir={data}:/none") == "mount: /none: No such file or directory"
    assert error(make, f"x ROOT/mnt overlay lowerdir={data}:{root}/etc,frob=1") == f"{where}: overlay: Invalid argument"
    mount("none", data, "tmpfs")
    try:
        assert error(make, f"{data} ROOT/mnt unionfs") == (
            f"{where}: {data} is a mount of its own: no directory to work in beside it"
        )
    finally:
        unmount(data)


def test_an_overlay_of_others(make: Callable[..., Made], root: Path, data: Path, tmp_path: Path) -> None:
    """Its layers are not mapped, and itself it cannot be."""
    (tmp_path / "own").mkdir()
    mount("none", tmp_path / "own", "overlay", 0, f"lowerdir={data}:{root}/etc")
    try:
        made = make(f"{tmp_path}/own ROOT/mnt nullfs ro")
        with pytest.raises(JailError, match=r"its file system \(overlay\) cannot map uids"):
            made.start()
    finally:
        unmount(tmp_path / "own")


def test_a_starter_killed_before_it_mounts(make: Callable[..., Made], root: Path, data: Path, jail: Command) -> None:
    """The record tells of a mount that there never was; one that an administrator makes there meanwhile stays."""
    pid = os.fork()
    if pid == 0:
        pytest.MonkeyPatch().setattr("jailng.linux.mountfd.move_mount", lambda *_: os._exit(0))
        make(f"{data} ROOT/mnt nullfs")
    os.waitpid(pid, 0)
    record = registry.remains("m")
    assert record is not None and record.undo[-1].startswith("mount ") and record.undo[-1].endswith(" mnt")
    mount(str(data), root / "mnt", None, MS_BIND)
    assert jail("-r", "m").returncode == 1
    assert registry.remains("m") is None
    assert at(root / "mnt")
    unmount(root / "mnt")


def test_names_with_spaces(make: Callable[..., Made], root: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "a b\tc", root / "d e\\f"
    source.mkdir()
    target.mkdir()
    (source / "file").write_text("text\n")
    line = " ".join(
        str(path).replace("\\", r"\\").replace(" ", r"\040").replace("\t", r"\011") for path in (source, target)
    )
    with make(f"{line} nullfs ro") as made:
        assert made.run(r"cat '/d e\f/file'") == "text\n"
    assert not list(target.iterdir())


def test_with_allow_mount(make: Callable[..., Made], root: Path, data: Path) -> None:
    """What the host has mounted cannot be unmounted inside."""
    with make(f"{data} ROOT/mnt nullfs ro", allow__mount="true", enforce_statfs="1") as made:
        assert made.run("cat /mnt/file") == "text\n"
        made.fails("umount /mnt")
        made.fails("mount -o remount,bind,rw /mnt")
        assert made.run("cat /mnt/file") == "text\n"


@pytest.fixture
def shared_host() -> Iterator[None]:
    """All mounts shared, as systemd makes them."""
    mount("none", "/", None, MS_SHARED | MS_REC)
    yield
    mount("none", "/", None, MS_PRIVATE | MS_REC)
    mount("none", "/run/netns", None, MS_SHARED | MS_REC)  # as ip-netns(8) has it, and the stage


def test_where_mounts_are_shared(shared_host: None, make: Callable[..., Made], root: Path, data: Path) -> None:
    """What is mounted on a nullfs is not mounted on what that shows."""
    before = mounts()
    with make(f"{data} ROOT/mnt nullfs", "t ROOT/mnt/dir tmpfs", f"{data} ROOT/usr/ports unionfs") as made:
        (root / "mnt/dir/in-tmpfs").touch()
        assert made.run("ls /mnt/dir") == "in-tmpfs\n"
        assert not list((data / "dir").iterdir())
        assert len(mounts()) == len(before) + 3
    assert mounts() == before


def test_by_the_command(jail: Command, root: Path, data: Path, tmp_path: Path) -> None:
    """In order, before exec.prestart, which finds them on the host; gone when the jail is."""
    (tmp_path / "fstab").write_text(f"t {root}/usr/ports tmpfs mode=0711  # comment\n")
    given = (f"mount={data} {root}/mnt nullfs ro", f"mount.fstab={tmp_path}/fstab")
    done = jail(
        "-c",
        "name=m",
        f"path={root}",
        *given,
        f"exec.prestart=cat {root}/mnt/file",
        "command=stat",
        "-c",
        "%a",
        "/usr/ports",
    )
    assert (done.stdout, done.stderr, done.returncode) == ("text\n711\n", "", 0)
    assert not at(root / "mnt")
    done = jail("-c", "name=m", f"path={root}", *given, "exec.start=false", "persist")
    assert (done.stderr, done.returncode) == ("jail: false: failed\n", 1)
    assert not at(root / "mnt")
    done = jail("-c", "name=m", f"path={root}", *given, "persist")
    assert (done.stderr, done.returncode, len(at(root / "mnt"))) == ("", 0, 1)
    assert jail("-r", "m").returncode == 0
    assert not at(root / "mnt") and not at(root / "usr/ports")
