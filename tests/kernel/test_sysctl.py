"""sysctl(8) on the host and in jails, with Python and without, beside the host's own program."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command, standing

REAL = "/usr/sbin/sysctl"
STATE = Path("/run/jailng/sysctl")
Done = subprocess.CompletedProcess[str]


@pytest.fixture
def sysctl(checkout: Path) -> Iterator[Callable[..., Done]]:
    """The shim, as somebody has it who has the shims first on PATH; what it has set is forgotten afterwards."""

    def execute(*words: str) -> Done:
        environment = {"PATH": f"{checkout}/shims:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        return subprocess.run(["sysctl", *words], capture_output=True, text=True, timeout=60, env=environment)

    yield execute
    STATE.unlink(missing_ok=True)


def said(done: Done) -> str:
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


def test_the_machine(sysctl: Callable[..., Done]) -> None:
    """What scripts ask for before they choose a root or a limit: BastilleBSD, poudriere."""
    assert said(sysctl("hw.machine_arch")) == f"hw.machine_arch: {os.uname().machine}\n"
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert said(sysctl("-n", "hw.physmem", "hw.pagesize")).split() == [str(memory), str(os.sysconf("SC_PAGE_SIZE"))]
    done = sysctl("hw.physmem=1")
    assert (done.stderr, done.returncode) == ("sysctl: oid 'hw.physmem' is read only\n", 1)


def test_of_a_jail(sysctl: Callable[..., Done], jail: Command, small_root: Path) -> None:
    """The jail's own answers: that of /usr/lib/jailng/shims, or another."""
    (small_root / "usr/lib/jailng/shims").mkdir(parents=True)
    (small_root / "usr/lib/jailng/shims/sysctl").write_text('#!/bin/sh\necho "$(hostname): $*"\n')
    (small_root / "usr/lib/jailng/shims/sysctl").chmod(0o755)
    with standing(jail, small_root, "host.hostname=cell.example") as name:
        for words in (
            ("-j", name, "-n", "kern.hostname"),
            ("-nj", name, "kern.hostname"),
            ("-n", f"-j{name}", "kern.hostname"),
        ):
            assert said(sysctl(*words)) == "cell.example: -n kern.hostname\n"
    done = sysctl("-j", "nowhere", "kern.hostname")
    assert (done.stderr, done.returncode) == ('jexec: jail "nowhere" not found\n', 1)


def test_the_articles(sysctl: Callable[..., Done]) -> None:
    """``sysctl -a | grep jail``: what FreeBSD has today as well, and at the end the lines of 2001."""
    lines = [line for line in sysctl("-a").stdout.splitlines() if "jail" in line]
    assert lines[-3:] == ["jail.set_hostname_allowed: 0", "jail.socket_unixiproute_only: 1", "jail.sysvipc_allowed: 0"]
    assert "security.jail.jailed: 0" in lines
    assert said(sysctl("jail")).splitlines() == lines[-3:]


@pytest.mark.parametrize(
    "words",
    [
        "", "kernel.ostype", "-n kernel.ostype kernel.osrelease", "-e kernel.none", "kernel.none", "-N fs.file-max",
        "-b kernel.ostype", "-q -n kernel.ostype", "-r ^kernel.ostype$", "--version", "-w kernel.ostype=3",
        "kernel/ostype", "-z", "net.ipv4.conf.lo.forwarding",
    ],
)  # fmt: skip
def test_what_is_not_about_jails_is_the_real_program_s(sysctl: Callable[..., Done], words: str) -> None:
    ours = sysctl(*words.split())
    theirs = subprocess.run([REAL, *words.split()], executable=REAL, capture_output=True, text=True, timeout=60)
    for text in (ours.stdout, ours.stderr, theirs.stdout, theirs.stderr):
        assert "Traceback" not in text
    assert (ours.stdout, ours.returncode) == (theirs.stdout, theirs.returncode)
    assert ours.stderr.replace(REAL, "sysctl") == theirs.stderr.replace(REAL, "sysctl")


def test_all_has_all_of_the_real_program_s(sysctl: Callable[..., Done]) -> None:
    def theirs() -> set[str]:
        return set(subprocess.run([REAL, "-aN"], capture_output=True, text=True, timeout=60).stdout.splitlines())

    before, ours, after = theirs(), sysctl("-aN").stdout.splitlines(), theirs()
    names = set(ours[: ours.index("kern.ostype")])
    assert before & after <= names <= before | after  # a module that is loaded meanwhile brings some


def test_poudriere_learns_which_internet_protocols_there_are(sysctl: Callable[..., Done]) -> None:
    """It gives its jails 127.0.0.1 and ::1, and the host's stack, as these say, and starts none where both are 0."""
    sixth = int(Path("/proc/net/if_inet6").exists())
    assert said(sysctl("-n", "kern.features.inet", "kern.features.inet6")) == f"1\n{sixth}\n"


def test_what_is_set_holds_for_the_old_form_until_the_host_goes_down(
    sysctl: Callable[..., Done], jail: Command, small_root: Path
) -> None:
    old = (str(small_root), "sysctl", "", "sh", "-c", "hostname new 2>/dev/null; hostname")
    new = ("-c", f"path={small_root}", "host.hostname=sysctl", "command=sh", "-c", old[-1])
    assert said(jail(*old)) == "sysctl\n"
    assert said(sysctl("jail.set_hostname_allowed=1")) == "jail.set_hostname_allowed: 0 -> 1\n"
    assert said(sysctl("-n", "security.jail.set_hostname_allowed")) == "1\n"
    assert said(jail(*old)) == "new\n"
    assert said(jail(*new)) == "sysctl\n"  # which says itself what it may
    STATE.write_text(STATE.read_text().replace("boot ", "boot 0"))
    assert said(sysctl("-n", "jail.set_hostname_allowed")) == "0\n"
    assert said(jail(*old)) == "sysctl\n"
    assert said(sysctl("-w", "security.jail.allow_raw_sockets=1", "jail.set_hostname_allowed=1")).count("->") == 2
    assert said(sysctl("security.jail.allow_raw_sockets=0")) == "security.jail.allow_raw_sockets: 1 -> 0\n"
    assert said(jail(*old)) == "new\n"


def test_jailng_conf_is_what_it_is_before_it_is_set(
    sysctl: Callable[..., Done], etc: Path, jail: Command, small_root: Path
) -> None:
    (etc / "jailng.conf").write_text("allow.raw_sockets\njail.sysvipc_allowed = 1\nenforce_statfs = 1\n")
    assert said(sysctl("-n", "security.jail.allow_raw_sockets", "jail.sysvipc_allowed")) == "1\n1\n"
    assert said(sysctl("jail.sysvipc_allowed=0", "security.jail.enforce_statfs=0")).splitlines() == [
        "jail.sysvipc_allowed: 1 -> 0",
        "security.jail.enforce_statfs: 1 -> 0",
    ]
    told = said(jail(str(small_root), "sysctl", "", "cat", "/dev/.jailng/self")).splitlines()
    assert {"allow.sysvipc=false", "sysvshm=disable", "allow.raw_sockets=true", "enforce_statfs=0"} <= set(told)
    (etc / "jailng.conf").write_text("nonsense\n")
    broken = sysctl("jail.sysvipc_allowed")
    assert (broken.stdout, broken.returncode) == ("", 1)
    assert broken.stderr == "sysctl: jail.sysvipc_allowed: /etc/jailng.conf: line 1: unknown parameter: nonsense\n"
    assert said(sysctl("-n", "security.jail.jailed")) == "0\n"


@pytest.mark.parametrize("word", ["security.jail.chflags_allowed=1", "security.jail.mount_zfs_allowed=1"])
def test_what_linux_never_gives_is_refused_at_once(sysctl: Callable[..., Done], word: str) -> None:
    done = sysctl(word)
    assert (done.stdout, done.returncode) == (word.replace("=1", ": 0\n"), 1)
    assert done.stderr.startswith(f"sysctl: {word}: allow.")
    assert done.stderr.count("\n") == 1
    assert not STATE.exists()


def test_values_of_the_wrong_range(sysctl: Callable[..., Done]) -> None:
    done = sysctl("security.jail.enforce_statfs=3")
    assert done.stderr == "sysctl: security.jail.enforce_statfs=3: enforce_statfs: 3 is not from 0 to 2\n"
    done = sysctl("security.jail.meta_maxbufsize=65537")
    assert done.stderr == "sysctl: security.jail.meta_maxbufsize=65537: not from 0 to 65536\n"


def test_names_of_the_host(sysctl: Callable[..., Done]) -> None:
    before = socket.gethostname()
    try:
        assert said(sysctl("kern.hostname=ogoun")) == f"kern.hostname: {before} -> ogoun\n"
        assert (socket.gethostname(), said(sysctl("-n", "kern.hostname"))) == ("ogoun", "ogoun\n")
        assert said(sysctl("kern.domainname=a b")).endswith(" -> a b\n")
        long = sysctl("kern.hostname=" + "x" * 65)
        assert (long.returncode, long.stderr) == (1, f"sysctl: kern.hostname={'x' * 65}: Invalid argument\n")
    finally:
        socket.sethostname(before)
        Path("/proc/sys/kernel/domainname").write_text("(none)")
    for word in ("kern.securelevel=1", "kern.hostid=1", "security.bsd.suser_enabled=0"):
        done = sysctl(word)
        assert done.returncode == 1
        assert done.stderr.startswith(f"sysctl: {word}: Linux ")


def test_the_limit_of_meta(sysctl: Callable[..., Done], jail: Command, jls: Command, small_root: Path) -> None:
    """As FreeBSD's jailmeta has it."""
    said(jail("-c", "name=sysctl", f"path={small_root}", "persist", f"meta={'m' * 4095}"))
    too_large = jail("-m", "name=sysctl", f"env={'e' * 4096}")
    assert too_large.stderr == "jail: env: File too large\n"
    assert said(sysctl("security.jail.meta_maxbufsize=4097")) == "security.jail.meta_maxbufsize: 4096 -> 4097\n"
    said(jail("-m", "name=sysctl", f"env={'e' * 4096}", f"meta={'m' * 4096}"))
    said(sysctl("security.jail.meta_maxbufsize=4096"))
    assert jail("-m", "name=sysctl", f"meta={'m' * 4096}").stderr == "jail: meta: File too large\n"
    assert said(sysctl("-n", "security.jail.param.meta", "security.jail.param.env")) == "4097\n4097\n"
    assert len(said(jls("-j", "sysctl", "meta"))) == 4097
    said(jail("-m", "name=sysctl", "securelevel=1"))  # what is too large by now stays
    said(jail("-r", "sysctl"))
    said(sysctl("security.jail.meta_maxbufsize=16"))
    assert said(sysctl("-n", "security.jail.param.meta")) == "16\n"
    done = jail("-c", f"path={small_root}", "meta.k=" + "x" * 14, "command=true")
    assert done.stderr == "jail: meta: File too large\n"


@pytest.fixture(params=["python", "shell"])
def inside(
    request: pytest.FixtureRequest, checkout: Path, jail: Command, jexec: Command, tmp_path: Path
) -> Iterator[Callable[..., Done]]:
    """The shim in a jail: of jailng's own, in the host's tree, or of a root that has no Python."""
    root, shim = Path("/"), f"{checkout}/shims/sysctl"
    if request.param == "shell":
        root = request.getfixturevalue("debian_copy")
        shutil.copytree(checkout / "userland/usr/lib/jailng", root / "usr/lib/jailng", dirs_exist_ok=True)
        shim = "/usr/lib/jailng/shims/sysctl"
        (root / shim[1:]).chmod(0o755)
    words = ["name=sysctl", f"path={root}", "persist", "host.hostname=cell", "env=a\n\\b", "allow.raw_sockets"]
    said(jail("-c", *words, "securelevel=1", "host.hostid=7", "children.max=2"))

    def execute(*words: str) -> Done:
        return jexec("sysctl", shim, *words)

    yield execute
    said(jail("-r", "sysctl"))


def test_inside(inside: Callable[..., Done], jail: Command) -> None:
    names = (
        "jailed vnet children.max children.cur allow_raw_sockets set_hostname_allowed enforce_statfs meta_maxbufsize"
    )
    assert (
        said(inside(*[f"security.jail.{name}" for name in names.split()])).split()[1::2] == "1 0 2 0 1 0 2 4096".split()
    )
    assert said(inside("-n", "security.jail.env")) == "a\n\\b\n"
    assert said(inside("kern.hostname", "kern.hostid", "kern.securelevel", "security.bsd.suser_enabled")) == (
        "kern.hostname: cell\nkern.hostid: 7\nkern.securelevel: 1\nsecurity.bsd.suser_enabled: 1\n"
    )
    sixth = int(Path("/proc/net/if_inet6").exists())
    assert said(inside("-n", "kern.features.inet", "kern.features.inet6")) == f"1\n{sixth}\n"
    assert inside("kern.features.inet=0").stderr == "sysctl: oid 'kern.features.inet' is read only\n"
    assert said(inside("jail")).startswith("jail.set_hostname_allowed: 0\njail.socket_unixiproute_only: 1\n")
    listed = [line for line in inside("-a").stdout.splitlines() if line.startswith("security.jail.")]
    assert listed[0] == "security.jail.jailed: 1"
    assert (
        said(inside("-e", "security.jail.children")) == "security.jail.children.max=2\nsecurity.jail.children.cur=0\n"
    )
    assert said(inside("-N", "security.jail.children")) == "security.jail.children.max\nsecurity.jail.children.cur\n"
    said(jail("-m", "name=sysctl", "securelevel=2", "allow.noraw_sockets"))
    assert said(inside("-n", "kern.securelevel", "security.jail.allow_raw_sockets")) == "2\n0\n"


def test_what_root_inside_cannot_set(inside: Callable[..., Done]) -> None:
    for word, why in (
        ("kern.hostname=evil", "Operation not permitted"),
        ("kern.securelevel=0", ""),
        ("kern.securelevel=2", "only the host can"),
        ("kern.hostid=8", "only the host can"),
        ("security.jail.allow_raw_sockets=0", "Operation not permitted"),
        ("security.jail.meta_maxbufsize=5", "Operation not permitted"),
    ):
        name = word.partition("=")[0]
        before = said(inside(name))
        done = inside(word)
        assert (done.stdout, done.returncode) == (before, 1)
        assert done.stderr.startswith(f"sysctl: {word}: {why}")
        assert done.stderr.count("\n") == 1
    done = inside("security.jail.jailed=0")
    assert (done.stdout, done.stderr) == ("", "sysctl: oid 'security.jail.jailed' is read only\n")
    assert inside("security.jail.none").stderr == "sysctl: unknown oid 'security.jail.none'\n"
    assert said(inside("-i", "security.jail.none")) == ""


def test_the_host_name_may_be_set_where_the_jail_may(
    inside: Callable[..., Done], jail: Command, jexec: Command
) -> None:
    said(jail("-m", "name=sysctl", "allow.set_hostname"))
    assert said(inside("kern.hostname=other")) == "kern.hostname: cell -> other\n"
    assert said(jexec("sysctl", "/bin/hostname")) == "other\n"


def test_without_the_file_only_what_is_known_is_told(inside: Callable[..., Done], jexec: Command) -> None:
    said(jexec("sysctl", "/bin/rm", "/dev/.jailng/self"))
    assert said(inside("-n", "security.jail.jailed")) == "1\n"
    assert inside("security.jail.allow_raw_sockets").returncode == 1
    listed = [line.partition(":")[0] for line in inside("-a").stdout.splitlines()]
    assert "security.jail.jailed" in listed
    assert "security.jail.allow_raw_sockets" not in listed


@pytest.mark.parametrize("junk", ["echo junk", "echo securelevel=x; echo allow.suser=", "head -c 900000 /dev/zero"])
def test_whatever_root_inside_writes_there_misleads_nobody_but_itself(
    inside: Callable[..., Done], jexec: Command, junk: str
) -> None:
    said(jexec("sysctl", "/bin/sh", "-c", f"({junk}) 2>/dev/null >/dev/.jailng/self"))
    for words in (["-a"], ["kern.securelevel"], ["-x", "kern.securelevel"], ["kern.securelevel=3"], ["security.jail"]):
        assert "Traceback" not in inside(*words).stderr


def test_children_are_counted_by_who_looks(
    checkout: Path, jail: Command, jexec: Command, sysctl: Callable[..., Done]
) -> None:
    """As in FreeBSD's sysctl_security_jail_children."""
    shim = f"{checkout}/shims/sysctl"
    at_first = int(said(sysctl("-n", "security.jail.children.cur")))
    said(jail("-c", "name=sysctl", "path=/", "children.max=999998", "persist"))
    said(jexec("sysctl", f"{checkout}/bin/jail", "-c", "name=in", "path=/", "children.max=4", "persist"))
    numbers = ("-n", "security.jail.children.max", "security.jail.children.cur")
    assert said(sysctl(*numbers)) == f"999999\n{at_first + 2}\n"
    assert said(jexec("sysctl", shim, *numbers)) == "999998\n1\n"
    assert said(jexec("sysctl.in", shim, *numbers)) == "4\n0\n"
    said(jail("-r", "sysctl"))
