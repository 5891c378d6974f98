"""What ``jailctl start``, ``stop`` and ``restart`` do: jails of the configuration, as jail(8) with -c, -r and -rc.

Unlike jail(8) they say what shall be, not what shall happen: to start a jail that runs, or to stop one that does not,
is no error, so each can be said again, wherever it was killed.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

from jailng.conf import config
from jailng.core import registry, undo
from jailng.core.registry import Record
from jailng.ctl import listing, pending, state
from jailng.engine import chosen, life
from jailng.engine.dependency import START, STOP, Jail
from jailng.engine.files import Files
from jailng.errors import JailError, UsageError, messages
from jailng.params.values import visible

_ALREADY = "is running already"
_INTERRUPTING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class _Voice(life.Voice):
    """What one jail's steps say; ``noted``: what was told of it."""

    __slots__ = ("name", "noted", "verbose")

    def __init__(self, name: str, verbose: int) -> None:
        self.name = name
        self.verbose = verbose
        self.noted: list[str] = []

    def say(self, text: str) -> None:
        """With -v."""
        if self.verbose > 0:
            self._print(text)

    def note(self, text: str) -> None:
        """Unless -q."""
        self.noted.append(text)
        if self.verbose >= 0:
            self._print(text)

    def warn(self, text: str) -> None:
        """Always."""
        _complain(f"{visible(self.name)}: {visible(text)}")

    def fail(self, error: JailError) -> None:
        """Always."""
        for text in messages(error):
            self.warn(text)
        error.told = True

    def _print(self, text: str) -> None:
        said = visible(f"{self.name}: {text}", keep="\n\t") + "\n"
        with suppress(OSError):  # what is done goes on, whoever listens
            os.write(1, said.encode("utf-8", "surrogateescape"))


def usage(verb: str) -> str:
    """The usage of a verb."""
    return f"usage: jailctl {verb} [-qv] [-f file] jail ...\n       jailctl {verb} [-qv] [-f file] -a"


def run(verb: str, argv: list[str]) -> int:
    """Start, stop or restart what the words say; 1 where one of the jails has failed. Raises UsageError, JailError."""
    given, words = listing.options(argv, usage(verb), "af:qv")
    if "--json" in given or ("-a" in given) is bool(words):
        raise UsageError(usage(verb))
    for number in _INTERRUPTING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    work = {"start": START, "stop": STOP, "restart": START | STOP}[verb]
    return _Call(work, given.get("-f"), ("-v" in given) - ("-q" in given)).run(words or ["*"])


def _interrupt(number: int, _: object) -> NoReturn:
    """Have what was begun undone, which no other signal is to interrupt."""
    for other in _INTERRUPTING:
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt(number)


class _Call:
    def __init__(self, work: int, file: str | None, verbose: int) -> None:
        self.work = work
        self.verbose = verbose
        self.voices: dict[str, _Voice] = {}
        self.known = _load(file, needed=work != STOP)
        self.batch = chosen.batch(self.known, self._voice, _complain)
        self.batch.started = self._started

    def _voice(self, jail: Jail) -> _Voice:
        return self.voices.setdefault(jail.name, _Voice(jail.name, self.verbose))

    def _started(self, jail: Jail, _: Record) -> None:
        voice = self._voice(jail)
        if "created" in voice.noted:
            voice.note("started")
        elif not jail.drawn:
            voice.note(_ALREADY)

    def run(self, words: list[str]) -> int:
        for word in words:
            try:
                self._choose(word)
            except JailError as error:
                for text in messages(error):
                    _complain(visible(text))
                self.batch.failed = True
        restarting = bool(self.work & START and self.work & STOP)
        if restarting:
            self._take_along()
        wanted = [jail for jail in self.batch.jails.values() if jail.work and not jail.drawn]
        for jail in wanted:
            jail.wild = True  # it is no error if there is nothing to be done
        names = [jail.name for jail in wanted]
        under_way = pending.begin(names) if restarting else None
        self.batch.run()
        if under_way is not None:
            pending.end(under_way)
        elif self.work == STOP:
            pending.forget(names)
        if self.work == STOP:
            for jail in wanted:
                if words != ["*"] and not jail.failed and not self._voice(jail).noted:
                    self._voice(jail).note("is not running")
            if words == ["*"]:
                chosen.clear_remains()
        return int(self.batch.failed)

    def _take_along(self) -> None:
        """Those that depend on what is restarted are stopped before it: start again what of them runs, or did."""
        found = [jail for jail in self.batch.jails.values() if jail.work]
        left = pending.left()
        for jail in found:
            later = [edge.later for edge in jail.before if _runs(edge.later.name) or edge.later.name in left]
            fresh = list(dict.fromkeys(one for one in later if not one.work))
            self.batch.want(fresh, self.work, wild=True)
            found += fresh

    def _choose(self, word: str) -> None:
        if self.work == STOP and word not in self.batch.jails and _clear(word):
            _Voice(word, self.verbose).note("what was left of it is cleared away")
            return
        if self.work & START and word not in ("*", *self.batch.jails) and (record := registry.find(word)) is not None:
            if record.name in self.batch.jails:  # it was named by its jid
                return chosen.choose(self.batch, self.known, record.name, self.work)
            if self.work & STOP:
                raise JailError(f'"{word}": is not in the configuration')
            _Voice(word, self.verbose).note(_ALREADY)
            return
        chosen.choose(self.batch, self.known, word, self.work)


def _runs(name: str) -> bool:
    return registry.find(name) is not None


def _load(file: str | None, needed: bool) -> config.Config | None:
    """The configuration; None where the usual one is not there and nobody needs it. Raises JailError, OSError."""
    if file is None and not needed and not os.path.lexists(state.CONFIGURATION):
        return None
    return config.load(file or state.CONFIGURATION, Files())


def _clear(word: str) -> bool:
    """Clear away what a jail that is no more has left; False if there is nothing of that name. Raises JailError."""
    record = registry.remains(word)
    if record is None or record.alive() or not record.current:
        return False
    if not undo.recover(record):
        raise JailError(f"{word}: Device or resource busy: another command is at work on it")
    return True


def _complain(text: str) -> None:
    sys.stderr.write(f"jailctl: {text}\n")
    sys.stderr.flush()
