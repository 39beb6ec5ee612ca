# SPDX-License-Identifier: Apache-2.0
"""Credentials: where they come from, where they go, where they must never go, and how tokens are
renewed while a pull runs."""

import base64
import json
import threading

import pytest

from faultserver import FaultServer
from lib import oci
from lib.content import Content, data
from lib.look import holds, last_words, nothing_published
from lib.registry import Registry
from lib.tokens import TokenServer

MIB = 1 << 20
SECRET = "correct horse"


def docker_config(auths, **more):
    return json.dumps({"auths": auths, **more})


def basic(user="alice", password=SECRET):
    return base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture(scope="module", params=["registry_htpasswd", "registry_token"])
def private(request):
    """The same artifact behind Basic and behind Bearer authorisation."""
    registry = request.getfixturevalue(request.param)
    files = {"config.json": b"{}", "w.bin": Content(3, 5 * MIB)}
    return oci.push(registry, "auth/model", "v1", files), files


@pytest.fixture
def config(private, tmp_path):
    """A docker config.json with the user of `private`."""
    return private[0].registry.docker_config(tmp_path / "credentials.json")


def check(r, private, dest):
    r.ok()
    holds(dest, private[1])
    assert SECRET not in r.err and basic() not in r.err


# -- where credentials come from -----------------------------------------------------------------


def test_registry_config(private, config, fetcher, dest):
    check(fetcher.pull(private[0].ref, dest, "--registry-config", config, "-v"), private, dest)


def test_docker_config_variable(private, config, fetcher, dest, tmp_path):
    folder = tmp_path / "docker"
    folder.mkdir()
    config.rename(folder / "config.json")
    check(fetcher.pull(private[0].ref, dest, env={"DOCKER_CONFIG": str(folder)}), private, dest)


def test_registry_auth_file_variable(private, config, fetcher, dest):
    env = {"REGISTRY_AUTH_FILE": str(config)}
    check(fetcher.pull(private[0].ref, dest, env=env), private, dest)


def test_home(private, config, fetcher, dest, tmp_path):
    (tmp_path / "home" / ".docker").mkdir(parents=True)
    config.rename(tmp_path / "home" / ".docker" / "config.json")
    check(fetcher.pull(private[0].ref, dest, env={"HOME": str(tmp_path / "home")}), private, dest)


def test_mounted_secret(private, config, fetcher, dest, tmp_path):
    """A Secret of type kubernetes.io/dockerconfigjson as it is mounted: links into ..data. [A13]"""
    mount = tmp_path / "secret"
    (mount / "..2026").mkdir(parents=True)
    config.rename(mount / "..2026" / ".dockerconfigjson")
    (mount / "..data").symlink_to("..2026")
    (mount / ".dockerconfigjson").symlink_to("..data/.dockerconfigjson")
    for number, how in enumerate((["--registry-config", mount],
                                  ["--registry-config", mount / ".dockerconfigjson"])):
        check(fetcher.pull(private[0].ref, dest / str(number), *how), private, dest / str(number))
    check(fetcher.pull(private[0].ref, dest / "env", env={"DOCKER_CONFIG": str(mount)}), private,
          dest / "env")


def test_username_and_password_file(private, fetcher, dest, tmp_path):
    for number, text in enumerate((SECRET, SECRET + "\n", SECRET + "\r\n")):
        secret = tmp_path / f"pw{number}"
        secret.write_bytes(text.encode())
        check(fetcher.pull(private[0].ref, dest / str(number), "--username", "alice",
                           "--password-file", secret), private, dest / str(number))


def test_given_name_wins_over_config(private, config, fetcher, dest, tmp_path):
    secret = tmp_path / "pw"
    secret.write_text("wrong")
    fetcher.pull(private[0].ref, dest, "--registry-config", config, "--username", "alice",
                 "--password-file", secret).exits(20)


def test_several_configs_in_order(private, config, fetcher, dest, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(docker_config({"elsewhere.example": {"auth": basic("x", "y")}}))
    check(fetcher.pull(private[0].ref, dest, "--registry-config", other, "--registry-config",
                       config), private, dest)


@pytest.mark.parametrize("key", ["{host}/auth/model", "{host}/auth", "http://{host}/v2/",
                                 "https://{host}"])
def test_keys_of_a_config(private, fetcher, dest, tmp_path, key):
    """[A12]"""
    path = tmp_path / "c.json"
    host = private[0].registry.host
    path.write_text(docker_config({key.format(host=host): {"auth": basic()},
                                   host + "/other": {"auth": basic("bob", "no")}}))
    check(fetcher.pull(private[0].ref, dest, "--registry-config", path), private, dest)


def test_fields_of_a_config(private, fetcher, dest, tmp_path):
    """username and password in the clear, as imagePullSecrets have them. [A12]"""
    path = tmp_path / "c.json"
    host = private[0].registry.host
    path.write_text(docker_config({host: {"username": "alice", "password": SECRET, "auth": ""}}))
    check(fetcher.pull(private[0].ref, dest, "--registry-config", path), private, dest)


def test_the_last_argument_is_not_the_password(private, fetcher, dest):
    r = fetcher.pull(private[0].ref, dest, "--password", SECRET).exits(2)
    assert SECRET not in r.err


# -- without, with wrong, with broken ones -------------------------------------------------------


def test_no_credentials(private, fetcher, dest):
    words = last_words(fetcher.pull(private[0].ref, dest).exits(20))
    assert "credentials" in words and "--registry-config" in words
    nothing_published(dest)


def test_wrong_password(private, fetcher, dest, tmp_path):
    secret = tmp_path / "pw"
    secret.write_text("hunter2")
    r = fetcher.pull(private[0].ref, dest, "--username", "alice", "--password-file", secret,
                     "-v").exits(20)
    assert "hunter2" not in r.err
    nothing_published(dest)


def swap_secret(mount, name, text):
    """A mounted Secret with one key, updated as the kubelet does it: a new directory, then ..data renamed over."""
    number = len(list(mount.glob("..2*"))) if mount.exists() else 0
    folder = mount / f"..2026_{number}"
    folder.mkdir(parents=True)
    (folder / name).write_text(text)
    (mount / "..data_tmp").symlink_to(folder.name)
    (mount / "..data_tmp").rename(mount / "..data")
    if not (mount / name).is_symlink():
        (mount / name).symlink_to(f"..data/{name}")


@pytest.mark.parametrize("how", ["folder", "file", "DOCKER_CONFIG"])
def test_mounted_legacy_secret(private, fetcher, dest, tmp_path, how):
    """A Secret of type kubernetes.io/dockercfg: a bare map under the key .dockercfg. [A13]"""
    mount = tmp_path / "secret"
    swap_secret(mount, ".dockercfg", json.dumps({private[0].registry.host: {"auth": basic(), "email": "a@b"}}))
    if how == "DOCKER_CONFIG":
        check(fetcher.pull(private[0].ref, dest, env={"DOCKER_CONFIG": str(mount)}), private, dest)
    else:
        path = mount if how == "folder" else mount / ".dockercfg"
        check(fetcher.pull(private[0].ref, dest, "--registry-config", path), private, dest)


def test_several_mounted_secrets(private, fetcher, dest, tmp_path):
    """As imagePullSecrets has several: the first with a credential for the registry; one list in the variable. [A13]"""
    host = private[0].registry.host
    swap_secret(tmp_path / "a", ".dockerconfigjson", docker_config({"other.example": {"auth": basic("x", "y")}}))
    swap_secret(tmp_path / "b", ".dockercfg", json.dumps({host: {"auth": basic()}}))
    swap_secret(tmp_path / "c", ".dockerconfigjson", docker_config({host: {"auth": basic("x", "wrong")}}))
    names = [str(tmp_path / x) for x in "abc"]
    flags = [x for name in names for x in ("--registry-config", name)]
    check(fetcher.pull(private[0].ref, dest, *flags), private, dest)
    check(fetcher.pull(private[0].ref, dest / "2", env={"FETCHER_REGISTRY_CONFIG": ",".join(names)}), private, dest / "2")


def test_secret_swapped_while_a_pull_runs(faults, fetcher, dest, tmp_path):
    """The kubelet swaps ..data; the next token is asked for with what stands there now. [K24] [A9]"""
    body = data(5, 4 * MIB)
    art = faults.artifact({"w": body})
    faults.auth_bearer(users={"u": "old"})
    mount = tmp_path / "secret"
    swap_secret(mount, ".dockerconfigjson", docker_config({faults.host: {"auth": basic("u", "old")}}))
    go = threading.Event()
    faults.rule("blob", nth=3, hold_at=(1000, go))
    run = fetcher.start("pull", "--plain-http", "--range-size", "256KiB", "--concurrency", "2", "--registry-config",
                        mount, art.ref, dest)
    assert faults.wait(lambda f: f.stalled == 1), run.err()
    for password in ("between", "new"):
        swap_secret(mount, ".dockerconfigjson", docker_config({faults.host: {"auth": basic("u", password)}}))
    faults.auth_bearer(users={"u": "new"})
    faults.revoke()
    go.set()
    run.wait().ok()
    holds(dest, {"w": body})


@pytest.mark.parametrize("text", ["", " \n\t", "{}", '{"auths": {}}', '{"auths": {"HOST": {}}, "credsStore": ""}',
                                  '{"HttpHeaders": {"X": "y"}}'])
def test_configs_without_credentials(faults, fetcher, dest, tmp_path, text):
    """Empty files are no error where the registry is open, and named where it is not. [A12]"""
    art = faults.artifact({"a": b"x"})
    path = tmp_path / "c.json"
    path.write_text(text.replace("HOST", faults.host))
    fetcher.pull(art.ref, dest, "--registry-config", path).ok()
    faults.auth_basic({"u": "p"})
    words = last_words(fetcher.pull(art.ref, dest / "2", "--registry-config", path).exits(20))
    assert f"looked in {path}" in words and faults.host in words and faults.repo in words


def test_more_specific_keys_first(faults, fetcher, dest, tmp_path):
    """host/team/model, host/team, host, https://host/v1/: each is used when the ones before it are gone. [A12]"""
    art = faults.artifact({"a": b"x"})  # test/model
    keys = [f"{faults.host}/test/model", f"{faults.host}/test", faults.host, f"https://{faults.host}/v1/"]
    for number in range(len(keys)):
        auths = {f"{faults.host}/test/mod": {"auth": basic("no", "no")},
                 f"{faults.host}/other": {"auth": basic("no", "no")}}
        auths.update({k: {"auth": basic(f"user{n}", "p")} for n, k in enumerate(keys) if n >= number})
        path = tmp_path / "c.json"
        path.write_text(docker_config(auths))
        faults.auth_basic({f"user{number}": "p"})
        fetcher.pull(art.ref, dest / str(number), "--registry-config", path).ok()


@pytest.mark.parametrize("text, pointer", [
    ('{"auths": {"HOST": {"auth": "%%%"}}}', "auths.HOST.auth"),
    ('{"HOST": {"auth": "bm8tY29sb24="}}', "HOST.auth"), ('{"auths": {"HOST": {"password": 5}}}', "auths.HOST.password"),
    ('{"auths": {"HOST": []}}', "auths.HOST"), ('{"auths": 5}', "auths"),
    ('{"credHelpers": {"HOST": "no-such-helper"}}', "credHelpers.HOST")])
def test_errors_of_a_config_name_the_key(private, fetcher, dest, tmp_path, text, pointer):
    """The file and the place in it. [A12] [A13]"""
    path = tmp_path / "c.json"
    host = private[0].registry.host
    path.write_text(text.replace("HOST", host))
    words = last_words(fetcher.pull(private[0].ref, dest, "--registry-config", path).exits(2))
    assert f"{path}: key {pointer.replace('HOST', host)}:" in words


def test_helpers_are_named(private, fetcher, dest, tmp_path):
    """A helper is another program, which an image from scratch has not: it is named, with what to do. [A13]"""
    path = tmp_path / "c.json"
    host = private[0].registry.host
    path.write_text(json.dumps({"auths": {host: {}}, "credsStore": "desktop"}))
    words = last_words(fetcher.pull(private[0].ref, dest, "--registry-config", path).exits(20))
    assert "docker-credential-desktop" in words and str(path) in words and "--password-file" in words
    path.write_text(json.dumps({"credHelpers": {host: "pass"}}))
    words = last_words(fetcher.pull(private[0].ref, dest, "--registry-config", path).exits(2))
    assert "docker-credential-pass" in words and f"credHelpers.{host}" in words and "--password-file" in words


@pytest.mark.parametrize("text, rc", [
    ("{", 2), ("[]", 2), ('{"auths": {"HOST": {"auth": "%%%"}}}', 2),
    ('{"auths": {"HOST": {"auth": "bm8tY29sb24="}}}', 2),
    ('{"credHelpers": {"HOST": "pass"}}', 2),
    ('{"auths": {}}', 20), ('{"auths": {"other.example": {"auth": "YTpi"}}}', 20),
], ids=["cut", "array", "not-base64", "no-colon", "helper", "empty", "no-match"])
def test_configs_that_do_not_help(private, fetcher, dest, tmp_path, text, rc):
    """[L42]: malformed, with a helper that cannot run here, without a match; the file is named. [A12] [A13]"""
    path = tmp_path / "c.json"
    path.write_text(text.replace("HOST", private[0].registry.host))
    words = last_words(fetcher.pull(private[0].ref, dest, "--registry-config", path).exits(rc))
    assert str(path) in words or rc == 20


def test_config_that_is_missing(private, fetcher, dest, tmp_path):
    r = fetcher.pull(private[0].ref, dest, "--registry-config", tmp_path / "none").exits(2)
    assert str(tmp_path / "none") in last_words(r)
    r = fetcher.pull(private[0].ref, dest, "--username", "a", "--password-file",
                     tmp_path / "none").exits(2)
    assert str(tmp_path / "none") in last_words(r)


def test_a_missing_default_config_is_no_error(registry, push, fetcher, dest, tmp_path):
    p = push(registry, "auth/open", "v1", {"a": b"x"})
    fetcher.pull(p.ref, dest, env={"HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path / "no")}
                 ).ok()


def test_credentials_of_another_host_are_not_sent(faults, fetcher, dest, tmp_path):
    art = faults.artifact({"a": b"x"})
    path = tmp_path / "c.json"
    path.write_text(docker_config({"127.0.0.1": {"auth": basic()},
                                   "127.0.0.1:1": {"auth": basic()},
                                   faults.host + "0": {"auth": basic()}}))
    fetcher.pull(art.ref, dest, "--registry-config", path).ok()
    assert faults.leaks() == []


def test_credentials_are_not_sent_unasked(faults, fetcher, dest, tmp_path):
    """An anonymous registry never sees a password that was configured for it."""
    art = faults.artifact({"a": b"x"})
    path = tmp_path / "c.json"
    path.write_text(docker_config({faults.host: {"auth": basic()}}))
    fetcher.pull(art.ref, dest, "--registry-config", path).ok()
    assert [r for r in faults.leaks() if "Basic" in r.headers["authorization"]] == []


@pytest.mark.parametrize("password", ["with:colon:s", "\u00e9\u6a21", " blank ", "%41+&="])
def test_odd_passwords(faults, fetcher, dest, tmp_path, password):
    """[C41]"""
    art = faults.artifact({"a": b"x"})
    faults.auth_bearer(users={"u": password})
    path = tmp_path / "c.json"
    path.write_text(docker_config({faults.host: {"auth": basic("u", password)}}))
    fetcher.pull(art.ref, dest / "1", "--registry-config", path).ok()
    faults.auth_basic({"u": password})
    fetcher.pull(art.ref, dest / "2", "--registry-config", path).ok()


def test_token_file(faults, fetcher, dest, tmp_path):
    """Sent as it is; no token service is asked."""
    art = faults.artifact({"a": b"x"})
    secret = tmp_path / "token"
    secret.write_text("the-token\n")
    faults.rule(lambda r: r.headers.get("authorization") != "Bearer the-token", status=401,
                www_authenticate=f'Bearer realm="{faults.base}/token",service="x"')
    fetcher.pull(art.ref, dest, "--token-file", secret).ok()
    assert faults.tokens == 0


# -- tokens --------------------------------------------------------------------------------------


def test_anonymous_token(fetcher, dest):
    """A registry that wants a token and gives it to everybody, as Docker Hub and ghcr.io. [A1] [A5]"""
    with FaultServer() as faults:
        art = faults.artifact({"a": b"x", "w": data(1, 3 * MIB)})
        faults.auth_bearer(users=None)
        fetcher.pull(art.ref, dest, "--range-size", "256KiB").ok()
        assert faults.tokens == 1


@pytest.mark.parametrize("key, expires_in", [("token", 300), ("access_token", 300), ("token", None),
                                             ("token", 0), ("token", 1), ("token", -5),
                                             ("token", 10**18), ("token", "soon")])
def test_shapes_of_token_answers(faults, fetcher, dest, key, expires_in):
    """[A6] [A7]"""
    art = faults.artifact({"a": data(1, 100_000)})
    faults.auth_bearer(users=None, key=key, expires_in=expires_in)
    fetcher.pull(art.ref, dest).ok()
    assert 1 <= faults.tokens <= 3


def test_one_renewal_for_all_connections(faults, fetcher, dest):
    """Revoked while several connections are busy: each gets 401, one asks anew. [C35] [A7]"""
    body = data(5, 8 * MIB)
    art = faults.artifact({"w": body})
    faults.auth_bearer(users=None)
    go = threading.Event()
    faults.rule("blob", after=1, times=4, hold_at=(1000, go))
    run = fetcher.start("pull", "--plain-http", "--range-size", "256KiB", "--concurrency", "8",
                        art.ref, dest)
    assert faults.wait(lambda f: f.stalled >= 4), run.err()
    assert faults.tokens == 1
    faults.revoke()
    go.set()
    run.wait().ok()
    holds(dest, {"w": body})
    assert len([r for r in faults.requests if r.status == 401]) > 1
    assert faults.tokens == 2


def test_token_that_lasts_for_few_requests(faults, fetcher, dest):
    """[A7]"""
    body = data(5, 4 * MIB)
    art = faults.artifact({"w": body})
    faults.auth_bearer(users=None, uses=5)
    fetcher.pull(art.ref, dest, "--range-size", "256KiB", "--concurrency", "2").ok()
    holds(dest, {"w": body})
    assert faults.tokens >= 3


@pytest.mark.slow
def test_token_renewed_during_a_long_pull(start, fetcher, dest, tmp_path):
    """A real registry whose tokens live for three seconds, and a pull that takes longer."""
    tokens = start(TokenServer, "tokens-short", users=None, lifetime=3)
    tokens.users = {"alice": SECRET}
    registry = start(Registry, "registry-short", token=tokens)
    registry.user = ("alice", SECRET)
    body = Content(6, 40 * MIB)
    tokens.lifetime = 300
    p = oci.push(registry, "auth/long", "v1", {"w": body})
    tokens.lifetime = 3
    from lib.relay import Relay
    with Relay(registry, limit=7 * MIB) as wire:
        config = tmp_path / "c.json"
        config.write_text(docker_config({wire.host: {"auth": basic()}}))
        before = tokens.count
        fetcher.pull(p.on(wire), dest, "--registry-config", config, "--range-size", "1MiB").ok()
        assert 2 <= tokens.count - before <= 8
    holds(dest, {"w": body})


def test_refused_with_every_token(faults, fetcher, dest):
    """401 to a fresh token is the end, not a loop. [K24]"""
    art = faults.artifact({"a": b"x"})
    faults.auth_bearer(users=None, uses=0)
    fetcher.pull(art.ref, dest).exits(20)
    assert faults.tokens <= 3 and len(faults.requests) <= 12


def test_token_service_refuses(faults, fetcher, dest):
    art = faults.artifact({"a": b"x"})
    faults.auth_bearer(users=None, refuse=True)
    assert "credentials" in last_words(fetcher.pull(art.ref, dest).exits(20))


def test_token_service_is_down_for_a_moment(faults, fetcher, dest):
    art = faults.artifact({"a": b"x"})
    faults.auth_bearer(users=None)
    faults.rule("token", status=503, times=2)
    fetcher.pull(art.ref, dest).ok()


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"token": 5}', b'{"token": ""}',
                                  b'{"token": "a\\r\\nX-Evil: 1"}', b'{"token": "' + b"x" * 200_000
                                  + b'"}', b"<html>", b"[" * 50_000],
                         ids=["empty", "none", "array", "number", "blank", "crlf", "huge", "html",
                              "deep"])
def test_token_answers_that_are_no_tokens(faults, fetcher, dest, body):
    """[K34]: capped, and nothing of them becomes a header. [A6]"""
    art = faults.artifact({"a": b"x"})
    faults.auth_bearer(users=None)
    faults.rule("token", handler=lambda request, reply: setattr(reply, "body", body))
    fetcher.pull(art.ref, dest, "--retry-timeout", "500ms").exits(20)
    assert not any("x-evil" in r.headers for r in faults.requests)


def test_endless_token_answer(faults, fetcher, dest):
    art = faults.artifact({"a": b"x"})
    faults.auth_bearer(users=None)
    faults.rule("token", forever=True)
    r = fetcher.pull(art.ref, dest, "--retry-timeout", "500ms")
    assert r.rc in (20, 22, 30), r


def test_rotated_password_file(faults, fetcher, dest, tmp_path):
    """Read again whenever a token is needed. [K24] [A9]"""
    body = data(5, 4 * MIB)
    art = faults.artifact({"w": body})
    faults.auth_bearer(users={"u": "old"})
    secret = tmp_path / "pw"
    secret.write_text("old")
    go = threading.Event()
    faults.rule("blob", nth=3, hold_at=(1000, go))
    run = fetcher.start("pull", "--plain-http", "--range-size", "256KiB", "--concurrency", "2",
                        "--username", "u", "--password-file", secret, art.ref, dest)
    assert faults.wait(lambda f: f.stalled == 1), run.err()
    faults.auth_bearer(users={"u": "new"})
    secret.write_text("new")
    faults.revoke()
    go.set()
    run.wait().ok()
    holds(dest, {"w": body})


def test_forbidden(faults, fetcher, dest):
    """403 is told with the registry's words and not tried again. [A8]"""
    art = faults.artifact({"a": b"x"})
    faults.rule("manifest", status=403, error="DENIED")
    words = last_words(fetcher.pull(art.ref, dest).exits(20))
    assert "403" in words and "denied" in words.lower()
    assert len(faults.requests) <= 3


# -- where credentials must not go ---------------------------------------------------------------


@pytest.mark.parametrize("realm", ["http://169.254.169.254/token", "http://10.0.0.1/token",
                                   "http://[fe80::1]/token", "http://0.0.0.0:1/token",
                                   "http://2852039166/token", "file:///etc/passwd",
                                   "gopher://127.0.0.1/x", "http://u:p@127.0.0.1/token", "",
                                   "http://127.0.0.1:1/\r\nX: y"])
def test_realms_that_are_refused(faults, fetcher, dest, tmp_path, realm):
    """[K31] [A4]"""
    art = faults.artifact({"a": b"x"})
    path = tmp_path / "c.json"
    path.write_text(docker_config({faults.host: {"auth": basic()}}))
    faults.rule("/v2/", status=401, www_authenticate=f'Bearer realm="{realm}",service="x"'
                .replace("\r\n", ""))
    r = fetcher.pull(art.ref, dest, "--registry-config", path, "--retry-timeout", "500ms",
                     "--connect-timeout", "500ms").exits(20)
    assert [x for x in faults.leaks() if "Basic" in x.headers["authorization"]] == []
    assert SECRET not in r.err and basic() not in r.err


def test_private_realm_of_a_public_name(faults, stranger, fetcher, dest, tmp_path):
    """A registry with a public name sends the password to loopback: refused, unless allowed.
    (The public name is reached through a proxy.)"""
    art = faults.artifact({"a": b"x"})
    name = "registry.example"
    path = tmp_path / "c.json"
    path.write_text(docker_config({name: {"auth": basic("u", "p")}}))
    faults.auth_bearer(users=None, realm=f"http://{stranger.host}/token")
    env = {"http_proxy": faults.base, "no_proxy": "127.0.0.1"}
    ref = f"{name}/{art.repo}:v1"
    words = last_words(fetcher.pull(ref, dest, "--registry-config", path, env=env).exits(20))
    assert "--allow-private-realm" in words
    assert stranger.requests == []
    fetcher.pull(ref, dest, "--registry-config", path, "--allow-private-realm", env=env).exits(20)
    assert stranger.requests != []


def test_realm_over_plain_http_of_an_https_registry(faults_tls, stranger, authority, fetcher, dest,
                                                    tmp_path):
    art = faults_tls.artifact({"a": b"x"})
    path = tmp_path / "c.json"
    path.write_text(docker_config({faults_tls.host: {"auth": basic()}}))
    faults_tls.auth_bearer(users=None, realm=f"http://{stranger.host}/token")
    fetcher("pull", "--ca-file", authority.ca, "--registry-config", path, art.ref, dest).exits(20)
    assert stranger.requests == []


def test_token_service_redirects_to_a_stranger(faults, stranger, fetcher, dest, tmp_path):
    """[A4]"""
    art = faults.artifact({"a": b"x"})
    path = tmp_path / "c.json"
    path.write_text(docker_config({faults.host: {"auth": basic("u", "p")}}))
    faults.auth_bearer(users={"u": "p"})
    faults.rule("token", redirect=lambda r: stranger.base + r.target)
    # The rule's redirect counts before the token service answers itself.
    faults.rule("token", status=307, headers={"Location": stranger.base + "/token"})
    fetcher.pull(art.ref, dest, "--registry-config", path).exits(20)
    assert stranger.leaks() == []


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_redirects_drop_authorization(faults, stranger, fetcher, dest, tmp_path, scheme):
    """Blobs on another port of the same address are another origin. [K30] [L40] [C29] [A10]"""
    body = data(7, 2 * MIB)
    art = faults.artifact({"w": body})
    path = tmp_path / "c.json"
    path.write_text(docker_config({faults.host: {"auth": basic("u", "p")},
                                   stranger.host: {"auth": basic("u", "p")}}))
    if scheme == "basic":
        faults.auth_basic({"u": "p"})
    else:
        faults.auth_bearer(users={"u": "p"})
    faults.rule("blob", redirect=lambda r: stranger.base + r.target, cookie="session=1")
    fetcher.pull(art.ref, dest, "--registry-config", path, "--range-size", "256KiB").ok()
    holds(dest, {"w": body})
    assert stranger.requests and stranger.leaks() == []
    assert all("referer" not in r.headers for r in stranger.requests)


def test_redirects_of_manifests_drop_authorization(faults, stranger, fetcher, dest, tmp_path):
    art = faults.artifact({"w": b"x"})
    path = tmp_path / "c.json"
    path.write_text(docker_config({faults.host: {"auth": basic("u", "p")}}))
    faults.auth_basic({"u": "p"})
    faults.rule("manifest", redirect=lambda r: stranger.base + r.target)
    fetcher.pull(art.ref, dest, "--registry-config", path).ok()
    assert stranger.requests and stranger.leaks() == []


def test_a_stranger_that_asks_for_credentials_gets_none(faults, stranger, fetcher, dest, tmp_path):
    """[A10]"""
    art = faults.artifact({"w": data(7, MIB)})
    path = tmp_path / "c.json"
    path.write_text(docker_config({faults.host: {"auth": basic("u", "p")},
                                   stranger.host: {"auth": basic("u", "p")}}))
    faults.auth_basic({"u": "p"})
    stranger.auth_basic({"u": "p"})
    faults.rule("blob", redirect=lambda r: stranger.base + r.target)
    r = fetcher.pull(art.ref, dest, "--registry-config", path, "--retry-timeout", "500ms")
    assert r.rc in (20, 30), r
    assert stranger.leaks() == []
    nothing_published(dest)


def test_redirects_on_the_same_origin_keep_authorization(faults, fetcher, dest, tmp_path):
    art = faults.artifact({"w": b"x"})
    path = tmp_path / "c.json"
    path.write_text(docker_config({faults.host: {"auth": basic("u", "p")}}))
    faults.auth_basic({"u": "p"})
    faults.rule("blob", times=1, redirect=lambda r: r.target + "?again=1")  # relative Location
    fetcher.pull(art.ref, dest, "--registry-config", path).ok()
    again = [r for r in faults.requests if r.query.get("again")]
    assert again and all(r.headers["authorization"].startswith("Basic ") for r in again)


def test_cookies_are_not_kept(faults, fetcher, dest):
    art = faults.artifact({"w": data(7, MIB)})
    faults.rule(None, cookie="session=abc")
    fetcher.pull(art.ref, dest, "--range-size", "64KiB").ok()
    assert faults.leaks() == []


def test_secrets_are_nowhere_on_the_volume(private, config, fetcher, dest):
    """[K51]"""
    fetcher.pull(private[0].ref, dest, "--registry-config", config).ok()
    for path in (dest / ".fetcher").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert SECRET.encode() not in content and basic().encode() not in content
            assert b"Bearer" not in content


def test_challenges_among_others(faults, fetcher, dest, tmp_path):
    """Negotiate first, two lines, two schemes in one line, odd case and blanks. [A2]"""
    art = faults.artifact({"w": b"x"})
    path = tmp_path / "c.json"
    path.write_text(docker_config({faults.host: {"auth": basic("u", "p")}}))
    for value in ('Negotiate, Basic realm="x"', 'NEGOTIATE abc==, bAsIc  realm = "x"',
                  'Digest realm="x", nonce="y, Basic", Basic realm="z"'):
        faults.clear()
        faults.rule(lambda r: "authorization" not in r.headers, status=401, www_authenticate=value)
        fetcher.pull(art.ref, dest, "--registry-config", path).ok()
        assert any(r.headers.get("authorization", "").startswith("Basic ")
                   for r in faults.requests), value
        faults.forget()


def test_wanted_scheme_is_unknown(faults, fetcher, dest):
    art = faults.artifact({"w": b"x"})
    faults.rule("/v2/", status=401, www_authenticate="Negotiate")
    fetcher.pull(art.ref, dest).exits(20)


def test_insufficient_scope(faults, fetcher, dest):
    """The token is good, not for this: asked for once more with the scope that the registry names. [A8]"""
    art = faults.artifact({"w": data(1, 100_000)})
    faults.auth_bearer(users=None)
    wider = "repository:test/base:pull"
    faults.rule(lambda r: r.kind == "manifest" and r.headers.get("authorization") and not any(
        q.kind == "token" and wider in q.target.replace("%3A", ":").replace("%2F", "/") for q in faults.requests),
        status=401, www_authenticate=f'Bearer realm="{faults.base}/token",service="faults",scope="{wider}",'
                                     'error="insufficient_scope"')
    fetcher.pull(art.ref, dest).ok()
    assert faults.tokens == 2


def test_the_challenge_of_the_ping(faults, fetcher, dest, tmp_path):
    """A request that is refused without a challenge: /v2/ tells what is wanted. [A1]"""
    art = faults.artifact({"w": b"x"})
    path = tmp_path / "c.json"
    path.write_text(docker_config({faults.host: {"auth": basic("u", "p")}}))
    faults.auth_basic({"u": "p"})
    faults.rule(lambda r: r.kind != "ping" and "authorization" not in r.headers, headers={"WWW-Authenticate": None})
    fetcher.pull(art.ref, dest, "--registry-config", path).ok()
    assert [r.kind for r in faults.requests].count("ping") == 1


@pytest.mark.parametrize("entry", [{"username": "u", "password": ""}, {"username": "", "password": "p"}, {"auth": "dTo="}])
def test_half_of_a_login_is_not_sent(faults, fetcher, dest, tmp_path, entry):
    """[A9]"""
    art = faults.artifact({"w": b"x"})
    path = tmp_path / "c.json"
    path.write_text(docker_config({faults.host: entry}))
    faults.auth_basic({"u": "p"})
    words = last_words(fetcher.pull(art.ref, dest, "--registry-config", path).exits(20))
    assert str(path) in words and faults.leaks() == []
