# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Dragonfly's dfdaemon as an HTTP client sees its port 4001 in mirror mode (client v1.5).

What it keeps of the real one:
- Upstream is the header X-Dragonfly-Registry, else ?ns= (without a scheme: http here), else a registry of its own that nobody asked for.
- Only GET with X-Dragonfly-Use-P2P: true goes through a task; anything else is passed through.
- A file or a range of up to 4 MiB bypasses the task and goes straight to the origin.
- A task first asks the origin for bytes=0-0; what the origin refuses is relayed, status and headers, as X-Dragonfly-Error-Type: backend.
- Authorization is passed to the origin. A finished task is served to anybody, and the origin is not asked.
- With X-Dragonfly-Enable-Task-ID-Based-Blob-Digest one blob is one task, whatever its URL.
- Answers carry X-Dragonfly-Task-ID, -Task-Download-Finished and -Server-IP.

Attributes that may be changed while it runs:
    truncate   bytes after which a task's body ends with the connection; truncations: how often (None: always)
    old        True: ranges are answered 200 with Content-Range, as before June 2026
    refuse     (status, error type) to every request for a task: (429, "proxy"), (403, "proxy"), (500, "dfdaemon")
    stuck      threading.Event: no first byte of a task before it is set
    flip       offset of a task's body where a bit is wrong
Seen: .requests, dicts: method path headers kind ("task", "bypass", "pass") status sent range hit.
"""

import hashlib
import http.client
import http.server
import re
import threading
import urllib.parse

BYPASS = 4 << 20
OWN = "x-dragonfly-"
HOP = {"host", "connection", "range", "accept-encoding"}


class Dfdaemon:
    def __init__(self, host="127.0.0.1"):
        self.truncate = None
        self.truncations = None
        self.old = False
        self.refuse = None
        self.stuck = None
        self.flip = None
        self.requests = []
        self.tasks = {}     # id -> body of a finished task
        self._lock = threading.Lock()
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self):
                try:
                    owner._take(self)
                except OSError:
                    self.close_connection = True
            do_GET = do_HEAD = do_POST = _any

            def log_message(self, *args):
                pass

        self._http = http.server.ThreadingHTTPServer((host, 0), Handler)
        self._http.daemon_threads = True
        self.host = f"{host}:{self._http.server_address[1]}"
        self.url = f"http://{self.host}"
        self.mirror = "dragonfly+" + self.url
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def of(self, kind):
        return [r for r in list(self.requests) if r["kind"] == kind]

    @staticmethod
    def _origin(handler):
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(handler.path).query))
        where = handler.headers.get("X-Dragonfly-Registry") or query.get("ns")
        if not where:
            return None     # the real one would go to Docker Hub
        return urllib.parse.urlsplit(where if "://" in where else "http://" + where).netloc

    def _ask(self, handler, span=None):
        """The origin's (status, headers, body). Redirects: Authorization goes to the same host only."""
        headers = {k: v for k, v in handler.headers.items()
                   if k.lower() not in HOP and not k.lower().startswith(OWN)}
        if span:
            headers["Range"] = span
        where, path = self._origin(handler), handler.path
        for _ in range(5):
            connection = http.client.HTTPConnection(where, timeout=60)
            try:
                connection.request(handler.command, path, headers=headers)
                answer = connection.getresponse()
                body = answer.read()
            finally:
                connection.close()
            if answer.status not in (301, 302, 303, 307, 308):
                break
            target = urllib.parse.urlsplit(answer.headers["Location"])
            if target.netloc and target.netloc != where:
                where = target.netloc
                headers.pop("Authorization", None)
            path = target._replace(scheme="", netloc="").geturl()
        return answer.status, answer.headers, body

    def _take(self, handler):
        span = handler.headers.get("Range")
        seen = {"method": handler.command, "path": handler.path, "range": span, "status": None, "sent": 0,
                "headers": {k.lower(): v for k, v in handler.headers.items()}, "hit": False}
        task = handler.command == "GET" and handler.headers.get("X-Dragonfly-Use-P2P") == "true"
        seen["kind"] = "task" if task else "pass"
        self.requests.append(seen)
        if self._origin(handler) is None:
            return self._send(handler, seen, 502, {"X-Dragonfly-Error-Type": "proxy"}, b"")
        if task and self.refuse:
            status, kind = self.refuse
            return self._send(handler, seen, status, {"X-Dragonfly-Error-Type": kind}, b"refused")
        if not task:
            return self._relay(handler, seen, *self._ask(handler, span))
        return self._task(handler, seen, span)

    def _relay(self, handler, seen, status, headers, body, more=None):
        keep = {k: v for k, v in headers.items()
                if k.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server")}
        length = headers.get("Content-Length") if handler.command == "HEAD" else None
        self._send(handler, seen, status, {**keep, **(more or {})}, body, length)

    def _task(self, handler, seen, span):
        digest = re.search("sha(256|512):[0-9a-f]+", handler.path)
        by_digest = handler.headers.get("X-Dragonfly-Enable-Task-ID-Based-Blob-Digest") == "true"
        name = digest[0] if digest and by_digest else self._origin(handler) + handler.path.split("?")[0]
        task_id = hashlib.sha256(name.encode()).hexdigest()
        body = self.tasks.get(task_id)
        seen["hit"] = body is not None
        first = last = None
        if match := re.fullmatch(r"bytes=(\d+)-(\d+)?", span or ""):
            first, last = int(match[1]), int(match[2]) if match[2] else None
        if last is not None and last - first + 1 <= BYPASS:
            seen["kind"] = "bypass"
            return self._relay(handler, seen, *self._ask(handler, span))
        if body is None:
            status, headers, text = self._ask(handler, "bytes=0-0")
            if status not in (200, 206):
                return self._relay(handler, seen, status, headers, text, {"X-Dragonfly-Error-Type": "backend"})
            size = int(headers["Content-Range"].split("/")[1]) if status == 206 else len(text)
            if size <= BYPASS:
                seen["kind"] = "bypass"
                return self._relay(handler, seen, *self._ask(handler, span))
            status, headers, body = self._ask(handler)
            if status != 200:
                return self._relay(handler, seen, status, headers, body, {"X-Dragonfly-Error-Type": "backend"})
        if self.stuck:
            self.stuck.wait(60)
        cut = None
        with self._lock:
            if self.truncate is not None and self.truncations != 0:
                cut = self.truncate
                if self.truncations:
                    self.truncations -= 1
        if cut is None:
            self.tasks[task_id] = body
        more = {"X-Dragonfly-Task-ID": task_id, "X-Dragonfly-Server-IP": "127.0.0.1", "Accept-Ranges": "bytes",
                "X-Dragonfly-Task-Download-Finished": "true" if seen["hit"] else "false",
                "Content-Type": "application/octet-stream"}
        if self.flip is not None:
            body = body[:self.flip] + bytes([body[self.flip] ^ 1]) + body[self.flip + 1:]
        if first is None:
            return self._send(handler, seen, 200, more, body, cut=cut)
        last = len(body) - 1 if last is None else min(last, len(body) - 1)
        more["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
        return self._send(handler, seen, 200 if self.old else 206, more, body[first:last + 1], cut=cut)

    @staticmethod
    def _send(handler, seen, status, headers, body, length=None, cut=None):
        seen["status"] = status
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", length or str(len(body)))
        handler.end_headers()
        if handler.command == "HEAD":
            return
        part = body if cut is None else body[:cut]
        for at in range(0, len(part), 1 << 20):
            handler.wfile.write(part[at:at + (1 << 20)])
            seen["sent"] += len(part[at:at + (1 << 20)])
        if len(part) < len(body):
            handler.close_connection = True

    def stop(self):
        if self.stuck:
            self.stuck.set()
        self._http.shutdown()
        self._http.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()
