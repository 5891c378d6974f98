"""Undoing: the one way in which a jail's outside goes away, be it after a failure, by ``jail -r`` or after a crash.

Every line in a record that begins with ``undo`` is a kind and words. The lines are walked from the last to the first;
each is marked ``undone`` when it is, so that a walk that was killed is taken up again where it stopped.
"""

from __future__ import annotations

from jailng import start
from jailng.core import origin, registry
from jailng.core.index import FULL
from jailng.errors import JailError
from jailng.linux import cgroup, cgroupend, controller, processid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.core.registry import Record


_ON_THE_NETWORK = ("addresses", "alias", "firewall", "joined", "policy", "vnet")
_AMONG_MOUNTS = ("netns", "quota")
_PATIENCE = 5.0  # seconds that those who watch a jail have to write down the last of it
AROUND = ("alias", "image", "mount")  # made before jail_set, and gone after exec.poststop
LEAVES = ("init", "members/own", "members/guest", "members", "broker", "sockets")  # of a jail's cgroup
NO_MEMBERS = ("init", "broker", "sockets")  # those of them that are for others than its members


def _cgroup(words: list[str]) -> None:
    cgroupend.remove(words[0], LEAVES)


def _function(kind: str) -> Callable[[list[str]], None]:
    if kind == "cgroup":
        return _cgroup
    if kind == "fuse":
        from jailng.core import mountable

        return mountable.UNDO[kind]
    if kind == "policy":
        start.load_more("policed")
        from jailng.core import ruleset

        return ruleset.UNDO[kind]
    if kind == "quota":
        from jailng.core import project

        return project.UNDO[kind]
    if kind in ("netns", "vnet"):
        from jailng.core import vnet

        return vnet.UNDO[kind]
    from jailng.core.network import UNDO

    if kind not in UNDO:
        raise JailError(f"{kind}: that is for another release of jailng to undo")
    return UNDO[kind]


def _undo(record: Record, kind: str, words: list[str]) -> None:
    """Where it was done: what died with a namespace of the host's needs no undoing."""
    if kind in ("image", "mount"):
        from jailng.core import covered

        covered.undo(record, words[0])
        return
    function = _release(record) if kind == "firewall" else _function(kind)
    if kind == "cgroup":
        for name in record.controllers.split():
            controller.hierarchy(name)  # which need not be where custom has it
        if record.params.get("vnet") == "new":
            from jailng.core import proxies

            proxies.end(record)
    if kind in _AMONG_MOUNTS:
        from jailng.core import elsewhere

        elsewhere.among_its_mounts(record, lambda: function(words))
    elif kind in _ON_THE_NETWORK and not origin.is_here(record):
        from jailng.core import elsewhere

        with elsewhere.Network(record) as there:
            if there:
                function(words)
    else:
        function(words)


def _release(record: Record) -> Callable[[list[str]], None]:
    from jailng.core import firewall

    return lambda words: firewall.release(words, lambda: _mark(record))


def _mark(record: Record) -> None:
    """Note that the last line is undone. Where there is no room for that it is undone once more, if need be."""
    try:
        record.append(["undone"])
    except OSError as error:
        if error.errno not in FULL:
            raise
        record.undo.pop()


def is_slow(record: Record) -> bool:
    """Whether those in it take their time to die, by what it is limited to."""
    limits = f"{record.params.get('ng.limits', '')} {record.rules}"
    return not record.remote and ("pcpu:" in limits or ":throttle" in limits)


def let_die(record: Record) -> None:
    """Give a jail that is about to be killed the time to die: whoever may use little of a processor dies slowly.

    And who waits for a disk that is throttled does not die before it has answered.
    """
    if record.params.get("ng.slice", "0") != "0":
        from jailng.core import timeslice

        timeslice.shorten(record)
    if is_slow(record) and cgroup.exists(record.cgroup):  # else it has died
        from jailng.core import mechanism

        mechanism.lift(record)


def walk(record: Record, keep: tuple[str, ...] = (), tell: Callable[[str], None] | None = None) -> None:
    """Undo what the record tells of, and strike the jail out. Needs the jail's lock.

    The walk ends before a line of a kind in ``keep``; the record then stays. ``tell`` is told of each line of what was
    made around the jail (aliases and mounts), which jail(8) shows with -v. Raises JailError naming what could not be
    undone; the record stays then, too, for the next attempt. The jails in it go with it.
    """
    if record.remote:
        from jailng.core import nested

        nested.jail_remove(record)
        return
    # A PID 1 takes its time to end, and its cgroup may be removed by then; where it was not, it is not seen from here.
    unseen = f"cgroup {record.cgroup}" in record.undo and not cgroup.exists(record.cgroup)
    if record.current and record.init and processid.is_alive(record.init) and unseen:
        raise JailError(f"its cgroup {record.cgroup} cannot be seen from this cgroup namespace")
    let_die(record)
    for jid in registry.jids_below(record.name):
        _walk_inner(jid, record, wait=False)
    while record.current and record.undo:
        kind, *words = record.undo[-1].split(" ")
        if kind in keep:
            return
        if tell is not None and kind in AROUND:
            tell(record.undo[-1])
        left = len(record.undo)
        try:
            _undo(record, kind, words)
        except OSError as error:
            raise JailError(f"{' '.join([kind, *words])}: {error.strerror}") from None
        if len(record.undo) == left:  # else that has been noted
            _mark(record)
    if record.current:
        _end_those_beside(record)
    for jid in registry.forget(record):  # also those that were reserved meanwhile: by now their makers are dead
        _walk_inner(jid, record, wait=True)


def _end_those_beside(record: Record) -> None:
    """What looks after it on the host."""
    if record.warden or record.posts or record.consoles:
        from jailng.core import beside

        for identity in (*record.posts.values(), *record.consoles):  # they write down what has come until its end
            beside.end(identity, _PATIENCE)
        if record.warden:
            beside.end(record.warden)


def _walk_inner(jid: int, outer: Record, wait: bool) -> None:
    """Undo a jail in ``outer``, which is being undone; also one that was being made when that was renamed.

    Not waited for while the outer one's lock is held: whoever makes the inner one waits for that with its own.
    """
    record = registry.load(jid)
    if record is not None and _lies_in(record, outer) and record.lock(wait):
        try:
            if _lies_in(record, outer):
                walk(record)
        finally:
            record.unlock()


def _lies_in(record: Record, outer: Record) -> bool:
    """Whether a jail is in ``outer``: not by its name, which is that of another where ``outer`` was struck out before.

    Who did that was killed then, and the name has been given to a new jail with jails in it.
    """
    return record.parent == outer.jid or record.cgroup.startswith(f"{outer.cgroup}/members/")


def recover(record: Record) -> bool:
    """Clear away a jail that is no more: its last process has left, or the command that started it died.

    Returns False, and does nothing, if it lives or another command is at work on it; True, too, if it is gone by then.
    """
    if record.alive():
        return False
    if not lock_dead(record):
        return registry.load(record.jid) is None
    if record.alive():
        record.unlock()
        return False
    try:
        walk(record)
    finally:
        record.unlock()
    return True


def lock_dead(record: Record) -> bool:
    """Take the lock of a jail that is no more; False if it was cleared away by then, or another command has the lock.

    Only its keeper is waited for: that runs no commands, of which this one might be one.
    """
    if record.lock(wait=False):
        return True
    if not record.keeper or record.alive():
        return False
    from jailng.core import keeper

    keeper.wait_for(record)
    return record.lock(wait=False)
