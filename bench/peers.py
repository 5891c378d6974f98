"""Who is measured, and how each is told to do the same five things."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
ADDRESS = "198.18.0.1"
INTERFACE = "bench0"
_TRUE = ["/bin/true"]
_FOREVER = ["/bin/sleep", "infinity"]


@dataclass
class Peer:
    """One way to make containers. Each operation is an argv, or a function of a warm program's; None: it has none.

    ``run`` makes one, runs /bin/true in it and leaves nothing; ``start`` leaves one behind that ``enter`` runs
    /bin/true in, ``ls`` lists (that one alone) and ``stop`` takes away.
    """

    name: str
    run: list[str] | Callable[[], object] | None = None
    start: list[str] | Callable[[], object] | None = None
    enter: list[str] | Callable[[], object] | None = None
    ls: list[str] | None = None
    stop: list[str] | Callable[[], object] | None = None
    version: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Where:
    """The tree that every container has as its root, and a directory for what the peers need."""

    root: Path
    work: Path


def scale(where: Where) -> list[Peer]:
    """What the others are held against: the interpreter alone, and C alone."""
    program = where.work / "floor"
    subprocess.run(["cc", "-O2", "-static", "-o", program, CHECKOUT / "bench/floor.c"], check=True)
    return [
        Peer("python3 -IS -c pass", run=["/usr/bin/python3", "-IS", "-c", "pass"]),
        Peer("C floor", run=[str(program), str(where.root), *_TRUE]),
    ]


def jailng(where: Where) -> list[Peer]:
    """The commands of this checkout: a jail without network, and one with an address of the host's interface."""
    jail, jls, jexec = (str(CHECKOUT / "bin" / name) for name in ("jail", "jls", "jexec"))
    path = f"path={where.root}"
    address = [f"ip4.addr={ADDRESS}", f"interface={INTERFACE}"]
    return [
        Peer(
            "jail",
            run=[jail, "-c", path, "command=/bin/true"],
            start=[jail, "-c", "name=bench", "persist", path],
            enter=[jexec, "bench", *_TRUE],
            ls=[jls],
            stop=[jail, "-r", "bench"],
        ),
        Peer(
            "jail, own address",
            run=[jail, "-c", path, *address, "command=/bin/true"],
            start=[jail, "-c", "name=bench2", "persist", path, *address],
            enter=[jexec, "bench2", *_TRUE],
            stop=[jail, "-r", "bench2"],
        ),
    ]


def warm(where: Where) -> Peer:
    """``jailng.Jail`` in this very program, which has imported it and has its worker running."""
    import jailng as api

    kept: list[api.Jail] = []

    def run() -> None:
        with api.Jail(path=where.root) as jail:
            jail.run(_TRUE, check=True)

    def start() -> None:
        kept.append(api.Jail(path=where.root).start())

    return Peer(
        "jailng.Jail (warm)",
        run=run,
        start=start,
        enter=lambda: kept[-1].run(_TRUE, check=True),
        stop=lambda: kept.pop().remove(),
    )


def _oci(name: str) -> Callable[[Where], Peer]:
    def peer(where: Where) -> Peer:
        me = [name, "--root", str(where.work / f"{name}.state")]
        once, forever = (str(_bundle(name, where, kind, argv)) for kind, argv in (("once", _TRUE), ("on", _FOREVER)))
        return Peer(
            name,
            run=[*me, "run", "--bundle", once, f"bench-{name}-once"],
            start=[*me, "run", "--detach", "--bundle", forever, f"bench-{name}-on"],
            enter=[*me, "exec", f"bench-{name}-on", *_TRUE],
            ls=[*me, "list"],
            stop=[*me, "delete", "--force", f"bench-{name}-on"],
            version=[name, "--version"],
        )

    return peer


def _bundle(name: str, where: Where, kind: str, argv: list[str]) -> Path:
    """The runtime's own default configuration, but for the root, the command and the terminal."""
    bundle = where.work / f"{name}.{kind}"
    bundle.mkdir()
    subprocess.run([name, "spec"], cwd=bundle, check=True)
    file = bundle / "config.json"
    config = json.loads(file.read_text())
    config["process"].update(args=argv, terminal=False)
    config["root"] = {"path": str(where.root), "readonly": False}
    file.write_text(json.dumps(config))
    return bundle


def _bwrap(where: Where) -> Peer:
    view = ["--unshare-all", "--bind", str(where.root), "/", "--proc", "/proc", "--dev", "/dev"]
    return Peer("bwrap", run=["bwrap", *view, *_TRUE], version=["bwrap", "--version"])


def _lxc(where: Where) -> Peer:
    state = where.work / "lxc"
    state.mkdir()
    config = where.work / "lxc.conf"
    lines = (f"rootfs.path = dir:{where.root}", "net.0.type = empty", "mount.auto = proc")
    config.write_text("".join([f"lxc.{line}\n" for line in lines]))
    once, on = (["-P", str(state), "-n", name] for name in ("bench-once", "bench-on"))
    return Peer(
        "lxc-execute",
        run=["lxc-execute", *once, "-f", str(config), "--", *_TRUE],
        start=["lxc-execute", "-d", *on, "-f", str(config), "--", *_FOREVER],
        enter=["lxc-attach", *on, "--", *_TRUE],
        ls=["lxc-ls", "-P", str(state), "--active"],
        stop=["lxc-stop", "-k", *on],
        version=["lxc-execute", "--version"],
    )


def _nspawn(where: Where) -> Peer:
    alone = ["--quiet", "--register=no", "--keep-unit", "-D", str(where.root)]
    return Peer("systemd-nspawn", run=["systemd-nspawn", *alone, *_TRUE], version=["systemd-nspawn", "--version"])


# Debian's package, the program that has to be there, and how it is used.
OTHERS: tuple[tuple[str, str, Callable[[Where], Peer]], ...] = (
    ("bubblewrap", "bwrap", _bwrap),
    ("crun", "crun", _oci("crun")),
    ("lxc", "lxc-execute", _lxc),
    ("runc", "runc", _oci("runc")),
    ("systemd-container", "systemd-nspawn", _nspawn),
)


def missing() -> list[tuple[str, str]]:
    """(package, program) of every peer that is not installed here."""
    return [(package, program) for package, program, _ in OTHERS if shutil.which(program) is None]
