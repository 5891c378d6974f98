"""Fuzz ipnat(5): ``python -m tests.fuzz.nat SECONDS [SEED]``.

Texts are the article's rules and FreeBSD's examples, damaged and put together, and made-up words. Whatever they are,
they are read, or refused with a JailError of one line, in a time that their size explains; what is read is printed, and
the print is the same rules; and it is compiled, or refused by name. Exits 1 at the first of which that does not hold,
and leaves it in the file that it names.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
import traceback
from ipaddress import IPv4Address

from jailng.errors import JailError
from jailng.nat import names
from jailng.nat.parse import parse
from jailng.nat.printed import printed
from jailng.nat.ruleset import compile_rules
from jailng.nat.translation import Loaded
from tests.unit.test_nat_examples import ACCEPTED, ARTICLE, REFUSED

WORDS = rb"""map bimap map-block rdr no rewrite divert encap from to any pool/1 hash/x dstlist/y in out on proto src dst
    inet inet6 mask netmask range port ports portmap icmpidmap auto sequential proxy ftp ftp/tcp config dns/udp tcp udp
    tcp/udp tcpudp icmp ipv6-icmp gre ip 6 age mssclamp frag round-robin sticky tag purge -> ! ; , / - : = != < > <= >=
    <> >< eq ge 0/0 0/32 0/128 10.0.0.0/8 192.0.2.1 192.0.2.1-192.0.2.9 192.0.2.1,192.0.2.2 10.0.0.0/0xff00ff00 ::1 ::/0
    2001:db8::/32 0xff 0 1 21 80 65535 65536 4294967296 ep0 ep0,le0 * '*' "-" x="y"; x='$x$x'; $x ${x} ${ $ { } ( ) @
    # \ ' " """.split()
WORDS += [b" ", b"\n", b"\t", b"\0", b"\xff", b"\xc3\xa9", b"\\\n", b"\r", b"\x1b[2J", b"# x\n"]
PER_KILOBYTE = 0.05  # seconds, on a machine that has other work too
AT_LEAST = 2.0
MANY = 200  # rules to print and compile; of more the first will do


class Texts:
    """Texts to read."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.given = [
            ARTICLE.read_bytes(),
            *[text.encode() for text, _ in ACCEPTED],
            *[text.encode() for text in REFUSED],
        ]

        self.kept: list[bytes] = []

    def next(self) -> bytes:
        """Another text."""
        kind = self.random.random()
        if kind < 0.2:
            return b" ".join(self.random.choices(WORDS, k=self.random.randrange(40)))
        if kind < 0.25:
            return self.random.choice(WORDS) * self.random.randrange(3000) + self.random.choice(WORDS)
        if kind < 0.3:
            return bytes(self.random.choices(range(256), k=self.random.randrange(80)))
        text = b"\n".join(self.random.choices(self.seeds, k=self.random.choice([1, 1, 1, 1, 2, 3])))
        for _ in range(self.random.choice([1, 1, 1, 2, 4])):
            text = self._damaged(text)
        return text

    def keep(self, text: bytes) -> None:
        """Damage this one, too: it is rules."""
        if len(text) < 2000:
            self.kept = [*self.kept[-60:], text]

    @property
    def seeds(self) -> list[bytes]:
        """What texts are made of."""
        return self.given + self.kept

    def _damaged(self, text: bytes) -> bytes:
        words = text.split(b" ")
        at = self.random.randrange(len(words))
        kind = self.random.random()
        if kind < 0.3:
            words[at] = self.random.choice(WORDS)
        elif kind < 0.5:
            words.insert(at, self.random.choice(WORDS))
        elif kind < 0.65:
            del words[at]
        elif kind < 0.8:
            other = self.random.choice(self.seeds).split(b" ")
            start = self.random.randrange(len(other))
            words[at:at] = other[start : start + self.random.randrange(6)]
        else:
            text = b" ".join(words)
            at = self.random.randrange(len(text) + 1)
            return text[:at] + self.random.choice(WORDS) + text[at + self.random.randrange(4) :]
        return b" ".join(words)


def try_one(text: bytes) -> bool:
    """Read a text, print and compile what it says. True where it is rules; a JailError is as good an answer."""
    try:
        rules = parse("f", text, {"nif": "ep0"}).rules
    except JailError as error:
        _check_line(str(error))
        return False
    for resolve in (False, True):
        shown = [printed(rule, resolve) for rule in rules[:MANY]]
        if parse("g", "\n".join(shown).encode()).rules != rules[:MANY]:
            raise AssertionError(f"printed, and other rules: {shown}")
    for at, rule in enumerate(rules[:MANY]):
        try:
            compile_rules("f", [(Loaded(at, rule), printed(rule, resolve=False))])
        except JailError as error:
            _check_line(str(error))
            if not str(error).startswith(f"f:{rule.line}: "):
                raise AssertionError(f"without file and line: {error}") from None
    return True


def _check_line(text: str) -> None:
    if "\n" in text or not text.isprintable():
        raise AssertionError(f"more than a line: {text!r}")


def main(seconds: float, seed: int) -> int:
    """Try texts for so long. The exit status."""
    # No name server is asked.
    names.host = lambda name, family: IPv4Address("192.0.2.1") if family == 4 and len(name) % 3 == 0 else None
    texts = Texts(seed)
    end = time.monotonic() + seconds
    count = accepted = 0
    slowest = 0.0
    while time.monotonic() < end:
        text = texts.next()
        started = time.process_time()
        try:
            if try_one(text):
                accepted += 1
                texts.keep(text)
            took = time.process_time() - started
            slowest = max(slowest, took)
            if took > AT_LEAST + PER_KILOBYTE * len(text) / 1024:
                raise TimeoutError(f"{took:.1f} s for {len(text)} bytes")
        except Exception:
            traceback.print_exc()
            with tempfile.NamedTemporaryFile("wb", prefix="ipnat.rules-", delete=False) as file:
                file.write(text)
            print(f"seed {seed}, number {count}: {text[:200]!r}; in {file.name}", file=sys.stderr)
            return 1
        count += 1
    print(f"seed {seed}: {count} texts, {accepted} of them rules; the slowest took {slowest:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() & 0xFFFFFF))
