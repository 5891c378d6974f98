"""jailctl bootstrap, for real: what it makes, how it ends when it is ended, and what it refuses."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.ctl import bootstrap as verb
from jailng.ctl import stanza
from jailng.errors import JailError
from tests.kernel.bootstrapped import KEPT, bootstrap, environment, words
from tests.kernel.stage import Stage, mount, mounts, unmount


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory that only root can enter."""
    tmp_path.chmod(0o700)
    yield tmp_path
    shutil.rmtree(tmp_path)


def test_a_root_and_what_is_in_it(stage: Stage, place: Path) -> None:
    root = place / "192.0.2.10"
    root.mkdir()  # as the article does
    done = bootstrap(stage, str(root), "--hostname", "cell.example.org")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        f"{root}: Debian {platform.freedesktop_os_release()['VERSION_CODENAME']}, "
    )
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    assert [path.name for path in place.iterdir()] == [root.name]
    assert 'hostname="cell.example.org"\n' in (root / "etc/rc.conf").read_text()
    assert (root / "etc/hostname").read_text() == "cell.example.org\n"
    assert (root / "etc/fstab").read_text() == ""
    assert (root / "etc/machine-id").read_text() == ""
    assert list((root / "dev").iterdir()) == []
    assert list(root.glob("etc/ssh/ssh_host_*")) == []
    assert not (root / "usr/sbin/policy-rc.d").exists()
    assert list(root.glob("var/cache/apt/archives/*.deb")) == []
    assert "deb-src" in (root / "etc/apt/sources.list.d/debian.sources").read_text()
    assert os.access(root / "usr/lib/jailng/shims/ps", os.X_OK)
    assert not os.access(root / "etc/rc.conf", os.X_OK)
    for path in root.rglob("etc/rc*"):
        assert path.owner() == "root"


def test_the_second_comes_out_of_the_cache_and_is_another(stage: Stage, place: Path) -> None:
    first, second = [bootstrap(stage, str(place / name), "--hostname", name) for name in ("first", "second")]
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert "from the cache" in second.stderr
    (place / "first/etc/issue").write_text("changed")
    assert (place / "second/etc/issue").read_text() != "changed"
    assert (place / "second/etc/hostname").read_text() == "second\n"
    # What has capabilities on the disk keeps them, and what belongs to somebody stays his.
    assert (place / "second/etc/shadow").stat().st_gid == (place / "first/etc/shadow").stat().st_gid != 0
    assert (place / "second/usr/bin/passwd").stat().st_mode & stat.S_ISUID


def test_a_missing_directory_is_made_for_root_alone(stage: Stage, place: Path) -> None:
    root = place / "a/b/root"
    assert bootstrap(stage, str(root)).returncode == 0
    assert stat.S_IMODE((place / "a/b").stat().st_mode) == 0o700


def begun(stage: Stage, root: Path, cache: Path) -> subprocess.Popen[str]:
    """A bootstrap on its way."""
    return subprocess.Popen(
        words(str(root), "--cache", str(cache)),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        preexec_fn=stage.onto_host_network,
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_end_in_the_middle_leaves_nothing_that_looks_finished(
    stage: Stage, place: Path, number: signal.Signals
) -> None:
    root, cache = place / "root", place / "cache"
    cache.mkdir(mode=0o700)
    if KEPT.exists():  # the packages, so that not all of them are fetched again; but no root
        shutil.copytree(KEPT / "archives", cache / "archives")
    process = begun(stage, root, cache)
    assert process.stderr is not None
    for line in process.stderr:
        if "installing the essential" in line:
            break
    process.send_signal(number)
    process.wait()
    process.stderr.close()
    assert not root.exists()
    if number == signal.SIGKILL:
        assert (place / "root.partial").is_dir()
        # The next one has another suite, which there is not: it cleans up, and fails.
        done = bootstrap(stage, str(root), "--suite", "nosuch", cache=cache)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("jailctl: bootstrap: mmdebstrap: "), done.stderr
        assert list((cache / "archives").glob("libc6_*.deb"))
    else:
        assert process.returncode == 128 + signal.SIGTERM
    assert [path.name for path in place.iterdir()] == ["cache"]
    assert not [found for found in mounts() if str(place) in found.target]
    # nothing_left_behind sees to the processes.


def test_two_at_the_same_place(stage: Stage, place: Path) -> None:
    first = begun(stage, place / "root", KEPT)
    assert first.stderr is not None
    first.stderr.readline()  # it has begun
    first.send_signal(signal.SIGSTOP)  # else it may be done by then
    done = bootstrap(stage, str(place / "root"))
    first.send_signal(signal.SIGCONT)
    assert done.stderr == f"jailctl: bootstrap: {place}/root: is being made by another jailctl\n"
    assert "/root: Debian" in first.stderr.read()
    first.stderr.close()
    assert first.wait() == 0


def test_what_an_earlier_one_left_mounted_is_not_removed(stage: Stage, place: Path) -> None:
    keep = place / "keep"
    keep.mkdir()
    (keep / "file").write_text("mine")
    below = place / "root.partial/proc"
    below.mkdir(parents=True)
    mount(str(keep), below, None, 0x1000)
    try:
        done = bootstrap(stage, str(place / "root"))
        assert done.returncode == 0, done.stderr
    finally:
        if os.path.ismount(below):
            unmount(below)
    assert (keep / "file").read_text() == "mine"


def test_what_is_refused(stage: Stage, place: Path) -> None:
    (place / "full").mkdir()
    (place / "full/file").write_text("")
    (place / "file").write_text("")
    (place / "link").symlink_to(place / "nowhere")
    for name, why in (("full", "Directory not empty"), ("file", "File exists"), ("link", "File exists")):
        done = bootstrap(stage, str(place / name))
        assert (done.returncode, done.stderr) == (1, f"jailctl: bootstrap: {place / name}: {why}\n")
    assert sorted(path.name for path in place.iterdir()) == ["file", "full", "link"]


def test_a_directory_that_others_can_reach(stage: Stage) -> None:
    # A tmpfs of its own: what is above pytest's directory is closed already.
    mount("none", "/mnt", "tmpfs", 0, "mode=755")
    try:
        Path("/mnt/jails").mkdir(mode=0o755)
        done = bootstrap(stage, "/mnt/jails/a")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            "jailctl: bootstrap: /mnt/jails/a: other users of this host can reach /mnt/jails: chmod 0700 /mnt/jails\n"
        )
        assert not os.path.exists("/mnt/jails/a")
    finally:
        unmount("/mnt")


def test_a_package_that_is_not_there(stage: Stage, place: Path) -> None:
    done = bootstrap(stage, str(place / "new/root"), "--suite", "nosuch")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("jailctl: bootstrap: mmdebstrap: The repository") and "Traceback" not in done.stderr
    assert list(place.iterdir()) == []


def test_the_stanza_of_a_jail(
    stage: Stage, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not list(KEPT.glob("*.tar")):
        assert bootstrap(stage, str(place / "first")).returncode == 0
    monkeypatch.setattr(stanza, "DIRECTORY", place / "jail.conf.d")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    line = f"{place}/root --jail cell --address 192.0.2.10 --hostname cell.example.org --cache {KEPT}"
    try:
        assert verb.main(line.split()) == 0
        text = (place / "jail.conf.d/cell.conf").read_text()
        assert f'path = "{place}/root";' in text and 'ip4.addr = "192.0.2.10";' in text
        with pytest.raises(JailError, match="File exists"):
            verb.main(line.replace("/root ", "/other ").split())
        assert not (place / "other").exists()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err.splitlines()[-1] == f"{place}/jail.conf.d/cell.conf: jail cell"
