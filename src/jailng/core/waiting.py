"""Waiting for a command in a jail, and being its stand-in on the host meanwhile.

A pid namespace forces a fork upon us, so whoever started `jexec` knows the pid of a process that only waits. It passes
on every signal that it gets and ends the way the command ends. Signals are blocked and read as events: nothing runs
asynchronously, and none is lost between two steps. SIGKILL needs no help of ours: the command is the kernel's to kill.
"""

from __future__ import annotations

import _signal
import posix

from jailng.linux import ns, signals
from jailng.linux.libc import ESRCH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from jailng.core.stdio import Streams

# HUP INT QUIT ABRT USR1 USR2 ALRM TERM CONT TSTP VTALRM PROF WINCH IO PWR and the real-time signals. Not the rest: what
# the kernel sends a process for its own mistakes, and what keeps a background process from its terminal.
_RELAYED = (1, 2, 3, 6, 10, 12, 14, 15, 18, 20, 26, 27, 28, 29, 30, *range(34, 65))
_WALL = 0x40000000  # __WALL: threads, too
_HARMLESS = (_signal.SIGCHLD, _signal.SIGCONT, _signal.SIGTSTP, _signal.SIGWINCH)


class Command:
    """The command, seen from the host: ``status`` is the raw wait status once there is one.

    ``events`` is a signalfd for the relay, -1 where there is none.
    """

    __slots__ = ("events", "insisted", "pid", "pidfd", "status")

    def __init__(self, pid: int, pidfd: int, held: list[int], relayed: bool) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.events = signals.signalfd(held) if relayed else -1
        self.insisted = False
        self.status: int | None = None

    def reap(self) -> bool:
        """Whether the command has ended; its status is known then."""
        if self.status is None:
            pid, status = posix.waitpid(self.pid, posix.WNOHANG)
            if pid and (not posix.WIFSTOPPED(status) or _is_end(pid, status)):
                self.status = status
        return self.status is not None

    def catch_up(self) -> None:
        """See to what its threads have done before SIGCHLD was held."""
        try:
            news = posix.waitid(posix.P_ALL, 0, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT | _WALL)
        except ChildProcessError:  # it is another process's child
            return
        if news is not None and news.si_pid != self.pid:
            _let_threads_go(self.pid)

    def hear(self, number: int, code: int) -> None:
        """Do what a signal to this process asks for: pass it on, stop, or nothing where it tells of a child."""
        if number == _signal.SIGTSTP:
            self.stop()
            stop_here()
            self.go_on()
        elif number != _signal.SIGCHLD:
            self.pass_on(number, code)
        elif not self.reap():
            _let_threads_go(self.pid)

    def pass_on(self, number: int, code: int) -> None:
        """Send the command a signal; what a terminal sent goes to the process group, as it would have.

        A jailed root can stop the command for ever. The second signal that finds it so ends the wait, and the command.
        He can also trace it, and not wait for it when it has ended, so that nobody else can: then the next one ends it.
        """
        if self.reap():
            return  # nothing could be asked of a zombie: waitid(2) would not know it
        if ends(number):
            _let_threads_go(self.pid)
            if ns.ends_within(self.pidfd, 0):
                if not self.reap():
                    self.give_up(number)
                return
            held = self.is_stopped() or _is_traced_and_stopped(self.pid)
            if held and self.insisted:
                self._send(_signal.SIGKILL, group=False)
                self.give_up(number)
                return
            self.insisted = held
        self._send(number, group=code == signals.SI_KERNEL)

    def give_up(self, number: int) -> None:
        """Wait no longer, because of that signal."""
        self.status = number

    def stop(self) -> None:
        """Stop it as ^Z would."""
        # Nobody inside would stop of SIGTSTP: to the kernel the command's process group is an orphan.
        self._send(_signal.SIGSTOP, group=True)

    def go_on(self) -> None:
        """Let it go on after that."""
        self._send(_signal.SIGCONT, group=True)

    def is_stopped(self) -> bool:
        """Whether somebody has stopped it."""
        options = posix.WSTOPPED | posix.WNOHANG | posix.WNOWAIT
        return posix.waitid(posix.P_PID, self.pid, options) is not None

    def _send(self, number: int, group: bool) -> None:
        try:
            if group:
                signals.send_to_group(self.pidfd, number)
            else:
                ns.pidfd_send_signal(self.pidfd, number)
        except OSError as error:
            if error.errno != ESRCH:
                raise


def wait(
    pid: int,
    pidfd: int,
    streams: Streams,
    hand_over: bool = False,
    command_of: Callable[[int, int, list[int], bool], Command] = Command,
) -> int:
    """Wait for the child ``pid``, carry its streams and pass on signals; returns its raw wait status.

    What it wrote before it ended has arrived by then; what a process that it left behind writes later will not. With
    ``hand_over`` this process has no further use for its own standard streams: those that the command has are given up,
    so that an end of file travels when the command closes them. 2 stays while there may be something to complain about.
    A wait that a signal put an end to returns the status of a command that died of it, which is right for ``finish``.
    The caller closes ``pidfd``. ``command_of`` makes the command that is waited for. Raises JailError where a stream
    could not be read or written.
    """
    streams.close_inside()
    held = [number for number in _RELAYED if _signal.getsignal(number) != _signal.SIG_IGN]  # nohup(1) and the like
    held.append(_signal.SIGCHLD)
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, held)
    command = None
    try:
        relayed = bool(streams.pumps) or streams.terminal is not None
        command = command_of(pid, pidfd, held, relayed)
        command.catch_up()
        if hand_over:
            _hand_over(streams)
        if relayed:
            from jailng.core import relay

            relay.carry(command, streams, hand_over)
        while not command.reap():
            event = _signal.sigwaitinfo(held)  # type: ignore[attr-defined, unused-ignore]
            command.hear(event.si_signo, event.si_code)
    finally:
        if command is not None and command.events >= 0:
            posix.close(command.events)
        streams.close()
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
    return command.status or 0


def _is_end(pid: int, status: int) -> bool:
    from jailng.linux import child  # which nobody needs whose command is not traced

    return child.is_end(pid, status)


def _is_traced_and_stopped(pid: int) -> bool:
    """Of which the parent is told nothing."""
    from jailng.linux import content

    try:
        return content.read(f"/proc/{pid}/stat").rpartition(b") ")[2][:1] == b"t"
    except OSError:
        return False


def _let_threads_go(pid: int) -> None:
    from jailng.linux import child

    child.let_threads_go(pid)


def finish(status: int) -> NoReturn:
    """End this process as the command ended: with its exit status, or of the same signal but without a core."""
    if posix.WIFSIGNALED(status):
        signals.die_of(posix.WTERMSIG(status))
    posix._exit(posix.WEXITSTATUS(status))


def ends(number: int) -> bool:
    """Whether a signal that is passed on would end a process that does not care about it."""
    return number not in _HARMLESS


def stop_here(job: bool = False) -> None:
    """Stop as SIGTSTP makes a process stop, unless nobody could continue it; returns when it was continued.

    With ``job`` all of this process's job stops, as of a terminal's ^Z.
    """
    posix.kill(0 if job else posix.getpid(), _signal.SIGTSTP)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGTSTP,))
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTSTP,))


def _hand_over(streams: Streams) -> None:
    given = [streams.host[index] for index in streams.passed]
    if streams.pumps:
        given = [fd for fd in given if fd != 2]
    if given:
        give_up(given)


def give_up(fds: list[int]) -> None:
    """Have /dev/null in place of these descriptors: a closed one would be somebody else's next. Raises OSError."""
    null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    for fd in fds:
        posix.dup2(null, fd)
    posix.close(null)
