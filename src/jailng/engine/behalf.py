"""What the broker does on behalf of a jail: jail_set, jail_get, jail_attach and jail_remove, for the jails in it.

The caller is an enemy: what it says is words and numbers that are looked at one by one, the names, numbers and paths in
it are those of its jail, and the descriptors that it sends are never waited for.
"""

from __future__ import annotations

import _signal
import posix
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, MSG_CTRUNC, MSG_TRUNC, socket
from select import POLLIN, poll

from jailng.core import attach, create, get, nested, passwd, privileges, registry, remove, stdio, tunable, undo
from jailng.core.wire import ELSEWHERE, Words, as_memfd, beside, complaint, pack, received
from jailng.engine import broker, modify
from jailng.engine.caller import Caller
from jailng.errors import JailError, explain, not_permitted
from jailng.linux import cgroup, child, content
from jailng.linux.libc import ENOENT
from jailng.observe import posts
from jailng.params.model import Parameters
from jailng.params.table import resolve
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.core.registry import Record

_PATIENCE = 10_000  # ms that a caller may take to say what it wants
_TIME_TO_MAKE = 10  # seconds
_PAUSE = 1000  # ms between two looks at threads that have ended
_OWN = ("mount.devfs", "mount.fdescfs", "mount.procfs")
_LARGEST_UID = 65535


def attend(connection: socket, jid: int, owner: int, is_root: bool) -> None:
    """Hear what a member of that jail wants, do it, and answer. Nothing is raised."""
    caller: Caller | None = None
    try:
        waiter = poll()
        waiter.register(connection, POLLIN)
        if not waiter.poll(_PATIENCE):
            return
        room = CMSG_SPACE(4 * nested.MOST)
        packet, controls, flags, _ = connection.recvmsg(nested.LARGEST, room, MSG_CMSG_CLOEXEC)
        if not packet:
            return
        if flags & (MSG_TRUNC | MSG_CTRUNC):
            raise JailError("Argument list too long")
        said = Words(packet)
        version, verb = said.word(), said.word()
        if version != nested.VERSION:
            raise JailError(
                f"the host's jailng speaks version {nested.VERSION} of the broker's language, not {version}"
            )
        record = registry.load(jid)  # as it is now, however long the caller has been silent
        if record is None or not record.alive():
            return
        caller = Caller(record, owner, is_root)
        _VERBS[verb](_Talk(connection), caller, said, received(controls))
    except (JailError, OSError) as error:
        text = explain(error)
        _Talk(connection).complain(text if caller is None else caller.told(text), error)
    except (IndexError, KeyError, UnicodeError, ValueError):
        _Talk(connection).complain("the broker was asked for something else than it does")


class _Talk:
    """The broker's end of a call."""

    __slots__ = ("connection",)

    def __init__(self, connection: socket) -> None:
        self.connection = connection

    def answer(self, *said: str | int | list[str], fds: tuple[int, ...] = ()) -> None:
        """Tell that it went well, and what came of it. Raises OSError where nobody listens any more."""
        packet = pack("ok", *said)
        if len(packet) > nested.LARGEST:
            fds, packet = (as_memfd(packet),), ELSEWHERE
        self.connection.sendmsg([packet], beside(*fds))

    def complain(self, text: str, error: Exception | None = None) -> None:
        """Tell that it did not go well, and in further words what else there is to the ``error``."""
        try:
            self.connection.sendmsg([pack("error", 1, text.replace("\0", "")[:4096], *complaint(error))])
        except OSError:
            pass

    def hears_more(self) -> bool:
        """Wait for another word of the caller's; not, if it has gone."""
        try:
            return bool(self.connection.recv(64))
        except OSError:
            return False


def _must_be_root(caller: Caller, call: str) -> None:
    if not caller.is_root:
        raise not_permitted(call)


def _get(talk: _Talk, caller: Caller, said: Words, _: list[int]) -> None:
    wanted = said.word()
    if wanted:
        found = [caller.find(wanted)]
    else:
        below = registry.below(caller.record.name)
        found = [record for record in below if record.alive() and caller.sees(record)]
    answer: list[str] = []
    for record in found:
        params = Parameters.from_texts(record.params)
        params.imply("name", caller.inside(record.name))
        params.imply("path", caller.shown_path(record.params.get("path", "/")))
        if params.flag("allow.set_hostname"):
            for name in ("host.hostname", "host.domainname"):
                params.imply(name, get.host_name(record, name))
        if not record.up:
            params.set("persist", "true")  # as core.get has it
        lines = [f"param {line}\n" for line in params.to_lines()]
        above = 0 if record.parent == caller.record.jid else record.parent
        answer += [str(record.jid), "".join([*lines, f"parent {above}\n", "init 1 1\ncreated\nup\n"])]
    talk.answer(answer)


def _set(talk: _Talk, caller: Caller, said: Words, _: list[int]) -> None:
    _must_be_root(caller, "jail_set")
    _signal.signal(_signal.SIGTERM, _signal.SIG_IGN)  # what the caller's going away means is seen afterwards
    # A jailed root can stop what is born in its jail. It must not keep the locks by that, which others wait for.
    _signal.signal(_signal.SIGALRM, _give_up)
    _signal.alarm(_TIME_TO_MAKE)
    params, where = _parameters(caller, said.words())
    path = caller.open_path(where or "/")
    try:
        params.add("path", f"/proc/self/fd/{path}")
        tunable.load()
        params.settle()
        record = create.reserve(params, caller.record)
        try:
            notes = create.jail_set(params, record)
            broker.ensure(record)
            posts.made(record)
            _signal.alarm(0)
        except BaseException:
            _signal.alarm(0)
            undo.walk(record)
            raise
    finally:
        posix.close(path)
    record.unlock()
    shown = [caller.told(note) for note in notes]
    started = _is_started(talk, [record.jid, caller.inside(record.name), shown])
    if not record.lock_again():
        raise JailError(f"jail {record.jid} not found", errno=ENOENT)
    if not started:  # whoever wanted it has died on the way
        undo.walk(record)
        return
    record.append(["up"])
    if record.keeper:
        from jailng.core import keeper

        keeper.settle(record)
    if not params.flag("persist"):
        remove.set_persist(record, False)
    record.unlock()
    talk.answer()


def _give_up(*_: object) -> None:
    _signal.alarm(1)  # whoever lets go of what is half made may wait for the same process again
    raise JailError("jail_set: Connection timed out")


def _is_started(talk: _Talk, made: list[str | int | list[str]]) -> bool:
    """Tell the caller of the jail that was ``made``, and hear whether it has done its part."""
    try:
        talk.answer(*made)
        return talk.hears_more()
    except OSError:
        return False


# The host's addresses are not the jail's to give, nor are its disk and processes, and when their turn is.
_HOSTS_ALONE = ("ng.rdr", "ng.slice", "ng.watch", "ng.log")


def _parameters(caller: Caller, assignments: list[str]) -> tuple[Parameters, str]:
    """Parameters as the host has them, but for ``path``, which is returned by itself. Raises JailError."""
    params = Parameters()
    path = ""
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        known = resolve(name)
        if known is not None and known[0].pseudo and name not in _OWN:
            raise JailError(f"unknown parameter: {visible(name)}")
        if name in _HOSTS_ALONE and text:
            raise not_permitted("jail_set")
        if name == "ng.limits" and text:
            _check_limits(text)
        if name == "path":
            path = text
        elif name == "name" and text:
            params.add(name, caller.outside(text))
        elif name in ("ip4.addr", "ip6.addr") and text:  # whose interfaces, if any, are not the host's
            params.add(name, ",".join([item.rpartition("|")[2].partition(" ")[0] for item in text.split(",")]))
        else:
            params.add(name, text if equals else None)
    return params, path


def _check_limits(text: str) -> None:
    """Those that are watched take a process of the host's for each jail, and write to its log. Raises JailError."""
    from jailng.limits import watch
    from jailng.params.limit import read

    for limit in watch.watched(read([text])):
        raise JailError(f"ng.limits: {limit.text}: in a jail only deny and throttle")


def _update(talk: _Talk, caller: Caller, said: Words, _: list[int]) -> None:
    _must_be_root(caller, "jail_set")
    record = caller.find(str(said.number()))
    changes, path = _parameters(caller, said.words())
    if path:
        now = record.params.get("path", "/")
        changes.add("path", now if path == caller.shown_path(now) else path)
    modify.modify(record, changes)
    talk.answer(caller.inside(record.name))


def _remove(talk: _Talk, caller: Caller, said: Words, _: list[int]) -> None:
    _must_be_root(caller, "jail_remove")
    try:
        record = caller.find(str(said.number()))
    except JailError:
        talk.answer()
        return
    remove.jail_remove(record, ())
    talk.answer()


def _lend(talk: _Talk, caller: Caller, said: Words, _: list[int]) -> None:
    _must_be_root(caller, "SIOCSIFVNET")
    from jailng.core import vnet

    record, name = caller.find(str(said.number())), said.word()
    if record.params.get("vnet") != "new" or not record.lock():
        raise JailError("SIOCSIFVNET: Device not configured")
    try:
        vnet.lend(record, name, caller.record)
    except OSError as error:
        raise JailError(f"interface {visible(name)}: SIOCSIFVNET: {posix.strerror(error.errno or 0)}") from None
    finally:
        record.unlock()
    talk.answer()


def _members(talk: _Talk, caller: Caller, said: Words, _: list[int]) -> None:
    _must_be_root(caller, "jail_get")
    record = caller.find(str(said.number()))
    depth = caller.record.name.count(".") + 1
    pids = [inner for pid in cgroup.members(record.members) if (inner := _pid_at(pid, depth))]
    talk.answer(pids)


def _pid_at(pid: int, depth: int) -> str:
    """What a process is called in the pid namespace that is so many below the host's; "" if it has ended."""
    try:
        numbers = content.field(content.read(f"/proc/{pid}/status"), b"NSpid").decode().split()
    except OSError:
        return ""
    return numbers[depth] if len(numbers) > depth else ""


def _attach(talk: _Talk, caller: Caller, said: Words, fds: list[int]) -> None:
    _must_be_root(caller, "jail_attach")
    record = caller.find(str(said.number()))
    owned, on_terminal = said.word(), said.number() != 0
    wanted = _command(said)
    if len(fds) != 3:
        raise JailError("jail_attach: Bad file descriptor")
    entry = attach.Entry(record, privileges.confine(Parameters.from_texts(record.params), record.joined))
    streams = _streams(record, caller, entry.base, (fds[0], fds[1], fds[2]), owned, on_terminal)
    pid, pidfd = attach.jail_attach(entry, wanted, streams)
    terminal = streams.terminal
    talk.answer(fds=(pidfd, terminal.master, terminal.slave) if terminal is not None else (pidfd,))
    streams.close()
    for fd in fds:
        posix.close(fd)
    if wanted.background:
        return
    waiter = poll()
    waiter.register(pidfd, POLLIN)
    while not waiter.poll(_PAUSE):  # the caller's end is the broker's to notice
        child.let_threads_go(pid)
    _, status = posix.waitpid(pid, 0)
    talk.answer(status)


def _streams(
    record: Record, caller: Caller, base: int, fds: tuple[int, int, int], owned: str, on_terminal: bool
) -> stdio.Streams:
    """What a command gets for the caller's descriptors, of which none is carried here: a pty, what can be passed, null.

    The inner jail may open the pipes that were made for it by their name in /dev.
    """
    root = attach.open_tree_of(record)
    try:
        streams = stdio.prepare(root, base, fds, attended=on_terminal and stdio.needs_tree(fds))
    finally:
        posix.close(root)
    for index in streams.passed:
        if owned[index : index + 1] == "1" and posix.fstat(fds[index]).st_uid == caller.owner:
            posix.fchown(fds[index], base, base)
            streams.owned[index] = True
    return streams


def _command(said: Words) -> attach.Command:
    argv, environment, who, cwd = said.words(), said.words(), said.words(), said.words()
    login, background, label = said.number() != 0, said.number() != 0, said.word()
    more = said.words() if said.left else []  # which commands of an older release have not
    env, added = [
        {key: value for key, _, value in [variable.partition("=") for variable in one]} for one in (environment, more)
    ]
    if label.count("{}") != 1 or label.count("{") + label.count("}") != 2:
        raise ValueError(label)
    user = _USERS[who[0]](who[1:])
    return attach.Command(argv, env, user, cwd[0] if cwd else None, login, background, label, added)


def _known_user(fields: list[str]) -> passwd.User:
    name, uid, gid, groups, home, shell = fields
    ids = [int(number) for number in (uid, gid, *groups.split(","))] if groups else [int(uid), int(gid)]
    if not all(0 <= number <= _LARGEST_UID for number in ids):
        raise ValueError(fields)
    return passwd.User(name, ids[0], ids[1], ids[2:], home, shell)


_USERS: dict[str, Callable[[list[str]], str | passwd.User | None]] = {
    "none": lambda _: None,
    "named": lambda fields: fields[0],
    "known": _known_user,
}
_VERBS = {
    "get": _get,
    "set": _set,
    "update": _update,
    "remove": _remove,
    "lend": _lend,
    "members": _members,
    "attach": _attach,
}
