"""Fuzz the command lines of jail(8), jls(8) and jexec(8): ``python -m tests.fuzz.argv SECONDS [SEED]``, as root.

Lines are options in any order and number, parameters of the table with values that they are not made for, and words
that are none of either. Most only plan; the others make what they say, on a stage. Whatever they are, a command ends in
time, with a documented status, and says what it has to say in whole lines that begin with its name. Exits 1 at the
first that does not, and prints it.
"""

from __future__ import annotations

import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jailng.params import table
from tests.kernel import debian
from tests.kernel.leftovers import differences, snapshot
from tests.kernel.stage import Stage

BIN = Path(__file__).parents[2] / "bin"
SECONDS = 30  # that a command may take, on a machine that has other work too
# A command could be anything, and would be run as the host's root.
COMMANDS = ("true", "false", "/bin/echo a", "echo 'a;b' >&2", "no-such-command", "", " ", "exit 3", "true &", "'", '"')
WORDS = (
    *("", " ", "a", "x.y", ".", "..", "a.", ".a", "0", "1", "-1", "999999", "1000000", "99999999999999999999", "00071"),
    *("true", "false", "new", "inherit", "disable", "no", "*", "a*", "a.*", "=", "==", "a=b", "+", "-", "--", "-x"),
    *("10.0.0.1", "10.0.0.1/24", "10.0.0.1/99", "ep0|10.0.0.2/24", "nosuch|10.0.0.3", "::1", "fe80::1%ep0", "1.2.3"),
    *(
        "ep0",
        "lo",
        "nosuch",
        "\n",
        "a\nb",
        "\t",
        "\x1b[31m",
        "\x7f",
        "é",
        "\udcff",
        "a" * 300,
        "x" * 5000,
        "$x",
        "${x}",
    ),
    *(",", "a,b", ",,", "'", '"', "\\", "/", "/nosuch", "/etc/passwd", "root", "nobody", "12345", "%s%n", "4", "0x10"),
)
VERBS = (
    "-c",
    "-m",
    "-r",
    "-R",
    "-C",
    "-cm",
    "-rc",
    "-mr",
    "-cmr",
    "-rC",
    "-e",
    "-f",
    "-n",
    "-p",
    "-u",
    "-U",
    "-s",
    "-q",
)
FORMATS = (
    "--libxo",
    "--libxo=json",
    "--libxo:XP",
    "--libxo=xml,pretty",
    "--libxo=nosuch",
    "--libxo=",
    "-N",
    "-a",
    "-h",
)


class Lines:
    """Command lines, made at random, that a host survives."""

    def __init__(self, seed: int, top: Path) -> None:
        self.random = random.Random(seed)
        self.top = top
        self.names = [name for name in table.names() if not name.startswith("zfs")]
        (top / "jail.conf").write_text(
            f'path = "{top}/root"; persist; a {{ }} b {{ depend = a; }} x.y {{ }}\n'
            "* { host.hostname = $name.x; exec.prestart = true; }\n"
        )
        (top / "bad.conf").write_text("a { b = ; ")

    def next(self) -> list[str]:
        """Another: a command and its words."""
        kind = self.random.random()
        if kind < 0.2:
            return ["jls", *self._some(self._of_jls, 5)]
        if kind < 0.35:
            return ["jexec", *self._some(self._of_jexec, 4)]
        words = self._some(self._option, 3) + self._some(self._parameter, 6)
        if kind < 0.5:  # nothing but words
            words = self._some(self._any, 6)
        if self.random.random() < 0.8:
            words.insert(0, self.random.choice(["-c", "-c", "-m", "-cm", "-rc", "-r", "-R"]))
        if self.random.random() < 0.6 and "-r" not in words:
            words += [f"path={self.top}/root"]
        if self.random.random() < 0.7:
            words.insert(0, "--plan")
        if self.random.random() < 0.2:
            words.append("command=" + self.random.choice(COMMANDS))
        return ["jail", *words]

    def _some(self, make: object, most: int) -> list[str]:
        assert callable(make)
        return [word for _ in range(self.random.randrange(most + 1)) for word in make()]

    def _any(self) -> list[str]:
        return [self.random.choice([*WORDS, *VERBS, *self.names, "/", "name=x", f"path={self.top}/root", "persist"])]

    def _option(self) -> list[str]:
        letter = self.random.choice("cCdehilmqrRvxfJnpsuU-")
        if letter == "f":
            return ["-f", str(self.top / self.random.choice(["jail.conf", "bad.conf", "nosuch", "root"]))]
        if letter == "J":
            return ["-J", self.random.choice([str(self.top / "jids"), "/nosuch/jids", "/dev/full"])]
        return [f"-{letter}", self._word()] if letter in "enpsuU" else [f"-{letter}"]

    def _parameter(self) -> list[str]:
        name = self.random.choice(self.names)
        if self.random.random() < 0.1:
            head, _, tail = name.rpartition(".")
            name = f"{head}.no{tail}" if head else f"no{tail}"
        if self.random.random() < 0.05:
            name = self._word()
        if self.random.random() < 0.25 or name == "command":
            return [name]
        return [f"{name}={self._value(name)}"]

    def _value(self, name: str) -> str:
        if name.startswith("exec.") and name != "exec.timeout" and not name.endswith(("user", "clean")):
            if name == "exec.consolelog":
                return str(self.top / self.random.choice(["log", "nosuch/log", "root/log", "root/dev/null", "root"]))
            return self.random.choice(COMMANDS)
        if name == "mount":
            target = self.top / "root" / self.random.choice(["mnt", "nosuch", "proc", "dev", "../root/mnt", "mnt/x"])
            return f"{self.top}/given {target} {self.random.choice(['nullfs', 'tmpfs', 'nosuch', ''])} ro 0 0"
        if name in ("stop.timeout", "exec.timeout"):
            return self.random.choice(["0", "1", "-1", "x", "", "99999999999999999999"])
        if name == "path":
            return self.random.choice([str(self.top / "root"), "/nosuch", "root", "", "/etc/passwd", str(self.top)])
        return self._word()

    def _word(self) -> str:
        return self.random.choice(WORDS)

    def _of_jls(self) -> list[str]:
        letter = self.random.choice("dhnqsvcNjx")
        kind = self.random.random()
        if kind < 0.4:
            return ["-j", self._word()] if letter == "j" else [f"-{letter}"]
        return [self.random.choice(FORMATS) if kind < 0.6 else self.random.choice([*self.names, *WORDS])]

    def _of_jexec(self) -> list[str]:
        letter = self.random.choice("luUdx")
        if self.random.random() < 0.5:
            return [f"-{letter}", self._word()] if letter in "uUd" else [f"-{letter}"]
        return [self.random.choice(["keep", "keep", "true", *WORDS])]


def wrong(argv: list[str], done: subprocess.CompletedProcess[bytes]) -> str:
    """What is the matter with a command that has ended, or ""."""
    stderr = done.stderr.decode("utf-8", "surrogateescape")
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}"
    if done.returncode > 1 and argv[0] != "jexec":
        return f"status {done.returncode}"
    if "Traceback" in stderr or "Traceback" in done.stdout.decode("utf-8", "replace"):
        return "traceback"
    if "usage: " in stderr:
        return "" if done.returncode else "a usage and no failure"
    known = (f"{argv[0]}: ", "echo", "sh: ", "/bin/sh: ", "a;b", "exit", "libxo")
    odd = [line for line in stderr.splitlines() if argv[0] != "jexec" and not line.startswith(known)]
    return f"an odd line: {odd[0]!r}" if odd else ""


def run(argv: list[str]) -> subprocess.CompletedProcess[bytes]:
    """Run one of the commands. Raises TimeoutExpired."""
    words = [word.replace("\0", "").encode("utf-8", "surrogateescape") for word in argv[1:]]
    command = [str(BIN / argv[0]).encode(), *words]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, env=environment, cwd="/", check=False
    )


def clear() -> None:
    """Remove what a line has made; the jail to enter is there then."""
    run(["jail", "-qR", "*"])
    run(["jail", "-qr", "*"])


def main(seconds: float, seed: int) -> int:
    """Try lines for so long. The exit status."""
    stage = Stage.enter()
    subprocess.run("ip link add ep0 type veth peer name ep0x", shell=True, check=True)
    with tempfile.TemporaryDirectory(prefix="argv-", dir="/root") as name:
        top = Path(name)
        debian.small(top / "root")
        (top / "given").mkdir()
        (top / "root/mnt").mkdir(exist_ok=True)
        before = snapshot(stage)
        lines = Lines(seed, top)
        end = time.monotonic() + seconds
        count = succeeded = 0
        while time.monotonic() < end:
            argv = lines.next()
            if argv[0] == "jexec" and count % 4 == 0:
                run(["jail", "-c", "name=keep", f"path={top}/root", "persist"])
            try:
                done = run(argv)
                said = wrong(argv, done)
            except subprocess.TimeoutExpired:
                done, said = subprocess.CompletedProcess(argv, 0, b"", b""), f"no end within {SECONDS} s"
            count += 1
            succeeded += done.returncode == 0
            if said:
                print(f"seed {seed}, number {count}: {said}\n{shlex.join(argv)!r}")
                print(done.stderr.decode("utf-8", "replace"))
                return _end(stage, 1)
            if argv[0] == "jail" and "--plan" not in argv:
                clear()
            if count % 200 == 0:
                clear()
                left = differences(stage, before)
                if left:
                    print(f"seed {seed}, up to number {count}: left behind:", *left, sep="\n  ")
                    return _end(stage, 1)
        clear()
    print(f"seed {seed}: {count} lines, {succeeded} of which succeeded")
    return _end(stage, 0)


def _end(stage: Stage, status: int) -> int:
    stage.leave()
    return status


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() & 0xFFFFFF))
