"""The Debian package, on a machine that has nothing of it: installed, used, upgraded under a running jail, purged."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.start import COMMANDS, MORE
from tests.kernel import debian
from tests.kernel.stage import MS_BIND, MS_REC, Stage, mount, unmount

DEPENDS = set(debian.DEPENDS)
# Where dpkg and apt themselves write, for whatever package.
_BOOKS = (
    "var/lib/dpkg",
    "var/lib/apt",
    "var/cache/apt",
    "var/cache/debconf",
    "var/log",
    "tmp",
    "root",
    "etc/ld.so.cache",
)


class Machine:
    """A Debian whose root is ``top``; what runs in it is root there, with the stage's kernel, network and cgroups."""

    def __init__(self, top: Path) -> None:
        self.top = top

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command on it; nothing is checked."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
        return subprocess.run(
            ["chroot", str(self.top), *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
        )

    def must(self, *argv: str) -> str:
        """Run a command that works and complains of nothing; what it says."""
        done = self.run(*argv)
        assert (done.returncode, done.stderr) == (0, ""), (argv, done.stdout[-2000:], done.stderr)
        return done.stdout

    def apt(self, *words: str) -> subprocess.CompletedProcess[str]:
        """apt-get, without questions; the stage has no network."""
        return self.run("apt-get", "-q", "-y", "--no-install-recommends", *words)

    def installs(self, *words: str) -> str:
        """apt-get install, which works; what it says."""
        done = self.apt("install", *words)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr
        return done.stdout + done.stderr

    def files(self) -> set[str]:
        """Every path on it that is not the business of dpkg and apt."""
        found = set()
        for path, directories, names in os.walk(self.top):
            here = os.path.relpath(path, self.top)
            directories[:] = [
                name for name in directories
                if os.path.normpath(f"{here}/{name}") not in _BOOKS and not os.path.ismount(f"{path}/{name}")
            ]  # fmt: skip
            found |= {os.path.normpath(f"{here}/{name}") for name in (*directories, *names)}
        return found - set(_BOOKS)


@pytest.fixture(scope="module")
def source(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout as it is now, at whatever somebody works meanwhile."""
    copied = tmp_path_factory.mktemp("source") / "jailng"
    copied.mkdir()
    for path in checkout.iterdir():
        if path.is_file():
            shutil.copy2(path, copied)
        elif path.name in ("bin", "docs", "jailinit", "man", "package", "share", "shims", "src", "userland"):
            shutil.copytree(path, copied / path.name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    if (checkout / ".git").exists():
        (copied / ".git").write_text(f"gitdir: {(checkout / '.git').resolve()}\n")
    return copied


@pytest.fixture(scope="module")
def packages(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The package, and one of a later version."""
    made = tmp_path_factory.mktemp("packages")
    return _build(source, made), _build(source, made, "-v", "9.0")


def _build(source: Path, output: Path, *more: str) -> Path:
    argv = [str(source / "package/build"), "-o", str(output), *more]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1000000000"}
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return Path(done.stdout.strip())


@pytest.fixture(params=[debian.BARE, debian.OLDEST], ids=lambda recipe: str(recipe.suite))
def machine(
    request: pytest.FixtureRequest, stage: Stage, tmp_path: Path, small_root: Path, packages: tuple[Path, Path]
) -> Iterator[Machine]:
    """A machine without jailng; the packages lie in /root, and a root for a jail in /jails/cell."""
    bare = debian.make(request.param, prepare=stage.onto_host_network)
    layers, top = tmp_path / "layers", tmp_path / "top"
    layers.mkdir()
    top.mkdir()
    mount("none", layers, "tmpfs")
    for name in ("upper", "work"):
        (layers / name).mkdir()
    mount("none", top, "overlay", 0, f"lowerdir={bare},upperdir={layers}/upper,workdir={layers}/work")
    mounted = [layers, top]
    for name in ("proc", "sys", "dev"):
        mount(f"/{name}", top / name, None, MS_BIND | MS_REC)
        mounted.append(top / name)
    (top / "jails").mkdir(mode=0o700)
    (top / "jails/cell").mkdir()
    mount(str(small_root), top / "jails/cell", None, MS_BIND)
    mounted.append(top / "jails/cell")
    for package in packages:
        shutil.copy(package, top / "root")
    made = Machine(top)
    yield made
    made.run("jail", "-R", "*")
    for target in reversed(mounted):
        unmount(target)


def _control(package: Path, field: str) -> str:
    done = subprocess.run(["dpkg-deb", "-f", str(package), field], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_life_of_a_package(machine: Machine, packages: tuple[Path, Path]) -> None:
    first, second = (f"/root/{package.name}" for package in packages)
    planned = machine.apt("-s", "install", first).stdout
    assert {line.split()[1] for line in planned.splitlines() if line.startswith("Inst")} >= {"jailng", *DEPENDS}
    machine.installs(*DEPENDS)
    before = machine.files()

    debians = (machine.top / "usr/sbin/service").read_bytes()
    assert "warning: " not in machine.installs(first)  # dpkg-divert(1) has one
    assert machine.must("dpkg", "-V", "jailng") == ""
    assert (machine.top / "usr/sbin/service.distrib").read_bytes() == debians
    assert machine.must("dpkg", "-S", "/usr/sbin/service").startswith("diversion by jailng from: /usr/sbin/service\n")
    _nothing_is_left_to_compile(machine)
    start = "exec.start=sleep 1000 >/dev/null 2>&1 & until pidof sleep; do :; done"
    machine.must("jail", "-c", "name=cell", "path=/jails/cell", "persist", start)
    pid = machine.must("jexec", "cell", "pidof", "sleep")
    assert machine.must("python3", "-c", "import jailng; print(jailng.Jail.find('cell').name)") == "cell\n"
    assert machine.must("dpkg", "-V", "jailng") == ""
    _stays_while_a_jail_runs(machine)

    machine.installs(second)
    assert machine.must("dpkg-query", "-W", "-f", "${Version}", "jailng") == "9.0"
    assert machine.must("jls", "name") == "cell\n"
    assert machine.must("jexec", "cell", "pidof", "sleep") == pid
    machine.must("jail", "-m", "name=cell", "host.hostname=renamed")
    assert machine.must("jexec", "cell", "hostname") == "renamed\n"
    machine.must("jail", "-r", "cell")
    assert machine.must("jls", "name") == ""
    assert machine.must("jail", "-c", "path=/jails/cell", "command=echo", "again") == "again\n"
    assert machine.must("dpkg", "-V", "jailng") == ""

    (machine.top / "etc/jailng.conf").write_text("allow.raw_sockets\n")
    kept = "var/log/jailng/cell/console.log"  # as of a jail with ng.init, ng.watch or ng.log
    (machine.top / kept).parent.mkdir(parents=True, exist_ok=True)
    (machine.top / kept).touch()
    machine.must("dpkg", "--remove", "jailng")
    assert _without_init(machine.files() ^ before) == {
        "etc/jailng.conf",
        "etc/default/jail",
        "etc/init.d/ipnat",
        "etc/init.d/jail",
        "etc/init.d/rctl",
    }
    assert (machine.top / "usr/sbin/service").read_bytes() == debians
    assert (machine.top / kept).exists()
    purged = machine.apt("purge", "jailng")
    assert purged.returncode == 0, purged.stderr
    assert "jailng: /var/log/jailng stays, with what was recorded of jails\n" in purged.stdout + purged.stderr
    assert machine.files() ^ before == set()
    assert (machine.top / kept).exists()  # evidence


def _without_init(paths: set[str]) -> set[str]:
    """Less the links by which init finds a service that is removed and may come again, until that is purged."""
    links = re.compile(r"etc/rc.\.d/[SK]\d\d(jail|ipnat|rctl)|etc/init.d|etc/systemd.*|var/lib/systemd.*")
    return {path for path in paths if not links.fullmatch(path)}


def _nothing_is_left_to_compile(machine: Machine) -> None:
    """Neither modules nor the filters of ordinary jails, with addresses or without."""
    cache, modules = machine.top / "var/cache/jailng/seccomp", machine.top / "usr/lib/python3/dist-packages/jailng"

    def compiled() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in [*cache.iterdir(), *modules.glob("**/__pycache__/*")]}

    before = compiled()
    files = len(COMMANDS) + len(MORE)
    assert len([path for path in before if path.suffix == ".command"]) == files
    assert {path.stem for path in modules.glob("**/*.py")} <= {path.name.partition(".")[0] for path in before}
    for addresses in ([], ["ip4.addr=192.0.2.1"], ["ip4.addr=192.0.2.1", "ip6.addr=2001:db8::1"]):
        told = machine.must("jail", "-c", "path=/jails/cell", "host.hostname=cell", *addresses, "command=hostname")
        assert told == "cell\n"
    assert compiled() == before
    hook = "/usr/share/python3/runtime.d/jailng.rtupdate"  # as python3 calls it before and after another one comes
    for when, count in (("pre-rtupdate", 0), ("post-rtupdate", files)):
        machine.must(hook, when, "python3.12", "python3.13")
        assert len([path for path in compiled() if path.suffix == ".command"]) == count


def _stays_while_a_jail_runs(machine: Machine) -> None:
    refused = machine.apt("purge", "jailng")
    assert refused.returncode != 0
    assert "jailng: jails are running: cell: remove them first: jail -r '*'" in refused.stdout + refused.stderr
    assert machine.must("dpkg-query", "-W", "-f", "${db:Status-Status}", "jailng") == "installed"
    assert machine.must("jls", "name") == "cell\n"


def test_the_package_depends_on_what_debian_has(packages: tuple[Path, Path]) -> None:
    depends = {word.split()[0] for word in _control(packages[0], "Depends").split(",")}
    assert depends == DEPENDS
    assert _control(packages[0], "Version") != _control(packages[1], "Version") == "9.0"


def test_what_the_readme_leads_to_is_in_the_package(packages: tuple[Path, Path], checkout: Path) -> None:
    listed = subprocess.run(["dpkg-deb", "--contents", packages[0]], check=True, capture_output=True, text=True).stdout
    there = {line.split(" ./usr/share/doc/jailng/")[1] for line in listed.splitlines() if "/doc/jailng/" in line}
    text = (checkout / "README.md").read_text() + (checkout / "SECURITY.md").read_text()
    assert set(re.findall(r"\]\(([^)#:]+)\)", text)) - {"LICENSE"} <= there  # the licence is its file copyright


def test_two_builds_are_the_same(source: Path, tmp_path: Path, packages: tuple[Path, Path]) -> None:
    for path in source.glob("src/**/*.py"):  # in another checkout the files are as old as that
        os.utime(path, (900000000, 900000000))
    assert _build(source, tmp_path).read_bytes() == packages[0].read_bytes()


@pytest.mark.skipif(shutil.which("lintian") is None, reason="needs lintian(1)")
def test_lintian_has_nothing_against_it(packages: tuple[Path, Path]) -> None:
    done = subprocess.run(["lintian", "--allow-root", str(packages[0])], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
