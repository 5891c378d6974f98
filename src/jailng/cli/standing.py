"""jail(8) for one jail that is there already, without a configuration: -m, -r and -R."""

from __future__ import annotations

from jailng.cli import printing
from jailng.cli.jail import Voice, print_plan, voice_of
from jailng.core import registry
from jailng.engine import ending
from jailng.engine import modify as modifying
from jailng.engine.life import Life
from jailng.errors import JailError, NotFound
from jailng.params.model import Parameters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.cli.jail import Options
    from jailng.core.registry import Record


def modify(options: Options, record: Record, params: Parameters) -> None:
    """Change a jail that runs. Raises JailError."""
    if options.plan:
        from jailng.engine import plan

        print_plan(plan.change(record, params))
    else:
        modifying.update(record, params, voice_of(options))


def make_way(options: Options, record: Record, params: Parameters) -> None:
    """Remove a jail, with the commands of ``params``, for one that is to be made of these. Raises JailError."""
    if options.plan:
        from jailng.engine import plan

        print_plan(plan.removal(record, params))
    else:
        ending.stop(Life(params, record, voice_of(options), Parameters.from_texts(record.params)))


def remove(options: Options, name: str) -> None:
    """Remove a jail, or what one of that name has left. Raises JailError."""
    record = registry.find(name)
    if record is None:
        if not options.plan:
            ending.clear_away(name)  # what a jail of that name may have left when it ended by itself
        raise JailError(f'"{printing.visible(name)}" not found')
    forced = options.has("R")
    if options.plan:
        from jailng.engine import plan

        print_plan(plan.removal(record, forced=forced))
        return
    voice = Voice(record.name, options.verbose, noted=False)
    try:
        ending.stop(Life(Parameters.from_texts(record.params, known=forced), record, voice), forced)
    except NotFound:
        raise
    except JailError as error:
        voice.fail(error)
        raise
