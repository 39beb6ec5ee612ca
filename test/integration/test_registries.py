# SPDX-License-Identifier: Apache-2.0
"""What the registries in the field do that docker-registry does not, each played by lib/quirks.py: Harbor, GitLab,
Artifactory, Quay, Nexus, Google, Amazon, Azure, Docker Hub, GitHub; and what they say when they refuse."""

import json

import pytest

from faultserver import FaultServer
from lib.content import data
from lib.look import holds, last_words, nothing_published
from lib.quirks import (Acr, Artifactory, ArtifactRegistry, DockerHub, EcrPrivate, EcrPublic, Gitlab, Harbor, Nexus,
                        Quay, azure_storage, config)

MIB = 1 << 20
SECRET = "correct horse"
ROBOT = "robot$team+ci"
FILES = {"config.json": b"{}", "w.bin": data(31, 2 * MIB)}
RANGES = ("--range-size", "256KiB")


@pytest.fixture
def credentials(tmp_path):
    def write(**auths):
        return "--registry-config", config(tmp_path / "c.json", **auths)
    return write


@pytest.fixture
def harbor():
    with Harbor(users={ROBOT: SECRET}) as server:
        yield server


def clean(r):
    assert SECRET not in r.err + r.out
    return r


# -- Harbor --------------------------------------------------------------------------------------


def test_harbor_robot(harbor, credentials, fetcher, dest):
    """A name with $ and +, split at the first colon; GET with Basic, no POST. [A5]"""
    art = harbor.artifact(FILES)
    clean(fetcher.pull(art.ref, dest, *RANGES, *credentials(**{harbor.host: (ROBOT, SECRET)}))).ok()
    holds(dest, FILES)
    assert harbor.logins == [ROBOT]
    ask = harbor.token_requests[0]
    assert ask["method"] == "GET" and ask["query"]["service"] == ["harbor-registry"]
    assert ask["query"]["scope"] == ["repository:team/model:pull"]
    assert ask["query"]["account"] == [ROBOT]


def test_harbor_robot_by_flag(harbor, fetcher, dest, tmp_path):
    secret = tmp_path / "pw"
    secret.write_text(SECRET + "\n")
    art = harbor.artifact(FILES)
    fetcher.pull(art.ref, dest, "--username", ROBOT, "--password-file", secret).ok()
    assert harbor.logins == [ROBOT]


def test_harbor_public_project(harbor, fetcher, dest):
    """401 also of what is public: an anonymous token opens it. [A5]"""
    harbor.users = None
    art = harbor.artifact(FILES)
    fetcher.pull(art.ref, dest).ok()
    assert harbor.logins == [None] and harbor.token_requests[0]["authorization"] is None


def test_harbor_realm_follows_the_host(harbor, credentials, fetcher, dest):
    """Through another name of the same server the realm has that name."""
    art = harbor.artifact(FILES)
    name = f"localhost:{harbor.port}"
    fetcher.pull(art.ref.replace(harbor.host, name), dest, *credentials(**{name: (ROBOT, SECRET)})).ok()
    assert {r.headers["host"] for r in harbor.requests} == {name}


def test_harbor_asks_for_basic_of_a_refused_token(harbor, credentials, fetcher, dest):
    """The token dies in the middle: Basic is asked for, Bearer is meant; the password goes to the token service
    alone. [A7] [A9]"""
    art = harbor.artifact(FILES)
    go = []

    def revoke(request, reply):
        if not go:
            go.append(1)
            harbor.granted.clear()
    harbor.rule("blob", nth=3, handler=revoke)
    fetcher.pull(art.ref, dest, *RANGES, "--concurrency", "2", *credentials(**{harbor.host: (ROBOT, SECRET)})).ok()
    holds(dest, FILES)
    assert harbor.logins == [ROBOT] * 2
    assert all(not r.headers.get("authorization", "").startswith("Basic") for r in harbor.requests
               if r.path.startswith("/v2"))


@pytest.mark.parametrize("login, says", [((ROBOT, "wrong"), "user name or password are wrong"),
                                         (("robot$other", SECRET), "user name or password are wrong"),
                                         ((ROBOT, SECRET), "may not pull this repository")],
                         ids=["password", "name", "right"])
def test_harbor_says_why_it_refuses(harbor, credentials, fetcher, dest, login, says):
    """A wrong login gets a token without rights; only the question without a scope tells the two apart. [A6]"""
    art = harbor.artifact(FILES)
    if login == (ROBOT, SECRET):
        harbor.denied.add(harbor.repo)
    how = credentials(**{harbor.host: login})
    words = last_words(clean(fetcher.pull(art.ref, dest, *how).exits(20)))
    assert says in words and harbor.repo in words and harbor.host in words
    assert f"credentials: {how[1]}, key auths.{harbor.host}" in words
    assert len(harbor.token_requests) <= 4
    nothing_published(dest)


@pytest.mark.parametrize("command", ["pull", "resolve", "watch"])
def test_harbor_policy(harbor, credentials, fetcher, dest, command):
    """412 to HEAD and GET: the words are those of the GET's body; not tried again. [O33]"""
    harbor.users = {ROBOT: SECRET}
    art = harbor.artifact(FILES)
    harbor.policy = ("current image with 5 vulnerabilities cannot be pulled due to configured policy in "
                     "'Prevent images with vulnerability severity of \"High\" or higher from running.'")
    how = credentials(**{harbor.host: (ROBOT, SECRET)})
    args = [command, "--plain-http", *how, art.ref] + ([dest] if command != "resolve" else [])
    if command == "watch":
        run = fetcher.start(*args, "--period", "1s")
        assert harbor.wait(lambda h: len([r for r in h.requests if r.kind == "manifest"]) >= 2)
        from lib.look import until
        until(lambda: "PROJECTPOLICYVIOLATION" in run.err())
        assert run.alive()
        run.terminate()
        return
    words = last_words(fetcher(*args).exits(20))
    assert "PROJECTPOLICYVIOLATION" in words and "5 vulnerabilities" in words and "412" in words
    assert harbor.repo in words and harbor.host in words and f"key auths.{harbor.host}" in words
    assert len([r for r in harbor.requests if r.kind == "manifest" and r.status == 412]) <= 2


def test_harbor_moves_a_repository(harbor, credentials, fetcher, dest):
    """A proxy project answers 301 to library/NAME: the token needs that repository's scope as well. [A8] [A10]"""
    harbor.repo = "hub/library/model"
    harbor.artifact(FILES)
    harbor.moved["hub/model"] = "hub/library/model"
    fetcher.pull(f"{harbor.host}/hub/model:v1", dest, *RANGES, "--concurrency", "2",
                 *credentials(**{harbor.host: (ROBOT, SECRET)})).ok()
    holds(dest, FILES)
    assert harbor.token_requests[-1]["query"]["scope"][0] == "repository:hub/library/model:pull"
    assert "repository:hub/model:pull" in harbor.token_requests[-1]["query"]["scope"]
    assert len(harbor.token_requests) == 2, harbor.token_requests


def test_harbor_is_overloaded(harbor, fetcher, dest):
    """429 TOO_MANY_REQUEST of a proxy project's upstream limit; and in other statuses. [O33]"""
    harbor.users = None
    art = harbor.artifact(FILES)
    harbor.rule("manifest", status=429, error="TOO_MANY_REQUEST", times=1)
    harbor.rule("manifest", after=1, times=1, status=403, error="TOOMANYREQUESTS")
    fetcher.pull(art.ref, dest).ok()
    holds(dest, FILES)


# -- GitLab, Artifactory, Quay, Nexus ------------------------------------------------------------


def test_gitlab_tokens_end_early(credentials, fetcher, dest):
    """401 before the time that the answer promised: a new token, in the middle of a pull. [A7]"""
    with Gitlab(users={"u": SECRET}) as gitlab:
        art = gitlab.artifact(FILES)
        gitlab.life = 0.6
        gitlab.rule("blob", nth=4, delay=0.8)
        clean(fetcher.pull(art.ref, dest, *RANGES, "--concurrency", "1",
                           *credentials(**{gitlab.host: ("u", SECRET)}))).ok()
        holds(dest, FILES)
        assert 2 <= len(gitlab.logins) <= 4
        assert gitlab.token_requests[0]["path"] == "/jwt/auth"


def test_gitlab_refuses_at_the_token_service(credentials, fetcher, dest):
    with Gitlab(users={"u": SECRET}) as gitlab:
        art = gitlab.artifact(FILES)
        how = credentials(**{gitlab.host: ("u", "wrong-one")})
        r = fetcher.pull(art.ref, dest, *how).exits(20)
        words = last_words(r)
        assert "DENIED: access forbidden" in words and str(how[1]) in words and gitlab.repo in words
        assert "wrong-one" not in r.err


def test_gitlab_signs_storage_for_one_method(faults, stranger, fetcher, dest):
    """A URL signed for GET answers HEAD with 403: it is never asked so. [A11]"""
    art = faults.artifact(FILES)
    faults.rule("blob", redirect=lambda r: stranger.base + r.target)
    stranger.rule(None, method="HEAD", status=403)
    fetcher.pull(art.ref, dest, *RANGES).ok()
    assert stranger.requests and {r.method for r in stranger.requests} == {"GET"}


def test_artifactory(credentials, fetcher, dest):
    """No scope in the challenge: it is made up. The first ranged GET of a blob fails. [A3] [O22]"""
    with Artifactory(users={"u": SECRET}) as server:
        art = server.artifact(FILES)
        fetcher.pull(art.ref, dest, *RANGES, *credentials(**{server.host: ("u", SECRET)})).ok()
        holds(dest, FILES)
        assert server.token_requests[0]["query"]["scope"] == ["repository:team/model:pull"]


def test_quay(fetcher, dest):
    """No scope, anonymous, and a signed Location of several KiB. [A3] [O29]"""
    with Quay() as server, FaultServer(store=server.store) as storage:
        art = server.artifact(FILES)
        server.rule("blob", redirect_status=302,
                    redirect=lambda r: f"{storage.base}{r.path}?X-Amz-Security-Token={'t' * 6000}&X-Amz-Signature=s")
        r = fetcher.pull(art.ref, dest, *RANGES, "-v").ok()
        holds(dest, FILES)
        assert storage.leaks() == [] and "tttt" not in r.err
        assert server.token_requests[0]["query"]["scope"] == ["repository:team/model:pull"]


def test_nexus(credentials, fetcher, dest):
    """BASIC in capitals. [A2]"""
    with Nexus(users={"u": SECRET}) as server:
        art = server.artifact(FILES)
        how = credentials(**{server.host: ("u", SECRET)})
        fetcher.pull(art.ref, dest, *RANGES, *how).ok()
        holds(dest, FILES)
        server.users = {}
        words = last_words(clean(fetcher.pull(art.ref, dest / "2", *how).exits(20)))
        assert f"credentials: {how[1]}, key auths.{server.host}" in words


# -- the clouds' registries ----------------------------------------------------------------------

JSON_KEY = json.dumps({"type": "service_account", "private_key": "-----BEGIN PRIVATE KEY-----\nMIIE:x\n"}, indent=2)


@pytest.mark.parametrize("silent", [False, True], ids=["challenge", "silent"])
def test_google(credentials, fetcher, dest, silent):
    """No service, a relative realm, user _json_key with a key of many lines; 401 without a challenge. [A1] [A3] [A5]"""
    with ArtifactRegistry(users={"_json_key": JSON_KEY}) as server:
        server.silent = silent
        art = server.artifact(FILES)
        r = fetcher.pull(art.ref, dest, *RANGES, "-v", *credentials(**{server.host: ("_json_key", JSON_KEY)})).ok()
        holds(dest, FILES)
        assert server.logins == ["_json_key"] and "service" not in server.token_requests[0]["query"]
        assert "MIIE" not in r.err


def test_ecr_public(fetcher, dest):
    """The scope "aws" comes first, as it is; ours stands behind it. [A3]"""
    with EcrPublic() as server:
        art = server.artifact(FILES)
        fetcher.pull(art.ref, dest, *RANGES).ok()
        assert server.token_requests[0]["query"]["scope"][0] == "aws"


def test_ecr_password_runs_out(fetcher, dest, tmp_path):
    """Twelve hours are over in the middle of a pull, the Secret has the new password. [A9] [K24]"""
    with EcrPrivate(users={"AWS": "old-password"}) as server:
        path = config(tmp_path / "c.json", **{server.host: ("AWS", "old-password")})
        art = server.artifact(FILES)

        def rotate(request, reply):
            server.users = {"AWS": "new-password"}
            config(path, **{server.host: ("AWS", "new-password")})
        server.rule("blob", nth=2, handler=rotate)
        fetcher.pull(art.ref, dest, *RANGES, "--concurrency", "2", "--registry-config", path).ok()
        holds(dest, FILES)
        server.clear()
        server.users = {"AWS": "newest"}
        r = fetcher.pull(art.ref, dest / "2", "--registry-config", path).exits(20)
        words = last_words(r)
        assert "have not run out" in words and f"credentials: {path}, key auths.{server.host}" in words
        assert "new-password" not in r.err


@pytest.mark.parametrize("entry", [{"auth": "MDAwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDAwOg==",
                                    "identitytoken": "refresh-1"},
                                   {"username": "<token>", "password": "refresh-1"}], ids=["login", "helper"])
def test_acr(credentials, fetcher, dest, entry):
    """A refresh token by POST; blobs on a storage that refuses a second authorisation. [A5] [A10]"""
    with Acr(users={}) as server, azure_storage(server.store) as storage:
        server.refresh_tokens["refresh-1"] = True
        art = server.artifact(FILES)
        server.rule("blob", redirect=lambda r: storage.base + r.target)
        r = fetcher.pull(art.ref, dest, *RANGES, "-v", *credentials(**{server.host: entry})).ok()
        holds(dest, FILES)
        ask = server.token_requests[0]
        assert ask["method"] == "POST" and ask["query"]["grant_type"] == ["refresh_token"]
        assert ask["query"]["service"] == ["models.azurecr.io"]
        assert storage.leaks() == [] and "refresh-1" not in r.err


def test_acr_with_the_dummy_user(credentials, fetcher, dest):
    """The refresh token as a password: Basic at the token service, where POST is not tried."""
    user = "00000000-0000-0000-0000-000000000000"
    with Acr(users={user: "refresh-1"}) as server:
        art = server.artifact(FILES)
        fetcher.pull(art.ref, dest, *credentials(**{server.host: (user, "refresh-1")})).ok()
        assert [t["method"] for t in server.token_requests] == ["GET"]


# -- Docker Hub, GitHub --------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io"])
def test_docker_hub(credentials, fetcher, dest, key):
    """Four spellings of one key, library/ for short names. [A12]"""
    with DockerHub(users={"u": SECRET}) as hub:
        hub.artifact(FILES)
        how = credentials(**{key: ("u", SECRET)})
        fetcher.pull("docker.io/model:v1", dest, *how, env={"http_proxy": hub.base}).ok()
        holds(dest, FILES)
        assert hub.logins == ["u"]
        assert {r.headers["host"] for r in hub.requests} == {"registry-1.docker.io", "auth.docker.io"}
        assert hub.token_requests[0]["query"]["scope"] == ["repository:library/model:pull"]


def test_docker_hub_ignores_what_docker_desktop_keeps(credentials, fetcher, dest):
    """access-token and refresh-token beside the password are no registry's credentials. [A12]"""
    with DockerHub() as hub:
        hub.artifact(FILES)
        how = credentials(**{"https://index.docker.io/v1/access-token": ("x", SECRET),
                             "https://index.docker.io/v1/refresh-token": ("y", SECRET)})
        fetcher.pull("docker.io/model:v1", dest, *how, env={"http_proxy": hub.base}).ok()
        assert hub.logins == [None]


@pytest.mark.parametrize("login", [False, True])
def test_docker_hub_limit(credentials, fetcher, dest, login):
    """429 on manifests: the limit, its window and what helps; retried within the budget. [A14] [O33]"""
    with DockerHub() as hub:
        hub.artifact(FILES)
        # HEAD is not counted
        hub.rule("manifest", method="GET", status=429, body=hub.LIMIT_BODY, headers=hub.LIMITED)
        how = credentials(**{"docker.io": ("u", SECRET)}) if login else ()
        words = last_words(clean(fetcher.pull("docker.io/model:v1", dest, *how, "--retry-timeout", "300ms",
                                              env={"http_proxy": hub.base}).exits(30)))
        assert "TOOMANYREQUESTS" in words and "100 requests in 21600 s, 0 left" in words
        assert "library/model" in words
        assert ("who logs in" in words) == (not login)
        assert ("key auths.docker.io" in words) == login


def test_github_secondary_limit_passes(faults, fetcher, dest):
    """403 with Retry-After is a limit, not a right that is missing. [A8]"""
    art = faults.artifact(FILES)
    faults.rule("manifest", status=403, error="DENIED", retry_after=1, times=1,
                body=b'{"message":"You have exceeded a secondary rate limit."}')
    fetcher.pull(art.ref, dest).ok()
    holds(dest, FILES)


def test_github_secondary_limit_lasts(faults, fetcher, dest):
    art = faults.artifact(FILES)
    faults.rule("manifest", status=403, retry_after=3, body=b'{"message":"You have exceeded a secondary rate limit."}')
    words = last_words(fetcher.pull(art.ref, dest, "--retry-timeout", "500ms").exits(30))
    assert "secondary rate limit" in words and "403" in words and "limits how often" in words
    assert len(faults.requests) <= 4


# -- what is said --------------------------------------------------------------------------------

BODIES = {
    "several": (b'{"errors":[{"code":"DENIED","message":"no"},{"code":"UNSUPPORTED","message":"nor this"}]}',
                ["DENIED: no", "UNSUPPORTED: nor this"]),
    "detail-text": (b'{"errors":[{"code":"DENIED","message":"no","detail":"ask bob"}]}', ["ask bob"]),
    "detail-object": (b'{"errors":[{"code":"DENIED","message":"no","detail":{"Type":"repository","Name":"x"}}]}',
                      ['"Name":"x"']),
    "detail-list": (b'{"errors":[{"code":"DENIED","message":"no","detail":[{"Action":"pull"}]}]}', ['"Action":"pull"']),
    "detail-number": (b'{"errors":[{"code":"DENIED","message":"no","detail":17}]}', ["17"]),
    "detail-null": (b'{"errors":[{"code":"DENIED","message":"no","detail":null}]}', ["DENIED: no"]),
    "code-number": (b'{"errors":[{"code":1234,"message":"no"}]}', ["1234", "no"]),
    "flat": (b'{"message":"gateway says no"}', ["gateway says no"]),
    "oauth": (b'{"error":"invalid_client","error_description":"AADSTS7000215"}', ["invalid_client", "AADSTS7000215"]),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>not you</Message></Error>',
            ["AccessDenied", "not you"]),
    "text": (b"404 page not found\n", ["404 page not found"]),
    "html": (b"<!DOCTYPE html>\n<html><head><title>\n  Sign in &amp; go </title></head>" + b"x" * 30000,
             ["an HTML page", "Sign in &amp; go", "proxy or a login page"]),
    "cut-json": (b'{"errors":[{"code":"DEN', []), "list": (b"[1,2]", []), "empty": (b"", []),
    "numbers": (b'{"errors":[1,"x",null,[]]}', []), "errors-object": (b'{"errors":{"code":"X"}}', []),
}


@pytest.mark.parametrize("status, rc, says", [(403, 20, "which may not read it"), (404, 21, ""), (418, 30, "")])
def test_errors_of_blobs_name_the_credentials(faults, credentials, fetcher, dest, status, rc, says):
    """[O33]"""
    art = faults.artifact(FILES)
    faults.auth_bearer(users={"u": SECRET})
    faults.rule("blob", status=status, error="DENIED")
    how = credentials(**{faults.host: ("u", SECRET)})
    words = last_words(clean(fetcher.pull(art.ref, dest, *how).exits(rc)))
    assert f"credentials: {how[1]}, key auths.{faults.host}" in words and says in words and faults.repo in words


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("status", [403, 412, 404, 418])
def test_error_bodies(faults, fetcher, dest, name, status):
    """Whatever stands in it: status, repository and registry are told, in one line of less than 1000 bytes. [O33]"""
    body, parts = BODIES[name]
    faults.artifact(FILES)
    faults.rule("manifest", status=status, body=body)
    r = fetcher.pull(faults.ref(), dest)
    assert r.rc == {403: 20, 412: 20, 404: 21, 418: 30}[status]
    words = last_words(r)
    for part in [str(status), faults.host, faults.repo, "no credentials", *parts]:
        assert part in words, words
    assert len(words.encode()) <= 1000 and "\n" not in words
    assert len(faults.requests) <= 3


def test_error_keeps_the_advice_when_the_words_are_long(faults, fetcher, tmp_path):
    """The registry's words are cut, not what can be done; the termination message holds it."""
    faults.artifact(FILES)
    body = {"errors": [{"code": "DENIED", "message": "m" * 5000, "detail": "d" * 5000}] * 5}
    faults.rule("manifest", status=403, body=json.dumps(body).encode())
    log = tmp_path / "log"
    log.write_text("")
    path = f"{faults.host}/{'long/' * 40}model:v1"
    fetcher.pull(path, tmp_path / "d", "--termination-log", log).exits(20)
    text = log.read_text()
    assert "see: fetcher help auth" in text and len(text.encode()) <= 1000 and "mmmm" in text


PAGE = b"<html><head><title>Corporate Proxy: please sign in</title></head><body>" + b"x" * 9000 + b"</body></html>"


@pytest.mark.parametrize("kind", ["manifest", "digest", "token"])
def test_login_page_with_200(faults, fetcher, dest, kind):
    """A captive portal answers everything with 200 and a page. [O33]"""
    art = faults.artifact(FILES)
    if kind == "token":
        faults.auth_bearer()
        faults.rule("token", handler=lambda q, reply: (setattr(reply, "body", PAGE),
                                                       reply.headers.update({"Content-Type": "text/html"})))
    else:
        faults.rule("manifest", status=200, body=PAGE, content_type="text/html",
                    headers={"Docker-Content-Digest": None})
    ref = art.ref_digest if kind == "digest" else art.ref
    words = last_words(fetcher.pull(ref, dest).exits(20 if kind == "token" else 22))
    assert "an HTML page" in words and "Corporate Proxy: please sign in" in words and faults.host in words
    nothing_published(dest)
