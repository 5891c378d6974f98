"""Bad input: one clear line, exit 1, and nothing half-made. The fixture that looks at the host checks the last."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command
from tests.kernel.networks import ip
from tests.kernel.stage import mount, unmount


def _refused(done: subprocess.CompletedProcess[str], line: str) -> None:
    assert (done.stdout, done.stderr, done.returncode) == ("", f"{line}\n", 1)


@pytest.fixture
def running(jail: Command, small_root: Path) -> Iterator[Path]:
    """A jail ``a`` with jid 7, an address of ep0, and nobody in it; its root."""
    ip("link add ep0 type veth peer name ep1", "address add 192.0.2.10/24 dev ep0", "link set ep0 up")
    made = jail("-c", "name=a", "jid=7", f"path={small_root}", "ip4.addr=192.0.2.10", "persist")
    assert made.returncode == 0, made.stderr
    yield small_root
    gone = jail("-r", "a")
    ip("link delete ep0")
    assert (gone.stderr, gone.returncode) == ("", 0)


def test_path_missing(jail: Command, tmp_path: Path) -> None:
    done = jail("-c", f"path={tmp_path}/nowhere", "persist")
    _refused(done, f"jail: path {tmp_path}/nowhere: No such file or directory")


def test_path_no_directory(jail: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    _refused(jail("-c", f"path={tmp_path}/file", "persist"), f"jail: path {tmp_path}/file: Not a directory")


def test_path_not_absolute(jail: Command) -> None:
    _refused(jail("-c", "path=var", "persist"), "jail: path var: not an absolute pathname")


def test_path_with_newline(jail: Command, tmp_path: Path) -> None:
    done = jail("-c", f"path={tmp_path}/a\nb", "persist")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_root_that_others_can_reach(jail: Command, small_root: Path, modes: None, mode: int) -> None:
    """Its own mode is for root inside to change."""
    os.chmod(small_root, mode)
    for path in small_root.parents:
        path.chmod(path.stat().st_mode | 0o755)
    done = jail("-c", f"path={small_root}", "persist")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith(f"jail: path {small_root}: other users of this host can reach it")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("lost", ["sys_admin", "sys_ptrace", "setuid", "mknod"])
def test_root_without_a_capability_is_told_which(checkout: Path, small_root: Path, lost: str) -> None:
    argv = ["setpriv", f"--bounding-set=-{lost}", f"{checkout}/bin/jail", "-c", f"path={small_root}", "command=true"]
    done = subprocess.run(argv, capture_output=True, text=True)
    _refused(done, f"jail: jail_set: Operation not permitted: root has no CAP_{lost.upper()} here")


@pytest.mark.parametrize("path", ["/usr", "/dev", "/run/", "/proc"])
def test_nobody_is_told_to_move_the_hosts_own_directories(jail: Command, path: str) -> None:
    done = jail("-c", f"path={path}", "persist")
    assert done.stderr.endswith(": install -d -m 700 /jail, and a root of its own in that (or set ng.lenient)\n")


@pytest.mark.parametrize("target", ["/dev", "/nowhere", "../../dev"])
@pytest.mark.parametrize(("name", "parameter"), [("dev", "mount.devfs"), ("proc", "mount.procfs")])
def test_mount_point_is_a_link(jail: Command, small_root: Path, name: str, parameter: str, target: str) -> None:
    (small_root / name).rmdir()
    (small_root / name).symlink_to(target)
    done = jail("-c", f"path={small_root}", "persist")
    _refused(done, f"jail: {parameter}: {small_root}/{name} is a symbolic link")


@pytest.mark.parametrize(("name", "parameter"), [("dev", "mount.devfs"), ("proc", "mount.procfs")])
def test_mount_point_is_a_file(jail: Command, small_root: Path, name: str, parameter: str) -> None:
    (small_root / name).rmdir()
    (small_root / name).touch()
    done = jail("-c", f"path={small_root}", "persist")
    _refused(done, f"jail: {parameter}: {small_root}/{name}: Not a directory")


def test_etc_is_a_link(jail: Command, jexec: Command, small_root: Path, tmp_path: Path) -> None:
    """The users of the jail are looked up in the jail, wherever its /etc says that it is."""
    evil = "mallory:x:0:0::/:/bin/sh\n"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(evil)
    for name in ("passwd", "group"):
        (small_root / "etc" / name).unlink()
    (small_root / "etc").rmdir()
    (small_root / "etc").symlink_to(tmp_path / "etc")
    assert jail("-c", "name=a", f"path={small_root}", "persist").returncode == 0
    done = jexec("-U", "mallory", "a", "true")
    jail("-r", "a")
    assert done.returncode == 1
    assert done.stderr == "jexec: mallory: no such user\n"


def test_mount_below_root_behind_a_link(jail: Command, jexec: Command, small_root: Path, tmp_path: Path) -> None:
    """A mount of the host's below the root, whose way there the jail has put a link into, lands nowhere."""
    (tmp_path / "outside").mkdir()
    (small_root / "data").mkdir()
    (small_root / "data/inner").mkdir()
    mount("none", small_root / "data/inner", "tmpfs")
    try:
        made = jail("-c", "name=a", f"path={small_root}", "persist")
        seen = jexec("a", "grep", "-c", "/data/inner ", "/proc/self/mountinfo")
        jail("-r", "a")
    finally:
        unmount(small_root / "data/inner")
    assert (made.stderr, seen.stdout) == ("", "1\n")


def test_duplicate_name(jail: Command, running: Path) -> None:
    _refused(jail("-c", "name=a", f"path={running}", "persist"), 'jail: "a" already exists')


def test_duplicate_jid(jail: Command, running: Path) -> None:
    _refused(jail("-c", "jid=7", f"path={running}", "persist"), 'jail: "7" already exists')


def test_duplicate_jid_under_another_name(jail: Command, running: Path) -> None:
    _refused(jail("-c", "jid=7", "name=b", f"path={running}", "persist"), 'jail: "7" already exists')


def test_duplicate_name_under_another_jid(jail: Command, running: Path) -> None:
    _refused(jail("-c", "jid=8", "name=a", f"path={running}", "persist"), 'jail: jail "a" already exists')


def test_duplicate_address(jail: Command, running: Path) -> None:
    done = jail("-c", "name=b", f"path={running}", "ip4.addr=192.0.2.10,192.0.2.11", "persist")
    _refused(done, "jail: IPv4 addresses clash")


@pytest.mark.parametrize(
    "name", ["a/b", "..", "a\nb", "a b/", "x" * 300, "a\tb", "/", ".", "a\0".rstrip("\0") + "\x1b"]
)
def test_bad_name(jail: Command, jls: Command, small_root: Path, name: str) -> None:
    done = jail("-c", f"name={name}", f"path={small_root}", "persist")
    assert (done.stdout, done.returncode) == ("", 1), jls("-n").stdout
    assert done.stderr.startswith("jail: ")
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


def test_name_of_digits(jail: Command, small_root: Path) -> None:
    done = jail("-c", "name=12", f"path={small_root}", "persist")
    _refused(done, "jail: name cannot be numeric (unless it is the jid)")


def test_name_of_digits_that_is_the_jid(jail: Command, jls: Command, small_root: Path) -> None:
    done = jail("-c", "name=12", "jid=12", f"path={small_root}", "persist")
    shown = jls("-j", "12", "jid", "name").stdout
    jail("-r", "12")
    assert (done.stderr, shown) == ("", "12 12\n")


def test_parent_missing(jail: Command, small_root: Path) -> None:
    _refused(jail("-c", "name=x.y", f"path={small_root}", "persist"), 'jail: jail "x" not found')


@pytest.mark.parametrize("jid", ["-1", "1000000", "abc", "1.5", "99999999999999999999"])
def test_bad_jid(jail: Command, small_root: Path, jid: str) -> None:
    done = jail("-c", f"jid={jid}", f"path={small_root}", "persist")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith("jail: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "address", ["192.0.2", "192.0.2.256", "192.0.2.1/33", "192.0.2.1/x", "fe80::1", "a", "0.0.0.0"]
)
def test_malformed_address(jail: Command, small_root: Path, address: str) -> None:
    done = jail("-c", f"path={small_root}", f"ip4.addr={address}", "persist")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith("jail: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::g", "2001:db8::1/129", "::"])
def test_malformed_address6(jail: Command, small_root: Path, address: str) -> None:
    done = jail("-c", f"path={small_root}", f"ip6.addr={address}", "persist")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith("jail: ")
    assert done.stderr.count("\n") == 1


def test_interface_missing(jail: Command, small_root: Path) -> None:
    done = jail("-c", f"path={small_root}", "interface=nowhere0", "ip4.addr=192.0.2.1", "persist")
    assert (done.stdout, done.returncode) == ("", 1)
    assert "nowhere0" in done.stderr
    assert done.stderr.count("\n") == 1


def test_file_system_that_cannot_be_idmapped(jail: Command, tmp_path: Path) -> None:
    """proc is none that can; the sentence names the way out."""
    root = tmp_path / "proc"
    root.mkdir()
    mount("none", root, "proc")
    try:
        done = jail("-c", f"path={root}", "persist")
    finally:
        unmount(root)
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("jail: ")


@pytest.mark.parametrize("how", ["command", "exec.start"])
def test_command_not_found(jail: Command, small_root: Path, how: str) -> None:
    done = jail("-c", f"path={small_root}", f"{how}=/bin/nowhere")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr == "jail: exec /bin/nowhere: No such file or directory\n"


def test_command_not_executable(jail: Command, small_root: Path) -> None:
    (small_root / "bin/text").write_text("text")
    done = jail("-c", f"path={small_root}", "command=/bin/text")
    _refused(done, "jail: exec /bin/text: Permission denied")


def test_command_is_a_directory(jail: Command, small_root: Path) -> None:
    _refused(jail("-c", f"path={small_root}", "command=/bin"), "jail: exec /bin: Permission denied")


def test_command_fails(jail: Command, small_root: Path) -> None:
    _refused(jail("-c", f"path={small_root}", "command=false"), "jail: false: failed")


def test_command_dies_of_a_signal(jail: Command, small_root: Path) -> None:
    done = jail("-c", f"path={small_root}", "command=sh", "-c", "kill -9 $$")
    _refused(done, "jail: sh -c kill -9 $$: exited on signal 9")


def test_no_process_and_no_persist(jail: Command, small_root: Path) -> None:
    _refused(jail("-c", f"path={small_root}"), "jail: new jail must persist or attach")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("nonsense=1", "unknown parameter: nonsense"),
        ("allow.mount=maybe", 'allow.mount: unknown boolean value "maybe"'),
        ("ip4=maybe", 'ip4: unknown jailsys value "maybe"'),
        ("securelevel=high", 'securelevel: non-integer value "high"'),
        ("dying", "unknown parameter: dying"),
        ("exec.jail_user=nobodyatall", None),
        ("exec.system_user=nobodyatall", None),
        (f"host.hostname={'x' * 65}", None),
        (f"meta={'x' * 1_000_000}", None),
    ],
)
def test_bad_parameter(jail: Command, small_root: Path, given: str, line: str | None) -> None:
    if len(given) > 100_000:
        given = given[:100_000]  # the longest word that execve(2) takes is 128 KiB
    done = jail("-c", f"path={small_root}", given, "exec.prestart=true", "command=true")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.count("\n") == 1
    assert done.stderr == f"jail: {line}\n" if line else done.stderr.startswith("jail: ")


@pytest.mark.parametrize("change", ["path=/", "ip4=inherit", "vnet=new", "jid=8"])
def test_what_cannot_be_changed(jail: Command, running: Path, change: str) -> None:
    done = jail("-m", "name=a", change)
    name = change.partition("=")[0]
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr in (f"jail: {name} cannot be changed after creation\n", 'jail: "8" not found\n')


def test_modifying_what_is_not_there(jail: Command) -> None:
    _refused(jail("-m", "name=nobody", "meta=x"), 'jail: "nobody" not found')


def test_renaming_to_what_is_there(jail: Command, running: Path) -> None:
    assert jail("-c", "name=b", f"path={running}", "persist").returncode == 0
    done = jail("-m", "jid=7", "name=b", "meta=x")
    jail("-r", "b")
    _refused(done, 'jail: jail "b" already exists')


@pytest.mark.parametrize("option", ["-r", "-R"])
def test_removing_what_is_not_there(jail: Command, option: str) -> None:
    _refused(jail(option, "nobody"), 'jail: "nobody" not found')


def test_removing_goes_on_after_one_that_is_not_there(jail: Command, jls: Command, small_root: Path) -> None:
    jail("-c", "name=a", f"path={small_root}", "persist")
    done = jail("-r", "nobody", "a")
    assert (done.stdout, done.stderr, done.returncode) == ("a: removed\n", 'jail: "nobody" not found\n', 1)
    assert jls("name").stdout == ""


def test_entering_what_is_not_there(jexec: Command) -> None:
    _refused(jexec("nobody", "true"), 'jexec: jail "nobody" not found')


def test_entering_the_host(jexec: Command) -> None:
    _refused(jexec("0", "true"), "jexec: jail_attach(0): Invalid argument")


def test_entering_with_a_bad_command(jexec: Command, running: Path) -> None:
    _refused(jexec("a", "nowhere"), "jexec: execvp: nowhere: No such file or directory")


def test_entering_as_nobody_of_the_jail(jexec: Command, running: Path) -> None:
    _refused(jexec("-U", "nobodyatall", "a", "true"), "jexec: nobodyatall: no such user")


def test_entering_as_nobody_of_the_host(jexec: Command, running: Path) -> None:
    _refused(jexec("-u", "nobodyatall", "a", "true"), "jexec: nobodyatall: no such user")


def test_entering_as_who_has_ids_that_no_jail_has(
    jexec: Command, jail: Command, running: Path, etc: Path, small_root: Path
) -> None:
    """Above all not as root: to setresuid(2) the last number says to leave the uid as it is."""
    with (etc / "passwd").open("a") as file:
        file.write("last:x:4294967295:1::/:/bin/sh\nlastgid:x:1:4294967295::/:/bin/sh\nfar:x:70000:1::/:/bin/sh\n")
        file.write("near:x:1500:1500:::\n")
    with (etc / "group").open("a") as file:
        file.write("team:x:3000:near\nfarteam:x:200000:near\n")
    for name in ("last", "lastgid"):
        _refused(jexec("-u", name, "a", "id"), f"jexec: {name}: an id that nobody can have: 4294967295")
        words = ("-c", "name=b", f"path={small_root}", "persist", f"exec.system_user={name}", "exec.prestart=id")
        _refused(jail(*words), f"jail: {name}: an id that nobody can have: 4294967295")
    _refused(jexec("-u", "far", "a", "id"), "jexec: far: uid 70000: a jail has 0 to 65535")
    done = jexec("-l", "-u", "near", "a", "sh", "-c", "id; echo $HOME $SHELL; pwd")
    assert done.stdout == "uid=1500 gid=1500 groups=1500,3000\n/ /bin/sh\n/\n"


def test_entering_by_a_name_that_is_a_number(jexec: Command, running: Path, small_root: Path) -> None:
    """The name counts before the uid; and of a uid that no jail has it is not said that there is none."""
    users = "u:x:1000:1000::/:/bin/sh\n1000:x:1001:1001::/:/bin/sh\nfar:x:70000:1::/:/bin/sh\n"
    (small_root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n" + users)
    assert [jexec("-U", name, "a", "id", "-u").stdout for name in ("u", "1000", "1001")] == [
        "1000\n",
        "1001\n",
        "1001\n",
    ]
    _refused(jexec("-U", "far", "a", "id"), "jexec: far: uid 70000: a jail has 0 to 65535")


def test_entering_at_a_place_that_is_not_there(jexec: Command, running: Path) -> None:
    _refused(jexec("-d", "/nowhere", "a", "true"), "jexec: chdir: /nowhere: No such file or directory")
    _refused(jexec("-d", "", "a", "true"), "jexec: chdir: : No such file or directory")


def test_a_jid_as_strtoul_reads_it(jls: Command, jexec: Command, running: Path) -> None:
    """As jail_getid(3) does: with a sign, spaces and zeros before it; a name that looks so comes first here."""
    jid = jls("-j", "a", "jid").stdout.strip()
    for text in (f"+{jid}", f" {jid}", f"\t+0{jid}"):
        assert jls("-j", text, "name").stdout == "a\n"
        assert jexec(text, "echo", "hi").stdout == "hi\n"
    for text in (f"+-{jid}", f"{jid} ", f"++{jid}", f"+ {jid}"):
        assert jls("-j", text, "name").returncode == jexec(text, "true").returncode == 1
    _refused(jexec("+0999", "true"), "jexec: jail_attach(999): Invalid argument")


@pytest.mark.parametrize("argv", [("jail", "-c", "path={}", "persist"), ("jail", "-r", "a"), ("jexec", "a", "true")])
def test_not_root(public: Path, running: Path, argv: tuple[str, ...]) -> None:
    program, *arguments = [word.format(running) for word in argv]
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(public / "bin" / program), *arguments],
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.count("\n") == 1
    assert "Operation not permitted" in done.stderr or "Permission denied" in done.stderr
