# SPDX-License-Identifier: Apache-2.0
"""A token server as docker-registry's `auth: token` wants it: JWTs signed RS256, chain in x5c."""

import base64
import http.server
import json
import pathlib
import re
import subprocess
import threading
import time
import urllib.parse

from .certs import Authority
from .proc import part

LEEWAY = 60  # seconds by which docker-registry lets a token live on


def _b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenServer:
    """Runs in a thread. Attributes may be changed while it runs.

    users       {name: password}, or None: everybody gets a pull token
    lifetime    seconds a token is good for, to the second (the registry's leeway is taken off)
    expires_in  what the answer says (default: lifetime; None: the field is left out)
    count       tokens given out;  requests  dicts: method, query, user, scopes
    refuse      True: 401 to every request
    """

    service = "test-registry"
    issuer = "test-issuer"

    def __init__(self, dir, users=None, lifetime=300, expires_in=0, key="token"):
        self.dir = pathlib.Path(dir)
        self.dir.mkdir(parents=True, exist_ok=True)
        authority = Authority(self.dir, "token signer")
        pair = authority.issue("signer", san=None, rsa=True)
        # The leaf is its own root for the registry: one certificate to hand over.
        self.certificate = authority.ca
        self._key = pair.key
        text = pair.cert.read_text()
        self._x5c = "".join(re.search("-----BEGIN CERTIFICATE-----(.*?)-----END", text,
                                      re.S)[1].split())
        self.users = users
        self.lifetime = lifetime
        self.expires_in = lifetime if expires_in == 0 else expires_in
        self.key = key
        self.refuse = False
        self.count = 0
        self.requests = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                split = urllib.parse.urlsplit(self.path)
                owner._answer(self, urllib.parse.parse_qs(split.query))

            def do_POST(self):
                length = int(self.headers.get("Content-Length", 0))
                form = urllib.parse.parse_qs(self.rfile.read(length).decode())
                owner._answer(self, form)

            def log_message(self, *args):
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.host = f"127.0.0.1:{self._http.server_address[1]}"
        self.realm = f"http://{self.host}/token"
        threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True).start()

    def stop(self):
        self._http.shutdown()
        self._http.server_close()

    def mint(self, scopes, user=""):
        """A signed token for [(repository, [action, ...]), ...]."""
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [self._x5c]}
        claims = {"iss": self.issuer, "sub": user, "aud": self.service, "iat": now - LEEWAY,
                  "nbf": now - LEEWAY, "exp": now + self.lifetime - LEEWAY,
                  "jti": f"{time.monotonic_ns()}",
                  "access": [{"type": "repository", "name": name, "actions": actions}
                             for name, actions in scopes]}
        text = ".".join(_b64(json.dumps(part_).encode()) for part_ in (header, claims))
        signature = subprocess.run([part("openssl"), "dgst", "-sha256", "-sign", str(self._key)],
                                   input=text.encode(), capture_output=True, check=True).stdout
        return text + "." + _b64(signature)

    def _answer(self, handler, query):
        user = None
        kind, _, value = handler.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "basic":
            name, _, password = base64.b64decode(value).decode().partition(":")
            user = (name, password)
        elif "username" in query:
            user = (query["username"][0], query.get("password", [""])[0])
        scopes = []
        for words in query.get("scope", []):
            for scope in words.split():
                name, actions = scope.removeprefix("repository:").rsplit(":", 1)
                scopes.append((name, actions.split(",")))
        self.requests.append({"method": handler.command, "query": query, "scopes": scopes,
                              "user": user[0] if user else None})
        known = self.users is None or (user and self.users.get(user[0]) == user[1])
        if self.refuse or not known:
            self._send(handler, 401, {"errors": [{"code": "UNAUTHORIZED",
                                                  "message": "authentication required"}]})
            return
        if self.users is None:
            scopes = [(name, [a for a in actions if a == "pull"]) for name, actions in scopes]
        self.count += 1
        body = {self.key: self.mint(scopes, user[0] if user else "")}
        if self.expires_in is not None:
            body["expires_in"] = self.expires_in
        self._send(handler, 200, body)

    @staticmethod
    def _send(handler, status, body):
        data = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)
