"""A host full of jails: wildcards, dependencies, includes, mounts and aliases, and a jail(8) that is killed meanwhile.

JAILNG_MANY sets how many jails, JAILNG_ROUNDS how often they are disturbed: ``JAILNG_MANY=200 JAILNG_ROUNDS=30``.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import debian
from tests.kernel.conftest import Command
from tests.kernel.leftovers import indexed
from tests.kernel.networks import Namespace
from tests.kernel.stage import Stage, mounts
from tests.kernel.traced import traced

JAILS = int(os.environ.get("JAILNG_MANY", "40"))
ROUNDS = int(os.environ.get("JAILNG_ROUNDS", "3"))
_OF_ONE_LIFE = ("jid=", "cpuset.id=")  # what another start changes


@pytest.fixture
def conf(tmp_path: Path, lan: Namespace) -> Iterator[Path]:
    """A configuration of ``JAILS`` jails in many files: every fifth has mounts, every seventh an alias."""
    small = debian.small(tmp_path / "small")
    (tmp_path / "given").mkdir()
    (tmp_path / "jails.d").mkdir()
    for number in range(JAILS):
        lines = []
        if number % 5 == 0:
            root = shutil.copytree(small, tmp_path / f"root{number}", symlinks=True)
            for name in ("srv", "scratch"):
                (root / name).mkdir(exist_ok=True)
            lines += [f'path = "{root}"', 'mount = "$given $path/srv nullfs ro 0 0"'.replace("$path", "${path}")]
            lines += ['mount += "tmpfs ${path}/scratch tmpfs rw 0 0"']
        if number % 7 == 0:
            lines += [f'ip4.addr = "198.51.100.{number + 10}/24"', "interface = ep0"]
        if number % 3 == 0 and number:
            lines += [f"depend = j{number - 1}"]
        if number % 11 == 0:
            lines += ['exec.start = "true"']
        body = "".join(f"{line}; " for line in lines)
        (tmp_path / "jails.d" / f"{number:03}.conf").write_text(f"j{number} {{ {body}}}\n")
    path = tmp_path / "jail.conf"
    path.write_text(
        f'$given = "{tmp_path}/given"; path = "{small}"; persist;\n* {{ host.hostname = "$name.example"; }}\n'
        f'.include "{tmp_path}/jails.d/*.conf";\n'
    )
    yield path
    shutil.rmtree(tmp_path)


def _state(stage: Stage, jls: Command, tmp_path: Path) -> dict[str, list[str]]:
    """What there is of all jails that does not depend on when and in which order they were started."""
    lines = jls("-n").stdout.splitlines()
    addresses = subprocess.run(["ip", "-4", "-o", "address"], capture_output=True, text=True, check=True).stdout
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    return {
        "jails": sorted(" ".join(w for w in line.split(" ") if not w.startswith(_OF_ONE_LIFE)) for line in lines),
        "mounts": sorted(f"{m.kind} {m.root} {m.target}" for m in mounts() if m.target.startswith(str(tmp_path))),
        "addresses": sorted(line.split()[3] for line in addresses.splitlines()),
        "firewall": sorted("".join("N" if c.isdigit() else c for c in line) for line in rules.splitlines()),
        "index": sorted("\t".join(line.split("\t")[2:]) for line in indexed()),
        "cgroups": ["" for path in (stage.cgroup2 / "jailng").iterdir() if path.is_dir()],
        "records": ["" for _ in Path("/run/jailng/jails").iterdir()],
    }


def test_a_killed_start_is_made_whole(
    stage: Stage, checkout: Path, conf: Path, jail: Command, jls: Command, tmp_path: Path
) -> None:
    """Wherever it was killed, starting all once more comes to the same as an undisturbed start; and nothing stays."""
    done = jail("-f", str(conf), "-c")
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", JAILS)
    expected = _state(stage, jls, tmp_path)
    assert len(expected["jails"]) == len(expected["cgroups"]) == JAILS
    for _ in range(ROUNDS):
        assert jail("-f", str(conf), "-qr", "*").returncode == 0
        after = random.randrange(JAILS)
        argv = [str(checkout / "bin/jail"), "-f", str(conf), "-c"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as disturbed:
            assert disturbed.stdout is not None
            for _ in range(after):
                disturbed.stdout.readline()
            disturbed.kill()
        done = jail("-f", str(conf), "-qc")
        assert (done.returncode, done.stderr) == (0, ""), f"killed after {after} lines"
        assert _state(stage, jls, tmp_path) == expected, f"killed after {after} lines"
    done = jail("-f", str(conf), "-r", "*")
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", JAILS)


def test_a_killed_removal_is_carried_on(checkout: Path, conf: Path, jail: Command, jls: Command) -> None:
    assert jail("-f", str(conf), "-qc").returncode == 0
    argv = [str(checkout / "bin/jail"), "-f", str(conf), "-r", "*"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as disturbed:
        assert disturbed.stdout is not None
        for _ in range(JAILS // 2):
            disturbed.stdout.readline()
        disturbed.kill()
    done = jail("-f", str(conf), "-r", "*")
    assert (done.returncode, done.stderr) == (0, "")
    assert jls("name").stdout == ""


@pytest.fixture
def alike(tmp_path: Path, lan: Namespace, small_root: Path) -> Path:
    """A configuration of jails that differ in their addresses alone."""
    path = tmp_path / "alike.conf"
    jails = [f"j{number} {{ ip4.addr = 198.18.0.{number + 1}; }}" for number in range(JAILS)]
    path.write_text("\n".join([f'path = "{small_root}"; persist; interface = ep0;', *jails]))
    return path


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace(1)")
def test_one_among_many_costs_what_one_costs(checkout: Path, alike: Path, jail: Command, tmp_path: Path) -> None:
    def cost() -> tuple[int, int]:
        """The least of a few: on a busy machine a command may wait for what is there already on another."""
        look, enter = (f"{checkout}/bin/jls", "-j", "j0"), (f"{checkout}/bin/jexec", "j0", "/bin/true")
        looked = [traced(tmp_path, *look, follow=False)[0].total() for _ in range(3)]
        entered = []
        for _ in range(3):
            time.sleep(0.1)  # what /proc tells inside is as old for each, and made anew
            entered.append(traced(tmp_path, *enter, follow=False)[0]["openat"])
        return min(looked), min(entered)

    def all_of_them() -> int:
        return traced(tmp_path, f"{checkout}/bin/jls", follow=False)[0]["openat"]

    assert jail("-f", str(alike), "-qc", "j0").returncode == 0
    cost()  # compiles the filter, if this machine has not had it yet
    alone, files = cost(), all_of_them()
    made, lines = traced(tmp_path, f"{checkout}/bin/jail", "-f", str(alike), "-Cqc", follow=False)
    assert (cost(), all_of_them()) == (alone, files + JAILS - 1)
    # To list all takes the longer the more there are, so that is not done for each (and once is two calls).
    assert made["getdents64"] < 2 * JAILS
    assert not [line for line in lines if "RTM_GETADDR" in line and "NLM_F_DUMP" in line]
    # Nor is a file of each of the others opened for one: this many are opened for a jail, whatever their number.
    removed = traced(tmp_path, f"{checkout}/bin/jail", "-f", str(alike), "-qr", "*", follow=False)[0]
    assert made["openat"] <= 60 * JAILS
    assert removed["openat"] <= 40 * JAILS
    assert removed["getdents64"] < JAILS


def test_who_is_asked_to_end_is_asked_among_many(alike: Path, jail: Command, small_root: Path) -> None:
    """Those that die while another is taken apart are only those in which nothing runs."""
    script = small_root / "tmp/daemon"
    script.write_text("trap ': >/tmp/ended$1; exit' TERM; : >/tmp/ready$1; while :; do sleep 1000 & wait; done\n")
    for number in range(0, JAILS, 9):
        os.mkfifo(small_root / f"tmp/ready{number}")
        text = alike.read_text()
        daemon = f"sh /tmp/daemon {number} >/dev/null 2>&1 </dev/null"
        start = f'exec.start = "{daemon} & read line </tmp/ready{number}; true";'
        alike.write_text(text.replace(f"j{number} {{", f"j{number} {{ {start}"))
    assert jail("-f", str(alike), "-qc").returncode == 0
    done = jail("-f", str(alike), "-r", "*")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == JAILS
    assert sorted(path.name for path in small_root.glob("tmp/ended*")) == sorted(
        f"ended{number}" for number in range(0, JAILS, 9)
    )
