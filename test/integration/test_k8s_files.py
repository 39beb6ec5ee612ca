# SPDX-License-Identifier: Apache-2.0
"""The manifests of k8s/, read as a cluster would: every container is confined, every name in them is defined, and every
argument and variable is one that the binary takes. test/interop checks them against Kubernetes' own schemas,
test_podman_kube.py runs some."""

import copy
import os
import re
import socket
import ssl
import threading

import pytest

from lib import k8s
from lib.content import Content, files_in
from lib.k8s import HOST, containers, files, load, mounted, moved, ours, pods, size
from lib.look import holds, marker, until
from lib.proc import free_port
from lib.relay import Relay

MIB = 1 << 20
UID = 65532
PODS = [pytest.param(name, doc, spec, id=f"{name}:{doc['kind']}") for name in files() for doc, spec in pods(name)]
OURS = [pytest.param(spec, c, id=f"{name}:{c['name']}") for name in files() for _, spec in pods(name) for c in ours(spec)]
# What a manifest may name although no file here defines it.
ELSEWHERE = {("configMap", "dragonfly-ca")}


# -- confinement ---------------------------------------------------------------------------------


def of_the_pod(spec):
    context = spec.get("securityContext", {})
    if context.get("fsGroup") != UID:
        yield "fsGroup"
    if spec.get("automountServiceAccountToken") is not False:
        yield "the service account's token is mounted"
    for field in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        if spec.get(field):
            yield field


def of_a_container(container, pod_context):
    own = container.get("securityContext", {})
    context = {**pod_context, **own}
    if context.get("runAsNonRoot") is not True:
        yield "runAsNonRoot"
    if context.get("runAsUser") != UID or context.get("runAsGroup") != UID:
        yield "uid and gid"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "seccompProfile"
    if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
        yield "privileges"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "readOnlyRootFilesystem"
    if own.get("capabilities") != {"drop": ["ALL"]}:
        yield "capabilities"
    if container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
        yield "terminationMessagePolicy"
    yield from of_resources(container)


def of_resources(container):
    have = container.get("resources", {})
    requests, limits = have.get("requests", {}), have.get("limits", {})
    if "cpu" not in requests or "memory" not in requests:
        yield "requests"
    if "memory" not in limits:
        yield "no limit for memory"
    for what, amount in requests.items():
        if what in limits and size(amount) > size(limits[what]):
            yield f"{what}: asks for more than its limit"
    if container["image"].startswith(k8s.OURS) and container["args"][0] != "install":
        # --memory-budget (64 MiB), TLS, and a little page cache; more would be wasted, whatever the size of the model
        if not 128 * MIB <= size(limits.get("memory", 0)) <= 512 * MIB:
            yield "memory does not suit fetcher"


def complaints(spec):
    found = [("pod", text) for text in of_the_pod(spec)]
    for c in containers(spec):
        found += [(c["name"], text) for text in of_a_container(c, spec.get("securityContext", {}))]
    return found


@pytest.mark.parametrize("name, doc, spec", PODS)
def test_confined(name, doc, spec):
    assert complaints(spec) == []


def without(*path):
    def change(spec):
        for place in (spec, *containers(spec)):
            inner = place
            for key in path[:-1]:
                inner = inner.get(key, {})
            inner.pop(path[-1], None)
    return change


def with_(*path):
    *keys, value = path

    def change(spec):
        inner = containers(spec)[-1]
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
    return change


LOOSER = {
    "root": without("securityContext", "runAsNonRoot"), "uid": without("securityContext", "runAsUser"),
    "fsGroup": without("securityContext", "fsGroup"), "seccomp": without("securityContext", "seccompProfile"),
    "escalation": without("securityContext", "allowPrivilegeEscalation"),
    "writable": without("securityContext", "readOnlyRootFilesystem"),
    "capabilities": without("securityContext", "capabilities"), "message": without("terminationMessagePolicy"),
    "resources": without("resources"), "requests": without("resources", "requests"),
    "limits": without("resources", "limits"), "token": without("automountServiceAccountToken"),
    "own uid": with_("securityContext", "runAsUser", 0), "privileged": with_("securityContext", "privileged", True),
    "one more": with_("securityContext", "capabilities", {"drop": ["ALL"], "add": ["CHOWN"]}),
    "too little": with_("resources", "limits", "memory", "1Mi"),
}


@pytest.mark.parametrize("how", LOOSER)
@pytest.mark.parametrize("name, doc, spec", PODS)
def test_what_is_not_confined_is_seen(name, doc, spec, how):
    looser = copy.deepcopy(spec)
    LOOSER[how](looser)
    assert looser != spec and complaints(looser)


def test_every_file_is_looked_at():
    """A resource that lib/k8s.py does not know fails there; a file without a Pod is one of these."""
    assert {n for n in files() if not pods(n)} == {"networkpolicy.yaml", "registry-secret.yaml"}
    for name in files():
        text = (k8s.FOLDER / name).read_text()
        assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n") and "# Change: " in text, name


# -- what is named is there ----------------------------------------------------------------------


def defined(kind):
    return {doc["metadata"]["name"] for name in files() for doc in load(name) if doc["kind"] == kind}


def mount_errors(spec):
    names = [v["name"] for v in spec.get("volumes", ())]
    used = {m["name"] for c in containers(spec) for m in c.get("volumeMounts", ())}
    if sorted(set(names)) != sorted(names):
        yield "two volumes of one name"
    if set(names) != used:
        yield f"mounted and defined differ: {set(names) ^ used}"
    for c in containers(spec):
        paths = [m["mountPath"] for m in c.get("volumeMounts", ())]
        if len(set(paths)) != len(paths):
            yield f"{c['name']} mounts two volumes at one path"
        if any("subPath" in m for m in c.get("volumeMounts", ())):
            yield f"{c['name']}: a subPath never sees the switch"


@pytest.mark.parametrize("name, doc, spec", PODS)
def test_mounts_have_volumes(name, doc, spec):
    assert list(mount_errors(spec)) == []
    broken = copy.deepcopy(spec)
    broken["volumes"].pop()
    assert list(mount_errors(broken))


@pytest.mark.parametrize("name, doc, spec", PODS)
def test_volumes_have_sources(name, doc, spec):
    here = {(d["kind"], d["metadata"]["name"]) for d in load(name)}
    for volume in spec["volumes"]:
        kind, source = next((k, v) for k, v in volume.items() if k != "name")
        if kind == "emptyDir":
            assert size(source["sizeLimit"]) > 0
        elif kind == "secret":
            assert source["secretName"] in defined("Secret") and source["optional"]    # public registries need none
        elif kind == "configMap":
            assert ("ConfigMap", source["name"]) in here or (kind, source["name"]) in ELSEWHERE
        elif kind == "persistentVolumeClaim":
            assert ("PersistentVolumeClaim", source["claimName"]) in here
        else:
            assert kind == "hostPath" and "warmup" in name and source["type"] == "Directory"


@pytest.mark.parametrize("name, doc, spec", PODS)
def test_names_and_ports(name, doc, spec):
    label = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
    assert all(label.fullmatch(d["metadata"]["name"]) for d in load(name))
    assert not any("namespace" in d["metadata"] for d in load(name))    # kubectl -n decides
    every = containers(spec)
    assert len({c["name"] for c in every}) == len(every) and all(label.fullmatch(c["name"]) for c in every)
    ports = [p["containerPort"] for c in every for p in c.get("ports", ())]
    assert len(set(ports)) == len(ports)
    for c in every:
        assert re.search(r":\w[\w.-]*$", c["image"]) and not c["image"].endswith(":latest")
        own = {p["name"] for p in c.get("ports", ())}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if "httpGet" in c.get(probe, {}):
                assert c[probe]["httpGet"]["port"] in own


def test_selectors_match():
    for name in files():
        for doc in load(name):
            if doc["kind"] in ("Deployment", "DaemonSet"):
                selector = doc["spec"]["selector"]["matchLabels"]
                assert selector.items() <= doc["spec"]["template"]["metadata"]["labels"].items()
    policies = {d["metadata"]["name"]: d["spec"] for d in load("networkpolicy.yaml")}
    everybody = policies["model-delivery"]["podSelector"]["matchLabels"].items()
    servers = policies["model-servers"]["podSelector"]["matchLabels"].items()
    allowed = {p["port"] for rule in policies["model-servers"]["ingress"] for p in rule["ports"]}
    for _, doc, spec in [p.values for p in PODS]:
        place = {"CronJob": lambda d: d["spec"]["jobTemplate"]["spec"]["template"], "InferenceService": lambda d: d,
                 "Workspace": lambda d: d["inference"]["template"]}.get(doc["kind"], lambda d: d["spec"]["template"])
        labels = place(doc)["metadata"]["labels"].items()
        assert everybody <= labels
        if servers <= labels:
            assert {p["containerPort"] for c in containers(spec) for p in c.get("ports", ())} <= allowed


def test_kustomization_knows_every_file():
    text = (k8s.FOLDER / "kustomization.yaml").read_text()
    listed = re.findall(r"^  (?:# )?- ([\w-]+\.yaml)$", text, re.M)
    assert sorted(listed) == files()
    for name in files():
        assert f"[{name}]({name})" in (k8s.FOLDER / "README.md").read_text(), name


# -- what fetcher is told ------------------------------------------------------------------------


def test_the_job_goes_by_the_exit_codes(fetcher):
    job = next(d for d in load("job-pvc.yaml") if d["kind"] == "Job")
    rule = next(r for r in job["spec"]["podFailurePolicy"]["rules"] if r["action"] == "FailJob")["onExitCodes"]
    table = re.findall(r"^\| (\d+) \| .* \| (yes|no) \|$", fetcher("help", "--markdown").ok().out, re.M)
    final = {int(code) for code, retry in table if retry == "no"}
    again = {int(code) for code, retry in table if retry == "yes"}
    assert final and again and rule["operator"] == "In"
    assert final <= set(rule["values"]) and not again & set(rule["values"])
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


class Place:
    """Where a container's volumes lie in a test, and the command that its image would run."""

    def __init__(self, folder, spec, container, name=None):
        self.volumes = {}
        for volume in spec["volumes"]:
            path = self.volumes[volume["name"]] = folder / volume["name"]
            path.mkdir(exist_ok=True)
            for doc in load(name) if name else ():
                if doc["kind"] == "ConfigMap" and volume.get("configMap", {}).get("name") == doc["metadata"]["name"]:
                    for key, text in doc["data"].items():
                        (path / key).write_text(text)
        self.mounts = mounted(container, self.volumes)
        self.env = {k: moved(v, self.mounts) for k, v in k8s.environment(container).items()}

    def argv(self, words):
        return [moved(w, self.mounts) for w in words]


# Nothing listens there, and nobody waits for it.
UNROUTABLE = {"FETCHER_RETRY_TIMEOUT": "100ms", "FETCHER_CONNECT_TIMEOUT": "100ms"}
ENDS = ["--on-failure=exit"]


def accepted(fetcher, place, args, more=()):
    port = free_port()
    words = [w.replace(HOST, f"127.0.0.1:{port}") if "/" + HOST not in w else w for w in place.argv(args)]
    words = ["--http-bind=127.0.0.1:0" if w.startswith("--http-bind=") else
             "--random-delay=0s" if w.startswith("--random-delay=") else w for w in words]
    env = {**place.env, **UNROUTABLE, **{k: f"http://127.0.0.1:{port}" for k in place.env if k == "https_proxy"}}
    return fetcher(*words[:1], *more, *words[1:], env=env, timeout=60)


@pytest.mark.parametrize("spec, container", OURS)
def test_the_binary_takes_it(fetcher, authority, tmp_path, spec, container):
    place = Place(tmp_path, spec, container)
    (tmp_path / "list").mkdir(exist_ok=True)
    (tmp_path / "list" / "models.txt").write_text(f"127.0.0.1:{free_port()}/models/llama:stable\n")
    if "dragonfly" in place.volumes:
        (tmp_path / "dragonfly" / "ca.crt").write_bytes(authority.ca.read_bytes())
    args = container["args"]
    if args[0] == "install":
        accepted(fetcher, place, args).ok()
        return
    more = ENDS if args[0] == "watch" else []
    # everything is understood: what fails is the network
    accepted(fetcher, place, args, more).exits(30)
    accepted(fetcher, place, [args[0], "--no-such-flag", *args[1:]]).exits(2)
    place.env["FETCHER_NO_SUCH_THING"] = "1"
    accepted(fetcher, place, args, more).exits(2)


def commands():
    """(id, words) of commands of containers that are fetcher's, though the image may be another, and of exec probes."""
    for name in files():
        for _, spec in pods(name):
            for c in containers(spec):
                if c.get("command", [""])[0].endswith("/fetcher"):
                    yield pytest.param(spec, c, c["command"] + c.get("args", []), 31, id=f"{name}:{c['name']}")
                for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                    if "exec" in c.get(probe, {}):
                        yield pytest.param(spec, c, c[probe]["exec"]["command"], 21, id=f"{name}:{c['name']}:{probe}")


@pytest.mark.parametrize("spec, container, words, code", commands())
def test_probes_and_wait_are_taken(fetcher, tmp_path, spec, container, words, code):
    place = Place(tmp_path, spec, container)
    program, command, *rest = words
    assert program in ("/fetcher", "/tools/fetcher")
    more = ["--timeout=100ms"] if command == "wait" else []
    # probe: nothing is published. wait: it did not come.
    fetcher(command, *more, *place.argv(rest), env=place.env).exits(code)


def test_where_the_install_goes_is_what_the_server_runs():
    spec = pods("sidecar-plain.yaml")[0][1]
    install = next(c for c in ours(spec) if c["args"][0] == "install")
    server = next(c for c in spec["containers"] if c not in ours(spec))
    assert server["command"][0] == install["args"][1]


# -- warming a node ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["daemonset-warmup.yaml", "cronjob-warmup.yaml"])
def test_a_warm_node(fetcher, registry, push, tmp_path, name):
    spec = pods(name)[0][1]
    warm = next(c for c in ours(spec) if c["name"] == "warm")
    place = Place(tmp_path, spec, warm, name)
    files_of = {"llama": {"w.bin": Content(71, 3 * MIB), "config.json": b"{}"}, "embedding": {"e.bin": b"e" * 1000}}
    push(registry, "models/llama", "stable", files_of["llama"])
    push(registry, "models/embedding", "v3", files_of["embedding"])
    with Relay(registry) as wire:
        # the only changes: the registry's name, plain HTTP, no delay
        path = place.volumes["list"] / "models.txt"
        path.write_text(path.read_text().replace(HOST, wire.host))
        argv = ["--random-delay=0s" if w.startswith("--random-delay") else w for w in place.argv(warm["args"])]
        env = {**place.env, "FETCHER_PLAIN_HTTP": "true"}
        summary = fetcher(*argv, env=env).ok().json
        assert (summary["ok"], summary["failed"]) == (2, 0)
        home = wire.host.replace(":", "_")
        top = place.volumes["models"]
        for model, tag in (("llama", "stable"), ("embedding", "v3")):
            holds(top / home / f"models/{model}@{tag}" / "current", files_of[model])
        before = len(wire.gets("blobs"))
        assert fetcher(*argv, env=env).ok().json["ok"] == 2
        assert len(wire.gets("blobs")) == before
        follow = [c for c in ours(spec) if c["args"][0] == "watch"]
        for c in follow:    # DaemonSet: what follows a tag finds the list's work, where the list has put it
            *flags, ref, dest = Place(tmp_path, spec, c).argv(c["args"])
            dest = dest.replace(HOST, home)
            assert os.path.isdir(dest), dest
            flags = ["--http-bind=127.0.0.1:0" if f.startswith("--http-bind") else f for f in flags]
            run = fetcher.start(*flags, ref.replace(HOST, wire.host), dest, env=env)
            looks = len(wire.requests)
            until(lambda: len(wire.requests) > looks)
            run.terminate(10).ok()
            assert len(wire.gets("blobs")) == before and marker(dest)["generation"] == 1
    assert (name == "daemonset-warmup.yaml") == bool(follow)


# -- through dfdaemon ----------------------------------------------------------------------------


class Intercepting(threading.Thread):
    """A proxy that answers CONNECT itself, as dfdaemon does: it shows a certificate of its own CA for the name that was
    asked for, and passes what it reads on to a registry."""

    def __init__(self, pair, target):
        super().__init__(daemon=True)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*pair)
        self.target = target
        self.asked = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def run(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        head = b""
        while b"\r\n\r\n" not in head:
            got = client.recv(4096)
            if not got:
                return
            head += got
        self.asked.append(head.split(b"\r\n")[0].decode())
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            inner = self.context.wrap_socket(client, server_side=True)
        except (ssl.SSLError, OSError):
            return
        outer = socket.create_connection(("127.0.0.1", self.target))
        threading.Thread(target=self.copy, args=(outer, inner), daemon=True).start()
        self.copy(inner, outer)

    @staticmethod
    def copy(source, sink):
        try:
            while True:
                got = source.recv(1 << 16)
                if not got:
                    break
                sink.sendall(got)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.socket.close()


def test_dragonfly_by_an_intercepting_proxy(fetcher, registry, push, authority, tmp_path):
    spec = pods("dragonfly.yaml")[0][1]
    container = ours(spec)[0]
    place = Place(tmp_path, spec, container)
    (tmp_path / "dragonfly" / "ca.crt").write_bytes(authority.ca.read_bytes())
    pair = authority.issue("dfdaemon", san=f"DNS:{HOST}")
    model = {"model.gguf": Content(72, 9 * MIB)}
    push(registry, "models/llama-gguf", "q4", model)
    with Intercepting(pair, int(registry.host.split(":")[1])) as proxy:
        assert place.env["https_proxy"] == "http://127.0.0.1:4001"
        env = {**place.env, "https_proxy": f"http://127.0.0.1:{proxy.port}"}
        argv = place.argv(container["args"])    # the reference is the manifest's: the proxy knows where it is
        fetcher(*argv, env=env).ok()
        holds(tmp_path / "models" / "llama", model)
        assert set(proxy.asked) == {f"CONNECT {HOST}:443 HTTP/1.1"}
        # a proxy whose CA is not the one that was handed out is none
        untrusted = [w for w in argv if not w.startswith("--ca-file")]
        untrusted[-1] += "-2"
        fetcher(*untrusted, env={**env, **UNROUTABLE}).exits(30)
        assert files_in(tmp_path / "models" / "llama-2") == {}
