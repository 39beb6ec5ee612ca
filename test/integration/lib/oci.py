# SPDX-License-Identifier: Apache-2.0
"""Pushing: through the real oras, and by hand for manifests that oras would not make."""

import base64
import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import ssl
import tempfile
import urllib.parse

from .content import Content, file_sha256
from .proc import command

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
MODELPACK = "application/vnd.cncf.model.manifest.v1+json"
MODELPACK_CONFIG = "application/vnd.cncf.model.config.v1+json"
MODELPACK_WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
TITLE = "org.opencontainers.image.title"
FILEPATH = "org.cncf.model.filepath"
METADATA = "org.cncf.model.file.metadata+json"


class Pushed:
    def __init__(self, registry, repo, tag, digest):
        self.registry = registry
        self.repo = repo
        self.tag = tag
        self.digest = digest

    def on(self, server, tag=True):
        """The reference as seen through another address (redirector, relay, proxy)."""
        host = server if isinstance(server, str) else server.host
        return f"{host}/{self.repo}:{self.tag}" if tag else f"{host}/{self.repo}@{self.digest}"

    @property
    def ref(self):
        return self.on(self.registry)

    @property
    def ref_digest(self):
        return self.on(self.registry, tag=False)


def _stage(folder, name, value):
    path = pathlib.Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(value, Content):
        value.write_to(path)
    elif isinstance(value, (bytes, bytearray)):
        path.write_bytes(value)
    elif isinstance(value, str):
        path.write_text(value)
    else:
        try:
            os.link(value, path)
        except OSError:
            shutil.copyfile(value, path)


def push(registry, repo, tag, files, artifact_type=None, annotations=None, media_type=None,
         extra=()):
    """Real `oras push` of {title: bytes | str | Content | path}. Returns Pushed.

    registry knows its scheme, CA and user (lib/registry.py). Titles may hold folders, spaces and
    unicode; a title that oras refuses goes through put_manifest() instead.
    """
    scratch = registry.dir
    with tempfile.TemporaryDirectory(prefix="push-", dir=scratch) as folder:
        for name, value in files.items():
            _stage(folder, name, value)
        args = ["push", *registry.oras_flags(), "--no-tty"]
        if artifact_type:
            args += ["--artifact-type", artifact_type]
        for key, value in (annotations or {}).items():
            args += ["--annotation", f"{key}={value}"]
        args += [*extra, f"{registry.host}/{repo}:{tag}"]
        args += [f"{name}:{media_type}" if media_type else name for name in files]
        # A title that holds a colon needs its media type said, for oras cuts at the last one.
        done = command("oras", *args, cwd=folder, env={"DOCKER_CONFIG": folder + ".none"}, timeout=900)
    digest = re.search(r"Digest: (sha256:[0-9a-f]{64})", done.stdout)[1]
    return Pushed(registry, repo, tag, digest)


def digest_of(body, alg="sha256"):
    return f"{alg}:" + hashlib.new(alg, body).hexdigest()


def descriptor(body, media_type=LAYER, **more):
    """Descriptor of bytes or a Content."""
    digest = body.digest if isinstance(body, Content) else digest_of(body)
    return {"mediaType": media_type, "digest": digest, "size": len(body), **more}


def titled(body, title, media_type=LAYER):
    return descriptor(body, media_type, annotations={TITLE: title})


def modelpack(body, path, media_type=MODELPACK_WEIGHT, legacy=False, mode=0o644,
              mtime="2025-06-01T12:00:00Z", **metadata):
    """A ModelPack raw layer with file metadata; legacy: the older prefix."""
    meta = {"name": os.path.basename(path), "mode": mode, "uid": 0, "gid": 0, "size": len(body),
            "mtime": mtime, "typeflag": 0, **metadata}
    annotations = {FILEPATH: path, METADATA: json.dumps(meta)}
    if legacy:
        media_type = media_type.replace("vnd.cncf.", "vnd.cnai.")
        annotations = {k.replace("org.cncf.", "org.cnai."): v for k, v in annotations.items()}
    return descriptor(body, media_type, annotations=annotations)


def manifest(layers, config=None, artifact_type="application/vnd.unknown.artifact.v1", **keys):
    """Manifest as a dict; keys override (None removes one)."""
    body = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": artifact_type,
            "config": config or {"mediaType": EMPTY, "digest": digest_of(b"{}"), "size": 2,
                                 "data": "e30="},
            "layers": layers}
    body.update(keys)
    return {k: v for k, v in body.items() if v is not None}


def index(entries, media_type=INDEX, **keys):
    return {"schemaVersion": 2, "mediaType": media_type, "manifests": entries, **keys}


class Api:
    """The registry's HTTP interface, for pushing by hand and for looking.

    api.request("GET", path) -> (status, headers, body);  api.put_blob(repo, data) -> digest;
    api.put_manifest(repo, tag, dict | bytes) -> Pushed.
    """

    def __init__(self, registry):
        self.registry = registry
        self._token = None

    def _connect(self):
        if self.registry.scheme == "https":
            context = ssl.create_default_context(cafile=str(self.registry.ca))
            return http.client.HTTPSConnection(self.registry.host, timeout=60, context=context)
        return http.client.HTTPConnection(self.registry.host, timeout=60)

    def request(self, method, path, body=None, headers=None):
        connection = self._connect()
        headers = dict(headers or {})
        if self._token:
            headers.setdefault("Authorization", "Bearer " + self._token)
        elif self.registry.user:
            plain = ":".join(self.registry.user).encode()
            headers.setdefault("Authorization", "Basic " + base64.b64encode(plain).decode())
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def login(self, repo, actions="pull,push"):
        """For a registry with token authorisation: all later requests carry a token for repo."""
        self._token = self.registry.token_server.mint([(repo, actions.split(","))])

    def has_blob(self, repo, digest):
        return self.request("HEAD", f"/v2/{repo}/blobs/{digest}")[0] == 200

    def put_blob(self, repo, data):
        """data: bytes, Content or path. Returns its descriptor's digest."""
        if isinstance(data, Content):
            digest, size, body = data.digest, data.size, data.chunks()
        elif isinstance(data, (bytes, bytearray)):
            digest, size, body = digest_of(data), len(data), data
        else:
            content = pathlib.Path(data)
            digest = "sha256:" + file_sha256(content)
            size, body = content.stat().st_size, open(content, "rb")
        if self.has_blob(repo, digest):
            return digest
        status, headers, text = self.request("POST", f"/v2/{repo}/blobs/uploads/",
                                             headers={"Content-Length": "0"})
        if status != 202:
            raise RuntimeError(f"upload of {digest}: {status} {text[:200]}")
        target = urllib.parse.urlsplit(headers["Location"])
        query = (target.query + "&" if target.query else "") + "digest=" + digest
        status, _, text = self.request("PUT", f"{target.path}?{query}", body,
                                       {"Content-Length": str(size),
                                        "Content-Type": "application/octet-stream"})
        if status != 201:
            raise RuntimeError(f"upload of {digest}: {status} {text[:200]}")
        return digest

    def put_manifest(self, repo, tag, body, media_type=None, blobs=()):
        """Puts blobs first. body: dict or bytes. A registry checks that layers exist."""
        for data in blobs:
            self.put_blob(repo, data)
        if isinstance(body, dict):
            config = body.get("config", {})
            if config.get("digest") == digest_of(b"{}"):
                self.put_blob(repo, b"{}")
            media_type = media_type or body.get("mediaType", MANIFEST)
            body = json.dumps(body).encode()
        reference = tag or digest_of(body)
        status, _, text = self.request("PUT", f"/v2/{repo}/manifests/{reference}", body,
                                       {"Content-Type": media_type or MANIFEST})
        if status != 201:
            raise RuntimeError(f"manifest {repo}:{tag}: {status} {text[:300]}")
        return Pushed(self.registry, repo, tag, digest_of(body))
