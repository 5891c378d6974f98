"""jail(8) on a host that is short of things, interrupted, called by its own hooks, and with an enemy's tree."""

from __future__ import annotations

import os
import pty
import resource
import shutil
import signal
import subprocess
import termios
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.kernel.conftest import Command
from tests.kernel.stage import Stage

PIPE = subprocess.PIPE
Write = Callable[[str], Path]


@pytest.fixture
def conf(tmp_path: Path, small_root: Path) -> Write:
    """Write a configuration of jails in a small root that persist."""
    (small_root / "scratch").mkdir()

    def write(text: str) -> Path:
        path = tmp_path / "jail.conf"
        path.write_text(f'path = "{small_root}"; persist;\n{text}\n')
        return path

    return write


def _quietly(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# A way into the jail's tree


@pytest.fixture
def escape(small_root: Path, tmp_path: Path) -> Path:
    """What a jailed root would like to have written: in the jail's tree var/log is a link to where that is."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (small_root / "var").mkdir(exist_ok=True)
    (small_root / "var/log").symlink_to(outside)
    (tmp_path / "link").symlink_to(small_root)
    (tmp_path / "deep").symlink_to(small_root / "var/log/console")
    return outside / "console"


SPELLINGS = ("{root}", "{root}/", "{root}/.", "/{root}", "{top}/link", "{top}/./link", "{top}/nothing/../link")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_log_by_a_link_of_the_jails(
    jail: Command, small_root: Path, escape: Path, tmp_path: Path, spelling: str
) -> None:
    """However the way to the jail's root is spelled: from there on it is an enemy's."""
    (tmp_path / "nothing").mkdir()
    log = spelling.format(root=small_root, top=tmp_path) + "/var/log/console"
    done = jail("-c", "name=x", f"path={small_root}", f"exec.consolelog={log}", "persist", "exec.start=echo out")
    assert done.stderr == f"jail: exec.consolelog: {small_root}/var/log is a symbolic link\n"
    assert done.returncode == 1
    assert not escape.exists()


def test_no_log_by_a_link_of_the_hosts_into_the_tree(
    jail: Command, small_root: Path, escape: Path, tmp_path: Path
) -> None:
    log = f"exec.consolelog={tmp_path}/deep"
    assert jail("-c", "name=x", f"path={small_root}", log, "persist", "exec.start=echo out").returncode == 1
    assert not escape.exists()
    (small_root / "var/log").unlink()
    (small_root / "var/log").mkdir()
    _quietly(jail("-c", "name=x", f"path={small_root}", log, "exec.start=echo out", "command=true"))
    assert (small_root / "var/log/console").read_text() == "out\n"


def test_no_fstab_by_a_link_of_the_jails(jail: Command, small_root: Path, tmp_path: Path) -> None:
    (tmp_path / "fstab").write_text(f"tmpfs {small_root}/mnt tmpfs rw 0 0\n")
    (small_root / "fstab").symlink_to(tmp_path / "fstab")
    done = jail("-c", "name=x", f"path={small_root}", f"mount.fstab={small_root}/fstab", "persist")
    assert done.stderr == f"jail: mount.fstab: {small_root}/fstab: in the jail's own tree, where its root can write\n"
    assert done.returncode == 1


# Short of descriptors


def _limited(most: int = 80) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@pytest.mark.parametrize(("most", "count", "prestart"), [(80, 60, "true"), (256, 70, "sleep 1")])
def test_more_jails_than_descriptors(
    checkout: Path, conf: Write, jls: Command, most: int, count: int, prestart: str
) -> None:
    """Who cannot hold so many at once does with fewer: by what else it takes, and by what all take that wait."""
    path = conf(
        f'exec.prestart = "{prestart}"; exec.start = "sleep 1000 >/dev/null 2>&1 & true"; stop.timeout = 5;'
        + " ".join(f"j{number} {{ }}" for number in range(count))
    )
    for words, there in ((["-qc"], count), (["-qr", "*"], 0)):
        argv = [str(checkout / "bin/jail"), "-f", str(path), *words]
        done = subprocess.run(
            argv, capture_output=True, text=True, preexec_fn=partial(_limited, most), timeout=300, check=False
        )
        assert _quietly(done) == ""
        assert len(jls("name").stdout.split()) == there


_SERVICE = """
trap 'touch /ended/$$; exit' TERM
echo >&3
while :; do sleep 1000 & wait; done
"""
_SERVICES = """
mkfifo /ready
exec 3<>/ready
for number in $(seq 100); do sh /service >/dev/null 2>&1 & done
for number in $(seq 100); do read line; done <&3
"""


@pytest.mark.parametrize("seconds", [60, 0])
def test_more_processes_than_descriptors(checkout: Path, conf: Write, small_root: Path, seconds: int) -> None:
    """Each of a jail's processes is asked to end and has its time, and is killed else, whatever their number."""
    (small_root / "ended").mkdir()
    (small_root / "service").write_text(_SERVICE)
    (small_root / "services").write_text(_SERVICES)
    path = conf(f'a {{ stop.timeout = {seconds}; exec.start = "sh /services"; }}')
    argv = [str(checkout / "bin/jail"), "-f", str(path)]
    _quietly(subprocess.run([*argv, "-qc"], capture_output=True, text=True, timeout=60, check=False))
    done = subprocess.run(
        [*argv, "-qr", "a"], capture_output=True, text=True, preexec_fn=_limited, timeout=300, check=False
    )
    assert _quietly(done) == ""
    assert len(list((small_root / "ended").iterdir())) == (100 if seconds else 0)


# Hooks


def test_hooks_call_the_commands_on_their_own_jail(checkout: Path, conf: Write, jail: Command) -> None:
    """No hook waits for what its caller holds: whatever it is told, it is told."""
    calls = "; ".join(
        f"{checkout}/bin/{words} >/dev/null 2>&1"
        for words in ("jls", "jls -j a", "jail -m name=a meta=x", "jail -r a", "jexec a true", "jail -c name=a persist")
    )
    hooks = " ".join(f"exec.{step} = '{calls}; true';" for step in ("prepare", "prestart", "poststop", "release"))
    path = conf(f'a {{ mount = "tmpfs $path/scratch tmpfs rw 0 0"; {hooks} }}')
    for words in (["-c", "a"], ["-r", "a"]):
        done = jail("-f", str(path), *words)
        assert (done.returncode, done.stderr) == (0, "")
    jail("-r", "a")  # which exec.release has made


def test_cleaning_up_does_not_wait_for_its_caller(checkout: Path, conf: Write, jail: Command, tmp_path: Path) -> None:
    path = conf(
        'a { mount = "tmpfs $path/scratch tmpfs rw 0 0"; '
        f"exec.poststop = '{checkout}/bin/jail -f {tmp_path}/jail.conf -C a'; }}"
    )
    _quietly(jail("-f", str(path), "-qc"))
    done = jail("-f", str(path), "-r", "a")
    assert done.stderr.splitlines()[0] == "jail: a: Device or resource busy: another command is at work on it"
    path = conf('a { mount = "tmpfs $path/scratch tmpfs rw 0 0"; }')
    jail("-f", str(path), "-C", "a")


def test_hooks_ignore_no_signal(conf: Write, jail: Command) -> None:
    """Python ignores SIGPIPE, and what is ignored stays so over exec: `yes | head` would complain."""
    path = conf('a { exec.prestart = "grep SigIgn /proc/self/status"; }')
    assert _quietly(jail("-f", str(path), "-qc")).split() == ["SigIgn:", "0" * 16]
    _quietly(jail("-qr", "*"))


def test_a_hook_that_kills_its_caller(conf: Write, jail: Command, jls: Command) -> None:
    killing = conf(
        "a { mount = \"tmpfs $path/scratch tmpfs rw 0 0\"; exec.prestart = 'kill -KILL $PPID'; }".replace("$P", r"\$P")
    )
    assert jail("-f", str(killing), "-c").returncode == -signal.SIGKILL
    assert jls("name").stdout == ""
    path = conf('a { mount = "tmpfs $path/scratch tmpfs rw 0 0"; }')
    assert _quietly(jail("-f", str(path), "-c")) == "a: created\n"
    assert _quietly(jail("-f", str(path), "-r", "a")) == "a: removed\n"


def test_a_jail_that_goes_while_its_command_runs(checkout: Path, conf: Write, jail: Command, tmp_path: Path) -> None:
    """Removed by its own exec.poststart: the rest of its start finds it gone, and leaves nothing."""
    path = conf(f"a {{ exec.poststart = '{checkout}/bin/jail -r a', 'true'; }} b {{ }}")
    done = jail("-f", str(path), "-c")
    assert done.returncode == 1
    assert "b: created" in done.stdout
    _quietly(jail("-qr", "*"))


# Interruptions


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("step", ["exec.prestart", "exec.created", "exec.poststart"])
def test_interrupted(
    checkout: Path, conf: Write, tmp_path: Path, small_root: Path, number: signal.Signals, step: str
) -> None:
    """Whatever ends it, what it has begun is undone before it ends of that."""
    os.mkfifo(tmp_path / "here")
    hook = f"echo > {tmp_path}/here; exec sleep 1000"
    path = conf(f"a {{ mount = \"tmpfs $path/scratch tmpfs rw 0 0\"; {step} = '{hook}'; }}")
    argv = [str(checkout / "bin/jail"), "-f", str(path), "-qc"]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL, start_new_session=True) as running:
        (tmp_path / "here").read_text()
        running.send_signal(number)
        assert running.wait(60) == -number
        os.killpg(running.pid, signal.SIGKILL)  # the hook, which is left to itself
    assert not list(Path("/run/jailng/jails").iterdir())
    assert str(small_root / "scratch") not in Path("/proc/mounts").read_text()


def test_interrupted_with_mounts_upon_mounts(checkout: Path, conf: Write, tmp_path: Path, small_root: Path) -> None:
    """What was begun last goes first: a jail that came later may have mounted on what an earlier one has mounted."""
    os.mkfifo(tmp_path / "here")
    path = conf(
        "mount = \"tmpfs $path/scratch tmpfs rw 0 0\"; exec.poststart = 'sleep 1000';"
        f" a {{ }} b {{ }} c {{ exec.poststart = 'echo > {tmp_path}/here; exec sleep 1000'; }}"
    )
    argv = [str(checkout / "bin/jail"), "-f", str(path), "-c"]
    with subprocess.Popen(argv, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True) as running:
        (tmp_path / "here").read_text()
        running.send_signal(signal.SIGINT)
        os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
        os.killpg(running.pid, signal.SIGKILL)  # the hooks, which hold the pipes
        said = running.communicate(timeout=60)
    assert said == ("a: created\nb: created\nc: created\nc: removed\nb: removed\na: removed\n", "")
    assert str(small_root / "scratch") not in Path("/proc/mounts").read_text()


def test_the_terminal_is_as_it_was(checkout: Path, conf: Write, jail: Command, tmp_path: Path) -> None:
    """Though commands of several jails have had it at the same time, and one was left to itself."""
    os.mkfifo(tmp_path / "go")
    text = " ".join(f"j{number} {{ exec.start = 'sleep 0.{number}'; }}" for number in range(1, 5))
    path = conf(text)
    _quietly(jail("-c", "name=timed", f"path={tmp_path}/small", "persist"))
    late = tmp_path / "late.conf"
    late.write_text("timed { exec.timeout = 1; exec.stop = 'sleep 1000'; }\n")
    for words, status in ((["-f", str(path), "-qc"], 0), (["-f", str(late), "-qr", "timed"], 1)):
        master, slave = pty.openpty()
        before = termios.tcgetattr(slave)
        argv = [str(checkout / "bin/jail"), *words]
        done = subprocess.run(
            argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, timeout=30, check=False
        )
        assert done.returncode == status
        assert termios.tcgetattr(slave) == before
        os.close(slave)
        os.close(master)
    _quietly(jail("-qR", "timed"))
    _quietly(jail("-qr", "*"))


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "> /dev/full", "2>/dev/full >&2"])
def test_streams_that_are_not_there(checkout: Path, conf: Write, jail: Command, jls: Command, closed: str) -> None:
    path = conf("a { exec.prestart = 'true'; exec.start = 'true'; exec.poststart = 'true'; } b { }")
    for words in ("-c", "-r '*'"):
        done = subprocess.run(
            ["sh", "-c", f"{checkout}/bin/jail -v -f {path} {words} {closed}"], timeout=60, check=False
        )
        assert done.returncode == 0
        assert jls("name").stdout.split() == (["a", "b"] if words == "-c" else [])


@pytest.mark.parametrize("words", ["jail -c name=a path=/ persist", "jls", "jexec a true", "jailctl list"])
def test_nothing_to_put_in_place_of_a_stream(checkout: Path, tmp_path: Path, words: str) -> None:
    (tmp_path / "dev").mkdir()
    line = f"mount --bind {tmp_path}/dev /dev && exec {checkout}/bin/{words} <&-"
    done = subprocess.run(["unshare", "-m", "sh", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, f"{words.split()[0]}: /dev/null: No such file or directory\n")


def test_a_reader_that_has_gone(checkout: Path, conf: Write, jail: Command, jls: Command) -> None:
    path = conf(" ".join(f"j{number} {{ }}" for number in range(20)))
    subprocess.run(["sh", "-c", f"{checkout}/bin/jail -v -f {path} -c | head -n 1"], capture_output=True, check=True)
    assert len(jls("name").stdout.split()) == 20
    _quietly(jail("-qr", "*"))


def test_no_room_for_the_jids(conf: Write, jail: Command, jls: Command, small_root: Path) -> None:
    """The jails are there all the same, each of them."""
    path = conf("a { } b { exec.prestart = 'true'; } c { }")
    done = jail("-f", str(path), "-J", "/dev/full", "-qc")
    assert (done.returncode, done.stderr) == (1, 3 * "jail: /dev/full: No space left on device\n")
    assert sorted(jls("name").stdout.split()) == ["a", "b", "c"]
    _quietly(jail("-qr", "*"))
    done = jail("-J", "/dev/full", "-c", "name=a", f"path={small_root}", "persist")
    assert (done.returncode, done.stderr) == (1, "jail: /dev/full: No space left on device\n")
    _quietly(jail("-qr", "a"))


# At the same time


def test_twice_at_once(checkout: Path, conf: Write, jail: Command, jls: Command) -> None:
    """Two that start all: each jail is there once, whoever was first; who was second says so or says nothing."""
    path = conf(" ".join(f"j{number} {{ exec.start = 'true'; }}" for number in range(20)))
    argv = [str(checkout / "bin/jail"), "-f", str(path), "-qc"]
    both = [subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for running in both:
        _, stderr = running.communicate(timeout=60)
        assert all(line.endswith("already exists") for line in stderr.splitlines())
    names = jls("name").stdout.split()
    assert sorted(names) == sorted(f"j{number}" for number in range(20))
    _quietly(jail("-f", str(path), "-qr", "*"))


def test_removed_while_it_starts(checkout: Path, conf: Write, jail: Command, jls: Command) -> None:
    path = conf(" ".join(f"j{number} {{ exec.start = 'sleep 0.1'; }}" for number in range(20)))
    argv = [str(checkout / "bin/jail"), "-f", str(path)]
    with subprocess.Popen([*argv, "-qc"], stderr=subprocess.PIPE, text=True) as starting:
        while starting.poll() is None:
            jail("-f", str(path), "-qr", "*")
        assert starting.stderr is not None
        assert "Traceback" not in starting.stderr.read()
    jail("-f", str(path), "-qr", "*")
    assert jls("name").stdout == ""


def test_thousands_of_jails_that_cannot_start(conf: Write, jail: Command) -> None:
    """In the order of a chain, where each depends on the one before; no recursion, and no time but a few seconds."""
    text = "j0 { path = /nosuch; } " + " ".join(f"j{n} {{ depend = j{n - 1}; }}" for n in range(1, 10000))
    done = jail("-f", str(conf(text)), "-c", timeout=60)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "jail: j0: path /nosuch: No such file or directory"
    assert len(lines) == 10000
    assert _quietly(jail("-f", str(conf(text)), "-r", "*", timeout=60)) == ""


def test_everybody_may_ask_which_jails_there_are(checkout: Path, jail: Command, small_root: Path) -> None:
    """Whatever the umask of who makes the first one."""
    shutil.rmtree("/run/jailng", ignore_errors=True)
    argv = [f"{checkout}/bin/jail", "-c", "name=a", "jid=7", f"path={small_root}", "persist"]
    subprocess.run(argv, umask=0o077, check=True, timeout=60)
    top = Path("/run/jailng")
    modes = {name: (top / name).stat().st_mode & 0o777 for name in (".", "jails", "jails/7", "index", "pidns", "lock")}
    assert jail("-r", "a").returncode == 0
    wanted = {".": 0o755, "jails": 0o755, "jails/7": 0o644, "index": 0o644, "pidns": 0o644, "lock": 0o600}
    assert modes == wanted


def test_cgroups_and_settings_are_the_same_whatever_the_umask(checkout: Path, stage: Stage, small_root: Path) -> None:
    """A guest's users need what its cgroup file system begins with; and everybody may ask what has been set."""
    for words in (
        ["jail", "-c", "name=a", "jid=7", f"path={small_root}", "persist"],
        ["rctl", "-a", "jail:a:maxproc:deny=50"],
        ["jailctl", "sysctl", "security.jail.meta_maxbufsize=4096"],
    ):
        subprocess.run([f"{checkout}/bin/{words[0]}", *words[1:]], umask=0o077, check=True, stdout=PIPE, timeout=60)
    places = [*(stage.cgroup2 / "jailng" / name for name in (".", "7", "7/members", "7/init"))]
    found = {str(place): place.stat().st_mode & 0o777 for place in places}
    files = [Path("/run/jailng", name).stat().st_mode & 0o777 for name in ("rules", "sysctl")]
    for words in (["jail", "-r", "a"], ["rctl", "-r", ":"]):
        subprocess.run([f"{checkout}/bin/{words[0]}", *words[1:]], check=True, timeout=60)
    Path("/run/jailng/sysctl").unlink()
    assert found == dict.fromkeys(found, 0o755)
    assert files == [0o644, 0o644]


def test_cgroups_that_cannot_be_written_to_are_named(checkout: Path, stage: Stage, small_root: Path) -> None:
    """As in a container, where the one line has to do."""
    script = f'mount -o remount,bind,ro {stage.cgroup2} && exec "$@"'
    command = [f"{checkout}/bin/jail", "-c", "name=a", f"path={small_root}", "command=true"]
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *command]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.returncode) == (f"jail: jail_set: {stage.cgroup2}/jailng: Read-only file system\n", 1)
