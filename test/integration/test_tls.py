# SPDX-License-Identifier: Apache-2.0
"""Verified TLS is the default; the only ways to less are --insecure and --plain-http, each said by
the user. Loopback is not special."""

import ssl
import time

import pytest

from faultserver import FaultServer
from lib import oci
from lib.certs import Authority, Pair
from lib.content import Content, data
from lib.look import holds, last_words, nothing_published
from lib.registry import Nginx, Registry
from lib.relay import Relay

MIB = 1 << 20


@pytest.fixture(scope="module")
def sample(registry):
    files = {"config.json": b"{}", "w.bin": Content(3, 24 * MIB)}
    return oci.push(registry, "tls/model", "v1", files), files


@pytest.mark.parametrize("name", ["registry_tls", "nginx_tls12", "nginx_tls13"])
def test_private_ca(request, sample, fetcher, dest, name):
    server = request.getfixturevalue(name)
    p, files = sample
    fetcher("pull", "--ca-file", server.ca, "--range-size", "1MiB", p.on(server), dest).ok()
    holds(dest, files)
    if name != "registry_tls":
        log = server.requests(until=lambda seen: len(seen) > 20)
        used = {r["tls"].split()[0] for r in log}
        assert used == {"TLSv1." + name[-1]}
        assert all("GCM" in r["tls"] or "CHACHA20" in r["tls"] for r in log)


def test_aes_gcm_first_where_the_cpu_has_aes(sample, fetcher, nginx_tls13, dest):
    with open("/proc/cpuinfo") as f:
        if " aes" not in f.read():
            pytest.skip("this CPU has no AES instructions")
    p, _ = sample
    before = len(nginx_tls13.requests())
    fetcher("pull", "--ca-file", nginx_tls13.ca, p.on(nginx_tls13), dest).ok()
    log = nginx_tls13.requests(until=lambda seen: len(seen) > before)[before:]
    assert all("AES" in r["tls"] for r in log), log[:3]


def test_more_than_one_connection(sample, fetcher, nginx_tls13, dest):
    p, files = sample
    with Relay(nginx_tls13, limit=20 * MIB) as wire:
        fetcher("pull", "--ca-file", nginx_tls13.ca, "--range-size", "1MiB", p.on(wire), dest).ok()
        assert wire.open_max >= 3
        assert wire.down < 24 * MIB * 1.3
    holds(dest, files)


def test_rsa_certificate(start, authority, registry, sample, fetcher, dest):
    server = start(Nginx, "nginx-rsa", proxy=registry.url, tls=authority.issue("rsa", rsa=True),
                   ca=authority.ca)
    p, files = sample
    fetcher("pull", "--ca-file", authority.ca, p.on(server), dest).ok()
    holds(dest, files)


def test_ssl_cert_file_variable(sample, registry_tls, fetcher, dest):
    p, _ = sample
    fetcher("pull", p.on(registry_tls), dest, env={"SSL_CERT_FILE": str(registry_tls.ca)}).ok()


def test_ssl_cert_dir_variable(sample, registry_tls, fetcher, dest, tmp_path):
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "our-ca.pem").write_bytes(registry_tls.ca.read_bytes())
    p, _ = sample
    fetcher("pull", p.on(registry_tls), dest, env={"SSL_CERT_DIR": str(tmp_path / "certs")}).ok()


def test_unknown_ca_is_refused(sample, registry_tls, fetcher, dest):
    """At once: trying again does not help. The message says what would."""
    p, _ = sample
    words = last_words(fetcher("pull", p.on(registry_tls), dest, timeout=20).exits(30))
    assert "certificate" in words and "--ca-file" in words
    nothing_published(dest)


def test_ca_file_replaces_every_other_source(sample, registry_tls, fetcher, dest, tmp_path):
    other = Authority(tmp_path / "other", "another CA")
    p, _ = sample
    fetcher("pull", "--ca-file", other.ca, p.on(registry_tls), dest,
            env={"SSL_CERT_FILE": str(registry_tls.ca)}, timeout=20).exits(30)


@pytest.mark.parametrize("how", ["expired", "name", "self-signed", "client-only"])
def test_bad_certificates(start, authority, registry, sample, fetcher, dest, tmp_path, how):
    pair = {"expired": lambda: authority.issue("late", expired=True),
            "name": lambda: authority.issue("other-name", san="DNS:elsewhere.test"),
            "self-signed": lambda: Authority(tmp_path / "x").issue("self"),
            "client-only": lambda: authority.issue("client-only", client=True)}[how]()
    server = start(Nginx, "nginx-bad-" + how, proxy=registry.url, tls=pair)
    p, files = sample
    words = last_words(fetcher("pull", "--ca-file", authority.ca, p.on(server), dest, timeout=20)
                       .exits(30))
    assert "certificate" in words
    nothing_published(dest)
    r = fetcher("pull", "--insecure", p.on(server), dest).ok()
    assert any(x["level"] == "warn" and "insecure" in x["msg"].lower() for x in r.log), r
    holds(dest, files)


# -- what is said of a certificate that is refused ------------------------------------------------


def refused(start, registry, sample, fetcher, dest, name, pair, *flags):
    server = start(Nginx, "nginx-says-" + name, proxy=registry.url, tls=pair)
    words = last_words(fetcher("pull", *flags, sample[0].on(server), dest, timeout=20).exits(30))
    assert "certificate" in words
    return words


def test_expired_says_when_and_what_time_it_is_here(start, authority, registry, sample, fetcher, dest):
    words = refused(start, registry, sample, fetcher, dest, "expired", authority.issue("old", expired=True),
                    "--ca-file", authority.ca)
    now = time.strftime("%Y-%m-%dT", time.gmtime())
    assert "expired" in words and "2020-02-01T00:00:00Z" in words and now in words and "clock" in words
    assert "--ca-file" not in words


def test_not_yet_valid_says_from_when(start, authority, registry, sample, fetcher, dest):
    """On a node whose clock stands in the past every certificate is of the future."""
    words = refused(start, registry, sample, fetcher, dest, "future", authority.issue("young", future=True),
                    "--ca-file", authority.ca)
    assert "not yet valid" in words and "2090-01-01T00:00:00Z" in words and "clock" in words


def test_wrong_host_says_which_names_there_are(start, authority, registry, sample, fetcher, dest):
    pair = authority.issue("elsewhere", san="DNS:elsewhere.test,DNS:*.models.test,IP:10.1.2.3,IP:fd00::7")
    words = refused(start, registry, sample, fetcher, dest, "host", pair, "--ca-file", authority.ca)
    for name in ("elsewhere.test", "*.models.test", "10.1.2.3", "fd00::7"):
        assert name in words


def test_many_names_are_cut(start, authority, registry, sample, fetcher, dest):
    pair = authority.issue("many", san=",".join(f"DNS:n{i}.test" for i in range(50)))
    words = refused(start, registry, sample, fetcher, dest, "many", pair, "--ca-file", authority.ca)
    assert "n0.test" in words and "n40.test" not in words and "..." in words and "one of its names" in words


def test_names_of_a_certificate_are_not_believed(start, authority, registry, sample, fetcher, dest):
    """Escape sequences in a name reach neither terminal nor log."""
    pair = authority.issue("esc", san="DNS:a\x1b[31mred.test")
    words = refused(start, registry, sample, fetcher, dest, "esc", pair, "--ca-file", authority.ca)
    assert "\x1b" not in words and "red.test" in words


def test_unknown_ca_is_named(start, registry, sample, fetcher, dest, tmp_path, authority):
    other = Authority(tmp_path / "x", "Somebody's Own CA")
    words = refused(start, registry, sample, fetcher, dest, "unknown", other.issue("server"),
                    "--ca-file", authority.ca)
    assert "Somebody's Own CA" in words and "--ca-file" in words and "--extra-ca-file" in words
    assert str(authority.ca) in words


def test_self_signed_is_said(start, registry, sample, fetcher, dest, tmp_path):
    own = Authority(tmp_path / "x", "lonely")
    words = refused(start, registry, sample, fetcher, dest, "self", Pair(own.ca, own.key))
    assert "self-signed" in words and "lonely" in words


def test_chain_whose_root_is_not_trusted(start, registry, sample, fetcher, dest, tmp_path, authority):
    other = Authority(tmp_path / "x", "Unknown Root")
    pair = other.issue("server")
    chain = tmp_path / "chain.pem"
    chain.write_bytes(pair.cert.read_bytes() + other.ca.read_bytes())
    words = refused(start, registry, sample, fetcher, dest, "chain", Pair(chain, pair.key), "--ca-file", authority.ca)
    assert "Unknown Root" in words


def test_a_plain_http_server_is_told_at_once(sample, fetcher, dest):
    words = last_words(fetcher("pull", sample[0].ref, dest, timeout=20).exits(30))
    assert "does not speak TLS" in words and "--plain-http" in words


# -- CAs beside the others; versions --------------------------------------------------------------


def test_extra_ca_file(registry_tls, sample, fetcher, dest, tmp_path):
    """Added to the built-in ones, to --ca-file, to SSL_CERT_FILE; several."""
    other = Authority(tmp_path / "other", "another CA")
    p, files = sample
    fetcher("pull", "--extra-ca-file", other.ca, "--extra-ca-file", registry_tls.ca, p.on(registry_tls), dest).ok()
    fetcher("resolve", "--ca-file", other.ca, "--extra-ca-file", registry_tls.ca, p.on(registry_tls)).ok()
    fetcher("resolve", "--ca-file", registry_tls.ca, "--extra-ca-file", other.ca, p.on(registry_tls)).ok()
    fetcher("resolve", p.on(registry_tls), env={"SSL_CERT_FILE": str(other.ca),
                                                "FETCHER_EXTRA_CA_FILE": str(registry_tls.ca)}).ok()
    fetcher("resolve", "--extra-ca-file", other.ca, p.on(registry_tls), timeout=20).exits(30)
    holds(dest, files)


@pytest.mark.parametrize("flag", ["--extra-ca-file", "--proxy-ca-file"])
def test_ca_files_that_are_none(registry_tls, sample, fetcher, dest, tmp_path, flag):
    for path in (tmp_path / "missing.pem", tmp_path):
        words = last_words(fetcher("pull", flag, path, sample[0].on(registry_tls), dest).exits(2))
        assert str(path) in words


def test_tls_min(nginx_tls12, nginx_tls13, authority, sample, fetcher, dest):
    p, files = sample
    flags = ["--ca-file", authority.ca, "--tls-min", "1.3", "--retry-timeout", "500ms"]
    words = last_words(fetcher("pull", *flags, p.on(nginx_tls12), dest, timeout=20).exits(30))
    assert "TLS" in words and "1.3" in words and "--tls-min" in words
    fetcher("pull", *flags, p.on(nginx_tls13), dest).ok()
    fetcher("pull", "--ca-file", authority.ca, "--tls-min", "1.2", p.on(nginx_tls12), str(dest) + "2").ok()
    fetcher("pull", "--tls-min", "1.1", p.on(nginx_tls12), dest).exits(2)
    holds(dest, files)


def test_client_certificate_that_a_handshake_demands(authority, server_pair, faults, fetcher, dest):
    """As Go's servers do it: the alert comes in the handshake (1.2) or with the first answer (1.3)."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*server_pair)
        context.load_verify_locations(authority.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = context.maximum_version = version
        with FaultServer(store=faults.store, tls=context) as server:
            art = server.artifact({"a": b"x"})
            words = last_words(fetcher("pull", "--ca-file", authority.ca, "--retry-timeout", "3s", art.ref, dest,
                                       timeout=30).exits(30))
        assert "client certificate" in words and "--cert-file" in words, (version, words)


@pytest.mark.parametrize("location", ["ftp://x/y", "file:///etc/passwd", "https://u:p@127.0.0.1/y", "//", "gopher://x/"])
def test_redirect_to_another_scheme_is_refused(faults_tls, authority, fetcher, dest, location):
    """[O29] [K30]"""
    art = faults_tls.artifact({"a": data(1, 1000)})
    faults_tls.rule("blob", redirect=location)
    fetcher("pull", "--ca-file", authority.ca, "--retry-timeout", "500ms", art.ref, dest, timeout=20).exits(30)
    nothing_published(dest)


def test_insecure_is_logged_on_every_run(sample, registry_tls, fetcher, dest):
    p, _ = sample
    for _ in range(2):
        r = fetcher("pull", "--insecure", "--quiet", p.on(registry_tls), dest).ok()
        assert any(x["level"] == "warn" and "insecure" in x["msg"].lower() for x in r.log), r
    r = fetcher("resolve", p.on(registry_tls), env={"FETCHER_INSECURE": "true"}).ok()
    assert "insecure" in r.err.lower()


def test_insecure_does_not_mean_plain_http(sample, fetcher, dest):
    fetcher("pull", "--insecure", "--retry-timeout", "500ms", sample[0].ref, dest).exits(30)


def test_plain_http_is_refused_without_the_flag(sample, wire, fetcher, dest):
    """Also on loopback: nothing but a TLS hello goes there, and the message names the flag."""
    words = last_words(fetcher("pull", sample[0].on(wire), dest, timeout=20).exits(30))
    assert "--plain-http" in words
    assert wire.requests == [] or {r.method for r in wire.requests}.isdisjoint({"GET", "HEAD"})
    nothing_published(dest)


def test_plain_http_server_that_waits(faults, fetcher, dest):
    """It reads the TLS hello as the start of a request and waits for the rest."""
    art = faults.artifact({"a": b"x"})
    r = fetcher("pull", "--connect-timeout", "500ms", "--retry-timeout", "500ms", art.ref, dest)
    assert r.rc in (30, 31), r
    assert faults.requests == []


def test_plain_http_to_a_tls_server(sample, registry_tls, fetcher, dest):
    r = fetcher.pull(sample[0].on(registry_tls), dest, "--retry-timeout", "500ms")
    assert r.rc == 30, r


def test_the_man_in_the_middle_sees_no_credentials(faults, authority, fetcher, dest, tmp_path):
    other = Authority(tmp_path / "mitm", "mitm").issue("server")
    secret = tmp_path / "pw"
    secret.write_text("secret")
    with FaultServer(store=faults.store, tls=tuple(other)) as middle:
        art = middle.artifact({"a": b"x"})
        fetcher("pull", "--ca-file", authority.ca, "--username", "u", "--password-file", secret,
                art.ref, dest, "--retry-timeout", "500ms").exits(30)
        assert middle.requests == []


@pytest.mark.parametrize("kind", ["blob", "manifest"])
def test_redirect_from_https_to_http_is_refused(faults_tls, authority, fetcher, dest, kind):
    """[O29] [K30]"""
    with FaultServer(store=faults_tls.store) as plain:
        art = faults_tls.artifact({"a": data(1, 100_000)})
        faults_tls.rule(kind, redirect=lambda r: plain.base + r.target)
        fetcher("pull", "--ca-file", authority.ca, "--retry-timeout", "500ms", art.ref, dest
                ).exits(30)
        assert plain.requests == []
    nothing_published(dest)


def test_plain_http_flag_does_not_allow_the_downgrade(faults_tls, faults, authority, fetcher, dest):
    """--plain-http is about the registry named; a redirect from https stays https."""
    faults.artifact({"a": data(1, 1000)})
    faults_tls.store.blobs.update(faults.blobs)
    faults.rule("blob", redirect=lambda r: faults_tls.base + r.target)
    faults_tls.rule("blob", redirect=lambda r: faults.base + r.target + "?down=1")
    fetcher.pull(faults.ref(), dest, "--ca-file", authority.ca, "--retry-timeout", "500ms").exits(30)
    assert not [r for r in faults.requests if "down" in r.query]


def test_redirect_from_http_to_https_is_followed(faults, faults_tls, authority, fetcher, dest):
    """[O29]"""
    art = faults.artifact({"a": data(1, 1000)})
    faults_tls.store.blobs.update(faults.blobs)
    faults.rule("blob", redirect=lambda r: faults_tls.base + r.target)
    fetcher.pull(art.ref, dest, "--ca-file", authority.ca).ok()
    holds(dest, {"a": data(1, 1000)})


# -- client certificates -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mutual(start, authority, registry, server_pair):
    return start(Nginx, "nginx-mtls", proxy=registry.url, tls=server_pair, ca=authority.ca,
                 client_ca=authority.ca)


@pytest.mark.parametrize("rsa", [False, True])
def test_client_certificate(mutual, authority, sample, fetcher, dest, rsa):
    cert, key = authority.issue(f"client-{rsa}", client=True, san=None, rsa=rsa)
    p, files = sample
    fetcher("pull", "--ca-file", authority.ca, "--cert-file", cert, "--key-file", key,
            p.on(mutual), dest).ok()
    holds(dest, files)


def test_client_certificate_is_missing(mutual, authority, sample, fetcher, dest):
    r = fetcher("pull", "--ca-file", authority.ca, "--retry-timeout", "500ms",
                sample[0].on(mutual), dest)
    assert r.rc in (20, 30), r
    nothing_published(dest)


def test_client_certificate_of_a_stranger(mutual, authority, sample, fetcher, dest, tmp_path):
    cert, key = Authority(tmp_path / "x").issue("client", client=True, san=None)
    r = fetcher("pull", "--ca-file", authority.ca, "--cert-file", cert, "--key-file", key,
                "--retry-timeout", "500ms", sample[0].on(mutual), dest)
    assert r.rc in (20, 30), r


@pytest.mark.parametrize("flag", ["--ca-file", "--cert-file", "--key-file"])
@pytest.mark.parametrize("what", ["missing", "empty", "text", "folder"])
def test_files_that_are_none(mutual, authority, sample, fetcher, dest, tmp_path, flag, what):
    """A source that was named and cannot be used is a configuration error, no fall-back."""
    cert, key = authority.issue("client-ok", client=True, san=None)
    path = tmp_path / "f.pem"
    if what == "folder":
        path.mkdir()
    elif what != "missing":
        path.write_text("" if what == "empty" else "this is no certificate\n")
    use = {"--ca-file": authority.ca, "--cert-file": cert, "--key-file": key, flag: path}
    args = [str(x) for pair in use.items() for x in pair]
    words = last_words(fetcher("pull", *args, sample[0].on(mutual), dest).exits(2))
    assert str(path) in words


def test_client_certificate_is_not_shown_to_redirect_targets(faults_tls, authority, server_pair,
                                                             fetcher, dest):
    """It names the user; storage on another origin has no business with it. [K30]"""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*server_pair)
    context.load_verify_locations(authority.ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    cert, key = authority.issue("client-redirect", client=True, san=None)
    seen = []
    with FaultServer(store=faults_tls.store, tls=context) as storage:
        art = faults_tls.artifact({"a": data(1, 1000)})
        faults_tls.rule("blob", redirect=lambda r: storage.base + r.target)

        def look(request, reply):
            with storage._changed:
                seen.extend(s.getpeercert() for s in storage._sockets
                            if isinstance(s, ssl.SSLSocket))
        storage.rule("blob", handler=look)
        fetcher("pull", "--ca-file", authority.ca, "--cert-file", cert, "--key-file", key, art.ref,
                dest).ok()
    assert seen and not any(seen)


# -- broken in the middle ------------------------------------------------------------------------


def test_resets_and_stalls_over_tls(faults_tls, authority, fetcher, dest):
    body = data(9, 6 * MIB)
    art = faults_tls.artifact({"w": body})
    faults_tls.rule("blob", nth={1, 4, 7}, close_at=100_000)
    faults_tls.rule("blob", nth={2, 5}, stall_at=50_000)
    fetcher("pull", "--ca-file", authority.ca, "--range-size", "512KiB", "--stall-timeout", "500ms",
            art.ref, dest).ok()
    holds(dest, {"w": body})


def test_server_that_speaks_tls_1_1_only(start, authority, registry, server_pair, sample, fetcher,
                                         dest):
    server = start(Nginx, "nginx-old", proxy=registry.url, tls=server_pair, ca=authority.ca,
                   protocols="TLSv1 TLSv1.1")
    r = fetcher("pull", "--ca-file", authority.ca, "--retry-timeout", "500ms",
                sample[0].on(server), dest)
    assert r.rc == 30, r
    assert "TLS 1.2" in last_words(r)


def test_tls_with_password(start, authority, server_pair, fetcher, dest, tmp_path):
    """The usual private registry: TLS by a private CA, and a user."""
    server = start(Registry, "registry-tls-users", tls=server_pair, ca=authority.ca,
                   users={"alice": "pw"})
    p = oci.push(server, "tls/private", "v1", {"w": data(4, MIB)})
    config = server.docker_config(tmp_path / "c.json")
    fetcher("pull", "--ca-file", authority.ca, "--registry-config", config, p.ref, dest).ok()
    holds(dest, {"w": data(4, MIB)})
