"""jail(8)'s form of the article that the jails came with: path, hostname, addresses, command."""

from __future__ import annotations

from jailng.cli import jail as cli
from jailng.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.cli.jail import Options


def create(options: Options, words: list[str]) -> int:
    """Make such a jail. Raises UsageError, JailError."""
    if len(words) < 4 or not words[0].startswith("/"):
        raise UsageError(cli.USAGE)
    options.warn_of_dying(options.has("d"))
    path, hostname, addresses, *command = words
    params = cli.of_options(options)
    params.add("path", path)
    params.add("host.hostname", hostname)
    found: dict[str, list[str]] = {}
    for address in addresses.split(",") if addresses else []:
        found.setdefault("ip6.addr" if ":" in address else "ip4.addr", []).append(address)
    for name, texts in found.items():
        params.add(name, ",".join(texts))
    for word in command:
        params.add("command", word)
    return cli.create(options, params, old_style=True)
