"""Who has come into a jail, as it is seen from outside: out of what is executed, and by whose descendants.

Nothing in the guest is asked, not its utmp, not its logs, not the program that lets people in. What there is to see:
a *session* (setsid(2)), in which a first program is executed, by a process that another session has forked. Such a new
session is

* of ``host`` if whoever forked it is outside of the jail: jexec(8), exec.start, a console;
* a login from the ``network`` if an ancestor, but not the process itself, has a connection that was accepted;
* a login at a ``terminal`` if it has one, and neither comes from a login nor is a child of the jail's PID 1 (a getty);
* a session of the login that it comes from, else (screen, script, sudo with a pty, what is put in the background);
* a service (cron, a daemon), where there is none. That is no entry.

login(1) is executed before a password is asked for. So a program of that name makes no login; the next session or the
login shell (whose name begins with ``-``) does.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from jailng.observe import execrecord as record
from jailng.observe import ptys

if TYPE_CHECKING:
    from jailng.observe.chain import Fields
    from jailng.observe.connections import Connections
    from jailng.observe.executions import Execution

    Happened = tuple[str, int, Fields]

_MOST = 16384
_GATES = ("login",)
_PARENT = 2  # as an execution numbers whose the connection is


class _Session:
    """``login`` is the session that somebody came in by, 0: nobody did."""

    __slots__ = ("connection", "gate", "host_pid", "how", "login", "remote", "told", "tty", "unknown")

    def __init__(self, execution: Execution) -> None:
        self.host_pid = execution.host_pid
        self.login = 0
        self.how = ""
        self.connection = 0
        self.remote = ""
        self.gate = False
        self.told = False
        self.tty = execution.tty
        self.unknown = False


class Logins:
    """The sessions of one jail."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._sessions: OrderedDict[int, _Session] = OrderedDict()
        self._ended: deque[int] = deque()
        self._served: dict[int, _Session] = {}  # those by a connection that have not ended

    def take(self, execution: Execution) -> Happened | None:
        """What an execution tells of: a kind of entry, when, and what it has."""
        session = self._sessions.get(execution.session)
        if session is None:
            session = self._sessions[execution.session] = _Session(execution)
            if len(self._sessions) > _MOST:
                self._forget()
            if execution.new:
                return self._begin(execution, session)
            session.unknown = True  # it began before this worker did
            return None
        session.tty = execution.tty or session.tty
        if not session.login and _is_login_shell(execution) and (execution.tty or session.gate):
            return self._log_in(execution, session, session.how or "terminal")
        if session.login and execution.uid != execution.uid_before:
            return self._change(execution, session)
        return None

    def _forget(self) -> None:
        """One session: who makes thousands, one after the other, is not to lose that which he has come in by."""
        while self._ended:
            if self._sessions.pop(self._ended.popleft(), None) is not None:
                return
        oldest, _ = self._sessions.popitem(last=False)
        self._served.pop(oldest, None)

    def named(self, execution: Execution) -> Fields:
        """The execution, with the login that it belongs to."""
        session = self._sessions.get(execution.session)
        fields = execution.fields
        if session is not None and session.login:
            fields["login"] = f"{session.login:x}"
        elif session is not None and session.unknown:
            fields["from"] = "unknown"
        return fields

    def end(self, content: bytes) -> Happened | None:
        """A record of the end of a session's leader."""
        when = int.from_bytes(content[record.TIME : record.TIME + 8], "little")
        session = int.from_bytes(content[record.LINEAGE : record.LINEAGE + 8], "little")
        status = int.from_bytes(content[record.UID : record.UID + 4], "little")
        found = self._sessions.get(session)
        self._served.pop(session, None)
        if found is not None:
            self._ended.append(session)  # what it has left behind may begin others
        if found is None or not found.told:
            return None
        fields: Fields = {"session": f"{session:x}", "login": f"{found.login:x}", "host_pid": found.host_pid}
        fields |= {"seconds": (when - session) // 10**6 / 1000}
        fields |= {"signal": status & 127} if status & 127 else {"status": status >> 8 & 255}
        return ("logout" if found.login == session else "session-end"), when, fields

    def _begin(self, execution: Execution, session: _Session) -> Happened | None:
        before = self._sessions.get(execution.before)
        begun, came_in = self._connection(execution)
        other = bool(execution.holder) and (before is None or before.connection != begun)
        gate = _is_gate(execution)
        if execution.entered:
            return None if execution.pid == 1 else self._log_in(execution, session, "host")
        if execution.holder and (other or (before is not None and not before.login)) and came_in:
            session.connection, session.remote = begun, self._remote(execution, begun)
            session.how, session.gate = "network", gate
            self._served[execution.session] = session
            if execution.holder == 1 or gate:  # what serves the connection, not yet who comes by it
                return None
            return self._log_in(execution, session, "network")
        if before is not None and before.login:
            return self._go_on(execution, session, before)
        if before is not None and before.gate:
            session.connection, session.remote = before.connection, before.remote
            return self._log_in(execution, session, before.how or "terminal")
        session.gate = gate
        if execution.tty and execution.ppid != 1 and not gate:
            return self._log_in(execution, session, "terminal")
        return None

    def _connection(self, execution: Execution) -> tuple[int, bool]:
        """When that began which the process or an ancestor has, and whether it came in, as one unknown is taken to."""
        if not execution.holder:
            return 0, False
        return self._connections.known(execution.socket) or (execution.time, True)

    def _remote(self, execution: Execution, begun: int) -> str:
        """By which connection it was: another than the first that its parent has, if that is somebody else's.

        One process may serve many (busybox's telnetd). What it has as well, by the same port, and nobody has come in
        by, is it; "" where there are several. One connection of ssh(1)'s may have many sessions.
        """
        if execution.holder != _PARENT:
            return execution.remote
        if not any(one.connection == begun for one in self._served.values()):
            return execution.remote
        taken = {one.remote for one in self._served.values()}
        others = [peer for peer in ptys.peers(execution.host_ppid, execution.local) if peer not in taken]
        return execution.remote if not others else others[0] if len(others) == 1 else ""

    def _log_in(self, execution: Execution, session: _Session, how: str) -> Happened:
        session.login = execution.session
        session.how = how
        session.told = True
        fields = _who(execution, session)
        if session.remote:
            fields["remote"] = session.remote
        return "login", execution.time, {"how": how, **fields}

    def _go_on(self, execution: Execution, session: _Session, before: _Session) -> Happened | None:
        session.login, session.how = before.login, before.how
        session.connection, session.remote = before.connection, before.remote
        if execution.uid != execution.uid_before:
            session.told = bool(execution.tty)
            return self._change(execution, session)
        if not execution.tty:
            return None
        session.told = True
        return "session", execution.time, {"how": before.how, **_who(execution, session)}

    def _change(self, execution: Execution, session: _Session) -> Happened:
        return "user", execution.time, {"uid_before": execution.uid_before, **_who(execution, session)}


def _who(execution: Execution, session: _Session) -> Fields:
    fields: Fields = {"session": f"{execution.session:x}", "login": f"{session.login:x}", "uid": execution.uid}
    fields |= {"path": execution.path, "pid": execution.pid, "host_pid": execution.host_pid}
    if execution.tty:
        fields["tty"] = execution.tty
    return fields


def _is_login_shell(execution: Execution) -> bool:
    return bool(execution.argv) and execution.argv[0].startswith("-")


def _is_gate(execution: Execution) -> bool:
    return execution.path.rpartition("/")[2] in _GATES
