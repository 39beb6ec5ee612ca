# SPDX-License-Identifier: Apache-2.0
"""Proxies by the environment, and what they may see. [O42] [K33]"""

import base64
import json

import pytest

from faultserver import FaultServer
from lib import oci
from lib.certs import Authority
from lib.content import Content, data
from lib.look import holds, last_words, nothing_published
from lib.proc import free_port
from lib.proxy import Proxy, Tinyproxy
from lib.registry import Nginx, Registry

MIB = 1 << 20
NAME = "registry.test"
NAMES = {NAME: "127.0.0.1"}
PASSWORD = "s3cret%2Fpart"  # decoded: s3cret/part


@pytest.fixture(scope="module")
def sample(registry):
    files = {"config.json": b"{}", "w.bin": Content(3, 12 * MIB)}
    return oci.push(registry, "proxy/model", "v1", files), files


@pytest.fixture(scope="module")
def named_pair(authority):
    return authority.issue("named", san=f"DNS:{NAME}")


@pytest.fixture(scope="module")
def secure(start, registry, authority, named_pair):
    """nginx with TLS before `registry`, as registry.test."""
    return start(Nginx, "nginx-named", proxy=registry.url, tls=named_pair, ca=authority.ca)


def port(server):
    return server.host.rpartition(":")[2]


def at_name(server, pushed):
    return f"{NAME}:{server.host.rpartition(':')[2]}/{pushed.ref.split('/', 1)[1]}"


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_plain_http_goes_in_absolute_form(registry, sample, fetcher, dest, variable):
    """[O42] [K33]"""
    p, files = sample
    with Proxy(NAMES) as proxy:
        fetcher.pull(at_name(registry, p), dest, env={variable: proxy.url}).ok()
        assert proxy.lines() and all(f"http://{NAME}:" in line for line in proxy.lines())
        assert not proxy.lines("CONNECT")
        assert not any("proxy-authorization" in h for _, h in proxy.seen)
    holds(dest, files)


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_https_goes_through_a_tunnel(secure, sample, authority, fetcher, dest, variable):
    """[O42] [K33]"""
    p, files = sample
    with Proxy(NAMES) as proxy:
        fetcher("pull", "--ca-file", authority.ca, at_name(secure, p), dest,
                env={variable: proxy.url}).ok()
        assert proxy.lines() == proxy.lines(f"CONNECT {NAME}:")
    holds(dest, files)


def test_the_value_may_lack_the_scheme(registry, sample, fetcher, dest):
    with Proxy(NAMES) as proxy:
        fetcher.pull(at_name(registry, sample[0]), dest, env={"http_proxy": proxy.host}).ok()
        assert proxy.lines()


def test_each_scheme_has_its_variable(registry, sample, fetcher):
    with Proxy(NAMES) as proxy:
        fetcher("resolve", "--plain-http", "--retry-timeout", "300ms", "--resolve",
                f"{NAME}:*:127.0.0.1", at_name(registry, sample[0]),
                env={"https_proxy": proxy.url}).ok()
        assert proxy.seen == []


def test_lower_case_and_the_own_variable_come_first(registry, sample, fetcher):
    dead = f"http://127.0.0.1:{free_port()}"
    with Proxy(NAMES) as proxy:
        fetcher("resolve", "--plain-http", at_name(registry, sample[0]),
                env={"http_proxy": proxy.url, "HTTP_PROXY": dead, "all_proxy": dead}).ok()
        assert proxy.lines()


def test_upper_case_is_not_believed_under_cgi(registry, sample, fetcher):
    """httpoxy: there a visitor sets HTTP_PROXY."""
    with Proxy(NAMES) as proxy:
        fetcher("resolve", "--plain-http", "--resolve", f"{NAME}:*:127.0.0.1",
                at_name(registry, sample[0]),
                env={"HTTP_PROXY": proxy.url, "REQUEST_METHOD": "GET"}).ok()
        assert proxy.seen == []


@pytest.mark.parametrize("list", ["*", NAME, ".test", "other.example, .registry.test ,x",
                                  "a b registry.test", "{name}:{port}", "REGISTRY.TEST."])
@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
def test_no_proxy(registry, sample, fetcher, variable, list):
    """[K33] More forms, and those that do not match, in test/unit/test_proxy.c."""
    port = registry.host.rpartition(":")[2]
    with Proxy(NAMES) as proxy:
        fetcher("resolve", "--plain-http", "--resolve", f"{NAME}:{port}:127.0.0.1",
                at_name(registry, sample[0]),
                env={"http_proxy": proxy.url,
                     variable: list.replace("{name}", NAME).replace("{port}", port)}).ok()
        assert proxy.seen == []


def test_loopback_needs_no_entry(registry, sample, fetcher):
    with Proxy() as proxy:
        for host in ("127.0.0.1", "localhost"):
            fetcher("resolve", "--plain-http", at_name(registry, sample[0]).replace(NAME, host),
                    env={"http_proxy": proxy.url}).ok()
        assert proxy.seen == []


# -- credentials ---------------------------------------------------------------------------------


def test_user_and_password_of_the_url(registry, secure, authority, sample, fetcher, dest):
    """Basic, decoded; and they are in no line of the log."""
    p, files = sample
    with Proxy(NAMES, user=("bob", "s3cret/part")) as proxy:
        url = proxy.url_with("bob", PASSWORD)
        runs = [fetcher.pull(at_name(registry, p), dest, "-v", env={"http_proxy": url}).ok(),
                fetcher("pull", "-v", "--ca-file", authority.ca, at_name(secure, p),
                        str(dest) + "2", env={"https_proxy": url}).ok()]
        assert all("proxy-authorization" in h for _, h in proxy.seen)
    for r in runs:
        assert "s3cret" not in r.err and "bob" not in r.err
    holds(dest, files)


@pytest.mark.parametrize("user", [None, ("bob", "wrong-guess")])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_407_names_the_proxy_and_its_variable(registry, secure, authority, sample, fetcher, dest,
                                              scheme, user):
    server = registry if scheme == "http" else secure
    with Proxy(NAMES, user=("bob", "right")) as proxy:
        url = proxy.url_with(*user) if user else proxy.url
        flags = ["--plain-http"] if scheme == "http" else ["--ca-file", authority.ca]
        r = fetcher("pull", "-v", *flags, at_name(server, sample[0]), dest,
                    env={f"{scheme}_proxy": url}, timeout=20).exits(20)
    words = last_words(r)
    assert "407" in words and proxy.host in words and f"{scheme}_proxy" in words
    assert "wrong-guess" not in r.err
    nothing_published(dest)


def test_a_proxy_of_https_sees_no_credentials(start, authority, named_pair, sample, fetcher, dest, tmp_path):
    """[O42] Neither Authorization nor anything else of the request; the registry sees it."""
    server = start(Registry, "registry-named-users", tls=named_pair, ca=authority.ca,
                   users={"alice": "open sesame"})
    context = {"SSL_CERT_FILE": str(authority.ca)}
    port = server.host.rpartition(":")[2]
    auth = base64.b64encode(b"alice:open sesame").decode()
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": {f"{NAME}:{port}": {"auth": auth}}}))
    with Proxy(NAMES) as proxy:
        r = fetcher("resolve", "-v", "--registry-config", config, f"{NAME}:{port}/no/such:v1",
                    env={"https_proxy": proxy.url, **context}).exits(21)
        for line, headers in proxy.seen:
            assert line.startswith("CONNECT ")
            assert set(headers) <= {"host", "user-agent", "proxy-connection"}, headers
    assert auth not in r.err


def test_the_proxys_password_goes_to_that_proxy_alone(faults, authority, named_pair, fetcher, dest):
    """Not through the tunnel, not to a host that is reached directly, not to another proxy; the same connections serve all."""
    body = data(5, 4 * MIB)
    with FaultServer(store=faults.store, tls=tuple(named_pair)) as secure, FaultServer(store=faults.store) as direct, \
            Proxy(NAMES, user=("bob", "s3cret")) as mine, Proxy(NAMES) as other:
        faults.artifact({"a": body, "b": body[:MIB]})
        faults.rule(faults.artifact({"a": body}).digest_of("a"), redirect=lambda r: f"http://direct.test:{port(direct)}{r.target}")
        faults.rule(faults.artifact({"b": body[:MIB]}).digest_of("b"),
                    redirect=lambda r: f"https://{NAME}:{port(secure)}{r.target}")
        ref = faults.artifact({"a": body, "b": body[:MIB]}).ref
        for number, tunnel in enumerate((other, mine)):
            url = mine.url_with("bob", "s3cret") if tunnel is mine else tunnel.url
            env = {"http_proxy": mine.url_with("bob", "s3cret"), "https_proxy": url, "no_proxy": "direct.test"}
            fetcher.pull(ref.replace("127.0.0.1", NAME), f"{dest}{number}", "--range-size", "256KiB", "--concurrency", "2",
                         "--ca-file", authority.ca, "--resolve", "direct.test:*:127.0.0.1", env=env).ok()
        assert other.lines("CONNECT") and mine.lines("CONNECT")
        assert not any("proxy-authorization" in h for _, h in other.seen)
        for server in (faults, secure, direct):
            assert server.requests and not any("proxy-authorization" in r.headers for r in server.requests)


@pytest.fixture(scope="module")
def mutual(start, authority, registry, named_pair):
    return start(Nginx, "nginx-named-mtls", proxy=registry.url, tls=named_pair, ca=authority.ca,
                 client_ca=authority.ca)


def test_the_client_certificate_is_not_for_an_https_proxy(mutual, authority, sample, fetcher, dest,
                                                          server_pair):
    """[O42] GHSA-h3wm-jjqf-8jm2: the proxy asks for one and gets none; the registry behind it does."""
    cert, key = authority.issue("client-proxy", client=True, san=None)
    p, files = sample
    with Proxy(NAMES, tls=tuple(server_pair), client_ca=str(authority.ca)) as proxy:
        fetcher("pull", "--ca-file", authority.ca, "--cert-file", cert, "--key-file", key,
                at_name(mutual, p), dest, env={"https_proxy": proxy.url}).ok()
        assert proxy.certificates and not any(proxy.certificates)
    holds(dest, files)


# -- trust ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_https_proxy_with_a_ca_of_its_own(registry, secure, authority, sample, fetcher, dest, tmp_path, scheme):
    other = Authority(tmp_path / "proxy-ca", "the proxy's CA")
    p, files = sample
    server = registry if scheme == "http" else secure
    flags = ["--plain-http"] if scheme == "http" else ["--ca-file", authority.ca]
    with Proxy(NAMES, tls=tuple(other.issue("proxy"))) as proxy:
        env = {f"{scheme}_proxy": proxy.url}
        words = last_words(fetcher("pull", *flags, at_name(server, p), dest, env=env,
                                   timeout=20).exits(30))
        assert "the proxy's CA" in words and "--proxy-ca-file" in words and proxy.host in words
        assert proxy.seen == []
        fetcher("pull", *flags, "--proxy-ca-file", other.ca, at_name(server, p), dest, env=env).ok()
        assert proxy.lines()
        # --insecure is about the registry
        fetcher("pull", *flags, "--insecure", at_name(server, p), dest, env=env, timeout=20).exits(30)
    holds(dest, files)


def test_a_proxy_that_looks_into_tls(secure, authority, sample, fetcher, dest, tmp_path):
    """dfdaemon terminates every CONNECT with a leaf of its own CA: --extra-ca-file."""
    middle = Authority(tmp_path / "middle", "dfdaemon CA")
    p, files = sample
    with Proxy(NAMES, intercept=middle) as proxy:
        env = {"https_proxy": proxy.url}
        words = last_words(fetcher("pull", "--ca-file", authority.ca, at_name(secure, p), dest, env=env,
                                   timeout=20).exits(30))
        assert "dfdaemon CA" in words and "--extra-ca-file" in words and "looks into TLS" in words
        fetcher("pull", "--ca-file", authority.ca, "--extra-ca-file", middle.ca, at_name(secure, p), dest,
                env=env).ok()
    holds(dest, files)


# -- trouble -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_that_is_not_there(registry, secure, authority, sample, fetcher, dest, scheme):
    server = registry if scheme == "http" else secure
    where = f"127.0.0.1:{free_port()}"
    flags = ["--plain-http"] if scheme == "http" else ["--ca-file", authority.ca]
    r = fetcher("pull", "-v", *flags, "--retry-timeout", "500ms", at_name(server, sample[0]), dest,
                env={f"{scheme}_proxy": f"http://bob:{PASSWORD}@{where}"}).exits(30)
    words = last_words(r)
    assert where in words and f"{scheme}_proxy" in words and "bob" not in r.err and "s3cret" not in r.err


def test_proxy_whose_name_is_unknown(sample, registry, fetcher, dest):
    r = fetcher.pull(at_name(registry, sample[0]), dest, "--retry-timeout", "500ms", "--dns-timeout", "3s",
                     env={"http_proxy": "http://bob:s3cret@proxy.invalid:3128"})
    assert r.rc in (30, 31), r
    assert "proxy.invalid" in last_words(r) and "http_proxy" in last_words(r) and "s3cret" not in r.err


@pytest.mark.parametrize("value", ["ftp://bob:s3cret@proxy:1", "http://", "http://bob:s3cret@[::1:3",
                                   "http://bob:s3cret%0d%0aX: y@proxy:1", "http://pro xy/"])
def test_variable_that_holds_no_proxy(sample, registry, fetcher, dest, value):
    r = fetcher.pull(at_name(registry, sample[0]), dest, "-v", env={"http_proxy": value}).exits(2)
    assert "http_proxy" in last_words(r) and "s3cret" not in r.err


def squid(status, reason):
    page = f"<html><head><title>ERROR: {reason}</title></head></html>".encode()
    return (f"HTTP/1.1 {status} {reason}\r\nServer: squid/5.7\r\nContent-Type: text/html\r\n"
            f"X-Squid-Error: ERR_ACCESS_DENIED 0\r\nContent-Length: {len(page)}\r\n"
            "Connection: close\r\n\r\n").encode() + page


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_403_of_the_proxy(registry, secure, authority, sample, fetcher, dest, scheme):
    server = registry if scheme == "http" else secure
    flags = ["--plain-http"] if scheme == "http" else ["--ca-file", authority.ca]
    with Proxy(NAMES, answer=lambda line: squid(403, "Forbidden")) as proxy:
        words = last_words(fetcher("pull", *flags, at_name(server, sample[0]), dest,
                                   env={f"{scheme}_proxy": proxy.url}, timeout=20).exits(20))
    assert "403" in words and proxy.host in words and f"{scheme}_proxy" in words
    assert scheme == "http" or "no_proxy" in words


def test_503_of_the_proxy_passes(secure, authority, sample, fetcher, dest):
    count = []
    p, files = sample

    def answer(line):
        count.append(line)
        return squid(503, "Service Unavailable") if len(count) <= 2 else None
    with Proxy(NAMES, answer=answer) as proxy:
        r = fetcher("pull", "--ca-file", authority.ca, at_name(secure, p), dest,
                    env={"https_proxy": proxy.url}).ok()
    assert any("503" in x["msg"] and proxy.host in x["msg"] for x in r.log if x["level"] == "warn")
    holds(dest, files)


# -- a real one ----------------------------------------------------------------------------------


def reachable(registry, pushed):
    """0.0.0.0 leads to this machine and is not called loopback."""
    return pushed.on(registry).replace("127.0.0.1", "0.0.0.0")


def test_tinyproxy(start, registry, sample, fetcher, dest):
    p, files = sample
    proxy = start(Tinyproxy, "tinyproxy")
    fetcher.pull(reachable(registry, p), dest, env={"http_proxy": proxy.url}).ok()
    holds(dest, files)
    assert "0.0.0.0" in proxy.log()


def test_tinyproxy_tunnel_and_password(start, registry, authority, sample, fetcher, dest):
    p, files = sample
    pair = authority.issue("any-address", san="IP:0.0.0.0")
    server = start(Nginx, "nginx-any", proxy=registry.url, tls=pair, ca=authority.ca)
    proxy = start(Tinyproxy, "tinyproxy-users", user=("bob", "right"))
    flags = ["--ca-file", authority.ca, reachable(server, p), dest]
    r = fetcher("pull", *flags, env={"https_proxy": proxy.url}, timeout=20).exits(20)
    assert proxy.host in last_words(r)
    fetcher("pull", *flags, env={"https_proxy": proxy.url.replace("//", "//bob:right@")}).ok()
    holds(dest, files)


def test_tinyproxy_that_does_not_allow_the_port(start, registry, authority, sample, fetcher, dest):
    proxy = start(Tinyproxy, "tinyproxy-ports", allow_ports=[443])
    r = fetcher("pull", "--ca-file", authority.ca, reachable(registry, sample[0]), dest,
                env={"https_proxy": proxy.url}, timeout=20).exits(20)
    assert "403" in last_words(r) and proxy.host in last_words(r)


def test_webhook_through_the_proxy(registry, sample, fetcher, dest):
    """The same rules hold for those who are told."""
    with Proxy(answer=lambda line: b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n") as proxy:
        fetcher.pull(sample[0].ref, dest, "--webhook-url", "http://server.test:8000/x", env={"http_proxy": proxy.url}).ok()
        assert proxy.lines("POST http://server.test:8000/x")
