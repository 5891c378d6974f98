"""ng.watch=packets and jailctl packets: every frame of a jail, seen from outside and kept there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from jailng.core import registry
from jailng.linux import libpcap, ns, packetcopy
from jailng.observe import pcapng, taps
from jailng.observe.pcapng import Packet, Reader
from tests.kernel.conftest import ENVIRONMENT, Command, Shim
from tests.kernel.networks import Namespace, attach, ip, run
from tests.kernel.stage import mount, own_logs

HOST, JAIL, OTHER, LAN = "198.51.100.1", "198.51.100.10", "198.51.100.11", "198.51.100.2"
PORT = 4711
SECONDS = 20.0
_MS_REMOUNT = 32


@pytest.fixture
def machine() -> Iterator[Namespace]:
    """A machine on a LAN with the host, whose ep0 has two addresses for jails."""
    with attach("ep0", (f"{HOST}/24", "2001:db8:1::1/64"), (f"{LAN}/24", "2001:db8:1::2/64")) as made:
        ip(f"address add {JAIL}/24 dev ep0", f"address add {OTHER}/24 dev ep0")
        yield made


@pytest.fixture
def kept() -> Iterator[Path]:
    """Where packets are kept, on a small disk of its own."""
    with own_logs("size=24m") as directory:
        yield directory / "pk/packets"


@contextmanager
def running(jail: Command, *words: str) -> Iterator[registry.Record]:
    """A jail named pk, that is watched."""
    done = jail("-c", "name=pk", "persist", *words)
    assert (done.returncode, done.stderr) == (0, "")
    try:
        record = registry.find("pk")
        assert record is not None
        yield record
    finally:
        jail("-r", "pk")


def eventually(true: Callable[[], object], what: Callable[[], object] = lambda: "") -> None:
    until = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < until, what()
        time.sleep(0.02)


def packets(directory: Path, interface: str = "") -> list[Packet]:
    """What is in all files there, the oldest first."""
    found: list[Packet] = []
    for path in sorted(directory.glob("*.pcapng")):
        with suppress(FileNotFoundError), open(path, "rb") as file:  # the oldest goes
            found += [one for one in Reader(file) if isinstance(one, Packet)]
    return [one for one in found if not interface or one.interface.name == interface]


def payloads(directory: Path, interface: str = "") -> list[bytes]:
    """What datagrams to ``PORT`` carried, in the order in which they were kept."""
    port = PORT.to_bytes(2, "big")
    return [one.data[42:] for one in packets(directory, interface) if one.data[23] == 17 and one.data[36:38] == port]


def send(machine: Namespace, count: int, size: int = 10, first: int = 0, to: str = JAIL) -> list[bytes]:
    """Send numbered datagrams to a jail; what they carried.

    All but the first once it is known who has the address: until then the kernel keeps some, and drops others.
    """
    contents = [b"%08d" % number + bytes(size - 8) for number in range(first, first + count)]
    with machine.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(contents[0], (to, PORT))
        eventually(lambda: "lladdr" in run("ip", "neighbour", "show", to))
        for content in contents[1:]:
            sender.sendto(content, (to, PORT))
    return contents


def counters(interface: str) -> int:
    """All packets that an interface of this network namespace has sent and received, as the kernel counts them."""
    return counted(interface, "packets")


def counted(interface: str, what: str) -> int:
    """``packets`` or ``bytes``, sent and received."""
    (found,) = json.loads(run("ip", "-json", "-statistics", "link", "show", "dev", interface))
    return sum(int(found["stats64"][way][what]) for way in ("rx", "tx"))


def listed(jailctl: Command) -> list[dict[str, Any]]:
    done = jailctl("packets", "-l", "--json", "pk")
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout)["files"])


def remarks(jailctl: Command) -> str:
    return "\n".join(text for one in listed(jailctl) for text in one["remarks"])


def workers(record: registry.Record) -> list[int]:
    """The pids of the post: the supervisor, and its worker."""
    fresh = registry.load(record.jid)
    assert fresh is not None
    pid = int(fresh.posts["packets"].split()[0])
    return [pid, *[child for child in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent(child) == pid]]


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def filters() -> str:
    """Why there are no filters, or ""."""
    try:
        libpcap.Filter("ip", 96)
    except libpcap.Unavailable as error:
        return str(error)
    return ""


def test_every_packet_is_kept_and_nothing_of_it_is_seen_inside(
    machine: Namespace, kept: Path, jail: Command, jexec: Command, jailctl: Command, small_root: Path
) -> None:
    with running(jail, f"path={small_root}", f"ip4.addr={JAIL}", "ng.watch=packets") as record:
        end = f"jng{record.jid}"
        before = jexec("pk", "/bin/busybox", "cat", "/proc/net/packet", "/proc/net/ptype").stdout
        assert "\n" not in before.partition("Type Device")[0].strip()  # a heading, and no socket
        sent = send(machine, 300)
        # To nobody: the kernel answers by itself.
        assert jexec("pk", "/bin/busybox", "nc", "-w", "5", "127.0.0.1", "9").returncode != 0

        def all_there() -> bool:
            return len(packets(kept, end)) == counters(end) and payloads(kept, end) == sent

        eventually(all_there, lambda: (len(packets(kept, end)), counters(end)))
        first = packets(kept, end)[0]
        assert abs(first.time - time.time_ns()) < 600 * 10**9
        ways = {one.direction for one in packets(kept, end) if one.data[26:30] == socket.inet_aton(LAN)}
        assert ways == {pcapng.IN}
        eventually(lambda: len(packets(kept, "lo")) >= 2 or "lo" in remarks(jailctl))  # it has none without TCX
        inside = packets(kept, "lo")
        if inside:
            assert [one.data[26:34] for one in inside] == [socket.inet_aton("127.0.0.1") * 2] * 2  # SYN and RST
        for path, mode in ((kept, 0o700), (kept.parent, 0o700), (kept.parent.parent, 0o700)):
            assert stat.S_IMODE(path.stat().st_mode) == mode
        total = len(packets(kept))
    files = list(kept.iterdir())
    assert [(stat.S_IMODE(path.stat().st_mode), path.suffix) for path in files] == [(0o600, ".pcapng")]
    (file,) = listed(jailctl)
    assert (file["packets"], file["dropped"], file["remarks"]) == (len(packets(kept)), 0, [])
    assert file["packets"] >= total
    shown = jailctl("packets", "-r", "pk").stdout.splitlines()
    assert len(shown) == file["packets"]
    for command in (["tcpdump", "-nr"], ["tshark", "-nr"]):
        if shutil.which(command[0]):
            assert len(run(*command, str(files[0])).splitlines()) == file["packets"]


def test_what_it_shows_as_it_comes(
    machine: Namespace, kept: Path, jail: Command, jailctl: Command, small_root: Path, checkout: Path
) -> None:
    with running(jail, f"path={small_root}", f"ip4.addr={JAIL}"):
        following = {
            name: subprocess.Popen(
                [f"{checkout}/bin/jailctl", "packets", "-c", "3", *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT,
            )
            for name, words in (("text", ["pk"]), ("json", ["--json", "pk"]), ("stream", ["-w", "-", "pk"]))
        }
        for one in following.values():
            assert one.stderr is not None
            assert b"listening on jng" in one.stderr.readline()
        send(machine, 3)
        out = {name: one.communicate(timeout=60) for name, one in following.items()}
        assert {one.returncode for one in following.values()} == {0}
        assert all(errors.endswith(b"3 packets captured, 0 dropped\n") for _, errors in out.values())
        assert f"> {JAIL}.{PORT}: UDP, length 10" in out["text"][0].decode()
        rows = [json.loads(line) for line in out["json"][0].splitlines()]
        assert {"protocol": "udp", "destination": JAIL, "destination_port": PORT, "payload": 10}.items() <= next(
            row for row in rows if row.get("destination_port") == PORT
        ).items()
        stream = Path("/var/log/stream")
        stream.write_bytes(out["stream"][0])
        with open(stream, "rb") as file:
            assert len([one for one in Reader(file) if isinstance(one, Packet)]) == 3
    for words in (["pk"], ["-r", "pk"], ["-l", "pk"]):
        done = jailctl("packets", *words)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_only_what_a_filter_takes_and_no_jail_for_one_that_is_none(
    machine: Namespace, kept: Path, jail: Command, jailctl: Command, small_root: Path
) -> None:
    if why := filters():
        pytest.skip(why)
    done = jail(
        "-c", "name=pk", f"path={small_root}", f"ip4.addr={JAIL}", "persist", "ng.watch=packets filter udp prot 1"
    )
    assert done.returncode == 1
    refusal = 'jail: ng.watch: filter "udp prot 1": can\'t parse filter expression: syntax error\n'
    assert done.stderr == refusal
    assert registry.find("pk") is None
    watch = f"ng.watch=packets snaplen=64 filter udp and dst port {PORT}"
    with running(jail, f"path={small_root}", f"ip4.addr={JAIL}", watch):
        send(machine, 5, size=100)
        eventually(lambda: len(packets(kept)) == 5)
        assert {(len(one.data), one.length) for one in packets(kept)} == {(64, 142)}
        done = jailctl("packets", "-c", "1", "pk", "udp", "prot", "1")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert jailctl("packets", "-r", "pk", "tcp").stdout == ""
        # Another filter while it runs.
        done = jail("-m", "name=pk", "ng.watch=packets filter udp prot 1")
        assert (done.returncode, done.stderr) == (1, refusal)
        assert jail("-m", "name=pk", "ng.watch=packets filter icmp").returncode == 0
        eventually(lambda: "another filter" in remarks(jailctl))
        send(machine, 5)
        eventually(lambda: len(packets(kept)) > 5)
        assert {one.data[23] for one in packets(kept)[5:]} == {1}


def test_without_the_power_to_go_first(
    machine: Namespace, kept: Path, jail: Command, small_root: Path, checkout: Path
) -> None:
    """Of a container's root without CAP_SYS_NICE packets are taken all the same."""
    without = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice"]
    words = ["-c", "name=pk", "persist", f"path={small_root}", f"ip4.addr={JAIL}", "ng.watch=packets"]
    done = subprocess.run([*without, f"{checkout}/bin/jail", *words], capture_output=True, text=True, env=ENVIRONMENT)
    try:
        assert (done.returncode, done.stderr) == (0, "")
        sent = send(machine, 5)
        eventually(lambda: payloads(kept) == sent)
    finally:
        jail("-r", "pk")


def test_another_address_while_it_runs(machine: Namespace, kept: Path, jail: Command, small_root: Path) -> None:
    """Its network is made anew, and is tapped when the command is done."""
    with running(jail, f"path={small_root}", f"ip4.addr={JAIL}", "ng.watch=packets"):
        sent = send(machine, 20)
        done = jail("-m", "name=pk", f"ip4.addr={OTHER}")
        assert (done.returncode, done.stderr) == (0, "")
        sent += send(machine, 20, first=20, to=OTHER)
        eventually(lambda: len(payloads(kept)) >= 40, lambda: len(payloads(kept)))
        assert payloads(kept) == sent


def test_a_jail_in_it_is_as_the_jail_itself(machine: Namespace, kept: Path, jail: Command, small_root: Path) -> None:
    """It has the address then, on an interface of its own."""
    words = [f"path={small_root}", f"ip4.addr={JAIL}", "children.max=1", "ng.watch=packets size=1M files=2"]
    with running(jail, *words) as record:
        sent = send(machine, 2)
        for first in range(10, 40, 10):
            done = jail("-c", "name=pk.in", "persist", f"path={small_root}", f"ip4.addr={JAIL}")
            assert (done.returncode, done.stderr) == (0, "")
            sent += send(machine, 2, first=first)
            assert jail("-r", "pk.in").returncode == 0
        eventually(lambda: payloads(kept) == sent, lambda: (payloads(kept), sent))

        def interfaces() -> list[str]:
            """Those of the next file: those that are gone are none of it."""
            for path in kept.iterdir():
                path.unlink()
            eventually(lambda: list(kept.glob("*.pcapng")))
            with open(next(kept.glob("*.pcapng")), "rb") as file:
                return [one.name for one in Reader(file) if isinstance(one, pcapng.Interface)]

        eventually(lambda: interfaces() == [f"jng{record.jid}", "lo"])


def test_what_was_dropped_is_counted_by_one_process(machine: Namespace) -> None:
    """The next worker does not count again what the one before it has counted, where packets are copied by BPF."""
    try:
        copies = packetcopy.Copies(4096, 96, socket.if_nametoindex("ep0"))
    except OSError as error:
        pytest.skip(f"this kernel has no TCX: {error}")
    send(machine, 300, to=HOST)
    child = os.fork()
    if child == 0:
        os._exit(copies.drops() < 200)
    assert os.waitpid(child, 0)[1] == 0
    assert copies.drops() < 100
    copies.close()


def test_interfaces_that_are_gone_leave_nothing(
    machine: Namespace, kept: Path, jail: Command, jailctl: Command, small_root: Path
) -> None:
    """Nor the memory of their rings."""
    with running(jail, f"path={small_root}", f"ip4.addr={JAIL}", "ng.watch=packets") as record:
        _, worker = workers(record)
        for number in range(6):
            for address in (OTHER, JAIL):
                assert jail("-m", "name=pk", f"ip4.addr={address}").returncode == 0
                sent = send(machine, 1, first=number, to=address)
                eventually(lambda: payloads(kept)[-1:] == sent)  # noqa: B023  # it is called at once
        # The first one is the supervisor's, too.
        eventually(lambda: rings(worker) <= 2, lambda: rings(worker))
        assert workers(record)[1] == worker


def rings(pid: int) -> int:
    """The packet sockets' that a process has mapped."""
    return Path(f"/proc/{pid}/maps").read_text().count(" socket:[")


def test_who_writes_is_killed(
    machine: Namespace, kept: Path, jail: Command, jexec: Command, jailctl: Command, small_root: Path
) -> None:
    """A worker's death loses nothing; where the supervisor dies, too, the gap is in the record."""
    with running(jail, f"path={small_root}", f"ip4.addr={JAIL}", "ng.watch=packets") as record:
        sent = send(machine, 200)
        eventually(lambda: len(payloads(kept)) == 200)
        _, worker = workers(record)
        os.kill(worker, signal.SIGSTOP)
        sent += send(machine, 200, first=200)
        os.kill(worker, signal.SIGKILL)
        sent += send(machine, 200, first=400)
        eventually(lambda: len(payloads(kept)) >= 600)
        assert payloads(kept) == sent
        assert "has died; another goes on where it was" in remarks(jailctl)
        for pidfd in [os.pidfd_open(pid) for pid in workers(record)]:
            with suppress(ProcessLookupError):  # the worker dies with the supervisor
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            assert ns.ends_within(pidfd, SECONDS)
            os.close(pidfd)
        (file,) = kept.glob("*.pcapng")
        with open(file, "ab") as torn:
            torn.write(pcapng.packet(0, 1, b"half of it", 10)[:20])
        assert jexec("pk", "/bin/busybox", "true").returncode == 0  # the next command that comes upon the jail
        sent += send(machine, 5, first=600)
        eventually(lambda: payloads(kept) == sent)
        assert "nobody took packets for a while" in remarks(jailctl)
        assert len(list(kept.iterdir())) == 1
        # Somebody clears the logs away.
        os.rename("/var/log/jailng", "/var/log/removed")  # what is made anew meanwhile is not in the way
        shutil.rmtree("/var/log/removed")
        eventually(lambda: any(kept.glob("*.pcapng")) and "has been removed" in remarks(jailctl))
        assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
        sent = send(machine, 5)
        eventually(lambda: payloads(kept) == sent)


def fill() -> Path:
    """Leave no room at all; the file to remove then."""
    filler = Path("/var/log/filler")
    with pytest.raises(OSError), open(filler, "wb", 0) as file:
        while True:
            file.write(bytes(65536))
    with open(filler, "ab", 0) as file:
        try:
            while file.write(bytes(512)):
                pass
        except OSError:
            pass
    return filler


def lose(what: Callable[[], object], jailctl: Command) -> None:
    """Have packets come while there is no room at all; of a worker that was slow to see that, more of them."""
    pause = 0.2
    while True:
        filler = fill()
        try:
            what()
            time.sleep(pause)
        finally:
            filler.unlink()
        until = time.monotonic() + 3
        while time.monotonic() < until:
            if "were not written: No space left on device" in remarks(jailctl):
                return
            time.sleep(0.05)
        pause *= 2
        assert pause < SECONDS, remarks(jailctl)


def test_another_interface_while_the_disk_is_full(
    machine: Namespace, kept: Path, jail: Command, jailctl: Command, small_root: Path
) -> None:
    """The file tells of it before the first packet that is kept of it, and others read that, too."""
    with running(jail, f"path={small_root}", f"ip4.addr={JAIL}", "ng.watch=packets"):
        sent = send(machine, 5)
        eventually(lambda: payloads(kept) == sent)

        def traffic() -> None:
            assert jail("-m", "name=pk", f"ip4.addr={JAIL}").returncode == 0  # as it is at first
            send(machine, 100, 1400)  # what room there is in the file's last page is used up
            assert jail("-m", "name=pk", f"ip4.addr={OTHER}").returncode == 0
            send(machine, 20, to=OTHER)

        lose(traffic, jailctl)
        sent = send(machine, 20, first=20, to=OTHER)
        eventually(lambda: payloads(kept)[-20:] == sent)
    for command in (["tcpdump", "-nr"], ["tshark", "-nr"]):
        for path in kept.glob("*.pcapng"):
            if shutil.which(command[0]):
                run(*command, str(path))


def test_a_full_disk_and_a_budget(
    machine: Namespace, kept: Path, jail: Command, jailctl: Command, small_root: Path
) -> None:
    watch = "ng.watch=packets size=4M files=4"
    with running(jail, f"path={small_root}", f"ip4.addr={JAIL}", watch):
        # More than the budget: the oldest goes, and what is left is in one piece.
        sent: list[bytes] = []
        for _ in range(12):
            sent += send(machine, 400, 1400, len(sent))
            eventually(lambda: payloads(kept)[-1:] == sent[-1:])  # noqa: B023  # it is called at once
        left = payloads(kept)
        assert left == sent[len(sent) - len(left) :]
        assert len(left) < len(sent)
        assert 2 <= len(list(kept.iterdir())) <= 5
        assert sum(path.stat().st_size for path in kept.iterdir()) <= 4 << 20
        before = payloads(kept)[-1]
        lost: list[bytes] = []
        lose(lambda: lost.extend(send(machine, 500, 1400, 10000 + len(lost))), jailctl)
        after = send(machine, 1, 1400, 90000)
        eventually(lambda: payloads(kept)[-1:] == after)
        assert before in payloads(kept)
    found = [one for one in payloads(kept) if one in set(lost)]
    assert found == [one for one in lost if one in set(found)]  # the first, for which there was room, and the last
    assert sum(one["dropped"] for one in listed(jailctl)) >= len(lost) - len(found) > 0


def test_more_than_the_ring_has_room_for(
    machine: Namespace, kept: Path, jail: Command, jailctl: Command, small_root: Path
) -> None:
    """Who writes stands still: the traffic does not, and every packet is in the file or counted as missing there."""
    mount("none", "/var/log", None, _MS_REMOUNT, "size=300m")
    with running(jail, f"path={small_root}", f"ip4.addr={JAIL}", "ng.watch=packets") as record:
        _, worker = workers(record)
        end = f"jng{record.jid}"
        os.kill(worker, signal.SIGSTOP)
        try:
            while counted(end, "bytes") < 5 * taps.RING // 4:
                before = counters(end)
                # None in fragments: where one of these is lost the others keep the memory of those to come.
                send(machine, 5000, 1400)
                assert counters(end) > before
        finally:
            os.kill(worker, signal.SIGCONT)

        def sums() -> tuple[int, int, int]:
            (file,) = listed(jailctl)
            return counters(end), file["packets"], file["dropped"]

        def agree() -> bool:
            there, found, dropped = sums()
            return dropped > 0 and found + dropped == there

        eventually(agree, sums)
        assert "found no room in the ring" in remarks(jailctl)


def test_interfaces_that_a_jail_has_been_lent(
    kept: Path, jail: Command, jexec: Command, jailctl: Command, shim: Shim, small_root: Path
) -> None:
    """A pair's end on the host, whatever root inside makes of the other; and one without, by BPF inside."""
    ip("link add ep0 type veth peer name ep1", "link set ep0 up", f"address add {HOST}/24 dev ep0")
    ip("link add epair0a type veth peer name epair0b")
    words = [f"path={small_root}", "vnet", "vnet.interface=ep1"]
    try:
        with running(jail, *words, "ng.watch=packets"):
            inside = f"ip link set ep1 name mine; ip address add {JAIL}/24 dev mine; ip link set mine up"
            done = jexec("pk", "/bin/busybox", "sh", "-c", inside)
            assert done.returncode == 0, done.stderr
            reaches(kept, b"to the jail", JAIL, "ep0")
            # Lent later.
            done = shim("ifconfig", "epair0b", "vnet", "pk")
            assert (done.returncode, done.stderr) == (0, "")
            ip("link set epair0a up", "address add 203.0.113.1/24 dev epair0a")
            inside = "ip address add 203.0.113.2/24 dev epair0b; ip link set epair0b up; cat /proc/net/packet"
            done = jexec("pk", "/bin/busybox", "sh", "-c", inside)
            assert (done.returncode, done.stdout.count("\n")) == (0, 1), done
            reaches(kept, b"to the other", "203.0.113.2", "epair0a")
            # Taken back, and lent once more.
            done = shim("ifconfig", "epair0b", "-vnet", "pk")
            assert (done.returncode, done.stderr) == (0, "")
            ip("link set epair0b up")
            eventually(lambda: not heard(kept, b"%d" % time.monotonic_ns()))
            if not filters():  # another of which does not begin it again
                assert jail("-m", "name=pk", "ng.watch=packets filter ip").returncode == 0
                eventually(lambda: "another filter" in remarks(jailctl))
                assert not heard(kept, b"with a filter")
            done = shim("ifconfig", "epair0b", "vnet", "pk")
            assert (done.returncode, done.stderr) == (0, "")
            assert jexec("pk", "/bin/busybox", "sh", "-c", inside).returncode == 0
            reaches(kept, b"once more", "203.0.113.2", "epair0a")
    finally:
        ip("link delete ep0", "link delete epair0a")


def reaches(directory: Path, content: bytes, to: str, interface: str) -> None:
    """What is sent there is kept; a link that has just come up drops what is sent for as much as a second."""

    def is_kept() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(content, (to, PORT))
        return content in payloads(directory, interface)

    eventually(is_kept)


def heard(directory: Path, content: bytes) -> bool:
    """Whether what goes out by epair0a is kept: what goes by ep0 after it is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.sendto(content, ("203.0.113.255", PORT))
        for after in (content + b" one", content + b" two"):  # by when it takes the second it has had its round
            sender.sendto(after, (JAIL, PORT))
            eventually(lambda after=after: payloads(directory, "ep0")[-1:] == [after])  # type: ignore[misc]
    return content in payloads(directory, "epair0a")


def test_an_interface_without_an_end_on_the_host(
    machine: Namespace, kept: Path, jail: Command, jexec: Command, small_root: Path
) -> None:
    """By BPF in the jail's own network namespace, which shows no socket and no queueing discipline for it."""
    made = subprocess.run(["ip", "link", "add", "mv0", "link", "ep0", "type", "macvlan", "mode", "bridge"])
    if made.returncode:
        pytest.skip("this kernel has no macvlan")
    words = [f"path={small_root}", "vnet", "vnet.interface=mv0", "ng.watch=packets"]
    done = jail("-c", "name=pk", "persist", *words)
    try:
        if done.returncode:
            assert "mv0 (mv0, inside): " in done.stderr  # a kernel without TCX
            return
        inside = "cat /proc/net/packet /proc/net/ptype; ip address add 198.51.100.77/24 dev mv0; ip link set mv0 up"
        shown = jexec("pk", "/bin/busybox", "sh", "-c", inside)
        assert (shown.returncode, shown.stdout.splitlines()[1].split()[:2]) == (0, ["Type", "Device"])
        with machine.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"to the jail", ("198.51.100.77", PORT))
        eventually(lambda: payloads(kept, "mv0") == [b"to the jail"])
        asked = [one for one in packets(kept, "mv0") if one.data[12:14] == b"\x08\x06"]
        assert {one.direction for one in asked} == {pcapng.IN, pcapng.OUT}  # ARP, and its answer
    finally:
        jail("-r", "pk")
        subprocess.run(["ip", "link", "delete", "mv0"], check=True)


@pytest.mark.parametrize("network", [["ip4.addr=198.51.100.10", "ng.stack=shared"], ["ip4=inherit"]])
def test_sockets_on_the_host_s_stack(
    machine: Namespace, kept: Path, jail: Command, small_root: Path, checkout: Path, network: list[str]
) -> None:
    """What they send and receive, and nothing of the host's or of another jail's."""
    words = [f"path={small_root}", *network, "ng.watch=packets"]
    own = JAIL if len(network) > 1 else HOST
    with running(jail, *words), machine.listen(LAN, PORT) as server:
        with socket.create_connection((LAN, PORT), 5), server.accept()[0] as taken:  # the host's own
            taken.send(b"the host")
        inside = ["pk", "/bin/busybox", "sh", "-c", f"echo the jail | nc -w 5 {LAN} {PORT}"]
        with subprocess.Popen([f"{checkout}/bin/jexec", *inside], env=ENVIRONMENT) as caller:
            with server.accept()[0] as taken:
                assert taken.recv(100) == b"the jail\n"
            assert caller.wait(60) == 0
        eventually(lambda: any(one.data.endswith(b"the jail\n") for one in packets(kept, "sockets")))
        found = packets(kept)
        addresses = {socket.inet_ntoa(one.data[26:30]): one.direction for one in found}
        assert addresses == {own: pcapng.OUT, LAN: pcapng.IN}
        assert not any(b"the host" in one.data for one in found)


def test_a_file_that_is_none_of_packets(kept: Path, checkout: Path) -> None:
    """The others are read all the same, and the status tells of it."""
    kept.mkdir(parents=True)
    (kept / "00000001-20261129T005655Z.pcapng").write_bytes(b"no packets of anybody's" * 10)
    done = subprocess.run([checkout / "bin/jailctl", "packets", "-r", "pk"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(".pcapng: no pcapng: it does not begin with a section\n")


def test_a_tag_hides_a_packet_from_no_filter(kept: Path, jailctl: Command) -> None:
    """Linux takes one of the VLAN 0 as if it had none, and so does whoever looks for what is in it."""
    if why := filters():
        pytest.skip(why)
    kept.mkdir(parents=True)
    ports = struct.pack("!4H", 1111, PORT, 8, 0)
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, 17, 0, *map(socket.inet_aton, (JAIL, HOST)))
    ethernet, tags = bytes(12), (b"", b"\x81\0\0\0", b"\x81\0\0\5", b"\x88\xa8\0\7")
    frames = [ethernet + tag + b"\x08\0" + header + ports for tag in tags]
    blocks = [pcapng.packet(0, number + 1, frame, len(frame)) for number, frame in enumerate(frames)]
    text = b"".join([pcapng.section(), pcapng.interface("jng1", 262144), *blocks])
    (kept / "00000001-20261129T005655Z.pcapng").write_bytes(text)

    def chosen(*words: str) -> list[int]:
        done = jailctl("packets", "-r", "--json", "pk", *words)
        assert (done.returncode, done.stderr) == (0, "")
        return [int(json.loads(line)["time"]) for line in done.stdout.splitlines()]

    assert chosen("udp", "port", str(PORT)) == chosen("less", "42", "or", "greater", "42") == [1, 2, 3, 4]
    assert chosen("vlan", "5") == [3]
    assert chosen("tcp") == []
