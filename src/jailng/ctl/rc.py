"""rc.d/jail: the jails of jail.conf(5) started and stopped, as `service jail DIRECTIVE [NAME ...]` asks for it.

Behind it are /etc/init.d/jail and the units of systemd. Its words are FreeBSD's, of libexec/rc/rc.d/jail and rc.subr.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, ClassVar

from jailng.ctl import rcconf, rcsubr, rcunit
from jailng.ctl.rcconf import Settings
from jailng.ctl.rcjail import RUN, Target, name_of, own_file, variable_of
from jailng.ctl.rcsubr import tell
from jailng.errors import JailError, UsageError
from jailng.params.values import visible

_MOST = 1 << 16  # bytes of what a command has said that are told
_ROOM = 1 << 20  # and that are kept
_MOMENT = 500  # milliseconds


class Call:
    """A directive's settings, and what it works on: ``names``, or all jails where that is None."""

    def __init__(self, settings: Settings, names: list[str] | None) -> None:
        self.settings = settings
        self.names = names
        self.obsolete = False

    def target(self, word: str) -> Target:
        """The jail that is asked for by this word."""
        found = Target(self.settings, word)
        self.obsolete |= found.obsolete
        return found


def start(call: Call) -> int:
    """Start all jails of jail_conf, or those of ``names``. 1 if one did not start."""
    tell("Starting jails:")
    failed = _start_all(call.settings) if call.names is None else _start_named(call, call.names)
    tell(".\n")
    if call.obsolete and call.settings.yes("jail_confwarn"):
        words = ("Per-jail configuration via jail_* variables ", "is obsolete.  Please consider migrating to")
        rcconf.warn(f"{' '.join(words)} {call.settings.text('jail_conf')}.")
    return int(failed)


def _start_all(settings: Settings) -> bool:
    one = [] if settings.yes("jail_parallel_start") else ["-p1"]
    run = _Run("jail", *settings.words("jail_flags"), "-f", settings.text("jail_conf"), "-c", *one)
    if run.succeeds():
        for jid, name in _running():
            tell(f" {visible(name)}")
            _note(name, jid)
    else:
        tell(run.said)
    return run.failed


def _start_named(call: Call, names: list[str]) -> bool:
    side_by_side = call.settings.yes("jail_parallel_start")
    before = {name for _, name in _running()}
    failed = False
    begun: list[tuple[Target, _Run]] = []
    for word in names:
        target = call.target(word)
        if target.file is None:
            failed = True
            continue
        begun.append((target, _begin(target)))
        if not side_by_side:
            failed |= _end_of_start(begun, before)
            begun = []
    return _end_of_start(begun, before) or failed


def _end_of_start(begun: list[tuple[Target, _Run]], before: set[str]) -> bool:
    """Wait for these, and tell of them; whether one has failed. ``before``: who ran before the first was begun."""
    failed = False
    for _, run in begun:
        run.succeeds()
    for target, run in begun:
        if run.failed and target.name not in before and "already exists" in run.said:
            run = _again(target, run)
        failed |= run.failed
        _tell_of_start(target, run)
    return failed


def _begin(target: Target) -> _Run:
    return _Run("jail", *target.flags, "-i", "-f", str(target.file), "-c", target.name)


def _again(target: Target, run: _Run) -> _Run:
    """Of two that were asked for one depends on the other, and each of them has started that one."""
    if _runs(target.name):
        run.failed = False
    else:
        run = _begin(target)
        run.succeeds()
    return run


def _tell_of_start(target: Target, run: _Run) -> None:
    if run.failed:
        tell(f' cannot start jail  "{visible(target.title)}": \n{run.said}')
    else:
        tell(f" {visible(target.title)}")
        jids = [jid for jid, name in _running() if name == target.name]
        _note(target.name, *jids)


def stop(call: Call) -> int:
    """Stop all jails that run, or those of ``names`` that do. 1 if one still runs."""
    tell("Stopping jails:")
    names = [name for _, name in _running()] if call.names is None else list(call.names)
    if call.settings.yes("jail_reverse_stop"):
        names.reverse()
    failed = False
    for word in names:
        failed |= _stop_one(call, word)
    tell(".\n")
    return int(failed)


def _stop_one(call: Call, word: str) -> bool:
    if call.names is None:
        # rc.d/jail looks for all of them in jail_conf alone, and what has a file of its own ends without its exec.stop.
        file = own_file(call.settings, word) or call.settings.text("jail_conf")
        name, title, options = word, word, [*call.settings.words("jail_flags"), "-f", str(file)]
    else:
        target = call.target(word)
        if target.file is None or not _runs(target.name):
            return target.file is None
        name, title, options = target.name, target.title, ["-q", "-f", str(target.file)]
    tell(f" {visible(title)}")
    run = _Run("jail", *options, "-r", name)
    run.succeeds()
    if _runs(name):
        tell(run.said)
        return True
    _forget(name)
    return False


def restart(call: Call) -> int:
    """Stop, then start."""
    stop(call)
    return start(call)


def status(call: Call) -> int:
    """What jls(8) prints. 3 if none of the jails runs that are asked for, or one of those with a name."""
    subprocess.run([_command("jls"), "-N"], check=False)
    running = [name for _, name in _running()]
    return 0 if running and all(name_of(word) in running for word in call.names or ()) else rcsubr.NOT_RUNNING


def config(call: Call) -> int:
    """Which file has a jail's parameters."""
    targets = [call.target(word) for word in call.names or ()]
    for target in targets:
        if target.file is not None:
            tell(f"{visible(target.name)}: parameters are in {target.file}.\n")
    return int(any(target.file is None for target in targets))


def console(call: Call) -> int:
    """Log in to a jail, or run what stands after its name. Does not return."""
    if not call.names:
        print(f"{rcconf.SCRIPT}: ERROR: Specify a jail name.", file=sys.stderr)
        return 3
    word, *argv = call.names
    argv = argv or call.settings.words(f"jail_{variable_of(word)}_consolecmd", "jail_consolecmd")
    jexec = _command("jexec")
    os.execv(jexec, [jexec, name_of(word), *argv])


_OWN: dict[str, Callable[[Call], int]] = {
    "start": start,
    "stop": stop,
    "restart": restart,
    "config": config,
    "console": console,
    "status": status,
}
# In the order in which rc.subr's usage has them.
DIRECTIVES = ("start", "stop", "restart", *rcsubr.COMMON, "config", "console", "status")
# What jail_enable=NO forbids.
_GATED = ("start", "stop", "restart", "config", "console", "extracommands")
USAGE = rcsubr.usage(rcconf.SCRIPT, DIRECTIVES)


def main(argv: list[str]) -> int:
    """Carry out a directive; its exit status. Raises UsageError, JailError, OSError."""
    if not argv or not argv[0]:
        raise UsageError(USAGE)
    prefix, directive = rcsubr.parted(argv[0], rcconf.SCRIPT, DIRECTIVES)
    settings = rcconf.read()
    if directive in _GATED and rcsubr.forbidden("jail", prefix, directive, settings):
        return 0
    if directive in rcsubr.COMMON:
        return rcsubr.common("jail", "Manage system jails", "config console status", directive, settings)
    if path := settings.text("PATH"):
        os.environ["PATH"] = path  # of exec.prestart and the like
    given = [word for word in argv[1:] if word]
    if given:
        settings.set_here("jail_reverse_stop", "NO")
    call = Call(settings, given or settings.words("jail_list") or None)
    done = _OWN[directive](call)
    if done == 0 and not given:
        rcunit.follow("jail", directive, rcconf.read())
    return done


class _Run:
    """A command whose output is told of afterwards, if at all. It has a file for that: a daemon may keep it open.

    What commands in the jail have written is among it: ``said`` is the end of it, as a terminal may have it, and no
    more is kept for long.
    """

    _at_work: ClassVar[list[_Run]] = []

    def __init__(self, command: str, *arguments: str) -> None:
        # In memory: where the disk is full jails are to be stopped all the same.
        self._output: IO[bytes] = open(os.memfd_create("jailctl"), "w+b", buffering=0)  # noqa: SIM115  # until it has ended
        self._process = subprocess.Popen(
            [_command(command), *arguments], stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT
        )
        self._before = b""
        self.said = ""
        self.failed = True
        self._at_work.append(self)

    def succeeds(self) -> bool:
        """Wait for it."""
        waiter = select.poll()
        pidfd = os.pidfd_open(self._process.pid)
        waiter.register(pidfd, select.POLLIN)
        while not waiter.poll(_MOMENT):
            for one in self._at_work:
                one._forget_what_was()
        os.close(pidfd)
        self._at_work.remove(self)
        self.failed = self._process.wait() != 0
        said = self._before + self._end()
        self._output.close()
        text = said[-_MOST:].decode("utf-8", "surrogateescape").replace("\r\n", "\n")
        self.said = ("[...]\n" if len(said) > _MOST else "") + visible(text, keep="\n\t")
        return not self.failed

    def _forget_what_was(self) -> None:
        """Where there is much of it, it begins anew: it may have no end, and memory has."""
        if os.fstat(self._output.fileno()).st_size > _ROOM:
            self._before = self._end()
            self._output.seek(0)  # for the command as well: it is one open file
            self._output.truncate(0)

    def _end(self) -> bytes:
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), _MOST + 1, max(size - _MOST - 1, 0))


def _command(name: str) -> str:
    """jailng's own, beside jailctl(8)."""
    return str(Path(sys.argv[0]).resolve().parent / name)


def _running() -> list[tuple[str, str]]:
    """Jid and name of each jail that runs. Raises JailError."""
    done = subprocess.run([_command("jls"), "jid", "name"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise JailError(done.stderr.strip().removeprefix("jls: "))
    return [(jid, name) for jid, _, name in (line.partition(" ") for line in done.stdout.splitlines())]


def _runs(name: str) -> bool:
    return any(name == found for _, found in _running())


def _note(name: str, *jids: str) -> None:
    for jid in jids:
        with _at(name) as file:
            file.write_text(f"{jid}\n")


def _forget(name: str) -> None:
    with _at(name) as file:
        file.unlink(missing_ok=True)


@contextmanager
def _at(name: str) -> Iterator[Path]:
    """The file of a jail's jid. Where it cannot be made that is told of: there are other jails to start or to stop.

    A jail in a jail may have a name, which that one's root has chosen, that no file can have.
    """
    file = RUN / f"jail_{name}.id"
    try:
        yield file
    except OSError as error:
        rcconf.warn(f"{file}: {error.strerror}")
