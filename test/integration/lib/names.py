# SPDX-License-Identifier: Apache-2.0
"""A name server, and a mount namespace in which it is the machine's.

    with NameServer({"registry.test": ["127.0.0.2", "::1"]}) as server:
        fetcher(..., wrap=server.wrap(tmp_path))

    .zone      may be changed at any time; a value may be a list of addresses, "silent" or "fail" (SERVFAIL)
    tcp_only   answers over UDP are truncated: those who ask again over TCP get the addresses
    .asked     (name, type, "udp" | "tcp") in order
"""

import pathlib
import random
import socket
import struct
import subprocess
import threading

import pytest

A, AAAA = 1, 28


def usable():
    """Why there can be no name server here, or None."""
    try:
        done = subprocess.run(["unshare", "-m", "mount", "--bind", "/etc/hosts", "/etc/resolv.conf"],
                              capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as e:
        return f"no mount namespace: {e}"
    if done.returncode:
        return f"no mount namespace: {done.stderr.strip()}"
    try:
        socket.create_server(("127.0.0.53", 53)).close()
    except PermissionError as e:
        return f"port 53 may not be bound: {e}"
    except OSError:
        pass
    return None


class NameServer:
    def __init__(self, zone, tcp_only=False):
        why = usable()
        if why:
            pytest.skip(why)
        self.zone = zone
        self.tcp_only = tcp_only
        self.asked = []
        while True:  # a loopback address of its own: resolv.conf has no ports
            self.address = f"127.53.{random.randrange(256)}.{random.randrange(1, 255)}"
            try:
                self._tcp = socket.create_server((self.address, 53))
                self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                self._udp.bind((self.address, 53))
                break
            except OSError:
                continue
        threading.Thread(target=self._serve_udp, daemon=True).start()
        threading.Thread(target=self._serve_tcp, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for sock in (self._tcp, self._udp):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def wrap(self, folder):
        conf = pathlib.Path(folder) / "resolv.conf"
        conf.write_text(f"nameserver {self.address}\n")
        return ["unshare", "-m", "sh", "-c",
                f"mount --bind {conf} /etc/resolv.conf && exec \"$0\" \"$@\""]

    def _serve_udp(self):
        while True:
            try:
                query, peer = self._udp.recvfrom(4096)
                if not query:
                    return
                answer = self._answer(query, "udp")
                if answer:
                    self._udp.sendto(answer, peer)
            except OSError:
                return

    def _serve_tcp(self):
        while True:
            try:
                sock, _ = self._tcp.accept()
            except OSError:
                return
            with sock:
                sock.settimeout(5)
                try:
                    while True:
                        head = sock.recv(2, socket.MSG_WAITALL)
                        if len(head) < 2:
                            break
                        query = sock.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL)
                        answer = self._answer(query, "tcp")
                        if answer:
                            sock.sendall(struct.pack("!H", len(answer)) + answer)
                except OSError:
                    pass

    def _answer(self, query, way):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        kind, = struct.unpack("!H", query[at + 1:at + 3])
        question = query[12:at + 5]
        name = ".".join(labels).lower()
        self.asked.append((name, kind, way))
        known = self.zone.get(name)
        if known == "silent":
            return None
        code = 3 if known is None else 2 if known == "fail" else 0
        records = []
        for address in known if isinstance(known, list) else []:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            if (kind == AAAA) == (family == socket.AF_INET6):
                data = socket.inet_pton(family, address)
                records.append(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data)
        flags = 0x8180 | code
        if self.tcp_only and way == "udp" and records:
            flags, records = flags | 0x0200, []
        return query[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0) + question + b"".join(records)
