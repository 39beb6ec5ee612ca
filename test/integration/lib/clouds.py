# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for what the clouds have around their registries. Each checks what it is sent by itself: signatures are computed
anew from the raw request, assertions are verified, headers that the real ones demand are demanded."""

import base64
import datetime
import email.utils
import hashlib
import hmac
import http.server
import json
import threading
import time
import urllib.parse
import uuid

from .tokens import TokenServer


def jwt(key, **claims):
    """A web token, HS256: what a projected service account token is to its reader, without a key pair."""
    parts = [base64.urlsafe_b64encode(json.dumps(x).encode()).rstrip(b"=").decode()
             for x in ({"alg": "HS256", "typ": "JWT"}, claims)]
    text = ".".join(parts)
    mac = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return text + "." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def jwt_claims(key, token):
    """The claims of a token that is right, and None of any other."""
    text, _, mac = token.rpartition(".")
    right = base64.urlsafe_b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).rstrip(b"=").decode()
    if not text or not hmac.compare_digest(mac, right):
        return None
    body = text.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims if claims["exp"] > time.time() else None


class Request:
    def __init__(self, method, target, headers, body):
        self.method = method
        split = urllib.parse.urlsplit(target)
        self.path = split.path
        self.raw_query = split.query
        self.query = dict(urllib.parse.parse_qsl(split.query))
        self.headers = {k.lower(): v for k, v in headers.items()}
        self.body = body

    @property
    def form(self):
        return dict(urllib.parse.parse_qsl(self.body.decode(), keep_blank_values=True))


class Cloud:
    """An HTTP server on loopback in a thread. Subclasses answer(request) -> (status, body, headers).

    requests   what came, in order;   trouble   (status, body, headers) to answer everything with, or None
    wrong      what was wrong with requests that were refused: empty at the end of a test that went well
    """

    def __init__(self, host="127.0.0.1"):
        self.requests = []
        self.wrong = []
        self.trouble = None
        self.silent = 0
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self):
                length = int(self.headers.get("Content-Length", 0))
                request = Request(self.command, self.path, self.headers, self.rfile.read(length))
                owner.requests.append(request)
                if owner.silent:
                    time.sleep(owner.silent)
                status, body, headers = owner.trouble or owner.answer(request)
                data = body if isinstance(body, bytes) else \
                    (body if isinstance(body, str) else json.dumps(body)).encode()
                self.send_response_only(status)
                self.send_header("Date", headers.get("Date") or email.utils.formatdate(usegmt=True))
                for name, value in headers.items():
                    if name != "Date":
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_HEAD = handle_one

            def log_message(self, *args):
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args):
                pass    # a client that gave up

        self._http = Quiet((host, 0), Handler)
        self.host = f"{host}:{self._http.server_address[1]}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True).start()

    def stop(self):
        self._http.shutdown()
        self._http.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.stop()

    def refuse(self, status, why, body=None, headers=None):
        self.wrong.append(why)
        return status, body if body is not None else {"message": why}, headers or {}

    def seen(self, path):
        return [r for r in self.requests if r.path == path]


def sigv4(request, keys, service, region, now):
    """Why the signature of a request is wrong, or None. keys: {id: (secret, session token or None)}."""
    words = request.headers.get("authorization", "")
    if not words.startswith("AWS4-HMAC-SHA256 "):
        return "not signed"
    fields = dict(x.strip().split("=", 1) for x in words.split(" ", 1)[1].split(","))
    key_id, day, *scope = fields["Credential"].split("/")
    date = request.headers["x-amz-date"]
    names = fields["SignedHeaders"].split(";")
    if key_id not in keys:
        return f"key {key_id} is not known"
    secret, token = keys[key_id]
    if scope != [region, service, "aws4_request"] or date[:8] != day:
        return f"scope {scope}"
    if request.headers.get("x-amz-security-token") != token:
        return "another session token"
    need = {"host", "x-amz-date"} | ({"x-amz-security-token"} if token else set())
    if not need <= set(names) or names != sorted(names):
        return f"signed headers {names}"
    canonical = "\n".join([request.method, urllib.parse.quote(request.path), request.raw_query,
                           *(f"{n}:{' '.join(request.headers[n].split())}" for n in names), "", ";".join(names),
                           hashlib.sha256(request.body).hexdigest()])
    text = "\n".join(["AWS4-HMAC-SHA256", date, "/".join([day, *scope]), hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + secret).encode()
    for step in (day, *scope):
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    if not hmac.compare_digest(hmac.new(key, text.encode(), hashlib.sha256).hexdigest(), fields["Signature"]):
        return "signature"
    signed = datetime.datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc).timestamp()
    if abs(signed - now) > 300:
        return f"Signature expired: {date} is now earlier or later"
    return None


class Aws(Cloud):
    """ECR, ECR Public, STS, container credentials and IMDSv2, on one port.

    user       (name, password) that ECR hands out;   keys   {id: (secret, session token)} it takes
    life       seconds the password is good for;  clock   seconds that the servers are ahead of this machine
    """

    role = "arn:aws:iam::123456789012:role/puller"
    agent_token = "pod-identity-agent-token-secret"
    jwt_key = b"oidc provider"

    def __init__(self, user, region="eu-central-1"):
        super().__init__()
        self.user = user
        self.region = region
        self.life = 43200
        self.clock = 0
        self.imds_hop_limit = False
        self.has_role = True
        self.exponent = False
        self.keys = {"AKIASTATIC": ("static/secret+key", None)}
        self._imds_tokens = set()

    def environment(self, **more):
        """What a Pod with static keys has; the services are here."""
        return {"AWS_REGION": self.region, "AWS_ENDPOINT_URL": self.url, "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.url, **more}

    def static(self):
        return {"AWS_ACCESS_KEY_ID": "AKIASTATIC", "AWS_SECRET_ACCESS_KEY": "static/secret+key"}

    def web_token(self, **claims):
        return jwt(self.jwt_key, **{"aud": ["sts.amazonaws.com"], "sub": "system:serviceaccount:models:puller",
                                    "exp": time.time() + 600, **claims})

    def fresh_keys(self):
        key_id, secret, token = (f"ASIA{uuid.uuid4().hex[:12].upper()}", "temporary/" + uuid.uuid4().hex, "IQoJ//" +
                                 uuid.uuid4().hex + "==")
        self.keys[key_id] = (secret, token)
        return {"AccessKeyId": key_id, "SecretAccessKey": secret, "Token": token, "Expiration": "2099-01-01T00:00:00Z"}

    def answer(self, r):
        date = {"Date": email.utils.formatdate(time.time() + self.clock, usegmt=True)}
        if r.method == "POST" and "x-amz-target" in r.headers:
            status, body, headers = self._ecr(r)
        elif r.method == "POST":
            status, body, headers = self._sts(r)
        elif r.path.startswith("/latest/"):
            status, body, headers = self._imds(r)
        elif r.path == "/v1/credentials":
            status, body, headers = self._agent(r)
        else:
            status, body, headers = self.refuse(404, f"{r.method} {r.path}")
        return status, body, {**date, **headers}

    def _ecr(self, r):
        public = r.headers["x-amz-target"] == "SpencerFrontendService.GetAuthorizationToken"
        if not public and r.headers["x-amz-target"] != "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken":
            return self.refuse(400, "another target")
        if r.headers.get("content-type") != "application/x-amz-json-1.1" or json.loads(r.body) != {}:
            return self.refuse(400, "content type or body")
        why = sigv4(r, self.keys, "ecr-public" if public else "ecr", "us-east-1" if public else self.region,
                    time.time() + self.clock)
        if why:
            kind = "InvalidSignatureException" if "ignature" in why else "UnrecognizedClientException"
            return self.refuse(400, why, {"__type": kind, "message": why})
        data = {"authorizationToken": base64.b64encode(":".join(self.user).encode()).decode(),
                "expiresAt": time.time() + self.clock + self.life}
        if not public:
            data["proxyEndpoint"] = "https://123456789012.dkr.ecr.eu-central-1.amazonaws.com"
        text = json.dumps({"authorizationData": data if public else [data]})
        if self.exponent:    # as the real one writes it
            text = text.replace(str(data["expiresAt"]), f"{data['expiresAt']:.9E}")
        return 200, text, {}

    def _sts(self, r):
        form = r.form
        if "authorization" in r.headers:
            return self.refuse(400, "STS: a signed request")
        if form.get("Action") != "AssumeRoleWithWebIdentity" or form.get("Version") != "2011-06-15" or \
                not form.get("RoleSessionName"):
            return self.refuse(400, f"STS: {sorted(form)}")
        claims = jwt_claims(self.jwt_key, form["WebIdentityToken"])
        if form["RoleArn"] != self.role or not claims or claims["aud"] != ["sts.amazonaws.com"]:
            return self.refuse(400, "STS: role or token", f"""<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <Error><Type>Sender</Type><Code>InvalidIdentityToken</Code><Message>no such token: {form['WebIdentityToken']}</Message></Error>
  <RequestId>7d</RequestId></ErrorResponse>""", {"Content-Type": "text/xml"})
        k = self.fresh_keys()
        return 200, f"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <Audience>sts.amazonaws.com</Audience>
    <AssumedRoleUser><AssumedRoleId>AROA:x</AssumedRoleId><Arn>{form['RoleArn']}/x</Arn></AssumedRoleUser>
    <Provider>arn:aws:iam::123456789012:oidc-provider/oidc.example</Provider>
    <Credentials>
      <AccessKeyId>{k['AccessKeyId']}</AccessKeyId>
      <SecretAccessKey>{k['SecretAccessKey']}</SecretAccessKey>
      <SessionToken>{k['Token']}</SessionToken>
      <Expiration>{k['Expiration']}</Expiration>
    </Credentials>
    <SubjectFromWebIdentityToken>{claims['sub']}</SubjectFromWebIdentityToken>
  </AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>""", {"Content-Type": "text/xml"}

    def _agent(self, r):
        if r.headers.get("authorization") != self.agent_token:
            return self.refuse(401, "agent: token")
        return 200, self.fresh_keys(), {}

    def _imds(self, r):
        if self.imds_hop_limit:
            time.sleep(5)
            return self.refuse(504, "hop limit")
        if r.path == "/latest/api/token":
            if r.method != "PUT" or not 1 <= int(r.headers.get("x-aws-ec2-metadata-token-ttl-seconds", 0)) <= 21600:
                return self.refuse(400, "IMDS: no PUT with a lifetime", "")
            token = "AQAE" + uuid.uuid4().hex + "=="
            self._imds_tokens.add(token)
            return 200, token, {"Content-Type": "text/plain"}
        if r.headers.get("x-aws-ec2-metadata-token") not in self._imds_tokens:
            return self.refuse(401, "IMDS: without a token", "")
        base = "/latest/meta-data/iam/security-credentials/"
        if not self.has_role:
            return 404, "", {}
        if r.path == base:
            return 200, "node-role\n", {"Content-Type": "text/plain"}
        if r.path == base + "node-role":
            return 200, {"Code": "Success", "Type": "AWS-HMAC", **self.fresh_keys()}, {}
        return self.refuse(404, r.path)


class Google(Cloud):
    """The metadata server of an instance or of GKE.  token  that it hands out;  flavor  of its answers"""

    token = "ya29.secret-access-token"
    life = 3599
    flavor = "Google"
    starts_at = 0   # 503 before so many questions

    def answer(self, r):
        headers = {"Metadata-Flavor": self.flavor, "Server": "Metadata Server for VM"} if self.flavor else {}
        if r.headers.get("metadata-flavor") != "Google" or "authorization" in r.headers:
            return self.refuse(403, "no Metadata-Flavor")
        if r.path != "/computeMetadata/v1/instance/service-accounts/default/token":
            return self.refuse(404, r.path, headers=headers)
        if len(self.requests) <= self.starts_at:
            return 503, "", headers
        return 200, {"access_token": self.token, "expires_in": self.life, "token_type": "Bearer"}, headers


class Azure(Cloud):
    """Entra ID, IMDS, and the /oauth2/ part of a registry whose blobs docker-registry serves: a front sends both here.

    tokens   TokenServer that signs for docker-registry; its realm is this part of the front
    """

    tenant = "72f988bf-86f1-41af-91ab-2d7cd011db47"
    client = "11111111-2222-3333-4444-555555555555"
    jwt_key = b"cluster issuer"
    audience = "https://containerregistry.azure.net"

    def __init__(self, dir):
        super().__init__()
        self.signer = TokenServer(dir)
        self.signer.realm = "/oauth2/token"
        self.identities = {None, self.client}
        self._access = set()
        self._refresh = set()
        self.exchanged = 0

    def stop(self):
        super().stop()
        self.signer.stop()

    def federated_token(self, **claims):
        return jwt(self.jwt_key, **{"aud": ["api://AzureADTokenExchange"], "sub": "system:serviceaccount:models:puller",
                                    "exp": time.time() + 600, **claims})

    def answer(self, r):
        if r.path == f"/{self.tenant}/oauth2/v2.0/token":
            return self._entra(r)
        if r.path == "/metadata/identity/oauth2/token":
            return self._imds(r)
        if r.path == "/oauth2/exchange":
            return self._exchange(r)
        if r.path == "/oauth2/token":
            return self._token(r)
        return self.refuse(404, f"{r.method} {r.path}")

    def _new_access(self):
        token = "eyJ.aad." + uuid.uuid4().hex
        self._access.add(token)
        return 200, {"token_type": "Bearer", "expires_in": 86399, "access_token": token}, {}

    def _entra(self, r):
        form = r.form
        claims = jwt_claims(self.jwt_key, form.get("client_assertion", ""))
        want = {"grant_type": "client_credentials", "client_id": self.client, "scope": self.audience + "/.default",
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}
        if any(form.get(k) != v for k, v in want.items()):
            return self.refuse(400, f"entra: {form}")
        if not claims or claims["aud"] != ["api://AzureADTokenExchange"]:
            return self.refuse(401, "entra: assertion", {
                "error": "invalid_client", "error_description": "AADSTS700024: not valid: " + form["client_assertion"]})
        return self._new_access()

    def _imds(self, r):
        if r.headers.get("metadata") != "true" or r.query.get("api-version") != "2018-02-01" or \
                r.query.get("resource") != self.audience:
            return self.refuse(400, "imds: header or query")
        if r.query.get("client_id") not in self.identities:
            return self.refuse(400, "imds: identity", {"error": "invalid_request", "error_description": "Identity not found"})
        return self._new_access()

    def _exchange(self, r):
        form = r.form
        if form.get("grant_type") != "access_token" or form.get("access_token") not in self._access or \
                form.get("service") != self.signer.service or form.get("tenant", self.tenant) != self.tenant:
            return self.refuse(401, f"exchange: {sorted(form.items())}", {"errors": [{"code": "UNAUTHORIZED"}]})
        token = "eyJ.acr." + uuid.uuid4().hex
        self._refresh.add(token)
        self.exchanged += 1
        return 200, {"refresh_token": token}, {}

    def _token(self, r):
        """Each refresh token is good for one access token."""
        form = r.form if r.method == "POST" else r.query
        token = form.get("refresh_token")
        if form.get("grant_type") != "refresh_token" or token not in self._refresh or form["service"] != self.signer.service:
            return self.refuse(401, f"token: {sorted(form)}", {"errors": [{"code": "UNAUTHORIZED"}]})
        self._refresh.remove(token)
        scopes = [s.removeprefix("repository:").rsplit(":", 1) for s in form["scope"].split()]
        return 200, {"access_token": self.signer.mint([(n, a.split(",")) for n, a in scopes])}, {}
