"""A jail's /dev by the host's rules: what is there, whose it is, and whether it works, seen from inside."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command
from tests.kernel.stage import mount, unmount

Write = Callable[[str], None]
ORDINARY = ["full", "null", "random", "tty", "urandom", "zero"]
LINKS = ["fd", "ptmx", "stderr", "stdin", "stdout"]
POINTS = ["mqueue", "pts", "shm"]
# BusyBox has no find that prints what a device is.
LIST = (
    "cd /dev; for f in * snd/*; do if [ ! -L $f ] && [ -b $f -o -c $f ]; then stat -c '%n %A %t:%T %u:%g' $f; fi; done"
)


@pytest.fixture
def rules(etc: Path) -> Write:
    """Write /etc/devfs.rules."""

    def write(text: str) -> None:
        (etc / "devfs.rules").write_text(text)

    return write


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[Path]:
    """A /dev of the host's with a disk, a sound card and a serial line that do nothing, beside what it has."""
    new = tmp_path / "dev"
    new.mkdir()
    mount("none", new, "tmpfs", 0, "mode=755")
    (new / "snd").mkdir()
    made = [("sda", 0o60660, 7, 999), ("snd/pcm0", 0o20660, 1, 5), ("ttyS0", 0o20620, 1, 5), ("kvm", 0o20660, 1, 5)]
    made += [("mem", 0o20640, 1, 1), *[(n, 0o20666, 1, m) for n, m in (("null", 3), ("zero", 5), ("full", 7))]]
    made += [("random", 0o20666, 1, 8), ("urandom", 0o20666, 1, 9), ("tty", 0o20666, 5, 0), ("fuse", 0o20666, 1, 5)]
    for name, mode, major, minor in made:
        os.mknod(new / name, mode, os.makedev(major, minor))
        os.chmod(new / name, stat.S_IMODE(mode))
    os.chown(new / "snd/pcm0", 0, 29)
    for name in ("pts", "shm"):
        (new / name).mkdir()
        mount(f"/dev/{name}", new / name, None, 0x1000)  # MS_BIND
    mount(str(new), "/dev", None, 0x5000)  # MS_BIND | MS_REC
    yield new
    for target in ("/dev/shm", "/dev/pts", "/dev", new / "shm", new / "pts", new):
        unmount(target)


def inside(jail: Command, root: Path, *words: str) -> list[str]:
    """A line for each device node in the jail's /dev."""
    done = jail("-c", f"path={root}", *words, f"exec.start={LIST}")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return sorted(done.stdout.splitlines())


def names(jail: Command, root: Path, *words: str) -> list[str]:
    return [line.split()[0] for line in inside(jail, root, *words)]


def test_without_rules_of_the_administrator_s_nothing_of_the_host_is_there(
    jail: Command, small_root: Path, devices: Path
) -> None:
    for words in ([], ["devfs_ruleset=4"], ["devfs_ruleset=5"], ["devfs_ruleset=2"], ["devfs_ruleset=3", "allow.vmm"]):
        assert names(jail, small_root, *words) == ORDINARY
    done = jail("-c", f"path={small_root}", "devfs_ruleset=1", "exec.start=ls /dev")
    assert done.stdout.split() == POINTS
    done = jail("-c", f"path={small_root}", "exec.start=ls /dev")
    assert done.stdout.split() == sorted(ORDINARY + LINKS + POINTS)


RULES = """
[ours=10]
add include $devfsrules_jail
add path 'snd/*' unhide
add path random hide
add path zero mode 600 user 7 group 8
add path 'tty*' unhide      # FreeBSD's pseudo-terminals, a serial line here

[disks=11]
add include $devfsrules_jail
add path sda unhide

[machines=12]
add include $devfsrules_jail
add path kvm unhide

[all=13]
add unhide
add path '*' unhide
"""


@pytest.mark.parametrize("uids", ["private", "shared"])
def test_rules_of_the_administrator_s(jail: Command, small_root: Path, rules: Write, devices: Path, uids: str) -> None:
    rules(RULES)
    assert inside(jail, small_root, "devfs_ruleset=10", f"ng.uids={uids}") == [
        "full crw-rw-rw- 1:7 0:0",
        "null crw-rw-rw- 1:3 0:0",
        "snd/pcm0 crw-rw---- 1:5 0:29",
        "tty crw-rw-rw- 5:0 0:0",
        "urandom crw-rw-rw- 1:9 0:0",
        "zero crw------- 1:5 7:8",
    ]
    # It is what it is called: zeros can be read from it.
    done = jail(
        "-c", f"path={small_root}", "devfs_ruleset=10", "exec.start=dd if=/dev/snd/pcm0 bs=4 count=1 | od -An -tx1"
    )
    assert done.stdout.split() == ["00"] * 4
    assert names(jail, small_root, "devfs_ruleset=13") == ORDINARY


def test_a_disk_is_there_for_who_asks_for_it_and_at_no_securelevel(
    jail: Command, jls: Command, small_root: Path, rules: Write, devices: Path
) -> None:
    rules(RULES)
    assert "sda brw-rw---- 7:3e7 0:0" in inside(jail, small_root, "devfs_ruleset=11")
    refused = jail("-c", f"path={small_root}", "devfs_ruleset=11", "securelevel=1", "persist")
    assert refused.returncode == 1
    assert refused.stderr == "jail: securelevel=1: devfs ruleset 11 shows sda, to be written to\n"
    assert jail("-c", "name=disk", f"path={small_root}", "devfs_ruleset=11", "persist").returncode == 0
    raised = jail("-m", "name=disk", "securelevel=2")
    assert raised.returncode == 1
    assert raised.stderr == "jail: securelevel=2: devfs ruleset 11 shows sda, to be written to\n"
    assert jls("-j", "disk", "securelevel").stdout == "-1\n"
    assert jail("-m", "name=disk", "devfs_ruleset=10").stderr == (
        "jail: devfs_ruleset cannot be changed after creation\n"
    )
    assert jail("-r", "disk").returncode == 0


def test_kvm_takes_a_rule_and_a_parameter(jail: Command, small_root: Path, rules: Write, devices: Path) -> None:
    rules(RULES)
    assert "kvm" not in names(jail, small_root, "devfs_ruleset=12")
    assert "kvm" not in names(jail, small_root, "allow.vmm")
    assert names(jail, small_root, "devfs_ruleset=12", "allow.vmm") == ["full", "kvm", *ORDINARY[1:]]


def test_the_file_may_redefine_what_every_jail_has(jail: Command, small_root: Path, rules: Write) -> None:
    rules("[devfsrules_jail=4]\nadd include $devfsrules_hide_all\nadd path null unhide\n")
    assert names(jail, small_root) == ["null"]
    assert names(jail, small_root, "devfs_ruleset=4") == ["null"]
    assert names(jail, small_root, "devfs_ruleset=5") == ["null"]


@pytest.mark.parametrize(
    ("text", "number", "message"),
    [
        ("", 10, "devfs ruleset 10 not found"),
        ("[x=10]\nadd include 11\n", 10, "devfs ruleset 11 not found"),
        ("[x=10]\nadd include 10\n", 10, "devfs ruleset 10 includes itself"),
        ("[x=10]\nadd path null user nobody-here\n", 10, "devfs: user nobody-here: no such user"),
        ("[x=10]\nadd path null group 70000\n", 10, "devfs: group 70000: a jail has no gid 70000"),
        ("[x=10]\nadd show\n", 0, "/etc/devfs.rules: line 2: unknown argument: show"),
    ],
)
def test_rules_that_cannot_be_applied_are_an_error_and_nothing_is_made(
    jail: Command, jls: Command, small_root: Path, rules: Write, tmp_path: Path, text: str, number: int, message: str
) -> None:
    rules(text)
    ran = tmp_path / "ran"
    hook = f"exec.prestart=touch {ran}"
    for begin in ([], ["--plan"]):
        done = jail(*begin, "-c", "name=x", f"path={small_root}", f"devfs_ruleset={number}", "persist", hook)
        assert (done.returncode, done.stderr) == (1, f"jail: {message}\n")
    assert not ran.exists()
    assert jls("-c", "-j", "x").returncode == 1


def test_a_file_that_others_may_write_is_no_rule(jail: Command, small_root: Path, rules: Write) -> None:
    rules(RULES)
    os.chmod("/etc/devfs.rules", 0o666)
    done = jail("-c", f"path={small_root}", "persist")
    assert done.stderr == "jail: /etc/devfs.rules: others than root may write to it: chown root, chmod go-w\n"
    os.unlink("/etc/devfs.rules")
    os.mkfifo("/etc/devfs.rules")
    done = jail("-c", f"path={small_root}", "persist")
    assert done.stderr == "jail: /etc/devfs.rules: not a regular file\n"
    assert done.returncode == 1


def test_as_many_devices_as_a_rule_may_name(jail: Command, small_root: Path, rules: Write, devices: Path) -> None:
    rules("[many=10]\nadd include $devfsrules_jail\nadd path 'many/*' unhide\n")
    (devices / "many").mkdir()
    for number in range(2048):
        os.mknod(devices / f"many/{number}", 0o20600, os.makedev(1, 3))
    count = "exec.start=ls /dev/many | wc -l; echo x > /dev/many/2047"
    done = jail("-c", f"path={small_root}", "devfs_ruleset=10", count)
    assert (done.returncode, done.stdout.strip()) == (0, "2048"), done.stderr
    os.mknod(devices / "many/2048", 0o20600, os.makedev(1, 3))
    done = jail("-c", f"path={small_root}", "devfs_ruleset=10", count)
    assert (done.returncode, done.stderr) == (1, "jail: devfs ruleset 10: names more than 2048 devices\n")
