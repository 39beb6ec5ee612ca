# SPDX-License-Identifier: Apache-2.0
"""Logins of the clouds' registries without helper binaries, against stand-ins that check signatures, assertions and headers
(lib/clouds.py) and guard a real docker-registry."""

import json
import subprocess
import time

import pytest

from lib import oci
from lib.clouds import Aws, Azure, Google
from lib.content import Content
from lib.look import holds, last_words, nothing_published
from lib.proc import free_port
from lib.registry import Haproxy, Nginx, Registry
from lib.tokens import TokenServer

PASSWORD = "eyJwYXlsb2FkIjoi.ecr-password"
FILES = {"config.json": b"{}", "w.bin": Content(61, 3 << 20)}


@pytest.fixture(scope="module")
def model(registry):
    return oci.push(registry, "cloud/model", "v1", FILES)


@pytest.fixture(scope="module")
def ecr(start, registry):
    """Basic, the user AWS."""
    return start(Registry, "ecr", data=registry.data, users={"AWS": PASSWORD})


@pytest.fixture
def aws():
    with Aws(("AWS", PASSWORD)) as cloud:
        yield cloud


@pytest.fixture
def helpers(tmp_path):
    """helpers(host="ecr-login", ...) -> the environment that names them."""
    def write(names, **more):
        folder = tmp_path / "docker"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"credHelpers": names, **more}))
        return {"DOCKER_CONFIG": str(folder)}
    return write


def clean(r, cloud, *secrets):
    """It worked, nothing that the stand-in was sent was wrong, and no secret was told."""
    r.ok()
    assert cloud.wrong == []
    for secret in secrets:
        assert secret not in r.err + r.out
    return r


def pull(fetcher, model, server, dest, env, *flags):
    return fetcher.pull(model.on(server), dest, "-v", *flags, env=env)


# -- ECR: each place of credentials ------------------------------------------------------------------------------------------


def test_ecr_environment_keys(fetcher, model, ecr, aws, helpers, dest):
    """[A9, A14]: SigV4, then Basic AWS:password on every request."""
    env = helpers({ecr.host: "ecr-login"}) | aws.environment(**aws.static())
    clean(pull(fetcher, model, ecr, dest, env), aws, PASSWORD, "static/secret+key")
    holds(dest, FILES)
    assert [q.path for q in aws.requests] == ["/"], "one login, and no other place was asked"


def test_ecr_session_token(fetcher, model, ecr, aws, helpers, dest):
    k = aws.fresh_keys()
    env = helpers({ecr.host: "ecr-login"}) | aws.environment(
        AWS_ACCESS_KEY_ID=k["AccessKeyId"], AWS_SECRET_ACCESS_KEY=k["SecretAccessKey"], AWS_SESSION_TOKEN=k["Token"])
    clean(pull(fetcher, model, ecr, dest, env), aws, k["SecretAccessKey"], k["Token"])


def test_ecr_web_identity(fetcher, model, ecr, aws, helpers, dest, tmp_path):
    """IRSA: an unsigned request to STS, whose keys sign the next one."""
    token = aws.web_token()
    path = tmp_path / "token"
    path.write_text(token + "\n")
    env = helpers({ecr.host: "ecr-login"}) | aws.environment(AWS_ROLE_ARN=aws.role, AWS_WEB_IDENTITY_TOKEN_FILE=str(path))
    clean(pull(fetcher, model, ecr, dest, env), aws, token, PASSWORD)
    assert [q.form.get("Action") for q in aws.requests] == ["AssumeRoleWithWebIdentity", None]
    holds(dest, FILES)


def test_ecr_web_identity_refused(fetcher, model, ecr, aws, helpers, dest, tmp_path):
    """The words of STS are told, the token that it echoes is not."""
    token = aws.web_token(exp=1)
    path = tmp_path / "token"
    path.write_text(token)
    env = helpers({ecr.host: "ecr-login"}) | aws.environment(AWS_ROLE_ARN=aws.role, AWS_WEB_IDENTITY_TOKEN_FILE=str(path))
    r = pull(fetcher, model, ecr, dest, env).exits(20)
    assert "InvalidIdentityToken" in last_words(r) and "ECR login" in last_words(r)
    assert token not in r.err
    nothing_published(dest)


@pytest.mark.parametrize("how", ["file", "variable"])
def test_ecr_pod_identity(fetcher, model, ecr, aws, helpers, dest, tmp_path, how):
    env = helpers({ecr.host: "ecr-login"}) | aws.environment(AWS_CONTAINER_CREDENTIALS_FULL_URI=aws.url + "/v1/credentials")
    if how == "file":
        path = tmp_path / "agent"
        path.write_text(aws.agent_token)
        env["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = str(path)
    else:
        env["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = aws.agent_token
    clean(pull(fetcher, model, ecr, dest, env), aws, aws.agent_token)
    assert [q.path for q in aws.requests] == ["/v1/credentials", "/"]


@pytest.mark.parametrize("uri", ["http://192.0.2.1/v1", "http://127.0.0.1.example/v1", "http://169.254.169.254/v1", "ftp://x/y"])
def test_ecr_pod_identity_only_from_known_addresses(fetcher, model, ecr, aws, helpers, dest, uri):
    env = helpers({ecr.host: "ecr-login"}) | aws.environment(AWS_CONTAINER_CREDENTIALS_FULL_URI=uri,
                                                             AWS_CONTAINER_AUTHORIZATION_TOKEN=aws.agent_token)
    r = pull(fetcher, model, ecr, dest, env).exits(2)
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" in last_words(r)
    assert aws.requests == []


def test_ecr_instance(fetcher, model, ecr, aws, helpers, dest):
    """IMDSv2: a token first, which all questions carry."""
    env = helpers({ecr.host: "ecr-login"}) | aws.environment()
    clean(pull(fetcher, model, ecr, dest, env), aws)
    assert [(q.method, q.path.rpartition("/")[2]) for q in aws.requests] == \
        [("PUT", "token"), ("GET", ""), ("GET", "node-role"), ("POST", "")]


def test_ecr_order(fetcher, model, ecr, aws, helpers, dest, tmp_path):
    """The environment comes before the web identity, that before the container's."""
    path = tmp_path / "token"
    path.write_text(aws.web_token())
    env = helpers({ecr.host: "ecr-login"}) | aws.environment(
        AWS_ROLE_ARN=aws.role, AWS_WEB_IDENTITY_TOKEN_FILE=str(path), AWS_CONTAINER_CREDENTIALS_FULL_URI=aws.url + "/v1/credentials")
    clean(pull(fetcher, model, ecr, dest, env | aws.static()), aws)
    assert len(aws.requests) == 1
    clean(pull(fetcher, model, ecr, dest.with_name("second"), env), aws)
    assert [q.path for q in aws.requests[1:]] == ["/", "/"]


# -- ECR: what goes wrong ----------------------------------------------------------------------------------------------------


def test_ecr_without_credentials_says_where_it_looked(fetcher, model, ecr, aws, helpers, dest):
    env = helpers({ecr.host: "ecr-login"}) | aws.environment()
    aws.imds_hop_limit = True
    words = last_words(pull(fetcher, model, ecr, dest, env).exits(20))
    for part in ("looked in", "ECR login", "AWS_ACCESS_KEY_ID not set", "no web identity", "no container credentials",
                 f"IMDS at {aws.url}: timed out"):
        assert part in words
    assert len(aws.requests) == 2, "one try more"


def test_ecr_imds_switched_off(fetcher, model, ecr, aws, helpers, dest):
    env = helpers({ecr.host: "ecr-login"}) | aws.environment(AWS_EC2_METADATA_DISABLED="TRUE")
    assert "IMDS disabled" in last_words(pull(fetcher, model, ecr, dest, env).exits(20))
    assert aws.requests == []


def test_ecr_keys_are_wrong(fetcher, model, ecr, aws, helpers, dest):
    env = helpers({ecr.host: "ecr-login"}) | aws.environment(AWS_ACCESS_KEY_ID="AKIASTATIC", AWS_SECRET_ACCESS_KEY="hunter2-key")
    r = pull(fetcher, model, ecr, dest, env).exits(20)
    assert "AWS credentials of the environment" in last_words(r) and "InvalidSignatureException" in last_words(r)
    assert "hunter2-key" not in r.err
    assert len(aws.requests) == 1


@pytest.mark.parametrize("ahead", [-7200, 7200])
def test_ecr_clock_skew(fetcher, model, ecr, aws, helpers, dest, ahead):
    """A clock that is wrong by hours: the server's Date is taken, once."""
    aws.clock = ahead
    env = helpers({ecr.host: "ecr-login"}) | aws.environment(**aws.static())
    pull(fetcher, model, ecr, dest, env).ok()
    assert len(aws.requests) == 2 and len(aws.wrong) == 1 and "expired" in aws.wrong[0]


def test_ecr_in_trouble_is_asked_again(fetcher, model, ecr, aws, helpers, dest):
    """A login that fails for a while is no refusal."""
    aws.trouble = (503, {"__type": "ServerException", "message": "slow down"}, {})
    env = helpers({ecr.host: "ecr-login"}) | aws.environment(**aws.static())
    running = fetcher.start("pull", "--plain-http", model.on(ecr), dest, env=env)
    while len(aws.requests) < 2:
        assert running.alive()
        time.sleep(0.02)
    aws.trouble = None
    running.wait().ok()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"authorizationData":[]}', b'{"authorizationData":[{"authorizationToken":"%"}]}',
                                  b'{"authorizationData":[{"authorizationToken":"QVdT"}]}', b"x" * 200000])
def test_ecr_answers_nonsense(fetcher, model, ecr, aws, helpers, dest, body):
    aws.trouble = (200, body, {})
    env = helpers({ecr.host: "ecr-login"}) | aws.environment(**aws.static())
    assert "ECR login" in last_words(pull(fetcher, model, ecr, dest, env).exits(20))


def test_ecr_redirects_are_not_followed(fetcher, model, ecr, aws, helpers, dest):
    with Aws(("AWS", PASSWORD)) as other:
        aws.trouble = (307, b"", {"Location": other.url + "/"})
        env = helpers({ecr.host: "ecr-login"}) | aws.environment(**aws.static())
        pull(fetcher, model, ecr, dest, env).exits(20)
        assert other.requests == []


def test_ecr_needs_a_region(fetcher, model, ecr, aws, helpers, dest):
    env = helpers({ecr.host: "ecr-login"}) | aws.environment(**aws.static())
    del env["AWS_REGION"]
    assert "AWS_REGION" in last_words(pull(fetcher, model, ecr, dest, env).exits(2))
    pull(fetcher, model, ecr, dest, env | {"AWS_DEFAULT_REGION": aws.region}).ok()


def test_off_means_off(fetcher, model, ecr, aws, helpers, dest):
    env = helpers({ecr.host: "ecr-login"}) | aws.environment(**aws.static())
    assert "--cloud-login" in last_words(pull(fetcher, model, ecr, dest, env, "--cloud-login", "off").exits(2))
    assert aws.requests == []


def test_what_is_given_wins(fetcher, model, ecr, aws, helpers, dest, tmp_path):
    """--username, then config files, then the login."""
    secret = tmp_path / "pw"
    secret.write_text(PASSWORD)
    env = helpers({ecr.host: "ecr-login"}) | aws.environment(**aws.static())
    pull(fetcher, model, ecr, dest, env, "--username", "AWS", "--password-file", secret).ok()
    assert aws.requests == []


def test_other_registries_ask_no_cloud(fetcher, model, registry_htpasswd, aws, dest):
    """A registry of no cloud that wants a login: the metadata address hears nothing."""
    with Google() as google:
        env = aws.environment(GCE_METADATA_HOST=google.host, AZURE_POD_IDENTITY_AUTHORITY_HOST=google.url, **aws.static())
        pull(fetcher, model, registry_htpasswd, dest, env).exits(20)
        assert aws.requests == [] and google.requests == []


# -- Google ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def google():
    with Google() as cloud:
        yield cloud


@pytest.fixture(scope="module")
def gar_tokens(start):
    return start(TokenServer, "gar-tokens", users={"oauth2accesstoken": Google.token})


@pytest.fixture(scope="module")
def gar(start, registry, gar_tokens):
    """Bearer, whose token service takes Basic oauth2accesstoken:TOKEN."""
    return start(Registry, "gar", data=registry.data, token=gar_tokens)


@pytest.mark.parametrize("name", ["gcloud", "gcr"])
def test_google_metadata(fetcher, model, gar, google, helpers, dest, name):
    """[A14]"""
    env = helpers({gar.host: name}) | {"GCE_METADATA_HOST": google.host}
    clean(pull(fetcher, model, gar, dest, env), google, google.token)
    holds(dest, FILES)
    assert len(google.requests) == 1


def test_google_metadata_that_starts_late(fetcher, model, gar, google, helpers, dest):
    """GKE's metadata server may come after the Pod."""
    google.starts_at = 3
    env = helpers({gar.host: "gcr"}) | {"GCE_METADATA_HOST": google.host}
    clean(pull(fetcher, model, gar, dest, env), google)
    assert len(google.requests) == 4


def test_google_without_the_flavor(fetcher, model, gar, google, helpers, dest):
    """Somebody else listens at the metadata address: its answer is no token."""
    google.flavor = None
    env = helpers({gar.host: "gcr"}) | {"GCE_METADATA_HOST": google.host}
    words = last_words(pull(fetcher, model, gar, dest, env).exits(20))
    assert "not a Google metadata server" in words and "Google login" in words


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_google_public_images_need_no_metadata(fetcher, model, start, registry, google, helpers, dest, kind, request):
    """Not on Google: anonymous, soon, and remembered for the run."""
    tokens = start(TokenServer, f"gar-public-{kind}")
    public = start(Registry, f"gar-public-{kind}-registry", data=registry.data, token=tokens)
    if kind == "silent":
        google.silent = 30
    host = google.host if kind == "silent" else f"127.0.0.1:{free_port()}"
    env = helpers({public.host: "gcr"}) | {"GCE_METADATA_HOST": host}
    pull(fetcher, model, public, dest, env).ok()
    holds(dest, FILES)
    assert len(google.requests) <= 1
    assert {r["user"] for r in tokens.requests} == {None}


# -- Azure -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def acr(start, registry, workdir):
    """A docker-registry and the stand-in behind one origin: (front, stand-in)."""
    azure = Azure(workdir / "azure")
    back = start(Registry, "acr-registry", data=registry.data, token=azure.signer)
    front = start(Nginx, "acr", proxy=back.url,
                  extra=f"location /oauth2/ {{ proxy_pass {azure.url}; proxy_set_header Host $http_host; }}")
    yield front, azure
    azure.stop()


@pytest.fixture
def azure(acr):
    front, cloud = acr
    cloud.requests.clear()
    cloud.wrong.clear()
    cloud.trouble = None
    cloud.identities = {None, cloud.client}
    return cloud


def workload(azure, path):
    return {"AZURE_TENANT_ID": azure.tenant, "AZURE_CLIENT_ID": azure.client, "AZURE_FEDERATED_TOKEN_FILE": str(path),
            "AZURE_AUTHORITY_HOST": azure.url + "/"}


def test_azure_workload_identity(fetcher, model, acr, azure, helpers, dest, tmp_path):
    """[A5, A14]: assertion, exchange at the registry's own origin, POST with the refresh token."""
    path = tmp_path / "token"
    path.write_text(azure.federated_token())
    env = helpers({acr[0].host: "acr-env"}) | workload(azure, path)
    r = clean(pull(fetcher, model, acr[0], dest, env), azure, path.read_text(), "eyJ.aad", "eyJ.acr")
    holds(dest, FILES)
    assert [q.path for q in azure.requests] == [f"/{azure.tenant}/oauth2/v2.0/token", "/oauth2/exchange", "/oauth2/token"]
    assert azure.requests[1].headers["host"] == acr[0].host
    assert "Azure login (workload identity)" in r.err


@pytest.mark.parametrize("client", [None, Azure.client])
def test_azure_managed_identity(fetcher, model, acr, azure, helpers, dest, client):
    azure.identities = {client}
    env = helpers({acr[0].host: "acr-env"}) | {"AZURE_POD_IDENTITY_AUTHORITY_HOST": azure.url}
    if client:
        env["AZURE_CLIENT_ID"] = client
    clean(pull(fetcher, model, acr[0], dest, env), azure, "eyJ.aad", "eyJ.acr")


def test_azure_assertion_refused(fetcher, model, acr, azure, helpers, dest, tmp_path):
    path = tmp_path / "token"
    path.write_text(azure.federated_token(exp=1))
    env = helpers({acr[0].host: "acr-env"}) | workload(azure, path)
    r = pull(fetcher, model, acr[0], dest, env).exits(20)
    assert "AADSTS700024" in last_words(r) and "Azure login" in last_words(r)
    assert path.read_text() not in r.err


def test_azure_nothing_here(fetcher, model, acr, azure, helpers, dest):
    azure.identities = set()
    env = helpers({acr[0].host: "acr-env"}) | {"AZURE_POD_IDENTITY_AUTHORITY_HOST": azure.url}
    words = last_words(pull(fetcher, model, acr[0], dest, env).exits(20))
    assert "no workload identity" in words and "Identity not found" in words


@pytest.mark.parametrize("name, value", [("AZURE_AUTHORITY_HOST", "http://login.example"), ("AZURE_TENANT_ID", "a/../b"),
                                         ("AZURE_TENANT_ID", ""), ("AZURE_FEDERATED_TOKEN_FILE", "/nonexistent")])
def test_azure_variables_that_are_wrong(fetcher, model, acr, azure, helpers, dest, tmp_path, name, value):
    """The assertion is a secret: it goes nowhere over plain HTTP, and nowhere a tenant's name leads."""
    path = tmp_path / "token"
    path.write_text(azure.federated_token())
    env = helpers({acr[0].host: "acr-env"}) | workload(azure, path) | {name: value}
    assert name in last_words(pull(fetcher, model, acr[0], dest, env).exits(2))
    assert azure.requests == []


def test_azure_every_token_has_its_exchange(fetcher, model, acr, azure, helpers, dest, tmp_path):
    """Refresh tokens are taken once: a second look of watch brings its own."""
    path = tmp_path / "token"
    path.write_text(azure.federated_token())
    env = helpers({acr[0].host: "acr-env"}) | workload(azure, path)
    running = fetcher.start("watch", "--plain-http", "--period", "200ms", model.on(acr[0]), dest, env=env)
    give_up = time.monotonic() + 60
    while len(azure.seen("/oauth2/token")) < 3 and time.monotonic() < give_up:
        assert running.alive(), running.err()
        time.sleep(0.05)
    running.terminate()
    assert len(azure.seen("/oauth2/token")) >= 3 and azure.wrong == []


# -- the life of a login -----------------------------------------------------------------------------------------------------


def looks(fetcher, model, server, dest, env, enough):
    """watch until enough() or for 30 s."""
    running = fetcher.start("watch", "--plain-http", "--period", "200ms", model.on(server), dest, env=env)
    give_up = time.monotonic() + 30
    while not enough() and time.monotonic() < give_up:
        assert running.alive(), running.err()
        time.sleep(0.05)
    return running.terminate()


def test_a_login_is_kept(fetcher, model, ecr, aws, helpers, dest):
    """Twelve hours are twelve hours, however often watch looks."""
    env = helpers({ecr.host: "ecr-login"}) | aws.environment(**aws.static())
    before = ecr.gets("manifests") + ecr.log().count('"HEAD /v2/')
    looks(fetcher, model, ecr, dest, env, lambda: ecr.gets("manifests") + ecr.log().count('"HEAD /v2/') > before + 12)
    assert len(aws.requests) == 1 and aws.wrong == []


@pytest.mark.parametrize("shape", ["float", "exponent"])
def test_a_login_is_renewed_before_it_ends(fetcher, model, ecr, aws, helpers, dest, shape):
    aws.life = 3
    aws.exponent = shape == "exponent"
    env = helpers({ecr.host: "ecr-login"}) | aws.environment(**aws.static())
    looks(fetcher, model, ecr, dest, env, lambda: len(aws.requests) >= 3)
    assert len(aws.requests) >= 3 and aws.wrong == []


def test_a_password_that_ended_early(fetcher, model, start, registry, helpers, dest):
    """[A9] A 401 before the end that was told: a new login at once."""
    server = start(Registry, "ecr-rotating", data=registry.data, users={"AWS": "first-password"})
    other = start(Registry, "ecr-rotated", data=registry.data, users={"AWS": "second-password"})
    with Aws(("AWS", "first-password")) as aws:
        env = helpers({server.host: "ecr-login"}) | aws.environment(**aws.static())
        done = []

        def step():
            if not done and len(aws.requests) == 1 and (dest / "current").exists():
                aws.user = ("AWS", "second-password")
                text = (other.dir / "htpasswd").read_text()
                (server.dir / "htpasswd").write_text(text)
                done.append(True)
            return len(aws.requests) >= 2
        looks(fetcher, model, server, dest, env, step)
        assert len(aws.requests) >= 2 and aws.wrong == []


def test_a_login_that_ends_while_a_pull_runs(fetcher, model, start, registry, ecr, aws, helpers, dest):
    """[A7, A9]: renewed in time, by one, while ranges go on."""
    body = Content(62, 12 << 20)
    slow = start(Haproxy, "ecr-slow", ecr, cap=1 << 20)
    pushed = oci.push(registry, "cloud/large", "v1", {"w.bin": body})
    aws.life = 4
    env = helpers({slow.host: "ecr-login"}) | aws.environment(**aws.static())
    clean(pull(fetcher, pushed, slow, dest, env, "--concurrency", "2", "--range-size", "1MiB"), aws, PASSWORD)
    holds(dest, {"w.bin": body})
    assert 2 <= len(aws.requests) <= 12, "one login each two to four seconds"


# -- by the registry's own name ----------------------------------------------------------------------------------------------


@pytest.fixture
def named(tmp_path):
    """named(host) -> words before the command: that name is this machine, for this command alone."""
    def wrap(host):
        hosts = tmp_path / "hosts"
        hosts.write_text(f"127.0.0.1 localhost {host}\n")
        words = ["unshare", "-rm", "sh", "-c", f"mount --bind {hosts} /etc/hosts && exec \"$0\" \"$@\""]
        if subprocess.run([*words, "true"], capture_output=True).returncode:
            pytest.skip("no mount namespaces here")
        return words
    return wrap


def front(start, authority, name, host, backend, **more):
    """TLS, with a certificate for that name."""
    server = start(Nginx, name, proxy=backend.url, tls=authority.issue(name, san=f"DNS:{host}"), ca=authority.ca, **more)
    return f"{host}:{server.host.rpartition(':')[2]}"


@pytest.mark.parametrize("name", ["123456789012.dkr.ecr.eu-central-1.amazonaws.com",
                                  "123456789012.dkr-ecr-fips.eu-central-1.on.aws"])
def test_ecr_by_name(fetcher, model, start, authority, ecr, aws, named, dest, name):
    """Without a word in any file, and without a region in the environment."""
    host = front(start, authority, "named-" + name[:22].replace(".", "-"), name, ecr)
    env = aws.environment(**aws.static())
    del env["AWS_REGION"]
    clean(fetcher("pull", "--ca-file", authority.ca, model.on(host), dest, env=env, wrap=named(name)), aws)
    holds(dest, FILES)


def test_google_by_name(fetcher, model, start, authority, registry, google, named, dest, workdir):
    """Artifact Registry and its token service on one origin."""
    tokens = start(TokenServer, "gar-named-tokens", users={"oauth2accesstoken": Google.token})
    tokens.realm = "/v2/token"
    back = start(Registry, "gar-named-back", data=registry.data, token=tokens)
    name = "europe-west4-docker.pkg.dev"
    host = front(start, authority, "gar-named", name, back, extra=f"location /v2/token {{ proxy_pass http://{tokens.host}; }}")
    clean(fetcher("pull", "--ca-file", authority.ca, model.on(host), dest, env={"GCE_METADATA_HOST": google.host},
                  wrap=named(name)), google, google.token)
    holds(dest, FILES)


def test_azure_by_name(fetcher, model, start, authority, acr, azure, named, dest, tmp_path):
    name = "contoso.azurecr.io"
    host = front(start, authority, "acr-named", name, acr[0])
    path = tmp_path / "token"
    path.write_text(azure.federated_token())
    clean(fetcher("pull", "--ca-file", authority.ca, model.on(host), dest, env=workload(azure, path), wrap=named(name)), azure)
    holds(dest, FILES)
    assert azure.seen("/oauth2/exchange")[0].headers["host"] == host


def test_insecure_ends_logins(fetcher, model, start, authority, ecr, aws, named, dest):
    """What nobody verified gets no identity of the Pod."""
    name = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
    host = front(start, authority, "named-insecure", name, ecr)
    fetcher("pull", "--insecure", model.on(host), dest, env=aws.environment(**aws.static()), wrap=named(name)).exits(20)
    assert aws.requests == []
