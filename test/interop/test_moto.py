# SPDX-License-Identifier: Apache-2.0
"""The login of ECR against moto, which has STS and ECR and verifies signatures with botocore: nobody here wrote either."""
import json
import urllib.parse
import urllib.request

import pytest

from lib import oci
from lib.content import Content
from lib.look import holds, last_words
from lib.proc import Server, free_port
from lib.registry import Registry

from conftest import find_tool

FILES = {"config.json": b"{}", "w.bin": Content(71, 2 << 20)}
ACCOUNT = "123456789012"    # moto's own
REGION = "eu-central-1"
ALLOW = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ecr:*", "Resource": "*"}]})
TRUST = json.dumps({"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Principal": {"Federated": "oidc.example"}, "Action": "sts:AssumeRoleWithWebIdentity"}]})


class Moto(Server):
    name = "moto"

    def __init__(self, dir, program):
        super().__init__(dir)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.launch([program, "-H", "127.0.0.1", "-p", str(port)], port)

    def post(self, path, data, headers=None):
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers or {}), timeout=60) as r:
            return r.read().decode()

    def iam(self, action, **fields):
        """Routed by the scope of the signature, which nobody checks yet."""
        scope = f"AWS4-HMAC-SHA256 Credential=x/20260101/{REGION}/iam/aws4_request, SignedHeaders=host, Signature=x"
        body = urllib.parse.urlencode({"Action": action, "Version": "2010-05-08", **fields}).encode()
        return self.post("/", body, {"Authorization": scope, "Content-Type": "application/x-www-form-urlencoded"})

    def check_after(self, free):
        """From the action number free on, signatures and rights are checked."""
        self.post("/moto-api/reset-auth", str(free).encode(), {"Content-Type": "text/plain"})


def between(text, name):
    return text.split(f"<{name}>")[1].split(f"</{name}>")[0]


@pytest.fixture
def moto(workdir, request):
    with Moto(workdir / f"moto-{abs(hash(request.node.name))}", find_tool("moto_server")) as server:
        yield server


@pytest.fixture(scope="module")
def ecr(start, registry):
    return start(Registry, "moto-ecr", data=registry.data, users={"AWS": f"{ACCOUNT}-auth-token"})


@pytest.fixture(scope="module")
def model(registry):
    return oci.push(registry, "moto/model", "v1", FILES)


@pytest.fixture
def env(moto, ecr, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {ecr.host: "ecr-login"}}))
    return {"DOCKER_CONFIG": str(tmp_path), "AWS_REGION": REGION, "AWS_ENDPOINT_URL": moto.url,
            "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture
def keys(moto):
    moto.iam("CreateUser", UserName="puller")
    made = moto.iam("CreateAccessKey", UserName="puller")
    moto.iam("PutUserPolicy", UserName="puller", PolicyName="ecr", PolicyDocument=ALLOW)
    return {"AWS_ACCESS_KEY_ID": between(made, "AccessKeyId"), "AWS_SECRET_ACCESS_KEY": between(made, "SecretAccessKey")}


def test_keys_of_a_user(moto, ecr, model, env, keys, fetcher, dest):
    moto.check_after(0)
    fetcher.pull(model.on(ecr), dest, env=env | keys).ok()
    holds(dest, FILES)


def test_a_wrong_key_is_refused(moto, ecr, model, env, keys, fetcher, dest):
    """So that the one above means something."""
    moto.check_after(0)
    keys["AWS_SECRET_ACCESS_KEY"] = keys["AWS_SECRET_ACCESS_KEY"][::-1]
    words = last_words(fetcher.pull(model.on(ecr), dest, env=env | keys).exits(20))
    assert "ECR login" in words and "refused with 403" in words


def test_web_identity(moto, ecr, model, env, fetcher, dest, tmp_path):
    """STS is asked unsigned; what it gives signs the question to ECR, with its session token."""
    moto.iam("CreateRole", RoleName="puller", AssumeRolePolicyDocument=TRUST)
    moto.iam("PutRolePolicy", RoleName="puller", PolicyName="ecr", PolicyDocument=ALLOW)
    token = tmp_path / "token"
    token.write_text("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.")
    moto.check_after(1)
    fetcher.pull(model.on(ecr), dest, env=env | {"AWS_ROLE_ARN": f"arn:aws:iam::{ACCOUNT}:role/puller",
                                                 "AWS_WEB_IDENTITY_TOKEN_FILE": str(token)}).ok()
    holds(dest, FILES)
