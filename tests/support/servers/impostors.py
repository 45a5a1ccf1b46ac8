"""Servers that behave badly: some that answer anything, and one between a client and a real server."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.support.waiting import DEADLINE


class Listener:
    """Accepts connections on the loopback interface and gives each to a function in a thread of its own.

    Attributes:
        port: where it listens.
        accepted: how many connections there were.
        ends: set when it is closed.
    """

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        self._handle = handle
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.accepted = 0
        self.ends = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def is_busy(self) -> bool:
        """Tell whether a connection is open."""
        return bool(self._open)

    def cut(self) -> None:
        """End all connections."""
        for sock in list(self._open):
            end(sock)

    def close(self) -> None:
        self.ends.set()
        end(self._listening)
        self._listening.close()
        self._threads[0].join(DEADLINE)
        self.cut()
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive(), "a connection of an impostor hangs"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            self.accepted += 1
            self._open.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            self._handle(sock)
        self._open.discard(sock)


@contextmanager
def listening(handle: Callable[[socket.socket], None]) -> Iterator[Listener]:
    """A listener that is closed with the block."""
    listener = Listener(handle)
    try:
        yield listener
    finally:
        listener.close()


@contextmanager
def answering(*answers: bytes) -> Iterator[Listener]:
    """A server that gives these answers to whatever comes, one to each part that it receives, and then hangs up."""

    def answer(sock: socket.socket) -> None:
        for one in answers:
            if not sock.recv(65_536):
                return
            sock.sendall(one)

    with listening(answer) as listener:
        yield listener


class Proxy(Listener):
    """Passes bytes between clients and a real server.

    Attributes:
        pause: seconds to wait before each single byte of an answer; 0 passes whole parts on.
        requests: how many parts clients sent.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self.pause = 0.0
        self.requests = 0
        self._passes = threading.Event()
        self._passes.set()
        super().__init__(self._relay)

    def hold(self) -> None:
        """Keep the server's answers back from now on."""
        self._passes.clear()

    def let_go(self) -> None:
        self._passes.set()

    def close(self) -> None:
        self.let_go()
        self.pause = 0.0
        super().close()

    def _relay(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._server_port)) as server:
            back = threading.Thread(target=self._answer, args=(server, client), daemon=True)
            back.start()
            try:
                while part := client.recv(65_536):
                    self.requests += 1
                    server.sendall(part)
            finally:
                end(server)
                back.join(DEADLINE)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while part := server.recv(65_536):
                self._passes.wait(DEADLINE)
                if not self.pause:
                    client.sendall(part)
                    continue
                for at in range(len(part)):
                    time.sleep(self.pause)
                    client.sendall(part[at : at + 1])
        end(client)


def relay(client: socket.socket, port: int, ends: threading.Event) -> None:
    """Pass bytes between a connection, TLS or not, and a real server until either ends, or the event comes."""
    client.settimeout(0.01)  # a TLS connection must not be read and written by two threads at a time
    with socket.create_connection(("127.0.0.1", port)) as server:
        server.settimeout(0.01)
        while not ends.is_set():
            for source, target in ((client, server), (server, client)):
                with suppress(TimeoutError):
                    part = source.recv(65_536)
                    if not part:
                        return
                    target.settimeout(DEADLINE)
                    target.sendall(part)
                    target.settimeout(0.01)


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """A proxy that is closed with the block."""
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()


def end(sock: socket.socket) -> None:
    """End a connection, waking whoever waits on it."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
