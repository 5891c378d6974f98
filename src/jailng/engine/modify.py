"""jail -m: change a running jail (jail_set(2) with JAIL_UPDATE)."""

from __future__ import annotations

import posix

from jailng.core import fresh, ownfile, registry, remove, tunable
from jailng.core.index import RULES, Index, jid_of, names_of
from jailng.engine import life
from jailng.errors import UNCHANGEABLE, JailError, NotFound, explain, not_permitted
from jailng.linux import ns
from jailng.linux.libc import ENOENT, exists
from jailng.linux.visit import InNamespace
from jailng.params.model import SYSV, Parameters
from jailng.params.values import escape, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.core.registry import Record

    _Step = Callable[[Record, Parameters], None]

_NOBODY = life.Voice()
_POSTS = ("ng.watch", "ng.log")


def update(record: Record, changes: Parameters, voice: life.Voice) -> None:
    """Change a running jail (-m). Raises JailError."""
    given = changes.words(pseudo=False, live=True)
    line = " ".join([f"jail_set(JAIL_UPDATE) jid={record.jid}", *given])
    try:
        modify(record, changes, voice)
    except JailError as error:
        if error.kind != UNCHANGEABLE:
            life.tell_of_refusal(voice, line, error)
        raise
    if given:  # else update_jail has nothing to do
        voice.say(line)
    voice.note("updated")


def modify(record: Record, changes: Parameters, voice: life.Voice = _NOBODY) -> None:
    """Apply changes to a running jail; those that only new processes can have reach only those (jail.8 says which).

    ``voice`` is told of what the jail could not be told of itself.
    Raises JailError for a parameter that cannot be changed while it runs; nothing has changed then.
    """
    if record.remote:
        from jailng.core import nested

        nested.update(record, changes)
        return
    if posix.geteuid() != 0:
        raise not_permitted("jail_set")
    name = record.name
    locked = record.lock()
    try:
        # By now another command may have renamed it, and this one is not to take that back.
        if not locked or not record.alive() or _is_anothers(record, name, changes):
            raise NotFound(f'"{name}" not found', errno=ENOENT)
        if names_of(record.jid) != [record.name] or registry.jids_below(record.name):
            from jailng.core import hierarchy

            hierarchy.settle_names(record)
        _change(record, changes, voice)
    finally:
        record.unlock()  # whatever became of it: others may be waiting, and this process may have more jails to change


def _is_anothers(record: Record, name: str, changes: Parameters) -> bool:
    """Whether the jail that was found by that name has been given another by now."""
    return name != record.name and changes["name"] == name and not changes.number("jid")


def _decide(record: Record, changes: Parameters, voice: life.Voice) -> tuple[Parameters, list[str]]:
    """What the jail's parameters are to be, and the names of those that change."""
    tunable.load()
    params = Parameters.from_texts(record.params)
    changed = params.update(changes)
    for sentence in params.left_out:
        voice.warn(sentence)
    if "securelevel" in changed:
        from jailng.core import blueprint

        blueprint.check_host(params)
    if "allow.raw_sockets" in changed and params.flag("allow.raw_sockets") and record.joined:
        raise JailError("allow.raw_sockets: only in the jail that had the address first can Linux allow them")
    if record.parent or "children.max" in changed:
        from jailng.core import hierarchy

        hierarchy.check_change(record, params, changed)
    return params, changed


def _change(record: Record, changes: Parameters, voice: life.Voice) -> None:
    params, changed = _decide(record, changes, voice)
    renamed = "name" in changed
    outer = record.name
    before = {name: record.params.get(name, "") for name in _POSTS}
    given = [name for name in changes if changes.given(name) and name not in ("jid", "name")]
    done: list[_Step] = []
    try:
        if renamed:
            _add_name(record, params.text("name"))
        _take_rules(record, params.text("name"), changed)
        _carry_out(record, params, changed, given, done)
        policed = _police(record, params, changed, given)
        settled = ["limited"] if record.limiting else []
        record.append([*[f"param {line}" for line in params.to_lines(changed)], *settled])
    except BaseException:  # a module that cannot be loaded, too
        _give_back(record, changed, done)
        if renamed:
            for one in (record, *registry.below(record.name)):
                _keep_name(one)
            _give_rules_back(record, changed)
        raise
    policed(record)
    if renamed:
        _keep_name(record)
    # A command that asked for the same may have been killed here: what is given is seen to, changed or not.
    asked = [*changed, *[name for name in ("ng.limits", *_POSTS) if name in given]]
    _follow(record, asked)
    _watch(record, asked, before)
    _tell_inside(record, changed, voice)
    if registry.jids_below(outer):
        from jailng.core import hierarchy

        hierarchy.pass_down(record, outer, params, [*changed, *[name for name in given if name not in changed]])
        if renamed:
            _follow_below(record, voice)
    if "children.max" in changed:
        from jailng.engine import broker

        broker.ensure(record)
    if "persist" in (*changed, *given):
        remove.set_persist(record, params.flag("persist"))


def _tell_inside(record: Record, changed: list[str], voice: life.Voice) -> None:
    """Have the files that the jail reads of itself, in its /dev and /proc, say how it is now."""
    refusal = ownfile.rewrite(record)
    if refusal:
        voice.warn(refusal)
    if "ng.limits" in changed:
        fresh.resize(record)
    else:
        fresh.freshen(record)


def _follow(record: Record, changed: list[str]) -> None:
    """Rules of rctl(8) are about names, and what is watched is not the kernel's business."""
    if "ng.limits" in changed or _has_rules(record, changed):
        from jailng.limits import standing

        standing.settle(record)


def _follow_below(record: Record, voice: life.Voice) -> None:
    """The jails in one that has been renamed have other names, too, and the rules of these."""
    from jailng.core import hierarchy

    for inner in sorted(registry.below(record.name), key=lambda one: one.name.count(".")):
        if not (inner.rules or exists(RULES)) or not hierarchy.lock_if_made(inner):
            continue
        try:
            if inner.alive():
                from jailng.limits import standing

                standing.settle(inner)
        except (JailError, OSError) as error:
            voice.warn(f"{visible(inner.name)}: rctl(8) has rules for it: {explain(error)}")
        finally:
            inner.unlock()


def _watch(record: Record, changed: list[str], before: dict[str, str]) -> None:
    """Have the posts that the jail's parameters ask for now; those that were, if there cannot be such."""
    if not record.posts and not any(name in changed for name in _POSTS):
        return
    try:
        from jailng.observe import posts

        posts.settle(record)
    except BaseException:  # a module that cannot be loaded, too
        record.append([f"param {name}={escape(text)}" for name, text in before.items() if name in changed])
        from jailng.observe import posts

        try:
            posts.settle(record)
        except (JailError, OSError):
            pass  # the next command that comes upon the jail tries it again
        raise


def _has_rules(record: Record, changed: list[str]) -> bool:
    """Whether a jail that is renamed has, or may get, rules by its name."""
    return "name" in changed and (bool(record.rules) or exists(RULES))


def _take_rules(record: Record, name: str, changed: list[str]) -> None:
    """Hold the jail to the rules of its new name before it has that, since it has to be held to them or stay."""
    if _has_rules(record, changed):
        from jailng.limits import standing

        try:
            standing.rename(record, name)
        except JailError as error:
            raise JailError(f"name: rctl(8) has rules for {visible(name)}: {error}") from None


def _give_rules_back(record: Record, changed: list[str]) -> None:
    if _has_rules(record, changed):
        from jailng.limits import standing

        try:
            standing.settle(record)
        except (JailError, OSError):
            pass  # what it says is what has been said; whoever comes next tries it again


def _carry_out(record: Record, params: Parameters, changed: list[str], given: list[str], done: list[_Step]) -> None:
    """Each step that has been taken is then among those ``done``, and one that has come half-way where it fails."""
    if any(name in (*changed, *given) for name in ("host.hostname", "host.domainname")):
        _set_names(record, params)
    for names, step in _STEPS:
        if any(name in changed for name in names) or _is_half_done(record, step, any(name in given for name in names)):
            if step not in _WHOLE:
                done.append(step)
            step(record, params)
            if step in _WHOLE:
                done.append(step)


def _is_half_done(record: Record, step: _Step, given: bool) -> bool:
    """Whether a command may have been killed before the record had what it had done, and this one is to undo that.

    What is ``given`` as it was is done once more, where that is no more than to say it again.
    """
    if step is _limit:
        return record.limiting
    if step is _readdress and given:
        from jailng.core import readdress

        return not readdress.is_settled(record)
    if step is _quota and given:
        from jailng.core import quota

        return quota.has(record)
    if step is _slice and given:
        from jailng.core import timeslice

        return timeslice.is_known()  # else there is none to be given back
    return given and step in (_permit_ipc, _permit_ports, _permit_sockets)


def _give_back(record: Record, changed: list[str], done: list[_Step]) -> None:
    """Have a jail that could not be changed be what it was."""
    _give_names_back(record, changed)
    for step in reversed(done):
        try:
            step(record, Parameters.from_texts(record.params))
            if step is _limit:
                record.append(["limited"])
        except (JailError, OSError):
            pass  # what has failed is told of


def _slice(record: Record, params: Parameters) -> None:
    from jailng.core import timeslice

    timeslice.change(record, params)


def _permit_ipc(record: Record, params: Parameters) -> None:
    from jailng.core import mechanism

    mechanism.permit_ipc(record, params)


def _readdress(record: Record, params: Parameters) -> None:
    from jailng.core import readdress

    readdress.change(record, params)


def _permit_ports(record: Record, params: Parameters) -> None:
    from jailng.core import ports

    ports.permit(record, params)


def _permit_sockets(record: Record, params: Parameters) -> None:
    from jailng.core import sockets

    sockets.permit(record, params)


def _quota(record: Record, params: Parameters) -> None:
    from jailng.core import quota

    quota.change(record, params)


def _limit(record: Record, params: Parameters) -> None:
    from jailng.core import limit, mechanism
    from jailng.params.limit import read

    texts = params.strings("ng.limits")
    same = texts == Parameters.from_texts(record.params).strings("ng.limits")
    try:
        if same:
            mechanism.set_limits(record, limit.of(record))
            return
        wanted = limit.with_rules(read(texts), record)
        limit.check([*limit.held(limit.with_rules([], record), record), *read(texts)], params)
        mechanism.set_limits(record, limit.held(wanted, record))
    except JailError as error:
        raise JailError(f"ng.limits: {error}") from None


def _police(record: Record, params: Parameters, changed: list[str], given: list[str]) -> Callable[[Record], None]:
    """Carry out the rules of the jail's network, which tell its name in the log; what to do when the record has them.

    Killed before that, what asks for them again, or for those that were, carries them out again. Those that are
    ``given`` and as they were are seen to: somebody may have flushed them, and the host be in other networks.
    """
    rules = ("ng.rdr", "ng.egress")
    policed = any(name in changed or ("name" in changed and params[name]) for name in rules)
    if not (policed or any(name in given for name in rules)):
        return lambda _: None
    from jailng.core import policy, ruleset

    if not policed and policy.is_settled(record):
        ruleset.look_again(record)
        return lambda _: None
    ruleset.change(record, params)
    return ruleset.settle


def _add_name(record: Record, name: str) -> None:
    """Until the record has the new name the jail is found by the old one, from then on by the new one."""
    head, _, _ = name.rpartition(".")
    if head != record.name.rpartition(".")[0]:
        raise JailError("cannot change jail's parent")
    holder = jid_of(name)
    if holder not in (None, record.jid) and (there := registry.load(holder)) is not None:
        from jailng.core import leftover

        leftover.settled(there, name)  # if it is no jail, or its name no longer
    with Index() as index:
        index.add_name(record.jid, name)
        below = record.name + "."  # no other may take the names that the jails in it will have
        for row in [row for row in index.rows() if row[2].startswith(below)]:
            index.add_name(int(row[0]), f"{name}.{row[2][len(below) :]}")


def _keep_name(record: Record) -> None:
    """Give back whatever other name the jail had for the time of the change."""
    with Index() as index:
        index.keep_name(record.jid, record.name)


def _give_names_back(record: Record, changed: list[str]) -> None:
    """Have a jail that could not be changed be called inside what it was."""
    if "host.hostname" in changed or "host.domainname" in changed:
        try:
            _set_names(record, Parameters.from_texts(record.params))
        except (JailError, OSError):
            pass  # what has failed is told of


def _set_names(record: Record, params: Parameters) -> None:
    """Set both names in the jail's UTS namespace, which this process joins for as long as that takes."""
    from jailng.core import attach

    hostname, domainname = [
        params.text(name).encode("utf-8", "surrogateescape") for name in ("host.hostname", "host.domainname")
    ]
    init = attach.open_init(record)
    try:
        with InNamespace(init, ns.CLONE_NEWUTS):
            ns.sethostname(hostname)
            ns.setdomainname(domainname)
    except OSError as error:
        raise JailError(f"host.hostname: {error.strerror}") from None
    finally:
        posix.close(init)


_STEPS: tuple[tuple[tuple[str, ...], _Step], ...] = (
    (("ng.limits",), _limit),
    (("ng.slice",), _slice),
    (tuple(SYSV), _permit_ipc),
    (("ip4.addr",), _readdress),
    (("ng.sockets",), _permit_sockets),
    (("allow.reserved_ports", "allow.suser"), _permit_ports),
    (("ng.quota",), _quota),
)
_WHOLE = (_limit, _readdress, _quota)  # which leave all as it was where they fail
