"""The posts of a jail: processes of the host's that watch it or log what happens in it, one for each kind.

A jail that is to be watched is only once its posts are ready; from then on it does not depend on them. Where one was
killed, the next command that comes upon the jail starts it anew. What one does is ``observe.post``.
"""

from __future__ import annotations

import posix
import time

from jailng.core import beside, elsewhere, registry
from jailng.errors import JailError, explain
from jailng.linux import content, ns, processid
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record

# kind: the parameter that asks for it. A post is told its kind by its place here.
KINDS = {"tty": "ng.watch", "packets": "ng.watch", "log": "ng.log"}
_SIGHUP, _SIGTERM = 1, 15
_SECONDS = 30.0  # that a post does nothing before it is ready, after which it is not waited for any more
_AT_MOST = 300.0  # that it is waited for whatever it does
_LOOK = 1.0
_PATIENCE = 5.0
_LONGEST = 4096  # bytes of the reason why one is not


def wanted(record: Record) -> list[str]:
    """The kinds that the jail's parameters ask for. Raises JailError."""
    found: list[str] = []
    if record.params.get("ng.watch"):
        from jailng.params import watch

        found += [one.kind for one in watch.read([record.params["ng.watch"]])]
    if record.params.get("ng.log"):
        found.append("log")
    return found


def _check_syslog(text: str) -> None:
    """In a mount namespace of the jail's own nobody can look below what is mounted in /dev (take_own_mounts())."""
    from jailng.params import log

    if "syslog" in log.read([text]).kinds:
        raise JailError("ng.log: syslog: not with allow.mount: the jail's mounts are its own then")


def settle(record: Record) -> None:
    """Have those posts, and no others, that are wanted, and have them follow the record as it is now.

    Needs the jail's lock, and that PID 1 is there. Raises JailError, OSError.
    """
    kinds = wanted(record)
    if "log" in kinds and record.params.get("allow.mount") == "true":
        _check_syslog(record.params["ng.log"])
    if "tls://" in record.params.get("ng.log", ""):  # one that runs could only put it on record that it cannot be
        from jailng.observe import forward

        forward.check(record.params["ng.log"])
    for kind in list(record.posts):
        if processid.is_alive(record.posts[kind]):
            if kind == "packets" and " filter " in record.params.get("ng.watch", ""):
                _check_filter(record)
            beside.tell(record.posts[kind], _SIGHUP)
            if kind not in kinds and kind != "tty":  # jailctl(8) watches terminals without any parameter, too
                beside.end(record.posts[kind], _PATIENCE)
            elif kind == "tty" and kind in kinds:
                from jailng.observe import client, store

                store.directory("")  # it could tell nobody that it cannot write there
                client.keep(record)
    for kind in kinds:
        ensure(record, kind)


def _check_filter(record: Record) -> None:
    """A post that is there finds a filter that is none when it is too late to say so. Raises JailError."""
    from jailng.observe import capture

    try:
        capture.check(record)
    except JailError as error:
        raise JailError(f"{KINDS[capture.KIND]}: {error}") from None


def ensure(record: Record, kind: str) -> None:
    """Have a post of that kind, whether or not the parameters ask for it; it is ready when this returns.

    Needs the jail's lock. Raises JailError, OSError.
    """
    if processid.is_alive(record.posts.get(kind, "")):
        return
    hears, tells = posix.pipe2(posix.O_CLOEXEC)
    try:
        again = int(kind in record.posts)
        try:
            with elsewhere.Network(record):
                numbers = (list(KINDS).index(kind), tells, again)
                started = beside.start(record, "jailng.observe.post", *numbers, blocked=(_SIGHUP,), handed=(tells,))
        finally:
            posix.close(tells)
        record.append([f"post {kind} {started}"])
        complaint = _hear(hears, started)
    finally:
        posix.close(hears)
    if complaint:
        # By itself, where it can: it waits for its worker, which would be the last in the cgroup of posts. It does not
        # know that it is to end where the worker died, or could not tell us, just when it was ready.
        try:
            beside.tell(started, _SIGTERM)
        except OSError:
            pass  # it is killed then
        beside.end(started, _PATIENCE)
        raise JailError(f"{KINDS[kind]}: {visible(complaint)}")


def _hear(hears: int, started: str) -> str:
    """Why the post that has the other end is not ready, or ""."""
    pid = started.partition(" ")[0]
    try:
        quiet = begun = time.monotonic()
        signs: list[str] = []
        while not ns.ends_within(hears, _LOOK):
            now, before = time.monotonic(), signs
            signs = _signs_of_life(pid)
            if signs != before or any(") R " in sign for sign in signs):  # it waits for its turn
                quiet = now
            if now > quiet + _SECONDS or now > begun + _AT_MOST:
                return f"no answer from process {pid} in {now - begun:.0f} s"
        said = posix.read(hears, _LONGEST).decode("utf-8", "surrogateescape")
    except OSError as error:
        return explain(error)
    if said == "ready":
        return ""
    return said or f"process {pid} has ended"


def _signs_of_life(pid: str) -> list[str]:
    """What of a process and its children, if it is a post with a worker, changes while they do anything."""
    found: list[str] = []
    try:
        found.append(content.text(f"/proc/{pid}/stat"))
        children = content.text(f"/proc/{pid}/task/{pid}/children")  # not every kernel tells of them
        found += [content.text(f"/proc/{child}/stat") for child in children.split()]
    except OSError:
        pass  # it has ended, of which the pipe tells
    return found


def follow(record: Record, wait: bool = True) -> None:
    """Have packets be taken of what a jail has been lent as it is now; by default it is when this returns."""
    if not processid.is_alive(record.posts.get("packets", "")):
        return
    beside.tell(record.posts["packets"], _SIGHUP)
    if wait:
        from jailng.observe import taps

        try:
            taps.wait(record, _PATIENCE)
        except (JailError, OSError):
            pass  # the jail has ended, or what it was lent is gone again


def made(record: Record) -> None:
    """A jail that is new, and in another, is from now on seen by the posts of those that it is in."""
    for one in registry.upwards(registry.load(record.parent)):
        follow(one)
    if "tty" not in record.posts:
        left(record)


def left(record: Record) -> None:
    """A jail that has no post for terminals, or has none any more, is from now on seen by that of one that it is in."""
    for one in registry.upwards(registry.load(record.parent)):
        if processid.is_alive(one.posts.get("tty", "")):
            from jailng.observe import client

            client.made_in(one, record.jid)
            return


def look_after(record: Record) -> None:
    """Start those that were killed, unless another command is at work on the jail. What fails then is told later."""
    try:
        if all(processid.is_alive(record.posts.get(kind, "")) for kind in wanted(record)):
            return
        if record.lock(wait=False):
            try:
                if record.alive():
                    settle(record)
            finally:
                record.unlock()
    except (JailError, OSError):
        pass  # `jailctl info` and the next `jail -m` name it
