# SPDX-License-Identifier: Apache-2.0
"""`fetcher watch` as a process, and what stands around it: tags that move, readers, a webhook.

    v = Versions(registry, "swap/model")            one repository, one tag
    one = v.make({"a": b"1"});  v.move(one)         PUT of the manifest: the tag names it now
    with Sidecar(fetcher, v.ref, dest, "--period", "1h") as s:
        s.published(one)                            waits until the marker says so
        v.move(two); s.hup(); s.published(two)
        s.terminate()                               exit 0, within a second
"""

import http.client
import http.server
import json
import mmap
import os
import pathlib
import re
import signal
import threading
import time

from . import oci
from .look import marker, sha, until
from .proc import free_port

# An exit within a second is promised; a loaded test machine gets a second more.
STOP = 2.0
ANY = (0, 143)
SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)'
                    r'(\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*",?)*\})?'
                    r' (-?[0-9.]+(?:e[+-]?[0-9]+)?|NaN|[+-]Inf)')


class Version:
    """One artifact: .digest, .files {name: bytes | Content}, .hashes {name: sha256}, .leaf."""

    def __init__(self, digest, files, body):
        self.digest = digest
        self.files = files
        self.body = body
        self.hashes = {name: sha(value) for name, value in files.items()}
        self.leaf = digest.replace(":", "-")


class Versions:
    """A repository with one tag on a real registry. No process is started for a push."""

    def __init__(self, registry, repo, tag="live"):
        self.registry = registry
        self.repo = repo
        self.tag = tag
        self._connection = None

    @property
    def ref(self):
        return self.on(self.registry)

    def on(self, server):
        return f"{server.host}/{self.repo}:{self.tag}"

    def make(self, files, annotations=None):
        """Uploads the blobs and the manifest (by digest); no tag names it yet."""
        layers = [oci.titled(value, name) for name, value in files.items()]
        body = oci.manifest(layers, **({"annotations": annotations} if annotations else {}))
        pushed = self.registry.api.put_manifest(self.repo, None, body, blobs=list(files.values()))
        return Version(pushed.digest, files, json.dumps(body).encode())

    def move(self, version):
        """The tag names this version from now on."""
        path = f"/v2/{self.repo}/manifests/{self.tag}"
        for fresh in (False, True):
            if fresh or self._connection is None:
                self._connection = http.client.HTTPConnection(self.registry.host, timeout=30)
            try:
                self._connection.request("PUT", path, version.body,
                                         {"Content-Type": oci.MANIFEST})
                answer = self._connection.getresponse()
                answer.read()
                break
            except (http.client.HTTPException, OSError):
                if fresh:
                    raise
        assert answer.status == 201, answer.status
        return version

    def push(self, files, annotations=None):
        return self.move(self.make(files, annotations))


def get(url, method="GET", body=None, headers=None, timeout=10):
    """(status, headers, body) of http://HOST:PORT/PATH; HOST may be [v6]."""
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=timeout)
    try:
        connection.request(method, "/" + path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def samples(text):
    """{'name{labels}': value} of Prometheus text; AssertionError where it is none.

    One TYPE and one HELP for each family, before its samples, and the families in one piece each.
    """
    assert text.endswith("\n")
    seen, family, types, helps = {}, None, {}, set()
    for line in text.splitlines():
        if line.startswith("# "):
            _, word, name, rest = line.split(" ", 3)
            if word == "HELP":
                assert name not in helps, line
                helps.add(name)
            else:
                assert word == "TYPE" and name not in types, line
                assert rest in ("counter", "gauge", "summary", "histogram", "untyped"), line
                types[name] = rest
                family = name
            continue
        match = SAMPLE.fullmatch(line)
        assert match, f"no sample: {line!r}"
        name, labels, value = match.groups()
        parts = ("", "_sum", "_count") if types.get(family) == "summary" else ("",)
        assert name in [family + p for p in parts] and family in helps, line
        assert types[family] != "counter" or name.endswith("_total"), line
        assert name + (labels or "") not in seen, line
        seen[name + (labels or "")] = float(value)
    return seen


class Sidecar:
    """A running `fetcher watch --plain-http --jitter 0 --termination-log '' *flags REF DEST`.

    ref None: the reference comes from --ref-file. http=True: endpoints on a free port (.url).
    pid_1=True: as PID 1 of a namespace of its own (needs root).
    """

    def __init__(self, fetcher, ref, dest, *flags, http=False, env=None, pid_1=False, **how):
        self.dest = pathlib.Path(dest)
        words = ["watch", "--plain-http", "--jitter", "0"]
        if "--termination-log" not in flags:
            words += ["--termination-log", ""]
        if http:
            self.url = f"http://127.0.0.1:{free_port()}"
            words += ["--http-bind", self.url.removeprefix("http://")]
        words += [*flags, *([ref] if ref else []), dest]
        wrap = ["unshare", "-pf"] if pid_1 else how.pop("wrap", ())
        self.run = fetcher.start(*words, env=env, wrap=wrap, **how)
        self.pid = self.run.pid
        if pid_1:
            children = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children")
            self.pid = int(until(lambda: self.alive() and children.read_text()).split()[0])

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.alive():
            os.kill(self.pid, signal.SIGKILL)
            self.run.kill()

    # -- the process ------------------------------------------------------------------------------

    def alive(self):
        assert self.run.process is not None
        return self.run.alive()

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        self.run.wait(30)

    def send(self, number):
        os.kill(self.pid, number)

    def hup(self):
        self.send(signal.SIGHUP)

    def terminate(self, rc=0, number=signal.SIGTERM):
        """Ends it; Result. Within a second, whatever it is doing. rc may be several: a look that
        just happens to be under way makes it 143."""
        assert self.alive(), self.run.err()
        began = time.monotonic()
        self.send(number)
        result = self.run.wait(20)
        took = time.monotonic() - began
        assert result.rc in (rc if isinstance(rc, tuple) else (rc,)), result
        assert took < STOP, f"{took:.2f} s\n{result}"
        return result

    def exits(self, rc, timeout=30):
        """Waits for an end of its own; Result."""
        return self.run.wait(timeout).exits(rc)

    def rss_kib(self):
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1])

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    # -- what it says -----------------------------------------------------------------------------

    @property
    def log(self):
        """All complete lines so far, each of them one JSON object."""
        return [json.loads(line) for line in self.run.err().split("\n")[:-1]]

    def said(self, part, **fields):
        """The lines whose message has `part` and whose fields are these."""
        return [line for line in self.log if part in line["msg"]
                and all(line.get(k) == v for k, v in fields.items())]

    def until(self, ready, timeout=30, pause=0.005):
        """until(), which ends at once when the sidecar has ended."""
        def look():
            value = ready()
            assert value or self.alive(), f"it ended\n{self.run.err()[-6000:]}"
            return value
        try:
            return until(look, timeout, pause)
        except AssertionError as e:
            raise AssertionError(f"{e}\nmarker {self.marker}\n{self.run.err()[-6000:]}") from None

    def says(self, part, times=1, **fields):
        return self.until(lambda: len(self.said(part, **fields)) >= times
                          and self.said(part, **fields))

    # -- what it does -----------------------------------------------------------------------------

    @property
    def marker(self):
        return marker(self.dest)

    def published(self, version, timeout=30):
        """Waits until the marker names this version (or digest); the marker."""
        digest = getattr(version, "digest", version)
        return self.until(lambda: (m := self.marker) and m["digest"] == digest and m, timeout)

    def versions(self):
        """Names of the version directories on the volume."""
        folder = self.dest / ".fetcher" / "versions"
        return {p.name for p in folder.iterdir()} if folder.exists() else set()

    # -- its endpoints ----------------------------------------------------------------------------

    def get(self, path, **how):
        return get(self.url + path, **how)

    def listens(self):
        def ready():
            try:
                return self.get("/healthz")
            except OSError:
                return None
        self.until(ready)
        return self

    def status(self):
        code, headers, body = self.get("/status")
        assert code == 200 and headers["Content-Type"].startswith("application/json")
        return json.loads(body)

    def metrics(self):
        code, _, body = self.get("/metrics")
        assert code == 200
        return samples(body.decode())

    def counted(self, result):
        return self.metrics()[f'fetcher_sync_total{{result="{result}"}}']


class Webhook:
    """An HTTP server that is told of new versions. Attributes may be changed while it runs.

    answers   statuses for the next requests, one each; then `status`
    hang      threading.Event or None: answers wait until it is set
    seen      list of dicts: method path headers body (bytes) json (or None) status
    """

    def __init__(self, status=200, host="127.0.0.1"):
        self.status = status
        self.answers = []
        self.hang = None
        self.seen = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self):
                owner._take(self)
            do_GET = do_POST = do_PUT = do_PATCH = _any

            def log_message(self, *args):
                pass

        self._http = http.server.ThreadingHTTPServer((host, 0), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.url = f"http://{host}:{self.port}"
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def _take(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        try:
            parsed = json.loads(body)
        except ValueError:
            parsed = None
        status = self.answers.pop(0) if self.answers else self.status
        self.seen.append({"method": handler.command, "path": handler.path, "body": body,
                          "headers": {k.lower(): v for k, v in handler.headers.items()},
                          "json": parsed, "status": status})
        if self.hang:
            self.hang.wait(60)
        try:
            handler.send_response(status)
            handler.send_header("Content-Length", "3")
            handler.end_headers()
            handler.wfile.write(b"ok\n")
        except OSError:
            pass

    def stop(self):
        if self.hang:
            self.hang.set()
        self._http.shutdown()
        self._http.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()


class _Looker(threading.Thread):
    """Runs one() again and again. wrong: what may never be seen; rounds: complete ones."""

    def __init__(self, dest, pause=0.002):
        super().__init__(daemon=True)
        self.dest = pathlib.Path(dest)
        self.pause = pause
        self.wrong = []
        self.rounds = 0
        self.seen = set()
        self._done = threading.Event()

    def run(self):
        while not self._done.is_set():
            try:
                self.one()
            except Exception as e:  # a reader that dies unnoticed would see nothing wrong
                self.wrong.append(repr(e))
            self.rounds += 1
            time.sleep(self.pause)

    def next_round(self, timeout=30):
        """Waits until a round that began from now on is complete."""
        wanted = self.rounds + 2
        until(lambda: self.rounds >= wanted, timeout, 0.0005)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self._done.set()
        self.join(60)


def _map(fd):
    size = os.fstat(fd).st_size
    return mmap.mmap(fd, size, prot=mmap.PROT_READ) if size else b""


class MappedReader(_Looker):
    """A model server: resolves `current` once, maps all files of what it found, hashes them, and
    keeps the maps of some versions: what is mapped may never change. versions is shared: a list
    that grows."""

    HELD = 6

    def __init__(self, dest, versions):
        super().__init__(dest)
        self.versions = versions
        self.held = []

    def one(self):
        base = os.path.realpath(self.dest / "current")
        maps = {}
        for name in os.listdir(base):
            fd = os.open(os.path.join(base, name), os.O_RDONLY)
            maps[name] = _map(fd)
            os.close(fd)
        hashes = {name: sha(data) for name, data in maps.items()}
        digest = os.path.basename(base).replace("-", ":", 1)
        known = [v for v in self.versions if v.digest == digest]
        if not known or known[0].hashes != hashes:
            self.wrong.append((digest, hashes))
        if digest not in self.seen or not self.held:
            self.seen.add(digest)
            self.held.append((maps, hashes))
        if len(self.held) > self.HELD:
            self.held.pop(0)
        maps, hashes = self.held[self.rounds % len(self.held)]
        if {name: sha(data) for name, data in maps.items()} != hashes:
            self.wrong.append(("mapped bytes changed", hashes))


class LinkReader(_Looker):
    """Opens each file on its own through `current`: it is always there, and always a whole file
    of some version. The marker can always be parsed and never names what was not pushed."""

    def __init__(self, dest, versions):
        super().__init__(dest)
        self.versions = versions

    def one(self):
        for name in self.versions[0].files:
            with open(self.dest / "current" / name, "rb") as f:
                digest = sha(f.read())
            if digest not in {v.hashes[name] for v in self.versions}:
                self.wrong.append((name, digest))
        mark = marker(self.dest)
        if mark is None or mark["digest"] not in {v.digest for v in self.versions}:
            self.wrong.append(("marker", mark))
