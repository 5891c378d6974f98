"""Fuzz a jail's broker, from inside: ``jexec JAIL python3 -m tests.fuzz.broker CALLS [SEED]``, as root.

The calls are packets as the commands send them, damaged, with descriptors of all kinds beside them, and made-up ones;
callers hang up in the middle, say nothing, or say more. Prints how many calls were answered how, and the names of
jails that were told of, as JSON: what is to be made of that is for who looks from outside to say
(tests/kernel/test_nested_hostile.py). Needs nothing but Python.
"""

from __future__ import annotations

import array
import json
import os
import random
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable

PATH = "/dev/.jailng/broker"
PATIENCE = 20.0  # seconds
VERBS = "get set set set set update update remove members attach attach attach nothing".split()
NUMBERS = "0 1 -1 2 3 4 5 6 7 8 9 99 999999 1000000 4294967296 -2147483649 0x1 1e9 \u0663 + nan".split()
NUMBERS += ["9" * 5000, " 1"]
NAMES = ["", "a", "b", "a.b", "a.b.c", "..", ".", "a..b", ".a", "a.", "top", "top2", "top.a", "other", "2", "007", "+7"]
NAMES += [
    "../../x",
    "a/b",
    "\t",
    "a\tb",
    "x\n1\t0\tx",
    "\udcff",
    "n" * 250,
    "n" * 300,
    "é",
    "\u2028",
    "a b",
    "*",
    "%s{}",
]
PATHS = ["/", "/tmp", "/nowhere", "/proc", "/proc/1/root", "/proc/self/fd/3", "/sys", "/sys/fs/cgroup", "/dev", "/run"]
PATHS += [
    "/dev/.jailng",
    "..",
    "/../..",
    "",
    ".",
    "/etc/passwd",
    "/" + "d/" * 2100,
    "\udcff",
    "/run/jailng",
    "/dev/shm",
]
PARAMETERS = """persist nopersist allow.mount allow.raw_sockets allow.noraw_sockets allow.suser allow.nosuser
    allow.mlock allow.socket_af allow.set_hostname allow.mount.nullfs allow.sysvipc allow.chflags
    securelevel=-2 securelevel=3
    securelevel=9999999999 enforce_statfs=0 enforce_statfs=2 devfs_ruleset=1 devfs_ruleset=4 devfs_ruleset=70000
    children.max=1 children.max=2 children.max=999999 children.max=-1 children.cur=0 ng.uids=shared ng.uids=private
    ng.lenient ng.nothing=1 ip4=inherit ip4=new ip4=disable ip6=inherit ip4.addr ip4.addr=192.0.2.7
    ip4.addr=jng1|192.0.2.7/8 ip4.addr=lo|203.0.113.1 ip4.addr=127.0.0.1 ip4.addr=0.0.0.0 ip4.addr=192.0.2.1,,192.0.2.2
    ip6.addr=::1 ip6.addr=2001:db8::7 ip6.addr=fe80::1%lo vnet=new vnet host=inherit host.hostname=x host.hostuuid=y
    host.hostid=-1 sysvshm=new sysvshm=inherit sysvmsg=disable parent=1 dying jid=1 jid=0 jid=-5 jid=1000000 allow.dying
    interface=lo vnet.interface=lo mount=/etc|/etc mount.fstab=/etc/fstab mount.devfs mount.nodevfs mount.noprocfs
    exec.start=id exec.prestart=id exec.consolelog=/x exec.system_user=root command=id depend=x stop.timeout=1
    osrelease=x osreldate=1 meta env meta.x=1 env.y env.= meta.=1 cpuset.id=0 allow.mount.fusefs allow.vmm
    allow.unprivileged_proc_debug
    """.split()
PARAMETERS += ["meta=" + "m" * 4094]
PARAMETERS += ["env=" + "e" * 5000, "meta.k=a\nb", "env.a\nparam name=z", "host.hostname=a\nup"]
PARAMETERS += ["", "=", "=x", "name", "path", "no", "a=b=c", "\udcff=\udcff", "allow.\u0130", "p" * 3000, "name+=x"]
COMMANDS = [["true"], [], [""], ["sleep", "1000"], ["cat"], ["x" * 100000], ["/"], ["sh", "-c", "kill -9 0"]]
USERS = [["none"], [], ["named", "root"], ["named", "\udcff"], ["named"], ["known", "x", "0", "0", "", "/", "/"]]
USERS += [["known", "x", "-1", "0", "", "", ""], ["known", "x", "65536", "4294967295", "1,,2", "", ""]]
LABELS = ["execvp: {}", "{}", "", "{}{}", "{{}}{:>99999999}", "{.__class__}", "%s", "{0}{}"]


def pack(*words: str | int | list[str]) -> bytes:
    flat: list[str] = []
    for word in words:
        flat += [str(len(word)), *word] if isinstance(word, list) else [str(word)]
    return "\0".join(flat).encode("utf-8", "surrogateescape")


def connect() -> socket.socket:
    """A call. Raises OSError."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.connect(PATH)  # which waits while others wait, too
    made.settimeout(PATIENCE)
    return made


def hear(connection: socket.socket) -> list[str]:
    """The words of an answer: "ok" or "error" first; or "died". Raises OSError."""
    packet, beside, _, _ = connection.recvmsg(1 << 18, socket.CMSG_SPACE(4 * 16))
    fds = [int.from_bytes(data[at : at + 4], sys.byteorder) for _, _, data in beside for at in range(0, len(data), 4)]
    if packet == b"\0":
        packet = os.pread(fds[-1], 1 << 24, 0)
    return packet.decode("utf-8", "surrogateescape").split("\0") if packet else ["died"]


def ask(*words: str | int | list[str], fds: list[int] | None = None) -> list[str]:
    """Say it, and hear one answer. Raises OSError."""
    with connect() as connection:
        connection.sendmsg([pack("1", *words)], beside(fds or []))
        return hear(connection)


def beside(fds: list[int]) -> list[tuple[int, int, array.array[int]]]:
    """What sendmsg(2) takes for descriptors."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []


class Fuzzer:
    """Calls by chance. ``answers`` counts what came of them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.answers: Counter[str] = Counter()
        self.told: set[str] = set()  # names of jails
        self.jids: list[str] = []
        self.silent: list[socket.socket] = []
        self.kinds: list[Callable[[], int]] = [
            lambda: os.open("/dev/null", os.O_RDWR),
            lambda: os.open("/", os.O_RDONLY | os.O_DIRECTORY),
            lambda: os.open("/etc/passwd", os.O_PATH),
            lambda: os.open("/proc/self/mem", os.O_RDWR),
            lambda: os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY),
            lambda: os.pidfd_open(os.getpid()),
            lambda: os.memfd_create("x"),
            lambda: os.eventfd(0),
            lambda: os.dup(os.pipe()[0]),
            lambda: os.dup(1),
            lambda: select.epoll().fileno() and os.dup(2),
            lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach(),
            lambda: socket.socketpair()[0].detach(),
            lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).detach(),
            lambda: connect().detach(),
        ]

    def one(self) -> None:
        """A call."""
        own = set(os.listdir("/proc/self/fd"))
        try:
            connection = connect()
            self._say(connection)
        except OSError as error:
            self.answers[f"OSError: {error.strerror}"] += 1
        finally:
            held = {str(one.fileno()) for one in self.silent}
            for fd in set(os.listdir("/proc/self/fd")) - own - held:
                try:
                    os.close(int(fd))
                except OSError:
                    pass

    def _say(self, connection: socket.socket) -> None:
        kind = self.random.random()
        if kind < 0.03:
            self.answers["hung up"] += 1
            connection.detach()
            return
        if kind < 0.06 and len(self.silent) < 20:
            self.silent.append(connection)
            self.answers["silent"] += 1
            return
        verb = self.random.choice(VERBS)
        fds = self._descriptors(verb)
        connection.sendmsg([self._damaged(self._packet(verb))], beside(fds))
        cut = self.random.random() < 0.1
        if cut:
            connection.shutdown(self.random.choice([socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR]))
        if self.random.random() < 0.15:
            self.answers["not heard"] += 1
            connection.detach()
            return
        heard = hear(connection)
        self.answers["not to be heard" if cut else f"{verb}: {heard[0]}"] += 1
        if heard[0] != "ok":
            return
        if verb == "get":
            self._look_at(heard)
        elif verb == "set":
            self.jids.append(heard[1])
            if self.random.random() < 0.7:
                connection.sendmsg([self.random.choice([b"up", b"\0", os.urandom(900)])], beside(self._descriptors("")))
                hear(connection)

    def _look_at(self, heard: list[str]) -> None:
        for lines in heard[3::2]:
            self.told |= {line[11:] for line in lines.split("\n") if line.startswith("param name=")}
        self.jids = heard[2::2] or self.jids

    def _descriptors(self, verb: str) -> list[int]:
        count = (
            3 if verb == "attach" and self.random.random() < 0.7 else self.random.choice([0] * 8 + [1, 2, 4, 5, 253])
        )
        if count == 253:
            return [1] * count
        return [self.random.choice(self.kinds)() for _ in range(count)]

    def _packet(self, verb: str) -> bytes:
        one = self.random.choice
        jid = one(self.jids) if self.jids and self.random.random() < 0.7 else one(NUMBERS)
        version = "1" if self.random.random() < 0.95 else one(NUMBERS)
        if verb == "get":
            return pack(version, verb, one([*NAMES, jid]))
        if verb in ("set", "update"):
            given = self.random.sample(PARAMETERS, self.random.choice([0, 0, 0, 1, 1, 2, 5]))
            if verb == "set" or self.random.random() < 0.2:
                given.append(f"path={one(PATHS) if self.random.random() < 0.3 else '/'}")
            if self.random.random() < 0.6:
                given.append(f"name={one(NAMES if self.random.random() < 0.5 else NAMES[1:4])}")
            return pack(version, verb, *([jid] if verb == "update" else []), given)
        if verb == "attach":
            argv = one(
                [["true"], [], [""], ["sleep", "1000"], ["cat"], ["x" * 100000], ["/"], ["sh", "-c", "kill -9 0"]]
            )
            who = one(USERS)
            environment = one([[], ["A=1"], ["="], ["LD_PRELOAD=/x"], ["E=" + "e" * 90000]])
            added = one([[], ["A=1"], ["HOME=/x", "HOME="], ["="], [""]])
            tail = one([[], ["/nowhere"], ["/proc/1/root"]]), one("01"), one("01"), one(LABELS), added
            return pack(version, verb, jid, one(["000", "111", "", "1"]), one("001"), argv, environment, who, *tail)
        return pack(version, verb, jid)

    def _damaged(self, packet: bytes) -> bytes:
        kind = self.random.random()
        if kind < 0.8:
            return packet
        if kind < 0.84:
            return os.urandom(self.random.choice([1, 2, 100, 65536]))
        if kind < 0.86:
            return packet + b"\0" * self.random.choice([1, 1000, 131072 - len(packet) if len(packet) < 131072 else 1])
        at = self.random.randrange(len(packet) + 1)
        if kind < 0.92:
            return packet[:at] or b"\0"
        return packet[:at] + self.random.choice([b"\0", b"\xff", b"-", b"9", b"\n", b"\0\0\0"]) + packet[at + 1 :]

    def finish(self) -> None:
        """Remove what has been made."""
        for connection in self.silent:
            connection.close()
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            heard = ask("get", "")
            if heard[0] == "ok":
                self._look_at(heard)
                for jid in heard[2::2]:
                    ask("remove", jid)
                if not heard[2::2]:
                    return


def main(calls: int, seed: int) -> int:
    """Make so many calls. The exit status."""
    fuzzer = Fuzzer(seed)
    for _ in range(calls):
        fuzzer.one()
    fuzzer.finish()
    print(json.dumps({"seed": seed, "calls": calls, "answers": fuzzer.answers, "told": sorted(fuzzer.told)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() & 0xFFFFFF))
