"""``jailctl packets``: the packets of a jail, as they come or as they were kept (ng.watch)."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from jailng.core import attach, elsewhere
from jailng.core.registry import Record
from jailng.ctl import hostfile, listing
from jailng.ctl.listing import Column
from jailng.errors import JailError, UsageError
from jailng.linux import ns, packet
from jailng.observe import entry, packetfiles, packetline, pcapng, store, taps
from jailng.observe.packetfilter import Wanted
from jailng.observe.pcapng import Counts, Interface, Malformed, Packet
from jailng.params.values import visible
from jailng.procs import jsontext
from jailng.procs.jails import named

USAGE = """usage: jailctl packets [-c count] [-s snaplen] [-w file] [--json] jail [filter ...]
       jailctl packets -r [-c count] [-s snaplen] [-w file] [--json] jail [filter ...]
       jailctl packets -l [--json] jail"""
_SNAPLEN = 262144
_ROOM = 16 << 20  # bytes of the rings
_QUIET = 2  # times that there has to be nothing in them after the jail's end
_COLUMNS = [
    Column("file"),
    Column("from"),
    Column("to"),
    Column("packets", left=False),
    Column("bytes", left=False),
    Column("dropped", left=False, style=lambda value: "red" if value else ""),
]


def main(argv: list[str]) -> int:
    """Run; the exit status. Raises UsageError, JailError and OSError."""
    given, words = listing.options(argv, USAGE, "c:lrs:w:")
    if not words or len({"-l", "-r"} & given.keys()) > 1 or ("--json" in given and "-w" in given):
        raise UsageError(USAGE)
    if ns.is_jailed():
        raise JailError("packets: only the host sees them")
    name, expression = words[0], " ".join(words[1:])
    if "-l" in given:
        if expression or given.keys() - {"-l", "--json"}:
            raise UsageError(USAGE)
        return listing.show("files", _COLUMNS, _rows(_kept(name)), "--json" in given)
    count = _number("-c", given.get("-c", "0"), 0, 10**18)
    wanted = Wanted(expression, _number("-s", given.get("-s", str(_SNAPLEN)), 1, _SNAPLEN))
    # What is asked for is there before the file to write it to is.
    files = _kept(name) if "-r" in given else []
    live = None if files else Live(named(name, lambda jid: f"jail {jid} not found"), wanted)
    sink = _sink(given)
    try:
        if live is not None:
            return _follow(live, sink, count)
        spoilt: list[Path] = []
        _copy(_read(files, wanted, spoilt), sink, count)
        return int(bool(spoilt))
    finally:
        sink.close()


def _number(option: str, text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and least <= int(text[:20]) <= most):
        raise JailError(f"{option}: not a number from {least} to {most}: {visible(text)}")
    return int(text)


# What was kept


def _kept(word: str) -> list[Path]:
    """The files of the jail of that name, or jid while it runs. Raises JailError."""
    name = store.named(word)
    if not name:
        raise JailError(f'jail "{visible(word)}" not found')
    directory = Path(store.BASE, name, "packets")
    found = packetfiles.stored(directory)
    if not found:
        raise JailError(f'no packets of jail "{visible(name)}" are kept: {visible(str(directory))}')
    return found


def _rows(files: list[Path]) -> list[dict[str, object]]:
    """Of each file; one that goes meanwhile was the oldest."""
    made = []
    for path in files:
        with suppress(FileNotFoundError):
            made.append(_row(path, packetfiles.look(path)))
    return made


def _row(path: Path, found: packetfiles.Look) -> dict[str, object]:
    return {
        "file": str(path),
        "from": entry.shown_time(found.first) if found.first else None,
        "to": entry.shown_time(found.last) if found.last else None,
        "packets": found.packets,
        "bytes": found.size,
        "dropped": found.lost,
        "remarks": found.remarks,
    }


_Item = pcapng.Section | Interface | Packet | pcapng.Statistics | None


def _read(files: list[Path], wanted: Wanted, spoilt: list[Path]) -> Iterator[_Item]:
    """All that is in the files, but for packets that are not wanted. What goes meanwhile was the oldest.

    Of those that are no pcapng it says so, and names them in ``spoilt``.
    """
    for path in files:
        with suppress(FileNotFoundError), open(path, "rb") as file:
            try:
                for one in pcapng.Reader(file):
                    if isinstance(one, Packet):
                        if not wanted.takes(one):
                            continue
                        if len(one.data) > wanted.snaplen:
                            one = Packet(one.interface, one.time, one.length, one.data[: wanted.snaplen], one.direction)
                    yield one
            except Malformed as error:
                print(f"jailctl: {visible(str(path))}: {error}", file=sys.stderr)
                spoilt.append(path)


# What comes


class Live:
    """The packets of a running jail from now on, until it ends or ``interrupt`` is called; None: a pause."""

    def __init__(self, record: Record, wanted: Wanted) -> None:
        self.wanted = wanted
        self._stopped = False
        self._init = attach.open_init(record)
        self._bell, self._ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        with elsewhere.Network(record) as there:
            if not there:
                raise JailError(f'jail "{visible(record.name)}": the network that it was made in is gone')
            self.sources, self.missed = taps.open_all(record, wanted.program, wanted.snaplen, _ROOM)
        self.counts = {tap: Counts() for tap in self.sources}
        self._shown = {
            tap: Interface(
                tap.name, pcapng.ETHERNET, _SNAPLEN, f"jail {record.name}: {tap.description}", wanted.expression, 10**9
            )
            for tap in self.sources
        }

    def interrupt(self, *_: object) -> None:
        """Have it end where it is. A signal's handler; the second one interrupts whoever writes to somebody slow."""
        if self._stopped:
            raise KeyboardInterrupt
        self._stopped = True
        os.write(self._ring, b"\0")

    def __iter__(self) -> Iterator[_Item]:
        yield pcapng.Section("")
        yield from self._shown.values()
        waiter = select.poll()
        for fd in (self._init, self._bell, *[source.fileno() for source in self.sources.values()]):
            waiter.register(fd, select.POLLIN)
        quiet = 0
        while quiet < _QUIET and not self._stopped:
            found = dict(waiter.poll())
            if self._init in found:  # what it has sent before is handed over a moment later
                time.sleep(1.5 * packet.PATIENCE / 1000)
                quiet += 1
            for tap, source in self.sources.items():
                while source.ready() and not self._stopped:
                    quiet = 0
                    yield from self._block(tap, source)
                if found.get(source.fileno(), 0) & (select.POLLERR | select.POLLHUP) and source.gone():
                    waiter.unregister(source)
            yield None
        yield from self.last()

    def _block(self, tap: taps.Tap, source: taps.Source) -> Iterator[_Item]:
        shown, counts = self._shown[tap], self.counts[tap]
        for frame in source.frames():
            if isinstance(source, packet.Ring) or self.wanted.takes(frame):
                counts.received += 1
                yield Packet(shown, frame.time, frame.length, bytes(frame.data), tap.direction(frame))
        source.give_back()

    def last(self) -> Iterator[_Item]:
        """What was counted."""
        for tap, source in self.sources.items():
            drops = source.drops()
            self.counts[tap].received += drops
            self.counts[tap].dropped += drops
            yield pcapng.Statistics(self._shown[tap], time.time_ns(), self.counts[tap], "")

    @property
    def dropped(self) -> int:
        """Packets that found no room, as far as they were counted."""
        return sum(counts.dropped for counts in self.counts.values())


# Where they go


class Sink(Protocol):
    """What takes them."""

    def take(self, item: pcapng.Section | Interface | Packet | pcapng.Statistics) -> None:
        """One, in the order in which they come."""

    def flush(self) -> None:
        """Let it be seen."""

    def close(self) -> None:
        """It was the last."""


class Text:
    """A line a packet, on standard output."""

    def __init__(self, shown: Callable[[Packet], str]) -> None:
        self._shown = shown

    def take(self, item: pcapng.Section | Interface | Packet | pcapng.Statistics) -> None:
        """Packets alone have a line; what a section has to say goes beside them."""
        if isinstance(item, Packet):
            sys.stdout.write(self._shown(item) + "\n")
        elif isinstance(item, pcapng.Section | pcapng.Statistics) and item.comment:
            self.flush()
            print(f"jailctl: {visible(item.comment)}", file=sys.stderr)

    def flush(self) -> None:
        """Let it be seen."""
        sys.stdout.flush()

    def close(self) -> None:
        """Let the last be seen."""
        self.flush()


class Stream:
    """pcapng, in a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._interfaces: list[Interface] = []

    def take(self, item: pcapng.Section | Interface | Packet | pcapng.Statistics) -> None:
        """Write it."""
        write = self._file.write
        if isinstance(item, Packet):
            number = self._interfaces.index(item.interface)
            write(pcapng.packet(number, item.time, item.data, item.length, item.direction))
        elif isinstance(item, Interface):
            self._interfaces.append(item)
            write(pcapng.interface(item.name, item.snaplen, item.description, item.expression))
        elif isinstance(item, pcapng.Section):
            self._interfaces = []
            write(pcapng.section(item.comment))
        else:
            write(pcapng.statistics(self._interfaces.index(item.interface), item.time, item.counts, item.comment))

    def flush(self) -> None:
        """Let it be seen."""
        self._file.flush()

    def close(self) -> None:
        """It was the last."""
        self._file.close()


def _sink(given: dict[str, str]) -> Sink:
    if "-w" not in given:
        return Text(_json if "--json" in given else packetline.line)
    if given["-w"] == "-":
        if os.isatty(1):
            raise JailError("-w -: packets are nothing for a terminal")
        return Stream(open(1, "wb", 1 << 20, closefd=False))
    try:
        fd = hostfile.created(given["-w"], os.O_WRONLY | os.O_TRUNC, 0o600)
    except OSError as error:
        raise JailError(f"{visible(given['-w'])}: {error.strerror}") from None
    return Stream(open(fd, "wb", 1 << 20))


def _json(item: Packet) -> str:
    return jsontext.dumped(packetline.fields(item))


def _copy(source: Iterable[_Item], sink: Sink, count: int) -> int:
    """Until there is no more, or ``count`` packets were copied (0: all)."""
    packets = 0
    for item in source:
        if item is None:
            sink.flush()
            continue
        sink.take(item)
        if isinstance(item, Packet):
            packets += 1
            if packets == count:
                break
    return packets


def _follow(live: Live, sink: Sink, count: int) -> int:
    """Until the jail has ended, ``count`` packets were copied, or somebody interrupts it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, live.interrupt)
    for text in live.missed:
        print(f"jailctl: {text}", file=sys.stderr)
    names = ", ".join([visible(tap.name) for tap in live.sources])
    print(f"listening on {names}", file=sys.stderr)
    packets = _copy(live, sink, count)
    if packets and packets == count:
        for item in live.last():
            if item is not None:
                sink.take(item)
    sink.flush()
    print(f"{packets} packets captured, {live.dropped} dropped", file=sys.stderr)
    return 0
