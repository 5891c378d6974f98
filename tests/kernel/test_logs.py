"""jailctl logs and console: what the console of a jail has said, and a session at it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.kernel.conftest import ENVIRONMENT, Command
from tests.kernel.stage import mount, unmount


@pytest.fixture
def kept() -> Iterator[Path]:
    """What is kept of jails, in memory and the test's own."""
    base = Path("/var/log/jailng")
    made = not base.exists()
    base.mkdir(exist_ok=True)
    mount("none", base, "tmpfs")
    yield base
    unmount(base)
    if made:
        base.rmdir()


class Follower:
    """``jailctl logs -f``, of which lines are read as they come."""

    def __init__(self, checkout: Path, *words: str) -> None:
        argv = [str(checkout / "bin/jailctl"), "logs", "-f", *words]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
        )

    def line(self) -> str:
        return self._line(self.process.stdout)

    def complaint(self) -> str:
        return self._line(self.process.stderr)

    def _line(self, stream: IO[bytes] | None) -> str:
        assert stream is not None
        said = b""
        while not said.endswith(b"\n"):
            if not select.select([stream], [], [], 120)[0]:
                self.process.kill()
                pytest.fail(f"no line came after {said!r}")
            said += os.read(stream.fileno(), 1) or b"(end)\n"
        return said.decode().removesuffix("\n")

    def end(self) -> tuple[int, bytes]:
        self.process.send_signal(signal.SIGINT)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


def test_the_log_of_a_configuration(
    jail: Command, jailctl: Command, checkout: Path, small_root: Path, tmp_path: Path, kept: Path
) -> None:
    """A guest's escape sequences are shown; the log is followed through a restart and a rotation."""
    log, file = tmp_path / "web.log", tmp_path / "jail.conf"
    say = r"/bin/busybox printf '\033[31mred\r\n\377 $word\n'"
    file.write_text(
        f'path = "{small_root}"; persist; exec.consolelog = "{log}"; web {{ $word = "one"; exec.start = "{say}"; }}\n'
        f'quiet {{ exec.consolelog = ""; }}\n'
    )

    def logs(*words: str) -> tuple[int, str, str]:
        done = jailctl("logs", "--file", str(file), *words)
        return done.returncode, done.stdout, done.stderr

    assert logs("web") == (1, "", f"jailctl: web: {log}: No such file or directory\n")
    follower = Follower(checkout, "--file", str(file), "web")
    assert follower.complaint() == f"jailctl: web: {log}: waiting for it"
    assert jailctl("start", "-f", str(file), "web").returncode == 0
    assert [follower.line(), follower.line()] == ["\\x1b[31mred", "\\xff one"]
    assert logs("web") == (0, "\\x1b[31mred\n\\xff one\n", "")
    assert logs("-n", "1", "web") == (0, "\\xff one\n", "")
    raw = subprocess.run(
        [str(checkout / "bin/jailctl"), "logs", "--raw", "--file", str(file), "web"],
        stdin=subprocess.DEVNULL, capture_output=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert raw.stdout == b"\x1b[31mred\r\n\xff one\n"
    lines = [json.loads(line) for line in logs("--json", "web")[1].splitlines()]
    assert lines == [{"jail": "web", "line": "\x1b[31mred"}, {"jail": "web", "line": "\\xff one"}]
    assert jailctl("restart", "-f", str(file), "web").returncode == 0
    assert [follower.line(), follower.line()] == ["\\x1b[31mred", "\\xff one"]
    log.rename(tmp_path / "web.log.1")
    assert jailctl("restart", "-f", str(file), "web").returncode == 0
    assert [follower.line(), follower.line()] == ["\\x1b[31mred", "\\xff one"]
    log.write_text("cut\nno end")
    assert follower.line() == "cut"
    log.unlink()
    log.write_text("another\n")
    assert [follower.line(), follower.line()] == ["no end", "another"]
    assert follower.end() == (130, b"")
    # Without exec.consolelog, beside what else is kept.
    (kept / "quiet").mkdir()
    (kept / "quiet/console.log").write_text("".join([f"{number}\n" for number in range(20000)]) + "end")
    assert logs("-n", "2", "quiet")[1] == "19999\nend\n"
    assert len(logs("quiet")[1].splitlines()) == 20001
    status, out, err = logs("-n", "1", "quiet", "web")
    assert (status, err) == (0, "") and sorted(out.splitlines()) == ["quiet | end", "web   | another"]
    assert logs("-n", "0", "quiet")[1] == ""
    assert jailctl("stop", "-f", str(file), "-a").returncode == 0
    assert logs("-n", "1", "web")[1] == "another\n"  # it outlives the jail
    # Of one that nobody defines any more, too; and never of what is none.
    file.write_text("")
    assert logs("-n", "1", "quiet")[1] == "end\n"
    for name in ("..", "../..", "", "quiet/.", "none"):
        status, out, err = logs(name)
        assert (status, out) == (1, "") and err == f'jailctl: jail "{name}" not found\n'
    for words in (["-n", "x", "web"], ["-n", "-1", "web"], [], ["--raw", "--json", "web"], ["-z", "web"]):
        status, out, err = logs(*words)
        assert (status, out) == (1, "") and err


def test_a_log_in_the_tree_of_the_jail(jailctl: Command, jail: Command, small_root: Path, tmp_path: Path) -> None:
    """Its root puts a link, or a pipe, in its place: nothing of the host's is shown, and nobody waits."""
    log, file = small_root / "console", tmp_path / "jail.conf"
    file.write_text(f'web {{ path = "{small_root}"; exec.consolelog = "{log}"; }}\n')
    secret = tmp_path / "secret"
    secret.write_text("secret\n")

    def logs() -> tuple[int, str, str]:
        done = jailctl("logs", "--file", str(file), "web", timeout=60)
        return done.returncode, done.stdout, done.stderr

    log.write_text("mine\n")
    assert logs() == (0, "mine\n", "")
    log.unlink()
    log.symlink_to(secret)
    status, out, err = logs()
    assert (status, out) == (1, "") and err.startswith(f"jailctl: web: {log}: ")
    log.unlink()
    os.mkfifo(log)
    assert logs() == (1, "", f"jailctl: web: {log}: not a regular file\n")
    log.unlink()
    log.write_text("first\n")
    with log.open("r+b") as hole:  # 1 TB, or as much as the file system lets him
        hole.seek(1 << 40)
        hole.write(b"last\n")
    status, out, err = logs()
    assert (status, err) == (0, "") and out.startswith("first\n") and out.endswith("last\n") and len(out) < 1 << 20
    with log.open("r+b") as hole:
        hole.truncate(1 << 43)
    done = jailctl("logs", "-n", "3", "--file", str(file), "web", timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _session(checkout: Path, argv: list[str], typed: bytes) -> tuple[int, str]:
    """What a session on a terminal says; ``typed`` is typed at its first prompt: login(1) drops what came before."""
    outer, inner = os.openpty()
    words = [str(checkout / "bin/jailctl"), "console", *argv]
    process = subprocess.Popen(
        ["setsid", "-c", "-w", *words], stdin=inner, stdout=inner, stderr=inner,
        env={**ENVIRONMENT, "TERM": "dumb"},
    )  # fmt: skip
    os.close(inner)
    said = b""
    try:
        while piece := os.read(outer, 65536):
            before, said = said, said + piece
            if b"# " in said and b"# " not in before:
                os.write(outer, typed)
    except OSError:  # that is how a terminal ends
        pass
    status = process.wait(60)
    os.close(outer)
    return status, said.decode(errors="replace")


def test_console(jail: Command, jailctl: Command, checkout: Path, debian: Path, small_root: Path) -> None:
    """By login(1) where the jail has it, and else the user's shell."""
    (small_root / "bin/login").unlink()
    for name, root in (("deb", debian), ("small", small_root)):
        assert jail("-c", f"name={name}", f"path={root}", "persist").returncode == 0
    try:
        status, said = _session(checkout, ["small"], b"echo $((40+2)); exit 7\n")
        assert (status, "42" in said) == (7, True), said
        if (debian / "usr/bin/login").exists():
            status, said = _session(checkout, ["deb"], b"echo $0 $((40+2)); tty; exit\n")
            assert "-bash 42" in said and "/dev/pts/0" in said, said
        done = jailctl("console", "deb", "root", stdin="id -un; exit 3\n")
        assert (done.returncode, done.stdout) == (3, "root\n")
        assert jailctl("console", "deb", "nobody-there").stderr == "jexec: nobody-there: no such user\n"
        assert jailctl("console", "none").stderr == 'jailctl: jail "none" not found\n'
        assert jailctl("console", "77").stderr == "jailctl: jail 77 not found\n"
        for words in ([], ["a", "b", "c"], ["--json", "a"], [""]):
            assert jailctl("console", *words).stderr.startswith("usage: jailctl console")
    finally:
        assert jail("-r", "deb", "small").returncode == 0
