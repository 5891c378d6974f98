"""What would be done to a jail, as lines to read (--plan): nothing is touched, the host is only looked at."""

from __future__ import annotations

from jailng.core import blueprint, create, operation, registry
from jailng.core.index import RULES, uid_base
from jailng.engine import beginning, life
from jailng.linux.libc import exists
from jailng.params.model import Parameters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record


def creation(params: Parameters, voice: life.Voice) -> list[str]:
    """To start a jail of these settled parameters. Raises JailError where the start would."""
    beginning.check_path(params, voice)
    beginning.check_lasting(params)
    for sentence in params.left_out:
        voice.warn(sentence)
    _check_own_mounts(params)
    jid = params.number("jid") or 1
    parent = create.settle_below(params)
    base = parent.base if parent is not None else uid_base(0)
    record = registry.Record(jid)
    record.rules = _rules(params)
    lines: list[str] = []
    for name, _ in beginning.START:
        if name == "jail_set":
            lines += operation.describe(blueprint.plan(params, jid, base, record, parent))
        elif name == "interface":
            lines += [f"add alias {address.bare} on {where}" for where, address in beginning.aliases(params)]
        elif name == "vnet.interface":
            lines += [f"move {interface} into the jail" for interface in params.strings(name) if interface]
        elif name == "ng.init" and params.text(name) != "none":
            from jailng.core import guest

            lines += [f"ng.init: {line}" for line in _guest(guest.decide(params).name, 0)]
        elif name == "ng.quota":
            lines += _quota(params, record.rules)
        elif name == "mount":
            lines += _mounts(params)
        elif name == "command" and params.strings(name):
            lines.append(f"command: {' '.join(params.strings(name))}")
        elif name.startswith("exec."):
            lines += [f"{name}: {text}" for text in params.strings(name)]
    return lines


def _check_own_mounts(params: Parameters) -> None:
    if any(params.strings(step) for step in ("exec.prepare", "mount", "mount.fstab")):
        return  # which may make the directories
    for name, _ in beginning.START:
        if name in ("mount.devfs", "mount.fdescfs", "mount.procfs") and params.given(name) and params.flag(name):
            beginning.check_own_mount(params, name, params.given("path"))


def _guest(kind: str, way: int) -> list[str]:
    from jailng.core import guest

    row = guest.KINDS.get(kind)
    if row is None:
        return []
    if row.inits:
        return [("start the guest's init", "have the guest's init shut it down")[way]]
    return list((row.start, row.stop)[way])


def _rules(params: Parameters) -> str:
    """Those of rctl(8) that there are for a jail of that name."""
    if not exists(RULES):
        return ""
    from jailng.limits import standing

    return standing.texts(params.text("name") or str(params.number("jid")))


def _quota(params: Parameters, rules: str) -> list[str]:
    if not params["ng.quota"] and not params["ng.limits"] and not rules:
        return []
    from jailng.core import image, quota

    wanted, path = quota.wanted(params, rules), params.text("path")
    if wanted is None:
        return []
    much = f"{wanted.bytes} bytes" + (f" and {wanted.inodes} inodes" if wanted.inodes else "")
    if wanted.image:
        return [f"mount {image.file_of(path)} on {path}, an ext4 of {much}, made if it is not there"]
    return [f"hold {path} to {much}, by the quota of its project"]


def _mounts(params: Parameters) -> list[str]:
    if not params.strings("mount") and not params.strings("mount.fstab"):
        return []
    from jailng.core import mounting

    found = [entry for _, entry in mounting.entries(params)]
    mounting.check_targets(params.text("path"), found)
    return [f"mount {entry.device} on {entry.target}, {entry.kind}" for entry in found]


def change(record: Record, changes: Parameters) -> list[str]:
    """To change a jail that runs. Raises JailError where that could not be."""
    return [f"set {name}" for name in Parameters.from_texts(record.params).update(changes)]


def removal(
    record: Record | None, params: Parameters | None = None, gone: bool = False, forced: bool = False
) -> list[str]:
    """To remove a jail, or what is left of one that is ``gone``; in the order of engine/ending.py, ``forced`` as there.

    ``params`` tell of the commands that this takes, where it takes any.
    """

    def commands(*names: str) -> list[str]:
        if params is None or forced:
            return []
        return [f"{name}: {text}" for name in names for text in params.strings(name)]

    from jailng.core import undo  # which no start needs

    lines = record.undo[::-1] if record is not None else []
    kinds = [line.partition(" ")[0] for line in lines]
    kept = next((number for number, kind in enumerate(kinds) if kind in undo.AROUND), len(lines))
    undone = [f"undo: {line}" for line in lines]
    around = [] if forced and {"image", "mount"} & {*kinds} else undone[kept:]
    before = commands("exec.prestop", "exec.stop")
    if record is not None and record.guest and not forced:
        before += [f"ng.init: {line}" for line in _guest(record.guest.partition(" ")[0], 1)]
    return [
        *([] if gone else before),
        *undone[:kept],
        *commands("exec.poststop"),
        *around,
        *commands("exec.release"),
    ]
