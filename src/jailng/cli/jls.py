"""jls(8): list jails. Formats, options and messages are those of FreeBSD 15's usr.sbin/jls/jls.c."""

from __future__ import annotations

import posix

from jailng.core import get
from jailng.errors import JailError, UsageError
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from jailng.cli.jls_libxo import Style
    from jailng.core.get import Column, Record, Registry

USAGE = "usage: jls [-dhNnqv] [-j jail] [param ...]"


class Options:
    """The command line, taken apart."""

    __slots__ = (
        "check", "dying", "header", "jail", "by_name", "name_value", "quoted", "skip", "verbose", "style", "names",
    )  # fmt: skip

    def __init__(self) -> None:
        self.check = False  # -c
        self.dying = False  # -d, -a
        self.header = False  # -h
        self.jail: str | None = None  # -j
        self.by_name = False  # -N
        self.name_value = False  # -n
        self.quoted = False  # -q
        self.skip = False  # -s
        self.verbose = False  # -v
        self.style: Style | None = None  # --libxo, where it asks for another style than text
        self.names: list[str] = []


def main(argv: list[str]) -> int:
    """Run ``jls`` with the arguments after its name; its exit status."""
    from jailng.core import registry

    return run(argv, registry)


def run(argv: list[str], registry: Registry) -> int:
    """Like ``main``, with that registry."""
    try:
        options = parse_arguments(argv)
        if options.check:
            return _exists(registry, options)
        output, failure = _list(registry, options)
        written = _write(1, output)
        if failure:
            raise failure
    except JailError as error:
        _write(2, f"jls: {error}\n")
        return error.status
    return 0 if written else 1


def parse_arguments(argv: list[str]) -> Options:
    """The options and parameter names of a command line. Raises UsageError.

    As with getopt(3) the first word that is not an option ends them; ``--libxo`` alone may stand anywhere.
    """
    options = Options()
    words = _without_libxo(argv, options)
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        for at in range(1, len(word)):
            if word[at] == "j":
                options.jail = word[at + 1 :] or (words.pop(0) if words else _usage())
                break
            _apply(options, word[at])
    options.names = words
    if options.check and (options.jail is None or words or _prints(options)):
        _usage()
    return options


def _without_libxo(argv: list[str], options: Options) -> list[str]:
    if not any(word.startswith("--libxo") for word in argv):
        return list(argv)
    from jailng.cli.jls_libxo import take

    style, rest = take(argv)
    options.style = None if style.encoder == "text" else style
    return rest


def _apply(options: Options, letter: str) -> None:
    # Which option undoes which is jls.c's.
    if letter in "ad":
        options.dying = True
    elif letter == "c":
        options.check = True
    elif letter == "h":
        options.header, options.skip, options.verbose = True, False, False
    elif letter == "N":
        options.by_name = True
    elif letter == "n":
        options.name_value, options.verbose = True, False
    elif letter == "q":
        options.quoted = True
    elif letter == "s":
        options.name_value = options.quoted = options.skip = True
        options.header = options.verbose = False
    elif letter == "v":
        options.header = options.name_value = options.skip = False
        options.verbose = True
    else:
        _usage()


def _prints(options: Options) -> bool:
    """Whether there is an option that says how to print: with ``-c`` there is nothing to be printed."""
    return options.header or options.by_name or options.name_value or options.quoted or options.verbose


def _usage() -> NoReturn:
    raise UsageError(USAGE)


def _exists(registry: Registry, options: Options) -> int:
    try:
        get.find(registry, options.jail or "", options.dying)
    except JailError:
        return 1
    return 0


def _list(registry: Registry, options: Options) -> tuple[str, JailError | None]:
    """What to print, and the error after it: a header, or a document's beginning, comes before jls looks for a jail."""
    columns = [] if not (options.names or options.header or options.name_value) else _columns(options.names)
    records: Sequence[Record] = ()
    failure: JailError | None = None
    try:
        if options.jail is None:
            records = get.living(registry, options.dying)
        else:
            records = [get.find(registry, options.jail, options.dying)]
    except JailError as error:
        failure = error
    if options.style is not None:
        from jailng.cli.jls_libxo import document

        return document(records, columns, options, options.style), failure
    if columns:
        lines = [" ".join([asked.name for asked in columns])] if options.header else []
        lines += [_row(record, columns, options) for record in records]
    elif options.verbose:
        lines = [
            "   JID  Hostname                      Path",
            "        Name                          State",
            "        CPUSetID",
            "        IP Address(es)",
        ]
        for record in records:
            lines += _verbose(record)
    elif options.by_name:
        lines = [" JID             IP Address      Hostname                      Path"]
        lines += [f" {visible(record.name):<15} {_address_and_on(record)}" for record in records]
    else:
        lines = ["   JID  IP Address      Hostname                      Path"]
        lines += [f"{record.jid:6}  {_address_and_on(record)}" for record in records]
    return "".join([line + "\n" for line in lines]), failure


def _columns(names: list[str]) -> list[Column]:
    columns: list[Column] = []
    for name in names or ["all"]:
        more = get.everything() if name == "all" else [get.column(name)]
        seen = {asked.name for asked in columns}
        columns += [asked for asked in more if asked.name not in seen]  # a parameter named twice is printed once
    return columns


def hostname(record: Record) -> str:
    """The jail's host name."""
    return get.hostname(record)


def path(record: Record) -> str:
    """The jail's root directory."""
    return record.params.get("path", "/")


def first_address(record: Record) -> str:
    """The primary IPv4 address, or ""."""
    known = get.addresses(record, "ip4.addr")
    return known[0] if known else ""


def _address_and_on(record: Record) -> str:
    return f"{first_address(record):<15.15} {visible(hostname(record)):<29.29} {visible(path(record)):.74}"


def _verbose(record: Record) -> list[str]:
    return [
        f"{record.jid:6}  {visible(hostname(record)):<29.29} {visible(path(record)):.74}",
        f"        {visible(record.name):<29.29} {state(record)}",
        f"        {record.jid}",
        *[f"        {item}" for item in get.addresses(record, "ip4.addr") + get.addresses(record, "ip6.addr")],
    ]


def state(record: Record) -> str:
    """ACTIVE or DYING."""
    return "DYING" if record.dying else "ACTIVE"


def skipped(record: Record, asked: Column) -> bool:
    """Whether ``-s`` leaves a parameter out: it cannot be set, or the one it belongs to is not "new"."""
    if asked.parameter.read_only:
        return True
    from jailng.params.table import lookup

    parent = lookup(asked.name.partition(".")[0]) if "." in asked.name else None
    if parent is None or parent.kind != "jailsys":
        return False
    return get.text(record, get.column(parent.name)) != "new"


def _row(record: Record, columns: list[Column], options: Options) -> str:
    return " ".join(
        [_field(record, asked, options) for asked in columns if not (options.skip and skipped(record, asked))]
    )


def _field(record: Record, asked: Column, options: Options) -> str:
    known = get.text(record, asked)
    if not options.name_value:
        return "" if known is None else _quoted(record, known, asked, options)
    if known is None:
        return asked.name
    if asked.parameter.kind == "bool":
        return asked.parameter.name if (known == "true") is not asked.negated else asked.off
    return f"{asked.name}={_quoted(record, known, asked, options)}"


def has_lines(record: Record, name: str) -> bool:
    """Whether newlines of a parameter are printed as newlines: of meta and env, which the administrator has written.

    FreeBSD's tests read them so. Those of a jail in a jail are that one's root's: each might look like another jail.
    """
    return name.partition(".")[0] in ("meta", "env") and "." not in record.name


def _quoted(record: Record, known: str, asked: Column, options: Options) -> str:
    if not known:
        if asked.parameter.kind in ("ip4", "ip6"):
            return '""' if options.quoted else "" if options.name_value else "-"
        return '""'
    safe = visible(known, "\n\t" if has_lines(record, asked.name) else "\t" if asked.parameter.keyed else "")
    if not options.quoted:
        return safe
    # A value that has both quotation marks comes out ambiguous, on FreeBSD too since it took to libxo.
    mark = '"' if "'" in safe else "'" if '"' in safe else '"' if " " in safe or "\t" in safe else ""
    return f"{mark}{safe}{mark}"


def _write(fd: int, text: str) -> bool:
    """Write all of it, in one call if the kernel lets us; False if nobody reads any more."""
    data = text.encode("utf-8", "surrogateescape")
    while data:
        try:
            data = data[posix.write(fd, data) :]
        except BrokenPipeError:
            return False
        except BlockingIOError:
            from select import POLLOUT, poll

            waiter = poll()
            waiter.register(fd, POLLOUT)
            waiter.poll()
        except OSError as error:
            if fd == 2:
                return False
            raise JailError(f"standard output: {error.strerror}") from None
    return True
