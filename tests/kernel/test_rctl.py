"""rctl(8): rules about jails that run, and that do not; what they use; and who watches them."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jailng.core import beside, halt, registry
from jailng.linux import processid
from jailng.params.limit import RESOURCES
from tests.kernel.conftest import ENVIRONMENT, Command, _command
from tests.kernel.stage import Stage, mount, unmount
from tests.kernel.stdio_host import until

_FORK = "busybox sleep 1000 >/dev/null 2>&1 &"
_SLEEP = "exec.start=/bin/busybox sleep 1000 >/dev/null 2>&1 &"
_PATIENCE = 20  # seconds for what takes one or two
_POLL = {"x86_64": "7 ", "aarch64": "73 "}[os.uname().machine]  # poll(2), or what the C library has for it


@pytest.fixture
def rctl(checkout: Path) -> Iterator[Command]:
    command = _command(checkout / "bin/rctl")
    yield command
    command("-r", ":")


@pytest.fixture
def make(jail: Command, small_root: Path) -> Iterator[Command]:
    """Starts the jail ``cell``, with the jid 7, which does not outlive the test."""

    def started(*words: str, stdin: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
        done = jail("-c", "jid=7", "name=cell", f"path={small_root}", *words, stdin=stdin, timeout=timeout)
        assert (done.returncode, done.stderr) == (0, "")
        return done

    yield started
    for record in registry.jails():
        if record.parent == 0:
            jail("-r", str(record.jid))
    jail("-R", "*")


@pytest.fixture
def syslog(tmp_path: Path) -> Iterator[socket.socket]:
    """What a daemon of syslog would hear."""
    Path("/run/systemd").mkdir(exist_ok=True)
    mount("none", "/run/systemd", "tmpfs")
    Path("/run/systemd/journal").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(_PATIENCE)
        listening.bind("/run/systemd/journal/dev-log")
        own = Path("/dev/log").exists() and not Path("/dev/log").is_symlink()
        if own:
            mount("/run/systemd/journal/dev-log", "/dev/log", None, 0x1000)
        yield listening
        if own:
            unmount("/dev/log")
    unmount("/run/systemd")
    if not os.listdir("/run/systemd"):
        os.rmdir("/run/systemd")


def members(stage: Stage) -> list[int]:
    return [int(pid) for pid in (stage.cgroup2 / "jailng/7/members/cgroup.procs").read_text().split()]


def load(jid: int) -> registry.Record:
    record = registry.load(jid)
    assert record is not None
    return record


def warden(jid: int = 7) -> int:
    """A pidfd of it."""
    record = load(jid)
    assert processid.is_alive(record.warden)
    return os.pidfd_open(int(record.warden.partition(" ")[0]))


def ends(pidfd: int) -> None:
    assert select.select([pidfd], [], [], _PATIENCE)[0]
    os.close(pidfd)


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_plan_of_a_jail_has_the_rules_that_there_are_for_it(rctl: Command, jail: Command, small_root: Path) -> None:
    assert lines(rctl("-a", "jail:cell:maxproc:deny=3")) == []
    assert "limit maxproc:deny=3" in lines(jail("--plan", "-c", "name=cell", f"path={small_root}", "persist"))
    assert "limit maxproc:deny=3" not in lines(jail("--plan", "-c", "name=other", f"path={small_root}", "persist"))


def test_rules_of_a_jail_that_runs(rctl: Command, make: Command, stage: Stage, jexec: Command) -> None:
    make(_SLEEP)
    assert lines(rctl()) == []
    rules = ["jail:cell:maxproc:deny=3", "jail:cell:memoryuse:deny=512M", "j:cell:OpenFiles:deny=1k/process"]
    assert lines(rctl("-a", *rules)) == []
    forms = ["jail:cell:openfiles:deny=1024/process", "jail:cell:memoryuse:deny=536870912", "jail:cell:maxproc:deny=3"]
    for words in ([], [":"], ["::"], [":::"], ["jail:cell"], ["jail:7"], ["jail:"], [":::deny"], ["-l", "jail:cell"]):
        assert lines(rctl(*words)) == forms, words
    assert lines(rctl("-h", "jail:cell:memoryuse", "::maxproc")) == ["jail:cell:memoryuse:deny=512M", forms[2]]
    (pid,) = members(stage)
    assert lines(rctl("-lhn", f"process:{pid}"))[1] == "jail:cell:memoryuse:deny=512M"
    assert lines(rctl("-l", f"process:{os.getpid()}")) == []
    assert lines(rctl("jail:other", "user:root", "loginclass:", "process:")) == []

    assert "can't fork" in jexec("cell", "/bin/busybox", "sh", "-c", f"{_FORK} {_FORK} {_FORK}").stderr
    assert lines(rctl("-a", "jail:cell:maxproc:deny=100")) == []
    assert lines(rctl("::maxproc")) == ["jail:cell:maxproc:deny=100"]
    assert lines(jexec("cell", "/bin/busybox", "sh", "-c", "ulimit -n")) == ["1024"]
    assert lines(rctl("-r", "jail:cell:maxproc")) == []
    assert lines(rctl()) == forms[:2]
    gone = rctl("-r", "jail:cell:maxproc", ":::log")
    assert gone.returncode == 2
    assert gone.stderr.splitlines()[0] == "rctl: failed to remove rule 'jail:cell:maxproc': No such process"


def test_what_is_used(rctl: Command, make: Command) -> None:
    make(_SLEEP)
    used = dict(line.split("=") for line in lines(rctl("-u", "jail:cell")))
    assert list(used)[:9] == (
        "cputime datasize stacksize coredumpsize memoryuse memorylocked maxproc openfiles vmemoryuse".split()
    )
    assert used["maxproc"] == used["nthr"] == "1"
    assert int(used["memoryuse"]) > 0
    assert int(used["openfiles"]) >= 3
    human = dict(line.split("=") for line in lines(rctl("-hu", "jail:7")))
    assert list(human) == list(used)
    assert re.fullmatch(r"[0-9.]+[KM]", human["vmemoryuse"])
    assert lines(rctl("-u", "jail:nobody")) == [f"{name}=0" for name in RESOURCES if name != "disk"]


def test_who_has_ended_counts_until_he_is_waited_for(rctl: Command, make: Command) -> None:
    """As for the limit, and on FreeBSD."""
    make("persist", "exec.start=/bin/busybox sh -c 'true & true & exec sleep 1000' >/dev/null 2>&1 &")
    end = time.monotonic() + _PATIENCE
    used = lines(rctl("-u", "jail:cell"))
    while used[6] != "maxproc=3" and time.monotonic() < end:
        used = lines(rctl("-u", "jail:cell"))  # they are about to end
    assert (used[6], used[11]) == ("maxproc=3", "nthr=3")


REFUSED = [
    ("-a foo", "malformed rule 'foo': missing subject"),
    ("-a jail:cell", "failed to add rule 'jail:cell': Invalid argument"),
    ("-a jail:cell:memoryuse:deny=1q", "malformed rule 'jail:cell:memoryuse:deny=1q': invalid numeric value '1q'"),
    ("-a jail:c:cputime:deny=1", "failed to add rule 'jail:c:cputime:deny=1': Operation not supported"),
    ("-a jail:c:pcpu:throttle=1", "failed to add rule 'jail:c:pcpu:throttle=1': Operation not supported"),
    (
        "-a jail:c:maxproc:devctl=1",
        "failed to add rule 'jail:c:maxproc:devctl=1': Operation not supported: devctl: Linux has no devd(8) to tell",
    ),
    (
        "-a jail:c:maxproc:deny=1/user",
        (
            "failed to add rule 'jail:c:maxproc:deny=1/user': Operation not supported: "
            "per user: nothing on Linux counts by user within a jail"
        ),
    ),
    (
        "-a jail:c:msgqqueued:deny=1",
        (
            "failed to add rule 'jail:c:msgqqueued:deny=1': Operation not supported: "
            "msgqqueued: Linux limits the bytes of a queue (msgqsize), and not its messages"
        ),
    ),
    (
        "-a jail:c:pcpu:deny=0",
        (
            "failed to add rule 'jail:c:pcpu:deny=0': Operation not supported: "
            "pcpu: 0: a jail without any processor cannot even be ended"
        ),
    ),
    (
        "-a jail:c:disk:deny=0",
        (
            "failed to add rule 'jail:c:disk:deny=0': Operation not supported: "
            "disk: 0: to the kernel that is a quota without a limit"
        ),
    ),
    (
        "-a jail:c:readiops:throttle=0",
        (
            "failed to add rule 'jail:c:readiops:throttle=0': Operation not supported: "
            "readiops: 0: who waits for a disk for ever cannot even be ended"
        ),
    ),
    (
        "-a process:1:nthr:deny=1",
        (
            "failed to add rule 'process:1:nthr:deny=1': Operation not supported: "
            "a process is limited by setrlimit(2): see prlimit(1)"
        ),
    ),
    (
        "-a jail:0:maxproc:deny=5",
        (
            "failed to add rule 'jail:0:maxproc:deny=5': Operation not supported: "
            "jail 0 is the host, and it is jails that are limited, and what they use that is counted"
        ),
    ),
    (
        "-u jail:0",
        (
            "failed to show resource consumption for 'jail:0': Operation not supported: "
            "jail 0 is the host, and it is jails that are limited, and what they use that is counted"
        ),
    ),
    ("user:nobody-here", "malformed rule 'user:nobody-here': unknown user 'nobody-here'"),
    ("-l :", "failed to get limits for ':': Invalid argument"),
    ("-l user:0", "failed to get limits for 'user:0': Operation not supported"),
    ("-l process:4194305", "failed to get limits for 'process:4194305': No such process"),
    ("process:4194305", "failed to show rules for 'process:4194305': No such process"),
    (f"-l process:{2**32 + 1}", f"failed to get limits for 'process:{2**32 + 1}': No such process"),
    ("-u process:4194305", "failed to show resource consumption for 'process:4194305': No such process"),
    (
        "-u process:1",
        (
            "failed to show resource consumption for 'process:1': Operation not supported: "
            "what is counted is what jails use"
        ),
    ),
    ("-u :", "failed to show resource consumption for ':': Invalid argument"),
    ("-r :", "failed to remove rule ':': No such process"),
    ("-al :", "at most one of -a, -l, -r, or -u may be specified"),
]


def test_what_is_refused(rctl: Command) -> None:
    for words, said in REFUSED:
        done = rctl(*words.split())
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"rctl: {said}\n")
    usage = "usage: rctl [ -h ] [-a rule | -l filter | -r filter | -u filter | filter]\n"
    for words in ("-a", "-u", "-x", "-h -r"):
        done = rctl(*words.split())
        assert (done.returncode, done.stderr) == (1, usage)
    some = rctl("-a", "jail:c:maxproc:deny=1", "foo", "bar", "jail:c:nthr:log=1")
    assert some.returncode == 2
    assert lines(rctl()) == ["jail:c:nthr:log=1", "jail:c:maxproc:deny=1"]


def test_the_rules_for_a_jail_that_does_not_run(rctl: Command) -> None:
    inner = ["jail:c.in:openfiles:deny=7", "jail:c.in:nthr:deny=8"]
    assert lines(rctl("-a", "jail:c:maxproc:deny=9", "jail:d:nthr:deny=6", *inner[::-1])) == []
    assert lines(rctl("-l", "jail:c.in")) == [*inner, "jail:c:maxproc:deny=9"]
    assert lines(rctl("-l", "jail:c")) == ["jail:c:maxproc:deny=9"]
    assert lines(rctl("-l", "jail:7")) == []


def test_others_than_the_host_s_root_are_refused(rctl: Command, checkout: Path) -> None:
    for prefix in (["unshare", "-U", "-r"], ["setpriv", "--reuid=65534", "--clear-groups"]):
        argv = [*prefix, "/usr/bin/python3", "-IS", str(checkout / "bin/rctl")]
        done = subprocess.run(argv, capture_output=True, text=True, env=ENVIRONMENT)
        if "can't open file" in done.stderr:  # the checkout is where only root can reach it
            continue
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "rctl: failed to show rules for '::': Operation not permitted\n"


def test_a_rule_is_there_before_the_jail_and_after_it(
    rctl: Command, make: Command, jail: Command, jexec: Command
) -> None:
    rule = "jail:cell:maxproc:deny=2"
    assert lines(rctl("-a", rule)) == []
    for _ in range(2):
        make("persist", _SLEEP)
        assert lines(rctl("-l", "jail:cell")) == [rule]
        assert "can't fork" in jexec("cell", "/bin/busybox", "sh", "-c", _FORK).stderr
        assert jail("-r", "cell").returncode == 0
        assert lines(rctl()) == [rule]


def test_a_number_by_which_none_ran(rctl: Command, make: Command) -> None:
    rules = ["jail:cell:openfiles:deny=88", "jail:7:openfiles:deny=99"]
    assert lines(rctl("-a", rules[1])) == []
    make("persist")
    assert lines(rctl("-a", "jail:7:openfiles:deny=88")) == []
    assert lines(rctl("jail:7")) == rules
    assert lines(rctl("-r", "jail:7")) == lines(rctl()) == []


def test_a_rule_comes_from_a_command_of_the_jail_s_own(
    rctl: Command, make: Command, checkout: Path, jexec: Command
) -> None:
    """As jail.conf has it on FreeBSD; the jail is locked while the first of these runs."""
    make(
        f"exec.prestart={checkout}/bin/rctl -a jail:cell:nthr:deny=64",
        f"exec.created={checkout}/bin/rctl -a jail:cell:openfiles:deny=99",
        "persist",
    )
    assert lines(rctl("-l", "jail:cell")) == ["jail:cell:openfiles:deny=99", "jail:cell:nthr:deny=64"]
    assert lines(jexec("cell", "/bin/busybox", "sh", "-c", "ulimit -n")) == ["99"]


def test_it_counts_for_what_the_jail_then_runs(rctl: Command, make: Command, checkout: Path) -> None:
    """Without another look the command would have what there was when the jail was made."""
    created = f"exec.created={checkout}/bin/rctl -a jail:cell:openfiles:deny=97"
    assert lines(make(created, "command=/bin/busybox", "sh", "-c", "ulimit -n")) == ["97"]


def test_who_is_on_the_way_in_keeps_what_is_lowered(
    rctl: Command, make: Command, checkout: Path, small_root: Path, jexec: Command
) -> None:
    """A guest's init waits for its time with what there was when it was made; so did who was entering just then."""
    for name in ("sbin", "etc", "run"):
        (small_root / name).mkdir(exist_ok=True)
    (small_root / "sbin/init").symlink_to("/bin/busybox")
    (small_root / "etc/inittab").write_text("::respawn:/bin/busybox sleep 1000\n")
    created = f"exec.created={checkout}/bin/rctl -a jail:cell:openfiles:deny=97"
    make("ng.init=sysv", "ng.limits=openfiles:deny=200", created)
    told = lines(jexec("cell", "/bin/busybox", "sh", "-c", "grep files /proc/1/limits"))
    assert told[0].split()[3:5] == ["97", "97"]


def test_the_last_command_of_a_jail_removes_them(
    rctl: Command, jail: Command, small_root: Path, checkout: Path, tmp_path: Path
) -> None:
    """The jail is locked until what is mounted for it has been unmounted."""
    conf = tmp_path / "conf"
    conf.write_text(
        f'cell {{ path={small_root}; persist; mount="tmpfs {small_root}/tmp tmpfs rw 0 0"; '
        f'exec.prestart="{checkout}/bin/rctl -a jail:cell:nthr:deny=64"; '
        f'exec.poststop="{checkout}/bin/rctl -r jail:cell"; }}'
    )
    (small_root / "tmp").mkdir(exist_ok=True)
    assert jail("-f", str(conf), "-qc", "cell").returncode == 0
    assert lines(rctl()) == ["jail:cell:nthr:deny=64"]
    assert lines(jail("-f", str(conf), "-qr", "cell", timeout=_PATIENCE)) == lines(rctl()) == []


def test_a_rule_about_the_disk_that_was_there_first(rctl: Command, jail: Command, small_root: Path) -> None:
    """It is carried out before the tree is mounted, or what the file system lacks is told: here it is a tmpfs."""
    mount("none", str(small_root / "tmp"), "tmpfs")
    try:
        assert lines(rctl("-a", "jail:cell:disk:deny=9M")) == []
        refused = jail("-c", "jid=7", "name=cell", f"path={small_root}/tmp", "persist")
    finally:
        unmount(str(small_root / "tmp"))
    assert refused.returncode == 1
    assert "tmpfs has no quotas of projects" in refused.stderr


def test_whose_a_limit_is_that_cannot_be(rctl: Command, jail: Command, small_root: Path) -> None:
    """Nobody who has no ng.limits is told of them."""
    assert lines(rctl("-a", "jail:cell:nshm:deny=5")) == []
    words = (
        "jid=7",
        "name=cell",
        f"path={small_root}",
        "persist",
        "sysvshm=inherit",
        "sysvsem=inherit",
        "sysvmsg=inherit",
    )
    why = "nshm: the jail has the host's System V IPC (sysvshm=inherit)"
    refused = jail("-c", *words)
    assert (refused.returncode, refused.stderr) == (1, f"jail: rctl(8) has rules for cell: {why}\n")
    lenient = jail("-c", *words, "ng.lenient")
    assert (lenient.returncode, lenient.stderr) == (0, f"jail: rctl(8) has rules for cell: {why}\n")
    assert jail("-r", "cell").returncode == 0


def test_what_the_jail_has_of_its_own_counts(rctl: Command, make: Command) -> None:
    """With cgroup v1, swap is limited together with memory."""
    make("persist", "ng.limits=memoryuse:deny=64M")
    assert lines(rctl("-a", "jail:cell:swapuse:deny=0")) == []
    assert lines(rctl("-r", "jail:cell")) == []


def test_a_jail_that_goes_without_has_rules(rctl: Command, jail: Command, small_root: Path, stage: Stage) -> None:
    words = (f"path={small_root}", "persist", "ng.lenient", "ng.limits=msgqqueued:deny=5,maxproc:deny=9")
    assert jail("-c", "jid=7", "name=cell", *words).returncode == 0
    assert lines(rctl("-a", "jail:cell:openfiles:deny=99", "jail:cell:wallclock:log=100000")) == []
    assert jail("-m", "jid=7", "name=other").returncode == 0
    assert lines(rctl("-r", ":")) == lines(jail("-r", "other")) == []

    assert lines(rctl("-a", "jail:cell:nshm:deny=5", "jail:cell:nthr:deny=64")) == []
    shared = ("sysvshm=inherit", "sysvsem=inherit", "sysvmsg=inherit")
    assert jail("-c", "jid=7", "name=cell", *words, *shared).returncode == 0
    assert lines(rctl("-a", "jail:cell:openfiles:deny=99")) == []
    assert jail("-m", "jid=7", "ng.limits=maxproc:deny=8").returncode == 0
    assert rctl("-a", "jail:cell:nsem:deny=5", "jail:cell:msgqqueued:deny=5").returncode == 2
    assert jail("-m", "jid=7", "ng.limits=msgqqueued:deny=6").returncode == 1
    assert lines(jail("-r", "cell")) == []


def test_a_rule_that_another_needs_stays(rctl: Command, make: Command, stage: Stage) -> None:
    """With cgroup v1, swap is limited together with memory."""
    if "memory" in (stage.cgroup2 / "cgroup.controllers").read_text():
        pytest.skip("memory is cgroup v2's here")
    make("persist")
    rules = ["jail:cell:swapuse:deny=0", "jail:cell:memoryuse:deny=67108864"]
    assert lines(rctl("-a", *rules[::-1])) == []
    refused = rctl("-r", "::memoryuse")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("rctl: failed to remove rule '::memoryuse': swapuse: ")
    assert sorted(lines(rctl())) == sorted(rules)
    assert lines(rctl("-r", "jail:cell")) == lines(rctl()) == []


def test_a_name_whose_rules_do_not_go_is_not_taken(
    rctl: Command, make: Command, jail: Command, jls: Command, jexec: Command
) -> None:
    make("persist", "ng.quota=")
    assert (
        lines(rctl("-a", "jail:cell:openfiles:deny=99", "jail:other:disk:deny=9M", "jail:other:openfiles:deny=77"))
        == []
    )
    refused = jail("-m", "jid=7", "name=other")
    assert refused.returncode == 1
    assert refused.stderr.startswith("jail: name: rctl(8) has rules for other: disk: ")
    assert lines(jls("-j", "7", "name")) == ["cell"]
    assert lines(jexec("cell", "/bin/busybox", "sh", "-c", "ulimit -n")) == ["99"]
    assert lines(rctl("-r", "::disk")) == []
    assert jail("-m", "jid=7", "name=other").returncode == 0
    assert lines(jexec("other", "/bin/busybox", "sh", "-c", "ulimit -n")) == ["77"]


def test_time_is_up(rctl: Command, make: Command, stage: Stage, jail: Command) -> None:
    make("persist", _SLEEP, _SLEEP)
    sleeping = [os.pidfd_open(pid) for pid in members(stage)]
    os.kill(members(stage)[0], signal.SIGSTOP)  # what is stopped gets it later, and keeps nobody else waiting
    assert lines(rctl("-a", "jail:cell:wallclock:sigterm=1")) == []
    ends(sleeping[1])
    assert lines(rctl("-a", "jail:cell:wallclock:sigkill=1")) == []
    ends(sleeping[0])
    watching = warden()
    assert lines(rctl("-r", "::wallclock")) == []
    ends(watching)
    assert registry.find("cell") is not None
    assert not (stage.cgroup2 / "jailng/beside").exists()


def test_what_has_been_used_up(rctl: Command, make: Command, small_root: Path) -> None:
    """The jail ends with its last process, and the warden with the jail."""
    os.mkfifo(small_root / "tmp/go")  # else it may have used up a second before it is known who watches it
    make("exec.start=/bin/busybox sh -c 'read go </tmp/go; while :; do :; done' >/dev/null 2>&1 &")
    assert lines(rctl("-a", "jail:cell:cputime:sigxcpu=1")) == []
    watching = warden()
    (small_root / "tmp/go").write_text("\n")
    ends(watching)
    assert registry.find("cell") is None
    assert lines(rctl()) == ["jail:cell:cputime:sigxcpu=1"]


def test_the_end_of_a_warden_waits_for_no_other(
    make: Command, jail: Command, small_root: Path, syslog: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as others were in their cgroup, it took half a second."""
    words = ("persist", _SLEEP, _SLEEP, "ng.limits=maxproc:log=1")
    make(*words)
    assert lines(jail("-c", "jid=8", "name=other", f"path={small_root}", *words)) == []
    said = {syslog.recv(4096).decode().rpartition(" ")[2] for _ in range(2)}  # both have begun
    assert said == {"cell", "other"}
    with monkeypatch.context() as patched:
        patched.setattr(time, "sleep", lambda _: pytest.fail("waits"))
        beside.end(load(7).warden)
    assert not processid.is_alive(load(7).warden)
    assert processid.is_alive(load(8).warden)


def test_a_fork_bomb_does_not_get_away(rctl: Command, make: Command, jexec: Command) -> None:
    make("persist", "ng.limits=maxproc:deny=2000,maxproc:sigkill=50")
    watching = warden()
    bomb = jexec("cell", "/bin/busybox", "sh", "-c", f"while :; do {_FORK} busybox usleep 2000; done")
    assert bomb.returncode == -signal.SIGKILL
    assert lines(rctl("-l", "jail:cell")) == ["jail:cell:maxproc:sigkill=50", "jail:cell:maxproc:deny=2000"]
    assert not select.select([watching], [], [], 0)[0]
    os.close(watching)
    # As long as so many are about to die the rule is met; nor is anybody killed who comes afterwards.
    until(lambda: int(lines(rctl("-u", "jail:cell"))[6].partition("=")[2]) == 0, "they have died")
    until(lambda: jexec("cell", "/bin/busybox", "true").returncode == 0, "the warden has seen it")
    assert lines(jexec("cell", "/bin/busybox", "echo", "here")) == ["here"]


def test_it_is_logged(
    rctl: Command, make: Command, checkout: Path, jail: Command, jexec: Command, syslog: socket.socket
) -> None:
    make("persist", "ng.limits=maxproc:log=1")
    argv = [str(checkout / "bin/jexec"), "cell", "/bin/busybox", "sh", "-c", f"{_FORK} read x"]
    running = subprocess.Popen(argv, stdin=subprocess.PIPE, env=ENVIRONMENT)
    said = syslog.recv(4096).decode()
    told = re.fullmatch(  # an applet is "exe", of /proc/self/exe, until busybox has named it
        r'<28>\w{3} [ \d]\d [\d:]{8} rctl: rule "jail:cell:maxproc:log=1" matched by pid (\d+) '
        r"\((busybox|exe|sleep)\), uid 0, jail cell",
        said,
    )
    assert told, said
    assert Path(f"/proc/{told[1]}").exists()
    if os.access("/dev/kmsg", os.W_OK):  # which it could not open where it lives, and has where nobody listens
        pid = int(load(7).warden.partition(" ")[0])
        found = []
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # it looks after the jail meanwhile
                found.append(os.readlink(path))
        assert "/dev/kmsg" in found
    assert lines(rctl("-a", "jail:cell:nthr:log=1")) == []
    assert "nthr:log=1" in syslog.recv(4096).decode()  # and the other not again
    assert jail("-m", "name=cell", "ng.limits=maxproc:deny=3,maxproc:log=3").returncode == 0
    assert "can't fork" in jexec("cell", "/bin/busybox", "sh", "-c", _FORK).stderr  # nobody was ever above it
    assert "maxproc:log=3" in syslog.recv(4096).decode()
    assert jail("-m", "name=cell", "ng.limits=").returncode == 0
    running.kill()
    running.communicate()
    assert lines(rctl("-l", "jail:cell")) == ["jail:cell:nthr:log=1"]


def test_what_was_refused_for_want_of_threads(
    make: Command, jexec: Command, stage: Stage, syslog: socket.socket
) -> None:
    """It is not more processes than another rule allows."""
    make("persist", _SLEEP, "ng.limits=maxproc:deny=50,nthr:deny=2,maxproc:sigkill=50,nthr:log=2,maxproc:log=0")
    assert "maxproc:log=0" in syslog.recv(4096).decode()  # it has begun to look
    sleeping = members(stage)
    assert "can't fork" in jexec("cell", "/bin/busybox", "sh", "-c", _FORK).stderr
    assert "nthr:log=2" in syslog.recv(4096).decode()
    assert jexec("cell", "/bin/busybox", "sleep", "2").returncode == 0
    assert members(stage) == sleeping


def test_whose_limit_it_was(
    make: Command, jail: Command, jexec: Command, small_root: Path, stage: Stage, syslog: socket.socket
) -> None:
    """What a jail is refused for the one that it is in has met the rules of that, and not its own."""
    make("persist", "children.max=2", "ng.limits=maxproc:deny=4,nthr:log=0,maxproc:log=4")
    own = "ng.limits=maxproc:deny=50,maxproc:sigkill=50,maxproc:log=0"
    inner = jail("-c", "jid=8", "name=cell.in", f"path={small_root}", own, _SLEEP)
    assert (inner.returncode, inner.stderr) == (0, "")
    begun = {syslog.recv(4096).decode().partition('"')[2].partition('"')[0] for _ in range(2)}
    assert begun == {"jail:cell:nthr:log=0", "jail:cell.in:maxproc:log=0"}
    sleeping = (stage.cgroup2 / load(8).members / "cgroup.procs").read_text()
    assert "can't fork" in jexec("cell.in", "/bin/busybox", "sh", "-c", f"{_FORK} {_FORK}").stderr
    assert "jail:cell:maxproc:log=4" in syslog.recv(4096).decode()
    assert jexec("cell", "/bin/busybox", "sleep", "2").returncode == 0
    assert sleeping.split()[0] in (stage.cgroup2 / load(8).members / "cgroup.procs").read_text().split()


def test_what_only_the_jail_s_own_files_tell(make: Command, jexec: Command, syslog: socket.socket) -> None:
    """Its root may mount what keeps whoever looks waiting: a child of the warden's looks."""
    make("persist", "allow.mount", "ng.limits=shmsize:log=4096,maxproc:log=100")
    assert jexec("cell", "/bin/busybox", "sh", "-c", "yes | head -c 8192 >/dev/shm/x").returncode == 0
    assert 'rule "jail:cell:shmsize:log=4096" matched by pid 0' in syslog.recv(4096).decode()


def test_nothing_of_the_caller_s_is_kept_open(rctl: Command, make: Command, checkout: Path) -> None:
    """A lock that he holds, say, or a pipe at whose end somebody waits: by the warden, by the broker."""
    make("persist")
    for words in (
        ("rctl", "-a", "jail:cell:wallclock:log=100000"),
        ("jail", "-c", "jid=8", "name=other", "path=/", "persist", "children.max=1"),
    ):
        hears, tells = os.pipe()
        subprocess.run([checkout / "bin" / words[0], *words[1:]], pass_fds=[tells], check=True, env=ENVIRONMENT)
        os.close(tells)
        ends(hears)
    os.close(warden())


def test_what_is_not_counted_keeps_nothing_else_from_being_watched(make: Command, syslog: socket.socket) -> None:
    """A jail without a quota has no use of the disk."""
    make("persist", _SLEEP, "ng.limits=disk:log=0,maxproc:log=0")
    assert "maxproc:log=0" in syslog.recv(4096).decode()


def test_whom_the_administrator_has_stopped(make: Command, rctl: Command, stage: Stage, syslog: socket.socket) -> None:
    make("persist", _SLEEP, _SLEEP)
    stops = stage.cgroup2 / "jailng/7/members/cgroup.freeze"
    stops.write_text("1")
    sleeping = [os.pidfd_open(pid) for pid in members(stage)]
    assert lines(rctl("-a", "jail:cell:maxproc:log=0")) == []
    assert "maxproc:log=0" in syslog.recv(4096).decode()
    assert stops.read_text() == "1\n"
    assert lines(rctl("-a", "jail:cell:maxproc:sigkill=1")) == []
    for pidfd in sleeping:
        ends(pidfd)
    assert stops.read_text() == "1\n"
    stops.write_text("0")


def test_a_warden_that_was_killed_is_replaced(rctl: Command, make: Command, jexec: Command, jail: Command) -> None:
    make("persist", "ng.limits=wallclock:log=100000")
    for again in (rctl, jexec):
        watching = warden()
        signal.pidfd_send_signal(watching, signal.SIGKILL)
        ends(watching)
        assert again(*(["-l", "jail:cell"] if again is rctl else ["cell", "/bin/busybox", "true"])).returncode == 0
    watching = warden()
    assert jail("-m", "name=cell", "ng.limits=maxproc:deny=100").returncode == 0
    ends(watching)
    assert load(7).warden == ""


def _is_at_rest() -> bool:
    """Whether the warden waits for its next look."""
    pid = load(7).warden.partition(" ")[0]
    return Path(f"/proc/{pid}/syscall").read_text().startswith(_POLL)


def test_one_that_was_killed_while_the_jail_stood_still(rctl: Command, make: Command, stage: Stage) -> None:
    """And then there is nothing to be watched any more: no other lets the jail go on."""
    make("persist", _SLEEP)
    rule = "jail:cell:wallclock:log=100000"
    for end in ("before", "after"):
        assert lines(rctl("-a", rule)) == []
        watching = warden()
        until(_is_at_rest, "it has begun")  # with letting those go on whom one before it has stopped
        if end == "after":  # it was told, and has not come to it
            signal.pidfd_send_signal(watching, signal.SIGSTOP)
            assert lines(rctl("-r", ":")) == []
        halt.Stopped(load(7)).__enter__()
        signal.pidfd_send_signal(watching, signal.SIGKILL)
        ends(watching)
        assert lines(rctl(*(["-r", ":"] if end == "before" else ["-l", "jail:cell"]))) == []
        assert (stage.cgroup2 / "jailng/7/members/cgroup.freeze").read_text() == "0\n"
        assert load(7).warden == ""


def test_rules_follow_the_name(rctl: Command, make: Command, jail: Command, jexec: Command) -> None:
    make("persist", "ng.limits=stacksize:deny=4M")
    rules = ["jail:cell:openfiles:deny=99", "jail:other:openfiles:deny=77", "jail:other:wallclock:log=100000"]
    assert lines(rctl("-a", *rules)) == []
    assert lines(jexec("cell", "/bin/busybox", "sh", "-c", "ulimit -n")) == ["99"]
    assert jail("-m", "jid=7", "name=other").returncode == 0
    assert lines(jexec("other", "/bin/busybox", "sh", "-c", "ulimit -n")) == ["77"]
    assert lines(rctl("-l", "jail:other")) == [*rules[:0:-1], "jail:other:stacksize:deny=4194304"]
    ends_with = warden()
    os.close(ends_with)


def test_rules_follow_the_name_of_the_jail_around(
    rctl: Command, make: Command, jail: Command, jexec: Command, small_root: Path
) -> None:
    make("persist", "children.max=2")
    inner = jail("-c", "jid=8", "name=cell.in", f"path={small_root}", "persist")
    assert (inner.returncode, inner.stderr) == (0, "")
    rules = ["jail:cell.in:openfiles:deny=99", "jail:other.in:openfiles:deny=77", "jail:other.in:wallclock:log=100000"]
    assert lines(rctl("-a", *rules)) == []
    assert jail("-m", "jid=7", "name=other").returncode == 0
    assert lines(jexec("other.in", "/bin/busybox", "sh", "-c", "ulimit -n")) == ["77"]
    os.close(warden(8))
    assert lines(rctl("-a", "jail:third.in:disk:deny=9M")) == []
    renamed = jail("-m", "jid=7", "name=third")
    assert renamed.returncode == 0
    assert renamed.stderr.startswith("jail: third.in: rctl(8) has rules for it: disk: ")


def test_whose_process_it_is(make: Command, jail: Command, small_root: Path, syslog: socket.socket) -> None:
    """Uids are those of the jail that it is in."""
    make("persist", "children.max=2", "ng.limits=maxproc:log=0")
    inner = jail("-c", "jid=8", "name=cell.in", f"path={small_root}", _SLEEP)
    assert (inner.returncode, inner.stderr) == (0, "")
    assert syslog.recv(4096).decode().endswith("), uid 0, jail cell")


def test_jails_in_jails(rctl: Command, make: Command, jail: Command, small_root: Path, stage: Stage) -> None:
    make("persist", "children.max=2")
    inner = jail("-c", "jid=8", "name=cell.in", f"path={small_root}", _SLEEP)
    assert (inner.returncode, inner.stderr) == (0, "")
    assert lines(rctl("-a", "jail:cell.in:nthr:deny=50", "jail:cell:nthr:deny=60")) == []
    pid = int((stage.cgroup2 / load(8).members / "cgroup.procs").read_text())
    assert lines(rctl("-l", f"process:{pid}")) == ["jail:cell.in:nthr:deny=50", "jail:cell:nthr:deny=60"]
    assert "maxproc=1" in lines(rctl("-u", "jail:cell"))
    sleeping = os.pidfd_open(pid)
    assert lines(rctl("-a", "jail:cell:wallclock:sigterm=0")) == []
    ends(sleeping)
