"""Fuzz jail.conf(5): ``python -m tests.fuzz.conf SECONDS [SEED]``.

Texts are the samples of the unit tests, damaged and put together, and made-up statements. Whatever they are, they are
read, or refused with a JailError, in a time that their size explains. Exits 1 at the first that is not, and leaves it
in the file that it names.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from jailng.conf.config import exported, load, parameters
from jailng.errors import JailError

SAMPLES = sorted(Path(__file__).parent.parent.glob("unit/conf/*.conf"))
NAMES = rb"""a b.c * $v $w $l ${v} ${a.b} persist nopersist allow.nomount allow.mount name jid path ip4.addr exec.start
    host.hostname depend mount command noname 'x\040y' 71 interface""".split()
VALUES = rb"""a b $v $w $l x$l "$l" ${v} "$v$w" "${v}x" '' "" 'x\040y' "it's" $name $jid ${a.b} 10.0.0.1 71 0 -1 true
    false /x \x41\101\n\\ 99999999999999999999 a/b*c+d '\xc3' new inherit""".split()
MARKS = rb"""${ $ { } ; = += + , ' " \ \n \x \0 \' \" // /* */ # [ ] ? !""".split()
MARKS += [b" ", b"\n", b"\t", b"\0", b"\xff", b"\xc3\xa9", b"\\\n", b"\r"]
WHOLE = [b"$v=$w;", b"$w=$v,$v;", b"x=$v$w;", b"a{", b"}", b".include f;", b".include g*;", b"a{.include 'f';}"]
PIECES = [*NAMES, *VALUES, *MARKS, *WHOLE]
PER_KILOBYTE = 0.01  # seconds, on a machine that has other work too
AT_LEAST = 2.0
FEW = 20


class Texts:
    """Texts to read, and the files that these may include."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seeds = [sample.read_bytes() for sample in SAMPLES]
        self.files: dict[str, bytes] = {}
        self.size = 0  # bytes that have been read of them

    def read(self, path: str) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(2, "No such file or directory")
        self.size += len(self.files[path])
        return self.files[path]

    def glob(self, pattern: str) -> list[str]:
        return sorted(self.files)[:3] if self.random.random() < 0.9 else []

    def next(self) -> bytes:
        """Another text, and other files beside it."""
        self.size = 0
        self.files = {name: self._text() for name in ("f", "g")}
        text = self.files["jail.conf"] = self._text()
        return text

    def _text(self) -> bytes:
        kind = self.random.random()
        if kind < 0.35:
            return b"".join([self._statement() for _ in range(self.random.randrange(20))])
        if kind < 0.4:
            return b"".join(self.random.choices(PIECES, k=self.random.randrange(60)))
        if kind < 0.45:
            return self.random.choice(PIECES) * self.random.randrange(3000) + self.random.choice(PIECES)
        if kind < 0.5:
            return bytes(self.random.choices(range(256), k=self.random.randrange(80)))
        text = self.random.choice(self.seeds)
        for _ in range(self.random.randrange(1, 6)):
            text = self._damaged(text)
        if self.random.random() < 0.1:
            self.seeds = [*self.seeds[-60:], text[:4000]]
        return text

    def _statement(self, depth: int = 0) -> bytes:
        name = self.random.choice(NAMES)
        kind = self.random.random()
        if kind < 0.2 and depth < 3 and not name.startswith(b"$"):
            inside = [self._statement(depth + 1) for _ in range(self.random.randrange(6))]
            return name + b" {" + b" ".join(inside) + b"}\n"
        if kind < 0.3:
            return name + b";"
        if kind < 0.32:
            return self.random.choice(WHOLE[:3])
        values = b", ".join(self.random.choices(VALUES, k=self.random.choice([1, 1, 1, 2, 3])))
        return name + self.random.choice([b" = ", b" += ", b" "]) + values + b";"

    def _damaged(self, text: bytes) -> bytes:
        at, until = sorted([self.random.randrange(len(text) + 1) for _ in range(2)])
        if self.random.random() < 0.7:
            until = min(until, at + self.random.randrange(8))
        other = self.random.choice(self.seeds)
        start = self.random.randrange(len(other) + 1)
        put = self.random.choice(
            [b"", *self.random.choices(PIECES, k=3), other[start : start + 200], text[at:until] * 3]
        )
        return text[:at] + put + text[until:]


def try_one(texts: Texts) -> bool:
    """Read what there is, whole. True where it is a configuration; a JailError is as good an answer."""
    try:
        config = load("jail.conf", texts)
    except JailError as error:
        _check_line(str(error))
        return False
    # What wildcards hold is merged into each jail: of many jails with many of them the first few will do.
    for jail in config.jails[:FEW]:
        config.find(jail.key)
        try:
            exported(jail, "|").encode("utf-8", "surrogateescape")
            parameters(jail.settings())
        except JailError as error:
            _check_line(str(error))
    if len(config.jails) <= FEW:
        config.find("none")
    config.match("a.*")
    return True


def _check_line(text: str) -> None:
    if "\n" in text:
        raise AssertionError(f"more than a line: {text!r}")
    text.encode("utf-8", "surrogateescape")


def main(seconds: float, seed: int) -> int:
    """Try texts for so long. The exit status."""
    texts = Texts(seed)
    end = time.monotonic() + seconds
    count = accepted = 0
    slowest = 0.0
    while time.monotonic() < end:
        text = texts.next()
        started = time.process_time()
        try:
            accepted += try_one(texts)
            took = time.process_time() - started
            slowest = max(slowest, took)
            if took > AT_LEAST + PER_KILOBYTE * texts.size / 1024:
                raise TimeoutError(f"{took:.1f} s for {texts.size} bytes")
        except Exception:
            traceback.print_exc()
            with tempfile.NamedTemporaryFile("wb", prefix="jail.conf-", delete=False) as file:
                file.write(repr(texts.files).encode())
            print(f"seed {seed}, number {count}: {text[:200]!r}; files in {file.name}", file=sys.stderr)
            return 1
        count += 1
    print(f"seed {seed}: {count} texts, {accepted} of them configurations; the slowest took {slowest:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() & 0xFFFFFF))
