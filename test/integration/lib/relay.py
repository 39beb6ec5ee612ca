# SPDX-License-Identifier: Apache-2.0
"""A TCP relay that counts: what really crossed the wire between client and server.

    with Relay(registry) as wire:
        ... pull pushed.on(wire) ...
        wire.down              bytes from the server to the client (up: the other way)
        wire.requests          list of Seen: method target headers range status body (bytes of it
                               that passed) connection (its number)
        wire.body("blobs")     body bytes of requests whose target has that part
        wire.connections       opened so far;  wire.open_max the most at once

HTTP is read only where it is plain; before a TLS server use opaque=True: bytes and connections
are counted, requests stays empty. limit=B holds all connections together to B bytes a second.
"""

import re
import socket
import threading
import time


class Seen:
    def __init__(self, line, head, connection):
        self.method, self.target, _ = (line + "  ").split(" ", 2)
        self.headers = {}
        for text in head:
            name, _, value = text.partition(":")
            self.headers[name.lower()] = value.strip()
        self.connection = connection
        self.status = None
        self.body = 0
        self.answer = {}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        self.range = (int(match[1]), int(match[2]) if match[2] else None) if match else None

    def __repr__(self):
        return f"<{self.method} {self.target} {self.range} -> {self.status} {self.body}>"


class _Heads:
    """Cuts one direction of an HTTP/1.1 connection into heads and bodies; keeps no bodies."""

    def __init__(self, on_head, on_body):
        self.on_head = on_head  # (first line, other lines) -> body length, "chunked", None: rest
        self.on_body = on_body
        self.buffer = b""
        self.left = 0  # body bytes still to come; None: until the end
        self.chunked = False

    def feed(self, view):
        while len(view):
            if self.left is None or self.left > 0:
                n = len(view) if self.left is None else min(self.left, len(view))
                self.on_body(n)
                view = view[n:]
                if self.left is not None:
                    self.left -= n
                continue
            if self.chunked:
                view = self._chunk(view)
                continue
            self.buffer += bytes(view[:65536])
            taken = min(len(view), 65536)
            view = view[taken:]
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                continue
            back = len(self.buffer) - end - 4
            rest, head = self.buffer[len(self.buffer) - back:], self.buffer[:end]
            self.buffer = b""
            lines = head.decode("latin-1").split("\r\n")
            length = self.on_head(lines[0], lines[1:])
            self.chunked = length == "chunked"
            self.left = 0 if self.chunked else length
            view = memoryview(rest + bytes(view)) if rest and len(view) else \
                memoryview(rest) if rest else view

    def _chunk(self, view):
        """One chunk's size line; its data and line end count as data of the chunk."""
        self.buffer += bytes(view[:1])
        if self.buffer.endswith(b"\n"):
            line = self.buffer.strip()
            self.buffer = b""
            if line:
                size = int(line.split(b";")[0], 16)
                self.left = size
                if size == 0:
                    self.chunked = False
                    self.left = 2  # the last line end
        return view[1:]


class Relay:
    def __init__(self, target, opaque=False, limit=None, host="127.0.0.1"):
        """target: a server object with .host, or "127.0.0.1:PORT"."""
        self.target = target if isinstance(target, str) else target.host
        self.scheme = getattr(target, "scheme", "http")
        self.ca = getattr(target, "ca", None)
        self.user = getattr(target, "user", None)
        self.opaque = opaque or self.scheme == "https"
        self.limit = limit
        self._lock = threading.Lock()
        self._socks = set()
        self._free_at = 0.0
        self.reset()
        self._listener = socket.create_server((host, 0), backlog=512)
        self.host = f"{host}:{self._listener.getsockname()[1]}"
        self.url = f"{self.scheme}://{self.host}"
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self):
        """Counters back to nothing."""
        self.up = self.down = self.connections = self.open = self.open_max = 0
        self.requests = []

    def body(self, part="", method="GET"):
        return sum(r.body for r in list(self.requests) if part in r.target and r.method == method)

    def gets(self, part=""):
        return [r for r in list(self.requests) if r.method == "GET" and part in r.target]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()

    def stop(self):
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self.cut()

    def cut(self):
        """Ends every open connection, as a network that goes away does."""
        with self._lock:
            socks = list(self._socks)
        for sock in socks:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        host, _, port = self.target.rpartition(":")
        try:
            server = socket.create_connection((host.strip("[]"), int(port)), 30)
            server.settimeout(None)
        except OSError:
            client.close()
            return
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._socks |= {client, server}
            self.connections += 1
            number = self.connections
            self.open += 1
            self.open_max = max(self.open, self.open_max)
        pending = []
        up = None if self.opaque else self._reader_up(number, pending)
        down = None if self.opaque else self._reader_down(pending)
        thread = threading.Thread(target=self._pump, args=(client, server, "up", up), daemon=True)
        thread.start()
        self._pump(server, client, "down", down)
        thread.join()
        with self._lock:
            self._socks -= {client, server}
            self.open -= 1
        client.close()
        server.close()

    def _reader_up(self, number, pending):
        def head(line, lines):
            seen = Seen(line, lines, number)
            with self._lock:
                self.requests.append(seen)
            pending.append(seen)
            return int(seen.headers.get("content-length", 0))
        return _Heads(head, lambda n: None)

    @staticmethod
    def _reader_down(pending):
        current = [None]

        def head(line, lines):
            status = int(line.split(" ")[1])
            if 100 <= status < 200:
                return 0
            seen = current[0] = pending.pop(0)
            seen.status = status
            for text in lines:
                name, _, value = text.partition(":")
                seen.answer[name.lower()] = value.strip()
            if seen.method == "HEAD" or status in (204, 304):
                return 0
            if seen.answer.get("transfer-encoding", "").lower() == "chunked":
                return "chunked"
            length = seen.answer.get("content-length")
            return None if length is None else int(length)

        def body(n):
            current[0].body += n
        return _Heads(head, body)

    def _pump(self, source, sink, way, reader):
        buffer = bytearray(1 << 18)
        view = memoryview(buffer)
        try:
            while True:
                n = source.recv_into(buffer)
                if n == 0:
                    break
                if reader:
                    reader.feed(view[:n])
                if self.limit and way == "down":
                    self._slow(n)
                with self._lock:  # counted first: who has read it must find it counted
                    setattr(self, way, getattr(self, way) + n)
                sink.sendall(view[:n])
        except (OSError, ValueError, IndexError):
            pass
        for sock, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
            try:
                # A server that is gone ends the client's side too; a client that is gone, both.
                sock.shutdown(socket.SHUT_RDWR if way == "up" else how)
            except OSError:
                pass

    def _slow(self, n):
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + n / self.limit
            wait = self._free_at - now
        time.sleep(wait)
