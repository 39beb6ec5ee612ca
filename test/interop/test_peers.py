# SPDX-License-Identifier: Apache-2.0
"""What README's comparison says of other clients, each shown by the client itself. A test that fails here after a client's
update means: correct README."""
import os

import pytest

from lib.client import binary
from lib.content import Content, data, file_sha256
from lib.look import until
from lib.oci import FILEPATH, MODELPACK, MODELPACK_CONFIG, MODELPACK_WEIGHT, TITLE, descriptor, manifest
from lib.proc import part
from lib.relay import Relay
from tools import Tool, modctl

from conftest import find_tool

MIB = 1 << 20
SIZE = 64 * MIB
BODY = Content(91, SIZE)
NAME = "model.safetensors"


def layers(body):
    """One file, named for oras and fetcher by its title, for modctl by its path."""
    return [descriptor(body, MODELPACK_WEIGHT, annotations={TITLE: NAME, FILEPATH: NAME})]


class Client:
    """client.start(server, dest) / client.run(server, dest): pulls the artifact interop/peers:v1 from there."""

    def __init__(self, name, home):
        self.name = name
        if name == "fetcher":
            self.tool = Tool(binary()[0], home, *binary()[1:])
        elif name == "modctl":
            self.tool = modctl(find_tool("modctl"), home)
        else:
            self.tool = Tool(part(name), home)

    def words(self, server, dest, digest):
        ref = f"{server.host}/interop/peers:v1"
        return {
            "fetcher": ["pull", "--plain-http", ref, dest],
            "oras": ["pull", "--plain-http", "--no-tty", "-o", dest, ref],
            "modctl": ["pull", "--plain-http", "--extract-from-remote", "--extract-dir", dest, ref],
            "aria2c": ["--no-conf", "-c", "-x8", "-s8", "-k1M", "--allow-overwrite=true", "--checksum=sha-256=" +
                       digest.split(":")[1], "-d", dest, "-o", NAME,
                       f"http://{server.host}/v2/interop/peers/blobs/{digest}"],
        }[self.name]

    def start(self, server, dest, digest=BODY.digest):
        return self.tool.start(*self.words(server, dest, digest))

    def run(self, server, dest, digest=BODY.digest):
        return self.tool.run(*self.words(server, dest, digest))


@pytest.fixture(scope="module")
def artifact(registry):
    return registry.api.put_manifest("interop/peers", "v1", manifest(
        layers(BODY), config=descriptor(b"{}", MODELPACK_CONFIG), artifact_type=MODELPACK), blobs=[BODY, b"{}"])


@pytest.fixture(params=["fetcher", "oras", "aria2c", "modctl"])
def client(request, tmp_path):
    return Client(request.param, tmp_path / "client")


def pull(client, server, dest, digest=BODY.digest):
    done = client.run(server, dest, digest)
    assert done.returncode == 0, done.stdout
    assert file_sha256(dest / NAME) == digest.split(":")[1]


def test_connections_for_one_blob(client, artifact, registry, dest):
    with Relay(registry, limit=32 * MIB) as wire:
        pull(client, wire, dest)
        used = len({r.connection for r in wire.gets("blobs/" + BODY.digest)})
    if client.name in ("fetcher", "aria2c"):
        assert used >= 8
    else:
        assert used == 1


def test_killed_half_way(client, artifact, registry, dest):
    """SIGKILL after a second or two. aria2 writes down where it is once a minute."""
    with Relay(registry, limit=32 * MIB) as wire:
        run = client.start(wire, dest)
        until(lambda: wire.body("blobs") > SIZE // 2 or run.poll() is not None)
        assert run.poll() is None
        run.kill()
        run.wait()
    assert os.path.exists(dest / NAME) == (client.name != "fetcher"), "an unfinished file under its final name"
    with Relay(registry) as wire:
        pull(client, wire, dest)
        again = wire.body("blobs") / SIZE
    if client.name == "fetcher":
        assert again < 0.8
    else:
        assert again >= 1


def test_one_wrong_bit(client, faults, dest):
    """The size is right, the digest is not."""
    body = data(92, 3 * MIB)
    digest = faults.blob(body)
    faults.blob(b"{}")
    faults.manifest(manifest(layers(body), config=descriptor(b"{}", MODELPACK_CONFIG), artifact_type=MODELPACK), tag="v1")
    faults.rule(digest, flip=MIB)
    done = client.run(faults, dest, digest)
    assert os.path.exists(dest / NAME) == (client.name != "fetcher")
    if client.name == "fetcher":
        assert done.returncode == 22
    elif client.name == "modctl":    # it tries again, and then takes the file of the first try for good
        assert done.returncode == 0, done.stdout
        assert file_sha256(dest / NAME) != digest.split(":")[1]
    else:
        assert done.returncode != 0


def test_second_pull(client, artifact, registry, dest):
    pull(client, registry, dest)
    with Relay(registry) as wire:
        pull(client, wire, dest)
        asked, moved = len(wire.gets("blobs/" + BODY.digest)), wire.body("blobs")
    if client.name == "fetcher":
        assert (asked, moved) == (0, 0)
    elif client.name == "oras":
        assert (asked, moved) == (1, SIZE)
    else:    # asks, looks at the head of the answer, and hangs up
        assert asked == 1 and moved < SIZE
