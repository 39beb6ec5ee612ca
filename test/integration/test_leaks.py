# SPDX-License-Identifier: Apache-2.0
"""Credentials stay where they belong: recording servers on every other host, port and scheme see none, and no line that is
written holds one, whatever goes wrong. [O30] [O40] [K30] [K51]"""

import base64
import json
import re
import ssl

import pytest

from faultserver import FaultServer, Presign, Reply
from lib import oci
from lib.content import data
from lib.look import holds
from lib.quirks import Acr, Harbor, config

MIB = 1 << 20
PASSWORD = "pa55:Word+SECRET"
BASIC = base64.b64encode(f"alice:{PASSWORD}".encode()).decode()
FILES = {"w.bin": data(41, MIB), "config.json": b"{}"}
# What a bare request holds: whatever else a stranger sees was meant for somebody else.
BARE = {"host", "user-agent", "accept", "accept-encoding", "range", "connection"}


class Recorder(FaultServer):
    """A fault server that notes the client certificate of each connection. TLS: asks for one, takes none as well."""

    def __init__(self, pair=None, ca=None, **how):
        self.certificates = []
        context = None
        if pair:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*pair)
            context.load_verify_locations(ca)
            context.verify_mode = ssl.CERT_OPTIONAL
        super().__init__(tls=context, **how)
        self.rule(None, handler=self._look, cookie="session=SECRET-cookie")

    def _look(self, request, reply):
        with self._changed:
            self.certificates += [s.getpeercert() for s in self._sockets if isinstance(s, ssl.SSLSocket)]

    def saw_nothing(self, but=()):
        for r in self.requests:
            extra = set(r.headers) - BARE - set(but)
            assert not extra, f"{r} carried {sorted(extra)}"
            assert r.headers.get("accept", "*/*") == "*/*", r.headers
            assert "alice" not in r.target and "SECRET" not in r.target, r.target
        assert not any(self.certificates)


@pytest.fixture(scope="module")
def pairs(authority):
    """Certificates of both addresses, and a client's."""
    return {"127.0.0.1": authority.issue("leak-server"), "127.0.0.2": authority.issue("leak-other", san="IP:127.0.0.2"),
            "client": authority.issue("leak-client", client=True, san=None)}


@pytest.fixture
def origin(pairs, authority):
    """The registry: TLS with a client certificate, and Basic."""
    with Recorder(pairs["127.0.0.1"], authority.ca) as server:
        server.auth_basic({"alice": PASSWORD})
        yield server


@pytest.fixture(params=["port", "host"])
def other(request, pairs, authority, origin):
    """Another port of the same address, another address."""
    host = {"port": "127.0.0.1", "host": "127.0.0.2"}[request.param]
    with Recorder(pairs[host], authority.ca, store=origin.store, host=host) as server:
        yield server


@pytest.fixture
def login(tmp_path, pairs, authority):
    """Flags: credentials for every host that takes part, a CA, a client certificate."""
    def flags(*servers, **how):
        cert, key = pairs["client"]
        path = config(tmp_path / "c.json", **{s.host: ("alice", PASSWORD) for s in servers}, **how)
        return ["--registry-config", path, "--ca-file", authority.ca, "--cert-file", cert, "--key-file", key]
    return flags


def pull(fetcher, ref, dest, flags):
    return fetcher("pull", *flags, "--range-size", "256KiB", "-v", ref, dest)


# -- other hosts, ports and schemes --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["blob", "manifest"])
def test_redirects(origin, other, login, fetcher, dest, kind):
    """To storage; the registry itself sees all of it. [A10]"""
    art = origin.artifact(FILES)
    origin.rule(kind, redirect=lambda r: other.base + r.target)
    pull(fetcher, art.ref, dest, login(origin, other)).ok()
    holds(dest, FILES)
    assert any(origin.certificates) and len(origin.leaks()) > 0
    assert other.requests
    other.saw_nothing()
    assert not any("cookie" in r.headers for r in origin.requests)


def test_redirect_that_comes_back(origin, other, login, fetcher, dest):
    """Registry, stranger, registry, stranger: each hop is built anew."""
    art = origin.artifact(FILES)
    origin.rule("blob", redirect=lambda r: f"{other.base}{r.target}?hop={int(r.query.get('hop', 0)) + 1}"
                if r.query.get("hop", "0") != "done" else "")
    other.rule(lambda r: r.query.get("hop") == "1", redirect=lambda r: f"{origin.base}{r.path}?hop=2")
    origin.rule(lambda r: r.query.get("hop") == "2", redirect=lambda r: f"{other.base}{r.path}?hop=3")
    pull(fetcher, art.ref, dest, login(origin, other)).ok()
    holds(dest, FILES)
    assert {r.query.get("hop") for r in other.requests} == {"1", "3"}
    other.saw_nothing()


def test_another_name_of_the_same_server(faults, fetcher, dest, tmp_path):
    """localhost:PORT is not 127.0.0.1:PORT."""
    art = faults.artifact(FILES)
    faults.auth_basic({"alice": PASSWORD})
    path = config(tmp_path / "c.json", **{faults.host: ("alice", PASSWORD)})
    name = f"localhost:{faults.port}"
    faults.rule(lambda r: r.kind == "blob" and r.headers["host"] == faults.host,
                redirect=lambda r: f"http://{name}/elsewhere/{r.digest}")
    faults.rule("/elsewhere/", handler=lambda q, reply: (setattr(reply, "status", 200), setattr(
        reply, "body", faults.blobs[q.path.split("/")[2]])), content_type="application/octet-stream")
    fetcher.pull(art.ref, dest, "--registry-config", path, "--range-size", "64MiB")
    seen = [r for r in faults.requests if r.headers["host"] == name]
    assert seen and not any(set(r.headers) - BARE for r in seen)


def test_http_to_https(faults, login, other, fetcher, dest):
    """A registry over HTTP, storage over HTTPS."""
    art = faults.artifact(FILES)
    faults.auth_basic({"alice": PASSWORD})
    other.store = faults.store
    faults.rule("blob", redirect=lambda r: other.base + r.target)
    pull(fetcher, art.ref, dest, ["--plain-http", *login(faults, other)]).ok()
    holds(dest, FILES)
    other.saw_nothing()


def test_https_to_http_is_not_followed(origin, login, faults, fetcher, dest):
    art = origin.artifact(FILES)
    origin.rule("blob", redirect=lambda r: faults.base + r.target)
    pull(fetcher, art.ref, dest, login(origin, faults)).exits(30)
    assert faults.requests == []


def test_a_stranger_asks(origin, other, login, fetcher, dest):
    """401 with challenges of both kinds from storage: nothing is given, no token service is asked. [A10]"""
    art = origin.artifact(FILES)
    origin.rule("blob", redirect=lambda r: other.base + r.target)
    for value in ('Basic realm="give"', f'Bearer realm="{other.base}/token",service="x",scope="repository:x:pull"'):
        other.rule("blob", status=401, www_authenticate=value)
        r = pull(fetcher, art.ref, dest, [*login(origin, other), "--retry-timeout", "300ms"])
        assert r.rc in (20, 30), r
        assert not any(q.path == "/token" for q in other.requests)
    other.saw_nothing()


def test_the_token_service_sees_the_login_and_nothing_else(origin, other, login, fetcher, dest):
    """The realm gets the password, that is its purpose: no client certificate, no cookie, no other header."""
    art = origin.artifact(FILES)
    other.auth_bearer(users={"alice": PASSWORD})
    origin.auth_bearer(users={"alice": PASSWORD}, realm=other.base + "/token")
    origin._live_tokens = other._live_tokens
    pull(fetcher, art.ref, dest, login(origin)).ok()
    assert other.tokens == 1
    for r in other.requests:
        assert set(r.headers) - BARE == {"authorization"} and r.headers["authorization"] == "Basic " + BASIC
        assert r.headers["accept"] == "application/json"
    assert not any(other.certificates)
    assert not any("Basic" in r.headers.get("authorization", "") for r in origin.requests)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("post", [False, True], ids=["GET", "POST"])
def test_a_token_service_that_redirects(origin, other, login, fetcher, dest, status, post):
    """[A4]"""
    art = origin.artifact(FILES)
    origin.auth_bearer(users={"alice": PASSWORD})
    origin.rule("token", status=status, headers={"Location": other.base + "/token"})
    how = {origin.host: {"identitytoken": "refresh-SECRET"}} if post else {}
    flags = login(**how) if post else login(origin)
    r = pull(fetcher, art.ref, dest, flags).exits(20)
    assert other.requests == [] and "SECRET" not in r.err


def test_addresses_in_a_manifest_and_in_headers(origin, other, login, fetcher, dest):
    """Foreign urls, next pages, other services: none of them is asked. [O30] [O31] [K32]"""
    digest = origin.blob(FILES["w.bin"])
    layer = {"mediaType": oci.LAYER if hasattr(oci, "LAYER") else "application/octet-stream", "digest": digest,
             "size": len(FILES["w.bin"]), "urls": [other.base + "/foreign", other.base + "/v2/x/blobs/" + digest],
             "annotations": {"org.opencontainers.image.title": "w.bin"}}
    origin.blob(b"{}")
    origin.artifact({}, layers=[layer], subject={"mediaType": oci.MANIFEST, "digest": digest, "size": 2,
                                                 "urls": [other.base + "/subject"]})
    origin.rule(None, headers={"Link": f'<{other.base}/v2/_next?n=1>; rel="next"', "Refresh": f"0; url={other.base}/r",
                               "Content-Location": other.base + "/c", "OCI-Filters-Applied": other.base,
                               "Alt-Svc": f'http/1.1="{other.host}"; ma=99', "Docker-Upload-UUID": "x",
                               "Location": other.base + "/l", "OCI-Subject": digest})
    pull(fetcher, origin.ref(), dest, login(origin, other)).ok()
    holds(dest, {"w.bin": FILES["w.bin"]})
    assert other.requests == []
    assert not any("referrers" in r.path or "tags/list" in r.path or "_next" in r.path for r in origin.requests)


def test_cookies_go_nowhere(origin, other, login, fetcher, dest):
    """Each answer sets one, also for the domain of all."""
    art = origin.artifact(FILES)
    for server in (origin, other):
        server.rule(None, cookie="a=SECRET; Domain=127.0.0.1; Path=/")
    origin.rule("blob", redirect=lambda r: other.base + r.target)
    pull(fetcher, art.ref, dest, login(origin, other)).ok()
    assert not any("cookie" in r.headers for r in origin.requests + other.requests)


# -- what is written -----------------------------------------------------------------------------


def say_back(request, reply):
    """An answer that shows the request it was, headers and all."""
    text = json.dumps({"errors": [{"code": "DENIED", "message": "got " + str(request.headers), "detail":
                                   {"headers": request.headers, "body": request.body.decode("latin-1")}}]})
    reply.status, reply.body = 403, text.encode()


STATUSES = [400, 401, 403, 404, 405, 407, 410, 412, 416, 418, 429, 451, 500, 501, 503]
BREAKS = [{"reset_at": 10}, {"close_at": 10}, {"stall_at": 0}, {"short": 1}, {"flip": 0}, {"gzip": True}, {"long": 1},
          {"raw": b"nonsense SECRET-not-ours\r\n\r\n"}, {"multipart": True}, {"content_range": "bytes 7-8/9"},
          {"chunked": True}, {"status": 200, "body": b"<html><title>x</title></html>"}]


def status_paths():
    for kind in ("manifest", "blob", "token", "presigned"):
        for status in STATUSES:
            yield f"{kind}-{status}", (kind, {"status": status, "error": "DENIED"})
    for kind in ("manifest", "blob", "token", "presigned"):
        for action in BREAKS:
            yield f"{kind}-{'-'.join(action)}", (kind, action)
        yield f"{kind}-says-back", (kind, {"handler": say_back})
        for name, target in {"userinfo": "http://u:SECRET-userinfo@127.0.0.1:1/x?X-Amz-Signature=SECRET-query",
                             "nobody": "http://127.0.0.1:1/x?X-Amz-Signature=SECRET-query",
                             "ftp": "ftp://127.0.0.1/x?sig=SECRET-query", "blank": "http://h/a b?sig=SECRET-query",
                             "no-host": "http:///x?sig=SECRET-query"}.items():
            yield f"{kind}-to-{name}", (kind, {"status": 307, "headers": {"Location": target}})


PATHS = dict(status_paths())
GROUPS = sorted({name.split("-")[0] for name in PATHS})


def secrets_of(*servers):
    """Everything that must be written nowhere."""
    found = {PASSWORD, BASIC, "pa55", "Word+SECRET", "SECRET-userinfo", "SECRET-query", "X-Amz-Signature", "refresh-SECRET",
             "SECRET-cookie", "SECRET-proxy", "SECRET-token"}
    for server in servers:
        found |= set(getattr(server, "_live_tokens", {})) | set(getattr(server, "granted", {}))
    return found


def written(r, dest, *files):
    """Name and text of everything that the run left behind."""
    yield "stderr", r.err
    yield "stdout", r.out
    for path in [*files, *((dest / ".fetcher").rglob("*") if (dest / ".fetcher").exists() else [])]:
        if path.is_file() and path.suffix != ".part" and path.stat().st_size < 1 << 22:
            yield path.name, path.read_bytes().decode("latin-1")


def check_written(r, dest, servers, *files):
    secrets = secrets_of(*servers)
    for name, text in written(r, dest, *files):
        leaked = [s for s in secrets if s in text]
        assert leaked == [], f"{name} holds {leaked}\n{r}"
        assert not re.search(r"Bearer [A-Za-z0-9]|Basic [A-Za-z0-9+/]{8}", text), f"{name}\n{r}"
    assert len(files[0].read_bytes()) <= 1000 if files else True


@pytest.mark.slow
@pytest.mark.parametrize("format", ["json", "text"])
@pytest.mark.parametrize("group", GROUPS)
def test_no_secret_is_written_on_any_error_path(group, format, fetcher, tmp_path):
    """Each status and each break at each kind of request, at the highest log level. [O40] [K49] [K51]"""
    for number, (name, (kind, action)) in enumerate(PATHS.items()):
        if not name.startswith(group) or (format == "text" and number % 3):
            continue
        dest, log, metrics = (tmp_path / f"{number}{x}" for x in ("", ".log", ".prom"))
        log.write_text("")
        with FaultServer() as faults, FaultServer(store=faults.store) as storage:
            art = faults.artifact({"w.bin": FILES["w.bin"][:300_000]})
            faults.auth_bearer(users={"alice": PASSWORD})
            faults.rule("blob", redirect=Presign(storage)) if kind == "presigned" else None
            (storage if kind == "presigned" else faults).rule(kind, **action)
            path = config(tmp_path / f"{number}.json", **{faults.host: ("alice", PASSWORD)})
            r = fetcher.pull(art.ref, dest, "--registry-config", path, "-v", "--log-format", format, "--retry-timeout",
                             "100ms", "--stall-timeout", "1s", "--range-size", "128KiB", "--termination-log", log,
                             "--metrics-file", metrics, "--output", "json", timeout=60)
            assert r.rc >= 0, f"{name}\n{r}"
            check_written(r, dest, (faults, storage), log, metrics)


@pytest.mark.parametrize("front", ["acr", "harbor"])
@pytest.mark.parametrize("how", ["right", "wrong", "says-back", "html"])
def test_no_secret_of_a_token_service_is_written(front, how, fetcher, dest, tmp_path):
    """Refresh tokens, passwords with odd characters, answers that show them. [O40]"""
    kind = Acr if front == "acr" else Harbor
    log = tmp_path / "log"
    log.write_text("")
    with kind(users={"alice": PASSWORD}) as server:
        server.refresh_tokens["refresh-SECRET"] = True
        art = server.artifact(FILES)
        entry = {"identitytoken": "refresh-SECRET"} if front == "acr" else ("alice", PASSWORD)
        if how == "wrong":
            server.users, server.refresh_tokens = {}, {}
        elif how == "says-back":
            server.give = lambda req, query, user: Reply(403, {}, json.dumps({"errors": [
                {"code": "DENIED", "message": f"{query} {user} {req.headers}", "detail": query}]}).encode())
        elif how == "html":
            server.give = lambda req, query, user: Reply(200, {"Content-Type": "text/html"},
                                                         f"<html><title>{query} {user}</title>".encode())
        path = config(tmp_path / "c.json", **{server.host: entry})
        r = fetcher.pull(art.ref, dest, "--registry-config", path, "-v", "--termination-log", log)
        assert r.rc == (0 if how == "right" else 20), r
        check_written(r, dest, (server,), log)


@pytest.mark.parametrize("text", ['{"auths": {"HOST": {"auth": "pa55SECRET%%"}}}', '{"auths": {"HOST": {"auth": "cGE1NQ=="}}}',
                                  '{"auths": {"HOST": {"password": "refresh-SECRET", "username": 5}}}',
                                  '{"auths": {"HOST": {"password": "refresh-SECRET"', '{"auths": {"HOST": "refresh-SECRET"}}',
                                  '{"auths": {"HOST": {"username": "refresh-SECRET"}}}',
                                  '{"auths": {"HOST": {"registrytoken": "refresh-SECRET\\u0001"}}}'])
def test_no_secret_of_a_broken_config_is_written(faults, fetcher, dest, tmp_path, text):
    """[A12]"""
    faults.auth_basic({"alice": PASSWORD})
    art = faults.artifact(FILES)
    path = tmp_path / "c.json"
    path.write_text(text.replace("HOST", faults.host))
    log = tmp_path / "log"
    log.write_text("")
    r = fetcher.pull(art.ref, dest, "--registry-config", path, "-v", "--termination-log", log)
    assert r.rc in (2, 20), r
    assert str(path) in r.err
    check_written(r, dest, (faults,), log)


def test_no_secret_of_a_proxy_is_written(faults, fetcher, dest, tmp_path):
    """User and password stand in the variable."""
    log = tmp_path / "log"
    for port, status in ((1, None), (faults.port, 407), (faults.port, 403)):
        log.write_text("")
        faults.clear()
        faults.rule(None, status=status or 200, error="DENIED")
        env = {"http_proxy": f"http://puser:SECRET-proxy@127.0.0.1:{port}"}
        r = fetcher.pull("registry.example/team/model:v1", dest, "-v", "--retry-timeout", "100ms", "--termination-log",
                         log, env=env)
        assert r.rc in (20, 30), r
        check_written(r, dest, (faults,), log)


def test_a_token_file_is_not_written(faults, fetcher, dest, tmp_path):
    secret = tmp_path / "token"
    secret.write_text("refresh-SECRET-token")
    faults.rule("/v2/", status=401, www_authenticate='Basic realm="x"')
    r = fetcher.pull(faults.artifact(FILES).ref, dest, "--token-file", secret, "-v").exits(20)
    check_written(r, dest, (faults,))
