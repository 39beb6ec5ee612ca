# SPDX-License-Identifier: Apache-2.0
"""The test bench itself: each server does what the other tests take for granted."""

import hashlib
import http.client
import json
import socket
import threading
import time
import urllib.request

import pytest

from faultserver import FaultServer, Presign
from lib import oci
from lib.content import Content, data, file_sha256
from lib.proc import command


def http_get(host, path, headers=None, method="GET"):
    connection = http.client.HTTPConnection(host, timeout=20)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def blob_path(pushed, digest):
    return f"/v2/{pushed.repo}/blobs/{digest}"


@pytest.fixture(scope="module")
def sample(registry):
    content = {"config.json": b"{}\n", "dir/w 1 \u00e9.bin": Content(1, 3 << 20), "empty": b""}
    return oci.push(registry, "bench/sample", "v1", content)


def test_oras_pushes_and_skopeo_sees_it(registry, sample):
    seen = command("skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{sample.ref}")
    layers = json.loads(seen.stdout)["layers"]
    assert {x["annotations"][oci.TITLE]: x["size"] for x in layers} == {
        "config.json": 3, "dir/w 1 \u00e9.bin": 3 << 20, "empty": 0}
    assert oci.digest_of(seen.stdout.encode()) == sample.digest


def test_content_is_the_same_each_time(tmp_path):
    assert Content(7, 5 << 20).sha256 == Content(7, 5 << 20).sha256
    assert Content(7, 5 << 20).sha256 != Content(8, 5 << 20).sha256
    for sparse in (False, True):
        content = Content(7, (20 << 20) + 5, sparse=sparse)
        path = content.write_to(tmp_path / "f")
        assert path.stat().st_size == content.size
        assert file_sha256(path) == Content(7, content.size, sparse).sha256
        assert hashlib.sha256(content.bytes()).hexdigest() == content.sha256


def test_manifests_by_hand(registry):
    body = data(3, 1000)
    one = registry.api.put_manifest("bench/hand", "pack", oci.manifest(
        [oci.modelpack(body, "a/b.bin")], artifact_type=oci.MODELPACK), blobs=[body])
    entry = oci.descriptor(b"", oci.MANIFEST)
    entry.update(digest=one.digest, size=int(http_get(
        registry.host, f"/v2/{one.repo}/manifests/{one.digest}",
        {"Accept": oci.MANIFEST}, "HEAD")[1]["Content-Length"]))
    top = registry.api.put_manifest("bench/hand", "index", oci.index([entry]))
    status, headers, text = http_get(registry.host, f"/v2/{top.repo}/manifests/index",
                                     {"Accept": oci.INDEX})
    assert (status, headers["Content-Type"]) == (200, oci.INDEX)
    assert oci.digest_of(text) == top.digest


def test_redirect_is_a_real_307(registry_redirect, storage_nginx, sample):
    digest = Content(1, 3 << 20).digest
    status, headers, _ = http_get(registry_redirect.host, blob_path(sample, digest))
    assert status == 307
    assert headers["Location"].startswith(storage_nginx.url + "/")
    with urllib.request.urlopen(urllib.request.Request(
            headers["Location"], headers={"Range": "bytes=10-19"})) as response:
        assert response.status == 206
        assert response.read() == Content(1, 3 << 20).bytes()[10:20]

    def logged(log):
        return any(r["range"] == "bytes=10-19" and r["status"] == 206 for r in log)
    assert logged(storage_nginx.requests(until=logged))


def test_pull_through_answers_200_to_a_cold_range(registry_proxy, sample):
    content = Content(1, 3 << 20)
    http_get(registry_proxy.host, f"/v2/{sample.repo}/manifests/v1", {"Accept": oci.MANIFEST})
    ask = {"Range": "bytes=10-19"}
    status, _, body = http_get(registry_proxy.host, blob_path(sample, content.digest), ask)
    assert (status, body) == (200, content.bytes())
    until = time.monotonic() + 20  # it stores the blob behind the answer
    while status == 200 and time.monotonic() < until:
        status, _, body = http_get(registry_proxy.host, blob_path(sample, content.digest), ask)
    assert (status, len(body)) == (206, 10)


def test_haproxy_caps_a_connection(registry, haproxy_capped):
    content = Content(5, 48 << 20)
    pushed = oci.push(registry, "bench/capped", "v1", {"w": content})
    began = time.monotonic()
    body = http_get(haproxy_capped.host, blob_path(pushed, content.digest))[2]
    assert len(body) == content.size
    assert time.monotonic() - began > 0.9  # 48 MiB at 32 MiB/s: one full period at the least


@pytest.mark.parametrize("name", ["registry_tls", "nginx_tls12", "nginx_tls13"])
def test_tls(request, name, sample, tmp_path):
    server = request.getfixturevalue(name)
    command("oras", "pull", *server.oras_flags(), "--no-tty", sample.on(server), "-o", tmp_path,
            cwd=tmp_path)
    assert (tmp_path / "config.json").read_bytes() == b"{}\n"
    if name.startswith("nginx"):
        log = server.requests(until=len)
        assert {r["tls"].split()[0] for r in log} == {f"TLSv1.{name[-1]}"}
    failed = command("oras", "pull", "--no-tty", sample.on(server), cwd=tmp_path, check=False)
    assert failed.returncode != 0  # the authority is a private one


def test_expired_and_misnamed_certificates(authority):
    text = command("openssl", "verify", "-CAfile", authority.ca,
                   authority.issue("late", expired=True).cert, check=False)
    assert "expired" in text.stdout + text.stderr
    other = authority.issue("other", san="DNS:elsewhere.test")
    shown = command("openssl", "x509", "-in", other.cert, "-noout", "-ext", "subjectAltName")
    assert "elsewhere.test" in shown.stdout


def test_htpasswd(registry_htpasswd):
    pushed = oci.push(registry_htpasswd, "bench/auth", "v1", {"a": b"x"})
    status, headers, _ = http_get(registry_htpasswd.host, f"/v2/{pushed.repo}/manifests/v1")
    assert status == 401
    assert headers["Www-Authenticate"].startswith("Basic ")
    assert registry_htpasswd.api.has_blob(pushed.repo, oci.digest_of(b"x"))


def test_token_auth_with_oras(registry_token, token_server, tmp_path):
    pushed = oci.push(registry_token, "bench/token", "v1", {"a": b"x"})
    before = token_server.count
    assert before > 0
    command("oras", "pull", *registry_token.oras_flags(), "--no-tty", pushed.ref, cwd=tmp_path)
    assert (tmp_path / "a").read_bytes() == b"x"
    assert token_server.count > before
    bad = command("oras", "pull", "--plain-http", "-u", "alice", "-p", "wrong", "--no-tty",
                  pushed.ref, cwd=tmp_path, check=False)
    assert bad.returncode != 0


def test_token_expires_to_the_second(registry_token, token_server):
    pushed = oci.push(registry_token, "bench/expiry", "v1", {"a": b"x"})
    path = f"/v2/{pushed.repo}/blobs/{oci.digest_of(b'x')}"

    def status(lifetime):
        token_server.lifetime = lifetime
        token = token_server.mint([(pushed.repo, ["pull"])])
        return http_get(registry_token.host, path, {"Authorization": "Bearer " + token})[0]
    try:
        assert status(30) == 200
        assert status(-2) == 401
    finally:
        token_server.lifetime = 300


def test_relay_counts(wire, registry, sample):
    content = Content(1, 3 << 20)
    connection = http.client.HTTPConnection(wire.host, timeout=20)
    for span in ("bytes=0-99", "bytes=100-1048675"):
        connection.request("GET", blob_path(sample, content.digest), headers={"Range": span})
        connection.getresponse().read()
    connection.request("GET", f"/v2/{sample.repo}/manifests/none")
    connection.getresponse().read()
    connection.close()
    assert [(r.status, r.range, r.body) for r in wire.gets("/blobs/")] == [
        (206, (0, 99), 100), (206, (100, 1048675), 1048576)]
    assert wire.requests[-1].status == 404
    assert wire.connections == 1
    assert 1048676 < wire.down < 1048676 + 4000


# -- the fault server ---------------------------------------------------------------------------


def fault_get(server, path, **headers):
    return http_get(server.host, path, headers)


@pytest.fixture
def one(faults):
    body = data(11, 300_000)
    art = faults.artifact({"w": body, "empty": b""})
    art.path = f"/v2/{faults.repo}/blobs/{art.digest_of('w')}"
    art.body = body
    return art


def test_faults_serves_oras(faults, one, tmp_path):
    command("oras", "pull", "--plain-http", "--no-tty", one.ref, cwd=tmp_path)
    assert (tmp_path / "w").read_bytes() == one.body
    assert len(faults.gets("blob")) >= 1
    assert faults.wait(lambda f: f.open == 0)


def test_faults_ranges(faults, one):
    status, headers, body = fault_get(faults, one.path, Range="bytes=5-14")
    assert (status, body, headers["Content-Range"]) == (206, one.body[5:15], "bytes 5-14/300000")
    assert fault_get(faults, one.path, Range="bytes=300000-")[0] == 416
    rule = faults.rule("blob", ignore_range=True, times=1)
    assert fault_get(faults, one.path, Range="bytes=5-14")[0] == 200
    assert fault_get(faults, one.path, Range="bytes=5-14")[0] == 206
    assert rule.hits == 1
    faults.rule("blob", ranged=True, content_range=lambda s, e, t: f"bytes {s + 1}-{e}/{t + 1}")
    assert fault_get(faults, one.path, Range="bytes=5-14")[1]["Content-Range"] == \
        "bytes 6-14/300001"
    faults.clear()
    faults.rule("blob", serve_range=lambda s, e, t: (s + 3, e + 3))
    assert fault_get(faults, one.path, Range="bytes=5-14")[2] == one.body[8:18]
    faults.clear()
    faults.rule("blob", multipart=True)
    status, headers, body = fault_get(faults, one.path, Range="bytes=5-14")
    assert headers["Content-Type"].startswith("multipart/byteranges")
    assert "Content-Range" not in headers and one.body[5:15] in body


def raw_body(server, path):
    """(head, body, error) as the socket gives them."""
    host, port = server.host.split(":")
    with socket.create_connection((host, int(port)), 20) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        got, error = b"", None
        try:
            while chunk := sock.recv(65536):
                got += chunk
        except OSError as e:
            error = type(e)
    head, _, body = got.partition(b"\r\n\r\n")
    return head.decode(), body, error


def test_faults_bodies(faults, one):
    faults.rule("blob", reset_at=1000, times=1)
    assert raw_body(faults, one.path)[1:] == (one.body[:1000], ConnectionResetError)
    faults.clear()
    faults.rule("blob", short=10)
    head, body, error = raw_body(faults, one.path)
    assert "Content-Length: 300000" in head and body == one.body[:-10] and error is None
    faults.clear()
    faults.rule("blob", long=10, close=True)
    head, body, _ = raw_body(faults, one.path)
    assert "Content-Length: 300010" in head and len(body) == 300_010
    faults.clear()
    faults.rule("blob", trailing=10)
    head, body, _ = raw_body(faults, one.path)
    assert "Content-Length: 300000" in head and len(body) == 300_010
    faults.clear()
    faults.rule("blob", http10=True, content_length="none")
    head, body, _ = raw_body(faults, one.path)
    assert head.startswith("HTTP/1.0 200") and "Content-Length" not in head and body == one.body
    faults.clear()
    faults.rule("blob", flip=[7, 299_999], times=1)
    body = fault_get(faults, one.path)[2]
    assert [i for i in range(300_000) if body[i] != one.body[i]] == [7, 299_999]
    faults.clear()
    faults.rule("blob", chunked=True)
    assert fault_get(faults, one.path)[2] == one.body
    faults.clear()
    faults.rule("blob", gzip=True)
    assert fault_get(faults, one.path)[1]["Content-Encoding"] == "gzip"


def test_faults_stalls_and_holds(faults, one):
    faults.rule("blob", stall_at=500, times=1)
    host, port = faults.host.split(":")
    sock = socket.create_connection((host, int(port)), 20)
    sock.sendall(f"GET {one.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert faults.wait(lambda f: f.stalled == 1)
    assert faults.requests[-1].sent == 500
    sock.close()
    assert faults.wait(lambda f: f.stalled == 0 and f.open == 0)
    faults.clear()
    go = threading.Event()
    faults.rule("blob", hold_at=(500, go))
    answers = []
    thread = threading.Thread(target=lambda: answers.append(fault_get(faults, one.path)[2]))
    thread.start()
    assert faults.wait(lambda f: f.stalled == 1)
    go.set()
    thread.join(20)
    assert answers == [one.body]
    faults.clear()
    faults.rule("blob", rate=400_000)
    began = time.monotonic()
    assert fault_get(faults, one.path)[2] == one.body
    assert time.monotonic() - began > 0.5


def test_faults_statuses(faults, one):
    faults.rule("blob", status=429, error="TOOMANYREQUESTS", retry_after="date+3", times=1)
    faults.rule("blob", status=503, retry_after=1, nth=2)
    status, headers, body = fault_get(faults, one.path)
    assert status == 429 and headers["Retry-After"].endswith("GMT") and b"TOOMANY" in body
    status, headers, _ = fault_get(faults, one.path)
    assert (status, headers["Retry-After"]) == (503, "1")
    assert fault_get(faults, one.path)[0] == 200


def test_faults_redirects(faults, stranger, one):
    faults.rule("blob", redirect=lambda r: stranger.base + r.target)
    status, headers, _ = fault_get(faults, one.path, Authorization="Bearer x")
    assert status == 307 and not stranger.leaks()
    fault_get(stranger, headers["Location"].removeprefix(stranger.base), Authorization="Bearer x")
    assert len(stranger.leaks()) == 1
    faults.clear()
    faults.rule("blob", redirect=lambda r: faults.hops(3, r))
    target, seen = one.path, 0
    while True:
        status, headers, body = fault_get(faults, target)
        if status != 307:
            break
        seen += 1
        target = headers["Location"].removeprefix(faults.base)
    assert (seen, status, body) == (3, 200, one.body)
    faults.clear()
    faults.rule("blob", redirect=Presign(stranger, uses=2))
    target = fault_get(faults, one.path)[1]["Location"].removeprefix(stranger.base)
    assert "X-Amz-Expires" in target
    assert [fault_get(stranger, target, Range="bytes=0-1")[0] for _ in range(3)] == [206, 206, 403]
    first = faults.loop().removeprefix(faults.base)
    assert fault_get(faults, first)[0] == 307


def test_faults_auth(faults, one, tmp_path):
    faults.auth_bearer(users={"u": "p"}, uses=2)
    status, headers, _ = fault_get(faults, one.path)
    assert status == 401 and ":pull" in headers["WWW-Authenticate"]
    command("oras", "pull", "--plain-http", "-u", "u", "-p", "p", "--no-tty", one.ref, cwd=tmp_path)
    assert (tmp_path / "w").read_bytes() == one.body
    assert faults.tokens >= 1
    faults.auth_basic({"u": "p"})
    assert fault_get(faults, one.path)[0] == 401
    assert fault_get(faults, one.path, Authorization="Basic dTpw")[0] == 200


def test_faults_over_tls(faults_tls, authority, tmp_path):
    body = data(5, 100_000)
    art = faults_tls.artifact({"w": body})
    command("oras", "pull", "--ca-file", authority.ca, "--no-tty", art.ref, cwd=tmp_path)
    assert (tmp_path / "w").read_bytes() == body


def test_faults_endless_manifest(faults):
    faults.manifest(b"{", tag="v1")
    faults.rule("manifest", forever=True)
    host, port = faults.host.split(":")
    with socket.create_connection((host, int(port)), 20) as sock:
        sock.sendall(b"GET /v2/x/manifests/v1 HTTP/1.1\r\nHost: x\r\n\r\n")
        got = 0
        while got < 20 << 20:
            got += len(sock.recv(1 << 20))
    assert faults.wait(lambda f: f.open == 0)


def test_faults_unknown_action_is_an_error():
    with FaultServer() as server, pytest.raises(TypeError):
        server.rule("blob", resett_at=1)
