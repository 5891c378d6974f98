"""Kernel tests run as root, on a stage of their own, and leave nothing behind on it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import pytest

from tests.kernel import debian as roots
from tests.kernel.leftovers import differences, snapshot
from tests.kernel.networks import Namespace, attach
from tests.kernel.stage import Stage, Unavailable, mount, unmount

_PR_SET_CHILD_SUBREAPER = 36
_unavailable = pytest.StashKey[str]()
_last = pytest.StashKey[tuple[str, dict[str, set[str]]]]()  # the last test, and the host before and after it


class Command(Protocol):
    """One of the commands, ready to run: ``jail("-c", "path=/", "command=/bin/true")``."""

    def __call__(self, *arguments: str, stdin: str = "", timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Its status and what it wrote; nothing is checked. ``timeout`` is in seconds."""
        ...


class Shim(Protocol):
    """The scripts in shims/: ``shim("ps", "aux")``."""

    def __call__(self, name: str, *arguments: str, path: str = "", stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Its status and what it wrote. ``path`` is PATH, if not the shims and then the host's own."""
        ...


@pytest.fixture(scope="session", autouse=True)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The host that the tests have to themselves."""
    try:
        made = Stage.enter()
    except Unavailable as why:
        request.config.stash[_unavailable] = str(why)
        pytest.skip(f"kernel tests cannot run here: {why}")
    yield made
    made.leave()


@pytest.fixture(autouse=True)
def nothing_left_behind(stage: Stage, request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test does, the host is afterwards as it was before: no more on it, and no less."""
    before = snapshot(stage)
    last, then = request.config.stash.get(_last, ("", before))
    request.config.stash[_last] = (request.node.nodeid, before)
    yield
    found = differences(stage, before)
    if found:
        # Else whose it is that is lost could not be told.
        found += [f"come since {last}: {thing}" for what in before for thing in sorted(before[what] - then[what])]
        stage.clear(keep={int(line.split()[0]) for line in before["process"]})
        # So that the next test is not blamed for it: a command takes apart what is left of jails.
        _command(request.config.rootpath / "bin/jail")("-R", "*")
        pytest.fail("the host is not as it was:\n  " + "\n  ".join(found), pytrace=False)


@pytest.fixture
def unreaped() -> Iterator[None]:
    """Nobody waits for those whose parent has ended, as in a container whose PID 1 takes its time for it."""
    libc = ctypes.CDLL(None)
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


@pytest.fixture
def lan() -> Iterator[Namespace]:
    """A machine on a LAN behind the host's ep0."""
    with attach("ep0", ("198.51.100.1/24", "2001:db8:1::1/64"), ("198.51.100.2/24", "2001:db8:1::2/64")) as made:
        yield made


@contextmanager
def standing(jail: Command, root: Path, *parameters: str) -> Iterator[str]:
    """A jail that stays until the end, by name."""
    made = jail("-c", "name=cell", f"path={root}", "persist", *parameters)
    assert made.returncode == 0, made.stderr
    yield "cell"
    assert jail("-r", "cell").returncode == 0


@pytest.fixture
def public(stage: Stage, checkout: Path) -> Iterator[Path]:
    """The checkout at a place where others than root can reach it: below /root, say, they cannot."""
    mount(str(checkout), "/mnt", None, 0x1000)  # MS_BIND
    yield Path("/mnt")
    unmount("/mnt")


@pytest.fixture
def etc(tmp_path: Path) -> Iterator[Path]:
    """The host's /etc, to be written to: afterwards it is as it was."""
    layers = tmp_path / "layers-of-etc"
    layers.mkdir()
    mount("none", layers, "tmpfs")
    for name in ("upper", "work"):
        (layers / name).mkdir()
    mount("none", "/etc", "overlay", 0, f"lowerdir=/etc,upperdir={layers}/upper,workdir={layers}/work")
    yield Path("/etc")
    unmount("/etc")
    unmount(layers)


@pytest.fixture(scope="session")
def debian(request: pytest.FixtureRequest, stage: Stage) -> Path:
    """A Debian 13 root that all tests share: none may leave a change in it."""
    return _make(request, stage, roots.PLAIN)


@pytest.fixture(scope="session")
def debian_postgresql(request: pytest.FixtureRequest, stage: Stage) -> Path:
    """A Debian 13 root with PostgreSQL, shared like ``debian``."""
    return _make(request, stage, roots.POSTGRESQL)


@pytest.fixture(scope="session")
def debian_python(request: pytest.FixtureRequest, stage: Stage) -> Path:
    """A Debian 13 root with Python, shared like ``debian``."""
    return _make(request, stage, roots.PYTHON)


@pytest.fixture(scope="session")
def debian_terminals(request: pytest.FixtureRequest, stage: Stage) -> Path:
    """A Debian 13 root with sshd, Python and programs that use terminals, shared like ``debian``."""
    return _make(request, stage, roots.TERMINALS)


@pytest.fixture
def debian_copy(debian: Path, tmp_path: Path) -> Path:
    """A Debian 13 root of the test's own, under a directory that no other user can enter."""
    return roots.copy(debian, tmp_path / "debian")


@pytest.fixture
def small_root(tmp_path: Path) -> Path:
    """A root with busybox in it and nothing else, of the test's own; it costs 20 ms."""
    return roots.small(tmp_path / "small")


@pytest.fixture
def modes(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The directories above the test's keep their modes: those of tests that come after it lie there, too.

    And those of tests beside it, which would find them shut again: one test at a time opens them.
    """
    shared = os.open(tmp_path_factory.getbasetemp().parent, os.O_RDONLY)
    fcntl.flock(shared, fcntl.LOCK_EX)
    kept = {path: path.stat().st_mode & 0o7777 for path in (tmp_path, *tmp_path.parents) if path != Path("/")}
    yield
    for path, mode in kept.items():
        path.chmod(mode)
    os.close(shared)


@pytest.fixture(scope="session")
def jail(checkout: Path) -> Command:
    """jail(8), as the checkout has it."""
    return _command(checkout / "bin/jail")


@pytest.fixture(scope="session")
def jls(checkout: Path) -> Command:
    """jls(8), as the checkout has it."""
    return _command(checkout / "bin/jls")


@pytest.fixture(scope="session")
def jexec(checkout: Path) -> Command:
    """jexec(8), as the checkout has it."""
    return _command(checkout / "bin/jexec")


@pytest.fixture(scope="session")
def jailctl(checkout: Path) -> Command:
    """jailctl(8), as the checkout has it."""
    return _command(checkout / "bin/jailctl")


@pytest.fixture(scope="session")
def ipnat(checkout: Path) -> Command:
    """ipnat(8), as the checkout has it."""
    return _command(checkout / "bin/ipnat")


@pytest.fixture(scope="session")
def shim(checkout: Path) -> Shim:
    """A shim by its name, first on PATH as somebody has it who wants FreeBSD's spellings."""

    def execute(name: str, *arguments: str, path: str = "", stdin: str = "") -> subprocess.CompletedProcess[str]:
        environment = {"PATH": path or f"{checkout}/shims:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        argv = [f"{checkout}/shims/{name}", *arguments]
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=180, env=environment)

    return execute


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say loudly what a row of skips means."""
    why = config.stash.get(_unavailable, None)
    if why is not None:
        terminalreporter.section("KERNEL TESTS DID NOT RUN", red=True, bold=True)
        terminalreporter.line(f"They make namespaces, mounts and cgroups of their own, and {why}.")


def _command(path: Path) -> Command:
    def run(*arguments: str, stdin: str = "", timeout: float = 180) -> subprocess.CompletedProcess[str]:
        argv = [str(path), *arguments]
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT)

    return run


ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TERM": os.environ.get("TERM", "dumb"), "HOME": "/root"}


def _make(request: pytest.FixtureRequest, stage: Stage, recipe: roots.Recipe) -> Path:
    capture = request.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        return roots.make(recipe, prepare=stage.onto_host_network, say=lambda line: print(f"\n{line}", flush=True))
