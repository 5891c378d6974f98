"""A worker for tests without root: it runs commands on the host, and answers as it is told to what is about jails."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading

from jailng.core.wire import Words, pack, pairs


class FakeWorker:
    """Takes the place of ``connection.Worker``.

    ``heard`` are the requests that are not about commands, ``acknowledged`` what came back to the answer of each.
    """

    def __init__(self) -> None:
        self.heard: list[list[str]] = []
        self.answers: list[bytes] = []
        self.acknowledged: list[bytes] = []
        self.threads: list[threading.Thread] = []

    def send(self, packet: bytes, fds: list[int], flags: int = 0) -> None:
        """As the real one, but that ``packet`` is never a memfd."""
        channel, *rest = [os.dup(fd) for fd in fds]
        end = socket.socket(fileno=channel)
        words = Words(packet)
        if words.word() == "run":
            thread = threading.Thread(target=_run, args=(words, end, rest))
        else:
            self.heard.append(packet.decode().split("\0"))
            self.acknowledged.append(b"nothing")
            end.send(self.answers.pop(0))
            thread = threading.Thread(target=self._listen, args=(end, len(self.acknowledged) - 1))
        thread.start()
        self.threads.append(thread)

    def _listen(self, end: socket.socket, number: int) -> None:
        with end:
            self.acknowledged[number] = end.recv(100)

    def end(self) -> None:
        """Wait until nothing is running any more."""
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()


def _run(words: Words, end: socket.socket, fds: list[int]) -> None:
    with end:
        _run_and_wait(words, end, fds)


def _run_and_wait(words: Words, end: socket.socket, fds: list[int]) -> None:
    words.number(), words.word(), words.word()
    cwd = words.word() or None
    words.number()
    numbers, _ = words.words(), words.words()
    streams = [fds[int(number)] if number else subprocess.DEVNULL for number in numbers]
    argv, env = words.words(), dict(pairs(words.words()))
    try:
        child = subprocess.Popen(argv, stdin=streams[0], stdout=streams[1], stderr=streams[2], env=env, cwd=cwd)
    except OSError as error:
        end.send(pack("error", 1, f"execvp: {argv[0]}: {error.strerror}"))
        return
    finally:
        for fd in fds:
            os.close(fd)
    _say(end, pack("ok", child.pid))
    ended = os.pidfd_open(child.pid)
    waiter = select.poll()
    waiter.register(ended, select.POLLIN)
    waiter.register(end, select.POLLIN)
    while ended not in dict(waiter.poll()):
        try:
            word = end.recv(100)
        except ConnectionResetError:
            continue
        if word:
            os.kill(child.pid, int(word))
        else:
            waiter.unregister(end)
    _, status = os.waitpid(child.pid, 0)
    child.returncode = 0
    os.close(ended)
    _say(end, pack("exit", status))


def _say(end: socket.socket, packet: bytes) -> None:
    try:
        end.send(packet)
    except BrokenPipeError:
        pass
