# SPDX-License-Identifier: Apache-2.0
"""An HTTP proxy that writes down what it is shown, and tinyproxy, a real one.

    with Proxy(names={"registry.test": "127.0.0.1"}) as proxy:
        ... env={"https_proxy": proxy.url} ...
        proxy.seen             heads that arrived, in order: (first line, {lower-case name: value})
        proxy.certificates     with tls: the client certificate of each connection (None: none shown)

    user=("u", "p")            407 to whoever does not show these (Basic)
    answer=callable(line) -> bytes | None        an answer in place of the service
    tls=(certificate, key), client_ca=PEM        an https:// proxy, that asks for client certificates
    intercept=Authority        CONNECT is not tunnelled: TLS ends here, as dfdaemon does it
"""

import base64
import select
import socket
import ssl
import threading
import urllib.parse

from .proc import Server, free_port, part


def _read_head(sock):
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            return None, b""
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.decode("latin-1"), rest


class Proxy:
    def __init__(self, names=None, user=None, answer=None, tls=None, client_ca=None, intercept=None):
        self.names = names or {}
        self.user = user
        self.answer = answer
        self.intercept = intercept
        self.seen = []
        self.certificates = []
        self._lock = threading.Lock()
        self._leaves = {}
        self._context = None
        if tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*tls)
            if client_ca:
                self._context.load_verify_locations(client_ca)
                self._context.verify_mode = ssl.CERT_OPTIONAL
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"http{'s' if tls else ''}://{self.host}"
        threading.Thread(target=self._accept, daemon=True).start()

    def url_with(self, user, password):
        return self.url.replace("://", f"://{user}:{password}@")

    def lines(self, method=""):
        with self._lock:
            return [line for line, _ in self.seen if line.startswith(method)]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        try:
            if self._context:
                sock = self._context.wrap_socket(sock, server_side=True)
                self.certificates.append(sock.getpeercert() or None)
            self._one(sock)
        except (OSError, ssl.SSLError, ValueError):
            pass
        finally:
            sock.close()

    def _one(self, sock):
        head, rest = _read_head(sock)
        if head is None:
            return
        line, *others = head.split("\r\n")
        headers = {}
        for text in others:
            name, _, value = text.partition(":")
            headers[name.strip().lower()] = value.strip()
        with self._lock:
            self.seen.append((line, headers))
        canned = self.answer(line) if self.answer else None
        if canned:
            sock.sendall(canned)
            return
        if self.user:
            want = "Basic " + base64.b64encode(":".join(self.user).encode()).decode()
            if headers.get("proxy-authorization") != want:
                sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n"
                             b'Proxy-Authenticate: Basic realm="proxy"\r\nConnection: close\r\n\r\n')
                return
        method, target, _ = line.split(" ")
        if method == "CONNECT":
            self._connect(sock, target)
        else:
            self._forward(sock, method, target, others, rest)

    def _reach(self, host, port):
        host = host.strip("[]")
        server = socket.create_connection((self.names.get(host, host), port), 30)
        server.settimeout(None)
        return server

    def _connect(self, sock, target):
        host, _, port = target.rpartition(":")
        server = self._reach(host, int(port))
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        if self.intercept:
            with self._lock:
                if host not in self._leaves:
                    self._leaves[host] = self.intercept.issue("leaf-" + host, san="DNS:" + host)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._leaves[host])
            sock = context.wrap_socket(sock, server_side=True)
            out = ssl.create_default_context()
            out.check_hostname = False
            out.verify_mode = ssl.CERT_NONE
            server = out.wrap_socket(server)
        self._pump(sock, server)

    def _forward(self, sock, method, target, others, rest):
        url = urllib.parse.urlsplit(target)
        server = self._reach(url.hostname, url.port or 80)
        path = (url.path or "/") + ("?" + url.query if url.query else "")
        keep = [x for x in others if not x.lower().startswith(("proxy-", "connection:"))]
        text = "\r\n".join([f"{method} {path} HTTP/1.1", *keep, "Connection: close"]) + "\r\n\r\n"
        server.sendall(text.encode("latin-1") + rest)
        self._pump(sock, server)

    @staticmethod
    def _pump(a, b):
        with b:
            while True:
                ready = [s for s in (a, b) if isinstance(s, ssl.SSLSocket) and s.pending()]
                ready = ready or select.select([a, b], [], [], 60)[0]
                for sock in ready:
                    data = sock.recv(1 << 16)
                    if not data:
                        return
                    (b if sock is a else a).sendall(data)
                if not ready:
                    return


class Tinyproxy(Server):
    """.url; user=("u", "p") for Basic."""

    name = "tinyproxy"

    def __init__(self, dir, user=None, allow_ports=()):
        super().__init__(dir)
        port = free_port()
        self.host = f"127.0.0.1:{port}"
        self.url = f"http://{self.host}"
        lines = [f"Port {port}", "Listen 127.0.0.1", "Timeout 60", "MaxClients 200", "LogLevel Connect"]
        lines += [f"BasicAuth {user[0]} {user[1]}"] if user else []
        lines += [f"ConnectPort {p}" for p in allow_ports]
        conf = self.dir / "tinyproxy.conf"
        conf.write_text("\n".join(lines) + "\n")
        self.launch([part("tinyproxy"), "-d", "-c", str(conf)], port)
