# SPDX-License-Identifier: Apache-2.0
"""An OCI registry that misbehaves on command. Python standard library only.

    with FaultServer() as fs:
        art = fs.artifact({"config.json": b"{}", "w.bin": data}, tag="v1")
        fs.rule("blob", reset_at=100_000, times=1)         # first blob request: RST after 100 kB
        fs.rule(art.digest_of("w.bin"), ranged=True, flip=5_000_000)  # always one wrong bit
        ... run a client on art.ref ("127.0.0.1:PORT/test/model:v1") ...
        fs.requests                                        # everything that arrived, in order

Content
    fs.blob(data | path) -> digest        alg="sha512" for the other algorithm
    fs.manifest(dict | bytes, media_type=None, tag=None) -> digest
    fs.tag(name, digest)                  point a tag at a manifest
    fs.artifact({title: data | path}, tag="v1", annotate=None, **manifest_keys) -> Artifact
    fs.blobs[digest] = other              lie about a blob;  fs.manifests[digest_or_tag] =
    Manifest(body, media_type)            lie about a manifest (any name, any bytes)
    Repository names are not checked: each blob and manifest is there in every repository.
    FaultServer(store=other.store) shares all content (and nothing else) with another server.

Rules
    fs.rule(match, *, nth=None, times=None, after=None, method=None, ranged=None, **actions)
    match    "blob", "manifest", "token", "ping" (GET /v2/), "presigned", "hop"; a digest; any
             other string: a part of the path; a compiled regular expression;
             a callable(Request) -> bool; None: every request
    method   "GET", "HEAD", ...; None: each of them
    ranged   True: only requests with a Range header; False: only those without
    times=N  only the first N matching requests;  after=N: not the first N;  nth=N or a set/range of
             numbers: just those. Numbers count from 1 and per rule. rule() returns the Rule;
             its .hits says how often it acted.
    All rules that match a request add up; where two set the same action the later one holds.
    fs.clear() drops every rule (requests stay; fs.forget() drops those).

Actions, head
    status=N, error="CODE", body=bytes    answer this instead (with a registry's JSON error)
    headers={name: value or None}         set, or with None remove, response headers
    retry_after=3 | -5 | "garbage" | "date+3" | "date-3"    (date: an HTTP date so far from now)
    delay=S                               seconds before the head is sent
    hold=threading.Event()                the head waits until the event is set
    ignore_range=True                     200 with the whole body
    content_range="bytes 0-9/*" | callable(start, end, total) -> str | None (leave it out)
    serve_range=callable(start, end, total) -> (start, end)  other bytes than asked, told honestly
    multipart=True                        206 as multipart/byteranges
    content_length=N | "none" (body ends with the connection) | callable(true length) -> N
    digest_header="sha256:..."            Docker-Content-Digest; content_type="..."
    redirect=URL | callable(Request) -> URL | Presign(...), redirect_status=307
    informational=True                    a 103 head first;  http10=True: HTTP/1.0 and close
    close=True                            Connection: close;  raw=bytes: these bytes, then close
    www_authenticate="..."                with status=401
    cookie="name=value"                   Set-Cookie
Actions, body (N counts the body bytes of this response)
    reset_at=N  RST after N bytes         close_at=N  orderly end after N bytes
    stall_at=N  nothing more after N bytes (stall_for=S seconds; then goes on; default: for ever)
    hold_at=(N, threading.Event())        waits at byte N until the event is set
    rate=B      bytes per second (1: one byte a second)
    flip=OFFSET or [OFFSET, ...]          lowest bit wrong at this offset of the whole blob
    short=N     N bytes less than Content-Length says, then the connection ends
    long=N      N bytes more than were asked for, Content-Length counts them
    trailing=N  N bytes after the end of the body that Content-Length does not count, then close
    gzip=True   Content-Encoding: gzip    chunked=True   transfer coding chunked
    forever=True  the body goes on with spaces until the client ends (no Content-Length)
    handler=callable(Request, Reply)      change the Reply object at will, before it is sent

Redirects
    redirect=lambda r: other.base + r.target      the same path on another server
    redirect=Presign(storage, uses=N, seconds=T)  a signed URL on the server `storage` (which may
             be the same one) that answers 403 with an XML error after N uses or T seconds;
             expires_seen=False leaves X-Amz-Date/X-Amz-Expires out of the URL
    fs.hops(n, last=None)    start of a chain on this server:  redirect=lambda r: fs.hops(3, r)
             makes 3 redirects in all, to the content; hops(3, URL) makes one more, to URL
    fs.loop()                             a URL that redirects to itself

Authorisation
    fs.auth_bearer(users={"u": "p"} or None (anonymous), uses=None, seconds=None, expires_in=300,
                   key="token", refuse=False, realm=None)
             every /v2/ request needs a token of this server's /token, which lasts for `uses`
             requests or `seconds`; fs.tokens counts those given out; realm moves the endpoint
    fs.auth_basic({"u": "p"})
    fs.leaks()                            requests that carried Authorization or Cookie: for the
                                          "stranger", a second server that must see none

Seen
    fs.requests   list of Request: time method target path query headers (lower case) header_list
                  range (start, end) or None, kind, digest, peer (port), status, sent (body bytes
                  given to the kernel), done (body complete), n
    fs.gets("blob")    GETs of a kind;  fs.sent("blob"): their body bytes
    fs.wait(callable(fs) -> bool, timeout=30) -> bool   woken at each request, stall and end of one
    fs.stalled    responses that stand still at this moment
    fs.open       connections open at this moment; fs.open_max the most at once

As a program:  faultserver.py [--port P] [--tag T] [--rule "MATCH key=value ..."]... FILE...
"""

import argparse
import ast
import base64
import email.utils
import fcntl
import gzip as gzip_module
import hashlib
import json
import mmap
import os
import re
import secrets
import select
import socket
import ssl
import struct
import sys
import termios
import threading
import time
import urllib.parse

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
TITLE = "org.opencontainers.image.title"
SLICE = 1 << 20
REASONS = {200: "OK", 206: "Partial Content", 302: "Found", 307: "Temporary Redirect",
           401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
           416: "Range Not Satisfiable", 429: "Too Many Requests", 500: "Internal Server Error",
           503: "Service Unavailable"}


def digest_of(data, alg="sha256"):
    return alg + ":" + hashlib.new(alg, data).hexdigest()


def deep_json(depth=100_000):
    """JSON that is nested so deep that a recursive parser runs out of stack."""
    return b'{"schemaVersion":2,"layers":' + b"[" * depth + b"]" * depth + b"}"


class Manifest:
    def __init__(self, body, media_type=OCI_MANIFEST):
        self.body = body
        self.media_type = media_type


class Store:
    """Blobs by digest, manifests by digest and by tag."""

    def __init__(self):
        self.blobs = {}
        self.manifests = {}


class Presign:
    """Redirect target: a URL on `storage` that stops working."""

    def __init__(self, storage, uses=None, seconds=None, expires_seen=True):
        self.storage = storage
        self.uses = uses
        self.seconds = seconds
        self.expires_seen = expires_seen


class Artifact:
    def __init__(self, server, repo, tag, digest, layers):
        self.server = server
        self.repo = repo
        self.tag = tag
        self.digest = digest
        self.layers = layers  # title -> descriptor

    @property
    def ref(self):
        return f"{self.server.host}/{self.repo}:{self.tag}"

    @property
    def ref_digest(self):
        return f"{self.server.host}/{self.repo}@{self.digest}"

    def digest_of(self, title):
        return self.layers[title]["digest"]


class Request:
    def __init__(self, n, method, target, header_list, peer):
        self.n = n
        self.time = time.monotonic()
        self.method = method
        self.target = target
        self.path, _, query = target.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        self.header_list = header_list
        self.headers = {k.lower(): v for k, v in header_list}
        self.peer = peer
        self.status = None
        self.sent = 0
        self.done = False
        self.body = b""
        self.range = None
        self.has_range = "range" in self.headers
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if match:
            self.range = (int(match[1]), int(match[2]) if match[2] else None)
        self.kind, self.name = self._classify()
        self.digest = self.name if self.name and ":" in self.name else None

    def _classify(self):
        if self.path in ("/v2/", "/v2"):
            return "ping", None
        if self.path == "/token":
            return "token", None
        match = re.fullmatch(r"/v2/.+/(blobs|manifests)/([^/]+)", self.path)
        if match:
            return match[1][:-1], urllib.parse.unquote(match[2])
        match = re.fullmatch(r"/presigned/([^/]+)/([^/]+)", self.path)
        if match:
            return "presigned", urllib.parse.unquote(match[2])
        if self.path.startswith("/hop/"):
            return "hop", None
        return "other", None

    def __repr__(self):
        span = f" {self.range[0]}-{self.range[1]}" if self.range else ""
        return f"<{self.n} {self.method} {self.target}{span} -> {self.status} {self.sent}>"


class Reply:
    """What will be sent: status, headers (a dict), body (bytes-like) and how to break it."""

    def __init__(self, status=200, headers=None, body=b""):
        self.status = status
        self.headers = dict(headers or {})
        self.body = body
        self.start = 0  # offset of body within the blob


class Rule:
    def __init__(self, match, nth, times, after, method, ranged, actions):
        self.match = match
        self.nth = {nth} if isinstance(nth, int) else nth
        self.times = times
        self.after = after
        self.method = method
        self.ranged = ranged
        self.actions = actions
        self.seen = 0
        self.hits = 0

    def matches(self, req):
        m = self.match
        if self.method and req.method != self.method:
            return False
        if self.ranged is not None and self.ranged != req.has_range:
            return False
        if m is None:
            return True
        if callable(m):
            return bool(m(req))
        if hasattr(m, "search"):
            return bool(m.search(req.target))
        if m in ("blob", "manifest", "token", "ping", "presigned", "hop"):
            return req.kind == m
        if ":" in m and req.digest:
            return req.digest == m
        return m in urllib.parse.unquote(req.target)

    def take(self, req):
        """The actions for this request, or an empty dict. Called under the server's lock."""
        if not self.matches(req):
            return {}
        self.seen += 1
        if self.nth is not None and self.seen not in self.nth:
            return {}
        if self.after is not None and self.seen <= self.after:
            return {}
        if self.times is not None and self.seen - (self.after or 0) > self.times:
            return {}
        self.hits += 1
        return self.actions


class _End(Exception):
    """This connection is over."""


ACTIONS = {
    "status", "error", "body", "headers", "retry_after", "delay", "hold", "ignore_range",
    "content_range", "serve_range", "multipart", "content_length", "digest_header", "content_type",
    "redirect", "redirect_status", "informational", "http10", "close", "raw", "www_authenticate",
    "cookie", "reset_at", "close_at", "stall_at", "stall_for", "hold_at", "rate", "flip", "short",
    "long", "trailing", "gzip", "chunked", "forever", "handler",
}


class FaultServer:
    def __init__(self, host="127.0.0.1", port=0, store=None, tls=None, repo="test/model"):
        """tls: (certificate file, key file) or an ssl.SSLContext. The server runs at once."""
        self.store = store or Store()
        self.repo = repo
        self.rules = []
        self.requests = []
        self.stalled = 0
        self.open = 0
        self.open_max = 0
        self.tokens = 0
        self._auth = None
        self._live_tokens = {}
        self._presigned = {}
        self._hops = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._sockets = set()
        if isinstance(tls, tuple):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            tls = context
        self._tls = tls
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host, port))
        self._listener.listen(1024)
        self.port = self._listener.getsockname()[1]
        self.host = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.base = ("https://" if tls else "http://") + self.host
        threading.Thread(target=self._accept, daemon=True).start()

    # -- content ------------------------------------------------------------------------------

    @property
    def blobs(self):
        return self.store.blobs

    @property
    def manifests(self):
        return self.store.manifests

    def blob(self, data, alg="sha256"):
        data = self._load(data)
        digest = digest_of(data, alg)
        self.store.blobs[digest] = data
        return digest

    @staticmethod
    def _load(data):
        if isinstance(data, (bytes, bytearray, memoryview, mmap.mmap)):
            return data
        if isinstance(data, str) and not os.path.exists(data):
            return data.encode()
        with open(data, "rb") as f:
            if os.fstat(f.fileno()).st_size == 0:
                return b""
            return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)

    def manifest(self, body, media_type=None, tag=None, alg="sha256"):
        if not isinstance(body, (bytes, bytearray)):
            media_type = media_type or body.get("mediaType")
            body = json.dumps(body).encode()
        entry = Manifest(bytes(body), media_type or OCI_MANIFEST)
        digest = digest_of(entry.body, alg)
        self.store.manifests[digest] = entry
        if tag:
            self.store.manifests[tag] = entry
        return digest

    def tag(self, name, digest):
        self.store.manifests[name] = self.store.manifests[digest]

    def artifact(self, files, tag="v1", annotate=None, media_type=OCI_LAYER, **keys):
        """One raw layer per file, as `oras push` makes it. annotate(title) -> annotations;
        keys are set in the manifest (None removes: mediaType=None)."""
        layers = {}
        for title, data in files.items():
            data = self._load(data)
            annotations = annotate(title) if annotate else {TITLE: title}
            layers[title] = {"mediaType": media_type, "digest": self.blob(data), "size": len(data),
                             "annotations": annotations}
        self.blob(b"{}")
        body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST,
                "artifactType": "application/vnd.unknown.artifact.v1",
                "config": {"mediaType": OCI_EMPTY, "digest": digest_of(b"{}"), "size": 2},
                "layers": list(layers.values())}
        body.update(keys)
        body = {k: v for k, v in body.items() if v is not None}
        digest = self.manifest(body, body.get("mediaType") or OCI_MANIFEST, tag)
        return Artifact(self, self.repo, tag, digest, layers)

    def ref(self, tag_or_digest="v1"):
        return f"{self.host}/{self.repo}" + ("@" if ":" in tag_or_digest else ":") + tag_or_digest

    # -- rules and observations ---------------------------------------------------------------

    def rule(self, match=None, *, nth=None, times=None, after=None, method=None, ranged=None,
             **actions):
        unknown = set(actions) - ACTIONS
        if unknown:
            raise TypeError(f"unknown actions {sorted(unknown)}")
        rule = Rule(match, nth, times, after, method, ranged, actions)
        with self._changed:
            self.rules.append(rule)
        return rule

    def clear(self):
        with self._changed:
            self.rules = []

    def forget(self):
        with self._changed:
            self.requests = []

    def gets(self, kind=None):
        return [r for r in list(self.requests)
                if r.method == "GET" and kind in (None, r.kind, r.digest)]

    def sent(self, kind=None):
        return sum(r.sent for r in self.gets(kind))

    def leaks(self):
        return [r for r in list(self.requests)
                if {"authorization", "cookie", "proxy-authorization"} & set(r.headers)]

    def wait(self, ready, timeout=30):
        with self._changed:
            return self._changed.wait_for(lambda: ready(self), timeout)

    def _notify(self):
        with self._changed:
            self._changed.notify_all()

    def auth_bearer(self, users=None, uses=None, seconds=None, expires_in=300, key="token",
                    refuse=False, realm=None):
        self._auth = {"type": "bearer", "users": users, "uses": uses, "seconds": seconds,
                      "expires_in": expires_in, "key": key, "refuse": refuse,
                      "realm": realm or self.base + "/token"}

    def auth_basic(self, users):
        self._auth = {"type": "basic", "users": users}

    def revoke(self):
        """Every token given out so far is refused from now on."""
        with self._changed:
            self._live_tokens = {}

    def hops(self, n, last=None):
        key = secrets.token_hex(8)
        self._hops[key] = (n, last)
        return f"{self.base}/hop/{key}/{n}"

    def loop(self):
        key = secrets.token_hex(8)
        self._hops[key] = (None, None)
        return f"{self.base}/hop/{key}/0"

    # -- life ---------------------------------------------------------------------------------

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()

    def stop(self):
        self._stopping = True
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        with self._changed:
            sockets = list(self._sockets)
            self._changed.notify_all()
        for sock in sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self):
        while not self._stopping:
            try:
                sock, peer = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock, peer[1]), daemon=True).start()

    def _serve(self, sock, peer):
        with self._changed:
            self.open += 1
            self.open_max = max(self.open, self.open_max)
            self._sockets.add(sock)
        plain = sock
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True)
                with self._changed:
                    self._sockets.discard(plain)
                    self._sockets.add(sock)
            _Connection(self, sock, peer).run()
        except (OSError, ValueError, _End):
            pass
        finally:
            with self._changed:
                self.open -= 1
                self._sockets.discard(plain)
                self._sockets.discard(sock)
                self._changed.notify_all()
            try:
                sock.close()
            except OSError:
                pass

    # -- answers ------------------------------------------------------------------------------

    def _actions(self, req):
        merged = {}
        with self._changed:
            req.n = len(self.requests) + 1
            self.requests.append(req)
            for rule in self.rules:
                merged.update(rule.take(req))
            self._changed.notify_all()
        return merged

    def _answer(self, req, act):
        """The honest Reply, before any action but those that replace it."""
        if "status" in act or "error" in act:
            reply = self._error(act.get("status", 500), act.get("error", "UNKNOWN"))
            if "www_authenticate" in act:
                reply.headers["WWW-Authenticate"] = act["www_authenticate"]
            if "body" in act:
                reply.body = act["body"]
            return reply
        if req.kind == "token":
            return self._token(req)
        if req.path.startswith("/v2"):
            denied = self._check_auth(req)
            if denied:
                return denied
        if "redirect" in act:
            return self._redirect(req, act["redirect"], act.get("redirect_status", 307))
        reply = self._content(req, act)
        if "body" in act:
            reply.body = act["body"]
        return reply

    def _content(self, req, act):
        if req.kind == "ping":
            return Reply(200, {"Content-Type": "application/json"}, b"{}")
        if req.kind == "hop":
            return self._hop(req, act)
        if req.kind == "presigned":
            return self._storage(req, act)
        if req.method not in ("GET", "HEAD"):
            return self._error(405, "UNSUPPORTED")
        if req.kind == "manifest":
            entry = self.store.manifests.get(req.name)
            if entry is None:
                return self._error(404, "MANIFEST_UNKNOWN")
            digest = req.name if ":" in req.name else digest_of(entry.body)
            return Reply(200, {"Content-Type": entry.media_type, "Docker-Content-Digest": digest},
                         entry.body)
        if req.kind == "blob":
            return self._blob(req, act)
        return self._error(404, "NAME_UNKNOWN")

    @staticmethod
    def _error(status, code):
        body = json.dumps({"errors": [{"code": code, "message": code.lower().replace("_", " ")}]})
        return Reply(status, {"Content-Type": "application/json"}, body.encode())

    def _blob(self, req, act):
        data = self.store.blobs.get(req.name)
        if data is None:
            return self._error(404, "BLOB_UNKNOWN")
        total = len(data)
        reply = Reply(200, {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"})
        if req.kind == "blob":
            reply.headers["Docker-Content-Digest"] = req.name
        view = memoryview(data)
        if req.range is None or act.get("ignore_range"):
            reply.body = view
            return reply
        start, end = req.range
        if start >= total:
            return Reply(416, {"Content-Range": f"bytes */{total}"})
        end = total - 1 if end is None else min(end, total - 1)
        if "serve_range" in act:
            start, end = act["serve_range"](start, end, total)
        reply.status = 206
        reply.start = start
        reply.headers["Content-Range"] = f"bytes {start}-{end}/{total}"
        if "content_range" in act:
            value = act["content_range"]
            if callable(value):
                value = value(start, end, total)
            if value is None:
                del reply.headers["Content-Range"]
            else:
                reply.headers["Content-Range"] = value
        reply.body = view[start:end + 1]
        if act.get("multipart"):
            head = (f"--frontier\r\nContent-Type: application/octet-stream\r\n"
                    f"Content-Range: bytes {start}-{end}/{total}\r\n\r\n").encode()
            reply.body = head + bytes(reply.body) + b"\r\n--frontier--\r\n"
            reply.headers["Content-Type"] = "multipart/byteranges; boundary=frontier"
            reply.headers.pop("Content-Range", None)
        return reply

    def _redirect(self, req, target, status):
        if isinstance(target, Presign):
            target = target.storage._presign(req, target)
        elif callable(target):
            target = target(req)
        return Reply(status, {"Location": target, "Content-Type": "text/html"}, b"moved\n")

    def _hop(self, req, act):
        key, left = req.path.split("/")[2:4]
        n, last = self._hops.get(key, (0, None))
        if n is None:
            return Reply(307, {"Location": f"{self.base}/hop/{key}/{int(left) + 1}"})
        left = int(left)
        if left > 1:
            return Reply(307, {"Location": f"{self.base}/hop/{key}/{left - 1}"})
        if isinstance(last, Request):
            req.name = last.name
            return self._blob(req, act)
        if last:
            return Reply(307, {"Location": last})
        return self._error(404, "NAME_UNKNOWN")

    def _presign(self, req, how):
        key = secrets.token_hex(16)
        with self._changed:
            self._presigned[key] = {
                "uses": how.uses,
                "until": time.monotonic() + how.seconds if how.seconds is not None else None}
        query = {"X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Signature": key}
        if how.expires_seen:
            query["X-Amz-Date"] = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            query["X-Amz-Expires"] = str(int(how.seconds) if how.seconds is not None else 1200)
        return f"{self.base}/presigned/{key}/{req.name}?" + urllib.parse.urlencode(query)

    def _storage(self, req, act):
        key = req.path.split("/")[2]
        with self._changed:
            entry = self._presigned.get(key)
            alive = entry is not None
            if alive and entry["until"] is not None and time.monotonic() > entry["until"]:
                alive = False
            if alive and entry["uses"] is not None:
                entry["uses"] -= 1
                alive = entry["uses"] >= 0
        if not alive:
            return Reply(403, {"Content-Type": "application/xml"},
                         b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>"
                         b"<Message>Request has expired</Message></Error>")
        if req.headers.get("authorization"):
            return Reply(400, {"Content-Type": "application/xml"},
                         b"<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism "
                         b"allowed</Message></Error>")
        return self._blob(req, act)

    # -- authorisation ------------------------------------------------------------------------

    @staticmethod
    def _basic(req):
        kind, _, value = req.headers.get("authorization", "").partition(" ")
        if kind.lower() != "basic":
            return None
        try:
            user, _, password = base64.b64decode(value).decode().partition(":")
        except ValueError:
            return None
        return user, password

    def _token(self, req):
        auth = self._auth
        if not auth or auth["type"] != "bearer":
            return self._error(404, "NAME_UNKNOWN")
        if auth["refuse"]:
            return self._error(401, "UNAUTHORIZED")
        given = self._basic(req)
        if req.method == "POST":
            form = dict(urllib.parse.parse_qsl(req.body.decode("latin-1")))
            given = (form.get("username"), form.get("password"))
        if auth["users"] is not None and (not given or auth["users"].get(given[0]) != given[1]):
            return self._error(401, "UNAUTHORIZED")
        token = secrets.token_urlsafe(24)
        with self._changed:
            self.tokens += 1
            self._live_tokens[token] = {
                "uses": auth["uses"],
                "until": None if auth["seconds"] is None else time.monotonic() + auth["seconds"]}
        body = {auth["key"]: token}
        if auth["expires_in"] is not None:
            body["expires_in"] = auth["expires_in"]
        return Reply(200, {"Content-Type": "application/json"}, json.dumps(body).encode())

    def _check_auth(self, req):
        auth = self._auth
        if not auth:
            return None
        if auth["type"] == "basic":
            given = self._basic(req)
            if given and auth["users"].get(given[0]) == given[1]:
                return None
            reply = self._error(401, "UNAUTHORIZED")
            reply.headers["WWW-Authenticate"] = 'Basic realm="faults"'
            return reply
        kind, _, token = req.headers.get("authorization", "").partition(" ")
        with self._changed:
            entry = self._live_tokens.get(token) if kind.lower() == "bearer" else None
            if entry and entry["until"] is not None and time.monotonic() > entry["until"]:
                entry = None
            if entry and entry["uses"] is not None:
                entry["uses"] -= 1
                if entry["uses"] < 0:
                    entry = None
        if entry:
            return None
        reply = self._error(401, "UNAUTHORIZED")
        match = re.match(r"/v2/(.+)/(?:blobs|manifests)/", req.path)
        scope = f',scope="repository:{match[1]}:pull"' if match else ""
        invalid = ',error="invalid_token"' if token else ""
        reply.headers["WWW-Authenticate"] = (
            f'Bearer realm="{auth["realm"]}",service="faults"{scope}{invalid}')
        return reply


class _Connection:
    """One client connection: reads requests, sends replies, breaks them as told."""

    def __init__(self, server, sock, peer):
        self.server = server
        self.sock = sock
        self.peer = peer
        self.buffer = b""

    def run(self):
        while not self.server._stopping:
            req = self._read()
            if req is None:
                return
            act = self.server._actions(req)
            try:
                keep = self._reply(req, act)
            finally:
                self.server._notify()
            if not keep:
                return

    def _read(self):
        while b"\r\n\r\n" not in self.buffer:
            if len(self.buffer) > 1 << 20:
                return None
            data = self.sock.recv(65536)
            if not data:
                return None
            self.buffer += data
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        if target.startswith("http://"):  # as a proxy is asked
            target = "/" + target[7:].partition("/")[2]
        headers = []
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers.append((name, value.strip()))
        req = Request(0, method, target, headers, self.peer)
        length = int(req.headers.get("content-length", 0))
        while len(self.buffer) < length:
            data = self.sock.recv(65536)
            if not data:
                return None
            self.buffer += data
        req.body, self.buffer = self.buffer[:length], self.buffer[length:]
        return req

    def _reply(self, req, act):
        if "delay" in act:
            self._pause(act["delay"])
        if "hold" in act:
            self._hold(act["hold"])
        if "raw" in act:
            self._send_all(act["raw"])
            return False
        reply = self.server._answer(req, act)
        self._apply_head(reply, act)
        if "handler" in act:
            act["handler"](req, reply)
        plan = self._plan_body(req, reply, act)
        req.status = reply.status
        keep = plan["keep"]
        version = "HTTP/1.0" if act.get("http10") else "HTTP/1.1"
        reply.headers.setdefault("Connection", "keep-alive" if keep else "close")
        head = [f"{version} {reply.status} {REASONS.get(reply.status, 'Status')}"]
        head += [f"{k}: {v}" for k, v in reply.headers.items() if v is not None]
        head = ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")
        if act.get("informational"):
            head = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n" + head
        self._send_all(head)
        if req.method == "HEAD" or reply.status in (204, 304):
            req.done = True
            return keep
        self._body(req, reply, act, plan)
        req.done = True
        return keep

    @staticmethod
    def _apply_head(reply, act):
        if "retry_after" in act:
            value = act["retry_after"]
            if isinstance(value, str) and value.startswith("date"):
                value = email.utils.formatdate(time.time() + float(value[4:] or 0), usegmt=True)
            reply.headers["Retry-After"] = str(value)
        if "digest_header" in act:
            reply.headers["Docker-Content-Digest"] = act["digest_header"]
        if "content_type" in act:
            reply.headers["Content-Type"] = act["content_type"]
        if "cookie" in act:
            reply.headers["Set-Cookie"] = act["cookie"]
        for name, value in (act.get("headers") or {}).items():
            reply.headers[name] = value

    def _plan_body(self, req, reply, act):
        """Changes reply.body and its length headers; returns how to send it."""
        plan = {"keep": True, "limit": None, "chunked": False}
        if "flip" in act and reply.status in (200, 206):
            offsets = act["flip"] if isinstance(act["flip"], (list, tuple)) else [act["flip"]]
            inside = [o - reply.start for o in offsets]
            inside = [o for o in inside if 0 <= o < len(reply.body)]
            if inside:
                reply.body = bytearray(reply.body)
                for offset in inside:
                    reply.body[offset] ^= 1
        if act.get("long"):
            reply.body = bytes(reply.body) + b"x" * act["long"]
        if act.get("gzip"):
            reply.body = gzip_module.compress(bytes(reply.body), 1)
            reply.headers["Content-Encoding"] = "gzip"
        length = len(reply.body)
        if act.get("short"):
            plan["limit"] = max(0, length - act["short"])
            plan["keep"] = False
        if act.get("trailing"):
            reply.body = bytes(reply.body) + b"x" * act["trailing"]
            plan["keep"] = False
        value = act.get("content_length", length)
        value = value(length) if callable(value) else value
        if act.get("forever"):
            value = "none"
        if act.get("chunked"):
            plan["chunked"] = True
            reply.headers["Transfer-Encoding"] = "chunked"
        elif value == "none":
            plan["keep"] = False
        else:
            reply.headers["Content-Length"] = str(value)
            if value != length:
                plan["keep"] = False
        if act.get("close") or act.get("http10") or \
                req.headers.get("connection", "").lower() == "close":
            plan["keep"] = False
        return plan

    # -- sending ------------------------------------------------------------------------------

    def _body(self, req, reply, act, plan):
        view = memoryview(reply.body)
        end = len(view) if plan["limit"] is None else plan["limit"]
        stops = []
        for name in ("reset_at", "close_at", "stall_at"):
            if act.get(name) is not None:
                stops.append((act[name], name))
        if "hold_at" in act:
            stops.append((act["hold_at"][0], "hold_at"))
        at = 0
        for offset, name in sorted(stops):
            if offset > end:
                continue
            at = self._slice(req, view, at, offset, act, plan)
            if name == "reset_at":
                self._reset()
            elif name == "close_at":
                raise _End
            elif name == "hold_at":
                self._hold(act["hold_at"][1])
            else:
                self._pause(act.get("stall_for"))
        self._slice(req, view, at, end, act, plan)
        if act.get("forever"):
            filler = memoryview(b" " * SLICE)
            while not self.server._stopping:
                self._slice(req, filler, 0, SLICE, act, plan)
        if plan["chunked"]:
            self._send_all(b"0\r\n\r\n")

    def _slice(self, req, view, at, end, act, plan):
        rate = act.get("rate")
        step = SLICE if not rate else max(1, min(SLICE, int(rate / 20)))
        began = time.monotonic()
        first = at
        while at < end:
            part = view[at:min(at + step, end)]
            if plan["chunked"]:
                self._send_all(b"%x\r\n" % len(part))
            self._send_counted(req, part)
            if plan["chunked"]:
                self._send_all(b"\r\n")
            at += len(part)
            if rate:
                ahead = (at - first) / rate - (time.monotonic() - began)
                if ahead > 0:
                    self._pause(ahead, stalled=False)
        return at

    def _send_all(self, data):
        self.sock.sendall(data)

    def _send_counted(self, req, view):
        # Counted first: a client that has read the last byte must find it in req.sent.
        req.sent += len(view)
        try:
            while len(view):
                view = view[self.sock.send(view):]
        except OSError:
            req.sent -= len(view)
            raise

    def _reset(self):
        # What the kernel still holds would be thrown away by the RST: let it drain first, so that
        # the client sees the bytes before the reset.
        plain = socket.socket(fileno=self.sock.detach())
        with plain:
            until = time.monotonic() + 5
            while time.monotonic() < until:
                if not struct.unpack("i", fcntl.ioctl(plain, termios.TIOCOUTQ, bytes(4)))[0]:
                    break
                time.sleep(0.002)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _End

    def _gone(self, timeout):
        """True when the client ended the connection within so many seconds."""
        poll = select.poll()
        poll.register(self.sock.fileno(), select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        return bool(poll.poll(timeout * 1000))

    def _pause(self, seconds, stalled=True):
        """Sends nothing for so long (None: until the client goes away)."""
        server = self.server
        if stalled:
            with server._changed:
                server.stalled += 1
                server._changed.notify_all()
        try:
            until = None if seconds is None else time.monotonic() + seconds
            while not server._stopping:
                left = 1.0 if until is None else min(1.0, until - time.monotonic())
                if left <= 0:
                    return
                if self._gone(left):
                    raise _End
            raise _End
        finally:
            if stalled:
                with server._changed:
                    server.stalled -= 1
                    server._changed.notify_all()

    def _hold(self, event):
        server = self.server
        with server._changed:
            server.stalled += 1
            server._changed.notify_all()
        try:
            while not event.is_set():
                if server._stopping or self._gone(0.02):
                    raise _End
        finally:
            with server._changed:
                server.stalled -= 1
                server._changed.notify_all()


def _parse_rule(text):
    words = text.split()
    keys = {}
    for word in words[1:]:
        name, _, value = word.partition("=")
        try:
            keys[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            keys[name] = value
    return (None if words[0] == "*" else words[0]), keys


def main():
    parser = argparse.ArgumentParser(description="serves files as one OCI artifact, with faults")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tag", default="v1")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    parser.add_argument("--rule", action="append", default=[],
                        help='"MATCH key=value ...", for example "blob reset_at=1000 times=2"')
    parser.add_argument("files", nargs="+")
    args = parser.parse_args()
    server = FaultServer(args.host, args.port, tls=tuple(args.tls) if args.tls else None)
    artifact = server.artifact({os.path.basename(f): f for f in args.files}, args.tag)
    for text in args.rule:
        match, keys = _parse_rule(text)
        server.rule(match, **keys)
    print(artifact.ref, flush=True)
    seen = 0
    try:
        while True:
            server.wait(lambda s: len(s.requests) > seen, 3600)
            for req in server.requests[seen:]:
                print(f"{req.method} {req.target} {req.headers.get('range', '')}", flush=True)
            seen = len(server.requests)
    except KeyboardInterrupt:
        server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
