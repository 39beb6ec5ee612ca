# SPDX-License-Identifier: Apache-2.0
"""The fronts of registries that cannot run here, over the fault server: what each asks for, what its token service
answers, what it says when it refuses. Content, rules and observations are the fault server's (faultserver.py).

    with Harbor(users={"robot$team+ci": "pw"}) as harbor:
        art = harbor.artifact({"w": data})
        ...
        harbor.token_requests     dicts: method, query (lists), user, authorization
        harbor.logins             user names that a token was given to

users: {name: password}; None = everybody. A user may read all repositories but those in `denied`.
"""

import base64
import json
import re
import secrets
import time
import urllib.parse

from faultserver import FaultServer, Reply


class Front(FaultServer):
    """A registry with a token service. What differs between registries are attributes and a few methods."""

    token_path = "/token"
    service = "registry"
    says_scope = True           # the challenge holds the scope
    refresh_path = None         # where POST grant_type=refresh_token is answered
    key = "token"

    def __init__(self, users=None, repo="team/model", **how):
        self.users = users
        self.denied = set()
        self.life = None        # seconds after which a token is refused
        self.expires_in = 300
        self.token_requests = []
        self.logins = []
        self.granted = {}       # token -> (scopes, time)
        self.refresh_tokens = {}
        super().__init__(repo=repo, **how)

    # -- the registry ---------------------------------------------------------------------------

    def challenge(self, req):
        scope = f',scope="{self.scope(req)}"' if self.says_scope and self.scope(req) else ""
        service = f',service="{self.service}"' if self.service else ""
        return f'Bearer realm="{self.realm(req)}"{service}{scope}'

    def realm(self, req):
        return self.base + self.token_path

    @staticmethod
    def name(req):
        match = re.match(r"/v2/(.+)/(?:blobs|manifests)/", req.path)
        return match[1] if match else None

    def scope(self, req):
        return f"repository:{self.name(req)}:pull" if self.name(req) else ""

    def may(self, req, token):
        scopes, born = self.granted.get(token, ((), 0))
        if token not in self.granted or (self.life is not None and time.monotonic() > born + self.life):
            return False
        return not self.name(req) or any(s.startswith(f"repository:{self.name(req)}:") and "pull" in s
                                         for s in scopes)

    def refuse(self, req):
        reply = self._error(401, "UNAUTHORIZED")
        value = self.challenge(req)
        if value:
            reply.headers["WWW-Authenticate"] = value
        return reply

    def _check_auth(self, req):
        kind, _, token = req.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.may(req, token):
            return None
        return self.refuse(req)

    def _answer(self, req, act):
        if "status" not in act and req.path.rstrip("/") in (self.token_path.rstrip("/"), self.refresh_path):
            return self._token(req)
        return super()._answer(req, act)

    # -- the token service ----------------------------------------------------------------------

    def known(self, user):
        return self.users is None or (user is not None and self.users.get(user[0]) == user[1])

    def grants(self, user, scope):
        """Whether a token with this scope is given to a user that is known."""
        return scope.split(":")[1] not in self.denied if scope.count(":") >= 2 else True

    def refused_token(self, req):
        return self._error(401, "UNAUTHORIZED")

    def _token(self, req):
        query = urllib.parse.parse_qs(req.target.partition("?")[2], keep_blank_values=True)
        if req.method == "POST":
            query = urllib.parse.parse_qs(req.body.decode("latin-1"), keep_blank_values=True)
        user = self._basic(req)
        self.token_requests.append({"method": req.method, "path": req.path, "query": query,
                                    "user": user[0] if user else None,
                                    "authorization": req.headers.get("authorization")})
        return self.give(req, query, user)

    def give(self, req, query, user):
        if req.method == "POST":
            return self._error(404, "NOT_FOUND")
        if not self.known(user):
            return self.refused_token(req)
        return self.mint(user, query)

    def mint(self, user, query, **more):
        scopes = [s for words in query.get("scope", []) for s in words.split()]
        token = secrets.token_urlsafe(24)
        self.granted[token] = ([s for s in scopes if self.grants(user, s)], time.monotonic())
        self.logins.append(user[0] if user else None)
        body = {self.key: token, **more}
        if self.expires_in is not None:
            body["expires_in"] = self.expires_in
        return Reply(200, {"Content-Type": "application/json"}, json.dumps(body).encode())


class Harbor(Front):
    """servers.md 3: Basic is asked of who comes with a refused Authorization; a token with a scope is given to everybody,
    without rights when the login is wrong; only without a scope a wrong login is told; no POST; 412 of policies."""

    token_path = "/service/token"
    service = "harbor-registry"

    def __init__(self, users=None, repo="team/model", **how):
        super().__init__(users, repo, **how)
        self.policy = None      # message of the policy that forbids every artifact
        self.moved = {}         # repository -> where a proxy project's 301 sends it

    def realm(self, req):
        return f"http://{req.headers.get('host')}{self.token_path}"

    def challenge(self, req):
        if "authorization" in req.headers:
            return 'Basic realm="harbor"'
        return super().challenge(req)

    def give(self, req, query, user):
        if req.method == "POST":
            return self._error(404, "NOT_FOUND")
        if not self.known(user):
            if "scope" not in query:
                return self._error(401, "UNAUTHORIZED")
            query = {}
        issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return self.mint(user, query, issued_at=issued)

    def _content(self, req, act):
        name = self.name(req)
        if name in self.moved:
            return Reply(301, {"Location": req.target.replace(name, self.moved[name], 1)}, b"")
        if self.policy and req.kind == "manifest":
            reply = self._error(412, "PROJECTPOLICYVIOLATION")
            reply.body = json.dumps({"errors": [{"code": "PROJECTPOLICYVIOLATION",
                                                 "message": self.policy}]}).encode()
            return reply
        return super()._content(req, act)


class Gitlab(Front):
    """Tokens live five minutes (here: `life` seconds, whatever the answer says); storage URLs are signed per method."""

    token_path = "/jwt/auth"
    service = "container_registry"

    def refused_token(self, req):
        reply = self._error(403, "DENIED")
        reply.body = b'{"errors":[{"code":"DENIED","message":"access forbidden"}]}'
        return reply


class Artifactory(Front):
    """No scope in the challenge; a Range in the first request of a blob is answered 400."""

    token_path = "/artifactory/api/docker/docker-local/v2/token"
    service = "artifactory.example"
    says_scope = False

    def __init__(self, *args, **how):
        super().__init__(*args, **how)
        self.cached = set()

    def _content(self, req, act):
        if req.kind == "blob":
            cold = req.digest not in self.cached
            self.cached.add(req.digest)
            if cold and req.has_range:
                return self._error(400, "BLOB_UNKNOWN")
        return super()._content(req, act)


class Quay(Front):
    """No scope in the challenge; a Location of several KiB."""

    token_path = "/v2/auth"
    service = "quay.io"
    says_scope = False

    def _check_auth(self, req):
        return None if req.path == self.token_path else super()._check_auth(req)


class Nexus(FaultServer):
    """Basic, spelled in capitals."""

    def __init__(self, users, **how):
        self.users = users
        super().__init__(**how)

    def _check_auth(self, req):
        given = self._basic(req)
        if given and self.users.get(given[0]) == given[1]:
            return None
        reply = self._error(401, "UNAUTHORIZED")
        reply.headers["WWW-Authenticate"] = 'BASIC realm="Sonatype Nexus Repository Manager"'
        return reply


class ArtifactRegistry(Front):
    """Google's: no service; a request for a document that is refused has no challenge, only /v2/ has."""

    token_path = "/v2/token"
    service = None
    says_scope = False
    silent = False

    def challenge(self, req):
        return super().challenge(req) if req.kind == "ping" or not self.silent else None

    def realm(self, req):
        return self.token_path  # relative: resolved against the request

    def give(self, req, query, user):
        if "service" in query:
            return self._error(400, "INVALID_ARGUMENT")
        return super().give(req, query, user)


class EcrPublic(Front):
    """The constant scope "aws", whatever is asked for."""

    token_path = "/token/"
    service = "public.ecr.aws"

    def scope(self, req):
        return "aws"

    def grants(self, user, scope):
        return True

    def may(self, req, token):
        return token in self.granted and "aws" in self.granted[token][0]


class EcrPrivate(Nexus):
    """Basic AWS:PASSWORD, which runs out after 12 hours with a message of its own."""

    def _check_auth(self, req):
        reply = super()._check_auth(req)
        if reply:
            reply.headers["WWW-Authenticate"] = \
                f'Basic realm="{self.base}/",service="ecr.amazonaws.com"'
            if "authorization" in req.headers:
                reply.body = (b'{"errors":[{"code":"DENIED","message":"Your authorization token has expired. '
                              b'Reauthenticate and try again."}]}')
        return reply


class Acr(Front):
    """Refresh tokens by POST; blobs are a 307 to Azure's storage, which refuses an Authorization."""

    token_path = "/oauth2/token"
    refresh_path = "/oauth2/token"
    service = "models.azurecr.io"
    key = "access_token"

    def give(self, req, query, user):
        if req.method == "POST":
            if query.get("grant_type") == ["refresh_token"] and \
                    query.get("refresh_token", [""])[0] in self.refresh_tokens:
                return self.mint(None, query)
            return self._error(401, "UNAUTHORIZED")
        return super().give(req, query, user)


def azure_storage(store):
    """A fault server as Azure's blob storage: 400 to a request with Authorization."""
    storage = FaultServer(store=store)
    storage.rule(lambda r: "authorization" in r.headers, status=400, content_type="application/xml",
                 body=b"<?xml version=\"1.0\"?><Error><Code>InvalidAuthenticationInfo</Code>"
                      b"<Message>Authentication information is not given in the correct format.</Message></Error>")
    return storage


class DockerHub(Front):
    """Reached as a proxy is: http://registry-1.docker.io/..., http://auth.docker.io/token."""

    service = "registry.docker.io"

    def realm(self, req):
        return "http://auth.docker.io/token"

    LIMITED = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "0;w=21600",
               "docker-ratelimit-source": "192.0.2.7"}
    LIMIT_BODY = (b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit. You may '
                  b'increase the limit by authenticating and upgrading: https://www.docker.com/increase-rate-limit"}]}')


def config(path, **auths):
    """A docker config.json: config(path, **{host: ("user", "password") or a dict})."""
    entries = {key: {"auth": base64.b64encode(f"{v[0]}:{v[1]}".encode()).decode()} if isinstance(v, tuple) else v
               for key, v in auths.items()}
    path.write_text(json.dumps({"auths": entries}))
    return path
