# SPDX-License-Identifier: Apache-2.0
"""The manifests of k8s/ run by podman, with the image's own stage of Dockerfile.scratch around the binary under test. What
stands in for what podman and a test machine do not have is in substituted(); all else is the file's."""
import copy
import json
import os
import random
import re
import shutil

import pytest
import yaml

from lib import k8s
from lib.client import binary
from lib.content import Content
from lib.k8s import HOST, OURS, containers, load, ours, pods
from lib.look import holds, marker, until
from lib.proc import free_port
from lib.sidecar import Webhook, get
from test_image import BASE, TOP, podman  # noqa: F401  (a fixture)

IMAGE = "localhost/fetcher:in-kube"
MIB = 1 << 20
UID = 65532

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def image(podman, tmp_path_factory):  # noqa: F811
    """The last stage of Dockerfile.scratch, with a binary that is there already: the first stage takes minutes, and test_image.py
    looks after it."""
    folder = tmp_path_factory.mktemp("context")
    with open(os.path.join(TOP, "Dockerfile.scratch"), encoding="ascii") as f:
        last = re.search(r"^FROM scratch\n.*", f.read(), re.M | re.S).group(0)
    stage = last.replace("COPY --from=build /fetcher /fetcher", "COPY fetcher /fetcher")
    assert stage != last
    (folder / "Dockerfile").write_text(stage)
    shutil.copyfile(binary()[-1], folder / "fetcher")
    (folder / "fetcher").chmod(0o755)
    podman("build", "--layers=false", "--pull=never", "-f", str(folder / "Dockerfile"), "-t", IMAGE, str(folder))
    yield IMAGE
    podman.try_("rmi", "-f", IMAGE)


def substituted(name, kind, registry, server, env=(), hostpath=None, words=()):
    """[resources] of k8s/NAME to play, with what stands in:

    - the workload `kind` becomes the Pod that it would make; podman knows no DaemonSet, and would start an init container of a
      restartPolicy Always again and again, so that is Never
    - the network is the host's, where the registry is; its name is the test's, over plain HTTP; ports that may be in use are
      others (words: pairs of texts in arguments)
    - fetcher's image is the one under test; the server's is a Debian, its command is `server` (a shell script), behind the words
      that the manifest itself puts before a server; GPUs and the server's memory are not asked for
    - a native sidecar is an ordinary container: podman knows no restartPolicy of a container, nor probes of one that is an image
      without a shell; the test does the probing
    - a mounted Secret is a ConfigMap of the same text, for podman 4.3 mounts no Secrets; hostPath is the test's
    """
    docs = load(name) + (load("registry-secret.yaml") if registry.user else [])
    doc = next(d for d in docs if d["kind"] == kind)
    spec = copy.deepcopy(k8s.pod(doc, docs))
    spec.update(hostNetwork=True, restartPolicy="Never")
    for volume in spec["volumes"]:
        if "hostPath" in volume:
            volume["hostPath"]["path"] = str(hostpath)
        if "secret" in volume:
            volume["configMap"] = {"name": volume.pop("secret")["secretName"], "optional": True}
    for c in containers(spec):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            c.pop(probe, None)
        c.pop("ports", None)
        if c in ours(spec):
            c["image"] = IMAGE
            if c["args"][0] != "install":
                c.setdefault("env", []).extend({"name": k, "value": v} for k, v in
                                               {"FETCHER_PLAIN_HTTP": "true", **dict(env)}.items())
            c["args"] = [change(a, registry, words) for a in c["args"]]
        else:
            c["image"] = BASE
            own = c.get("command", []) if c.get("command", [""])[0].endswith("/fetcher") else []
            c["command"], c["args"] = own, ["/bin/sh", "-c", server]
            c["resources"] = {}
    native = [c for c in spec.get("initContainers", ()) if c.pop("restartPolicy", None) == "Always"]
    spec["initContainers"] = [c for c in spec.get("initContainers", ()) if c not in native]
    spec["containers"] = native + spec["containers"]
    beside = []
    for d in docs:
        if d["kind"] in ("ConfigMap", "Secret"):
            text = {k: v.replace(HOST, registry.host) for k, v in (d.get("data") or d["stringData"]).items()}
            if d["kind"] == "Secret":
                text = {k: v.replace("robot", registry.user[0]).replace("change me", registry.user[1]) for k, v in text.items()}
            beside.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": d["metadata"], "data": text})
    return [*beside, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": doc["metadata"]["name"]}, "spec": spec}]


def change(word, registry, words):
    host = registry.host
    for old, new in words:
        word = word.replace(old, new)
    # in a path the list's rule makes the colon of a port a _
    return word.replace("/" + HOST, "/" + host.replace(":", "_")).replace(HOST, host)


class Play:
    def __init__(self, tool, folder, docs):
        self.podman = tool
        self.path = os.path.join(folder, "play.yaml")
        with open(self.path, "w", encoding="utf-8") as f:
            yaml.safe_dump_all(docs, f)
        self.pod = docs[-1]["metadata"]["name"]
        self.volumes = {v["name"] for v in docs[-1]["spec"]["volumes"]} | {d["metadata"]["name"] for d in docs[:-1]}

    def clean(self):
        self.podman.try_("play", "kube", "--down", self.path)
        self.podman.try_("volume", "rm", "-f", *self.volumes)    # they are named like the Pod's: nothing of an earlier one

    def __enter__(self):
        self.clean()
        self.done = self.podman.try_("play", "kube", "--build=false", self.path, timeout=180)
        return self

    def __exit__(self, *exc):
        if exc[0]:
            print(self.done.stdout, self.done.stderr, self.podman.try_("ps", "-a").stdout)
            for name in self.podman.try_("ps", "-a", "--format", "{{.Names}}").stdout.split():
                print(f"--- {name}\n{self.logs(name)[-3000:]}")
        self.clean()

    def up(self):
        assert self.done.returncode == 0, self.done.stdout + self.done.stderr
        return self

    def name(self, container):
        return f"{self.pod}-{container}"

    def logs(self, name):
        done = self.podman.try_("logs", name)
        return done.stdout + done.stderr

    def state(self, container):
        return json.loads(self.podman("inspect", self.name(container)))[0]

    def ends(self, container):
        """Waits for a container's end; (exit code, what it said)."""
        until(lambda: self.state(container)["State"]["Status"] == "exited", 60, 0.2)
        return self.state(container)["State"]["ExitCode"], self.logs(self.name(container))

    def says(self, container, text):
        def look():
            said = self.logs(self.name(container))
            if text in said:
                return said
            assert self.state(container)["State"]["Running"], said
            return None
        return until(look, 60, 0.1)


def confined(state):
    """What podman made of the manifest's securityContext."""
    assert state["Config"]["User"].split(":")[0] == str(UID)
    assert state["HostConfig"]["ReadonlyRootfs"] and not state["EffectiveCaps"]
    assert "no-new-privileges" in state["HostConfig"]["SecurityOpt"]


MODEL = {"w.bin": Content(81, 5 * MIB), "config.json": b'{"layers": 2}'}
# Every byte is there when it starts, and it can write none of them.
READS = """set -e
cd {where}
sha256sum w.bin config.json
test "$(id -u)" = 65532
if touch more 2>/dev/null; then exit 7; fi
"""


def needs_exec(play, name):
    """Some nested environments start containers and cannot exec into them (cgroups): podman's own failure, before fetcher runs."""
    until(lambda: play.podman.try_("inspect", "-f", "{{.State.Running}}", name).stdout.strip() == "true", 30, 0.1)
    done = play.podman.try_("exec", name, "/fetcher", "version")
    if done.returncode in (125, 126, 127, 255):
        pytest.skip("podman exec does not work here: " + (done.stderr or done.stdout).strip()[-200:])



@pytest.mark.parametrize("name, kind, repo, where", [
    ("init-container-vllm.yaml", "Deployment", "models/llama:8b", "/models/llama"),
    ("kaito.yaml", "Workspace", "models/llama:8b", "/workspace/weights")])
def test_init_container_then_server(podman, image, registry_htpasswd, push, tmp_path, name, kind, repo, where):  # noqa: F811
    """With the Secret: the registry wants a login."""
    push(registry_htpasswd, *repo.split(":"), MODEL)
    docs = substituted(name, kind, registry_htpasswd, READS.format(where=where))
    with Play(podman, tmp_path, docs) as play:
        code, said = play.up().ends("vllm")
        assert code == 0, said
        for file, value in MODEL.items():
            sha = value.sha256 if isinstance(value, Content) else None
            assert re.search(rf"{sha or '[0-9a-f]{64}'}  {re.escape(file)}", said), said
        confined(play.state("vllm"))


def test_server_does_not_start_when_the_init_container_fails(podman, image, registry, tmp_path):  # noqa: F811
    docs = substituted("init-container-vllm.yaml", "Deployment", registry, "echo started")
    docs[-1]["spec"]["initContainers"][0]["args"][1] = f"{registry.host}/models/no-such-model:8b"
    with Play(podman, tmp_path, docs) as play:
        assert play.done.returncode != 0
        assert "started" not in play.logs(play.name("vllm"))


# Through `current`, as servers read it: both files are of one version, at any time.
FOLLOWS = r"""while ! [ -e /models/llama/current ]; do sleep 0.05; done
cd /models/llama
last=
while :; do
	d=$(readlink current) && a=$(cat "$d/a.txt") && b=$(cat "$d/b.txt") || { echo gone; exit 1; }
	c=$(cat current/a.txt) || { echo gone through current; exit 1; }
	[ "$a" = "$b" ] || { echo "mixed $a $b"; exit 1; }
	[ "$a" = "$last" ] || echo "serves $a" >&2
	last=$a
	sleep 0.02
done
"""


@pytest.mark.parametrize("name, server, repo, hook", [
    ("sidecar-sglang.yaml", "sglang", "models/llama", "/update_weights_from_disk"),
    ("sidecar-plain.yaml", "triton", "models/llama-triton", "/v2/repository/models/llama/load")])
def test_sidecar_swaps_under_a_reader(podman, image, registry, push, tmp_path, name, server, repo, hook):  # noqa: F811
    port = free_port()
    pushed = push(registry, repo, "stable", {"a.txt": "1", "b.txt": "1", "same.bin": Content(82, 2 * MIB)})
    with Webhook() as told:
        own = [":8080", f"127.0.0.1:{port}"], ["127.0.0.1:30000", f"127.0.0.1:{told.port}"], \
            ["127.0.0.1:8000", f"127.0.0.1:{told.port}"]
        docs = substituted(name, "Deployment", registry, FOLLOWS, words=own)
        with Play(podman, tmp_path, docs) as play:
            sidecar = play.up().name("fetcher")
            probe = next(c[p]["exec"]["command"] for _, spec in pods(name) for c in ours(spec)
                         for p in ("startupProbe", "readinessProbe") if "exec" in c.get(p, {}))
            needs_exec(play, sidecar)
            until(lambda: podman.try_("exec", sidecar, *probe).returncode == 0, 60, 0.1)
            play.says(server, "serves 1")
            for version in "2345":
                pushed = push(registry, repo, "stable",
                              {"a.txt": version, "b.txt": version, "same.bin": Content(82, 2 * MIB)})
                podman("kill", "--signal", "HUP", sidecar)    # now, not in five minutes
                play.says(server, f"serves {version}")
                until(lambda: len({json.dumps(s["json"]) for s in told.seen}) >= (1 if server == "triton" else int(version))
                      and len(told.seen) >= int(version))
            assert {(s["method"], s["path"]) for s in told.seen} == {("POST", hook)}
            if server == "sglang":
                assert told.seen[-1]["json"]["model_path"].endswith(pushed.digest.replace(":", "-"))
            address = f"http://127.0.0.1:{port}"
            assert get(address + "/healthz")[0] == 200
            status, _, body = get(address + "/readyz")
            assert (status, json.loads(body)["digest"]) == (200, pushed.digest)
            assert b"fetcher_" in get(address + "/metrics")[2]
            for container in ("fetcher", server):
                confined(play.state(container))
            said = play.logs(play.name(server))
            assert re.findall(r"serves (\d)", said) == list("12345"), said
            # SIGTERM is enough: whoever needs more than two seconds is killed, and that is 137
            podman("stop", "-t", "2", sidecar)
            assert play.state("fetcher")["State"]["ExitCode"] == 0
            assert play.state(server)["State"]["Running"], said


def test_sidecar_stops_in_the_middle_of_a_pull(podman, image, registry, push, tmp_path):  # noqa: F811
    from lib.relay import Relay

    pushed = push(registry, "models/llama", "stable", {"w.bin": Content(83, 48 * MIB)})
    with Relay(registry, limit=2 * MIB) as slow:
        slow.user = None
        port = free_port()
        docs = substituted("sidecar-sglang.yaml", "Deployment", slow, "sleep 60", words=[(":8080", f"127.0.0.1:{port}")])
        with Play(podman, tmp_path, docs) as play:
            until(lambda: slow.body("blobs") > 0, 60)
            podman("stop", "-t", "2", play.up().name("fetcher"))
            assert play.state("fetcher")["State"]["ExitCode"] == 143
            assert pushed.digest not in play.logs(play.name("sglang"))


def test_warmup_on_a_hostpath(podman, image, registry, push, tmp_path_factory):  # noqa: F811
    """The DaemonSet's Pod, and one that reads its directory."""
    folder = tmp_path_factory.mktemp("node")
    node = folder / "models"
    node.mkdir()
    push(registry, "models/llama", "stable", MODEL)
    push(registry, "models/embedding", "v3", {"e.bin": b"e"})
    words = [("--random-delay=2m", "--random-delay=0s"), (":8080", f"127.0.0.1:{free_port()}")]
    docs = substituted("daemonset-warmup.yaml", "DaemonSet", registry, "", hostpath=node, words=words)
    with Play(podman, folder, copy.deepcopy(docs)) as play:    # as root made it: not ours
        assert play.done.returncode != 0 and list(node.iterdir()) == []
    os.chown(node, UID, UID)
    home = registry.host.replace(":", "_")
    with Play(podman, folder, docs) as play:
        play.up()
        llama = f"/models/{home}/models/llama@stable"
        needs_exec(play, play.name("follow-llama"))
        until(lambda: podman.try_("exec", play.name("follow-llama"), "/fetcher", "probe", llama).returncode == 0, 60, 0.1)
        holds(node / home / "models/llama@stable/current", MODEL)
        holds(node / home / "models/embedding@v3/current", {"e.bin": b"e"})
        said = podman("run", "--rm", "--network=none", "--read-only", "--cap-drop=all", "--user=1234:1234", "-v",
                      f"{node}:/models:ro", image, "probe", llama)
        assert marker(node / home / "models/llama@stable")["digest"] in said
        podman("stop", "-t", "2", play.name("follow-llama"))
        assert play.state("follow-llama")["State"]["ExitCode"] == 0


@pytest.mark.parametrize("tag, code", [("8b", 0), ("no-such-tag", 21)])
def test_job_fills_a_claim(podman, image, registry, push, tmp_path, tag, code):  # noqa: F811
    """The exit code is what podFailurePolicy goes by."""
    push(registry, "models/llama", "8b", MODEL)
    docs = substituted("job-pvc.yaml", "Job", registry, "", words=[(":8b", f":{tag}")])
    with Play(podman, tmp_path, docs) as play:
        assert play.up().ends("fetch")[0] == code
        confined(play.state("fetch"))
        if code == 0:
            podman("run", "--rm", "--network=none", "--user=1234:1234", "-v", "models:/models:ro", image, "verify", "/models/llama")


@pytest.mark.parametrize("form", ["pull", "kserve", "oras"])
def test_one_shot_unprivileged(podman, image, registry, push, tmp_path_factory, form):  # noqa: F811
    """Any uid, a root file system that cannot be written, no capabilities, no new privileges; a termination log as the kubelet
    makes it."""
    pushed = push(registry, "kube/model", "v1", MODEL)
    folder = tmp_path_factory.mktemp("volume")
    folder.chmod(0o755)
    dest, last = folder / "dest", folder / "termination-log"
    dest.mkdir()
    dest.chmod(0o777)
    last.touch()
    last.chmod(0o666)
    uid = random.randrange(100000, 2**31)
    words = {"pull": ["pull", pushed.ref, "/mnt/models"], "kserve": [f"oci://{pushed.ref}", "/mnt/models"],
             "oras": ["pull", pushed.ref, "-o", "/mnt/models"]}[form]

    def run(args):
        return podman.try_("run", "--rm", "--network=host", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges",
                           f"--user={uid}:{uid}", "-e", "FETCHER_PLAIN_HTTP=true", "-v", f"{dest}:/mnt/models",
                           "-v", f"{last}:/dev/termination-log", image, *args)
    done = run(words)
    assert done.returncode == 0, done.stderr
    holds(dest, MODEL)
    assert (dest / "w.bin").stat().st_uid == uid and last.read_bytes() == b""
    done = run([w.replace(":v1", ":v2") for w in words])
    assert done.returncode == 21
    assert 0 < len(last.read_bytes()) <= 1000 and last.read_bytes().count(b"\n") <= 1
    holds(dest, MODEL)


def test_substitutions_stay_small():
    """What is played is the file's: the names, mounts, limits, and contexts of fetcher's containers are untouched."""
    class Stand:
        host, user = "127.0.0.1:5000", None
    for name, kind in (("init-container-vllm.yaml", "Deployment"), ("sidecar-plain.yaml", "Deployment"),
                       ("sidecar-sglang.yaml", "Deployment"), ("daemonset-warmup.yaml", "DaemonSet")):
        spec = pods(name)[0][1]
        played = substituted(name, kind, Stand, "", hostpath="/x")[-1]["spec"]
        assert played["securityContext"] == spec["securityContext"]
        was = {c["name"]: c for c in ours(spec)}
        now = {c["name"]: c for c in containers(played) if c["name"] in was}
        assert was.keys() == now.keys() and all(c["image"].startswith(OURS) for c in was.values())
        for field in ("securityContext", "volumeMounts", "resources", "terminationMessagePolicy"):
            assert {n: c[field] for n, c in was.items()} == {n: c[field] for n, c in now.items()}
