# SPDX-License-Identifier: Apache-2.0
"""The manifests of k8s/: what stands in them, as Kubernetes and as fetcher see it."""

import copy

import yaml

from .proc import TOP

FOLDER = TOP / "k8s"
OURS = "registry.example.com/fetcher:"
HOST = "registry.example.com"


def files():
    """The manifests' names; kustomization.yaml is none."""
    return sorted(p.name for p in FOLDER.glob("*.yaml") if p.name != "kustomization.yaml")


def load(name):
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def _storage_container(doc):
    """As KServe's webhook has it: the container in a Pod that the InferenceService describes, with KServe's own volume and
    arguments (a source and where it goes)."""
    container = copy.deepcopy(doc["spec"]["container"])
    container.setdefault("volumeMounts", []).append({"name": "kserve-provision-location", "mountPath": "/mnt/models"})
    container["args"] = [doc["spec"]["supportedUriFormats"][0]["prefix"] + "models/llama:8b", "/mnt/models"]
    return container


def _inference_service(doc, docs):
    predictor = copy.deepcopy(doc["spec"]["predictor"])
    model = predictor.pop("model")
    for field in ("modelFormat", "storageUri"):
        del model[field]
    storage = [d for d in docs if d["kind"] == "ClusterStorageContainer"]
    predictor["containers"] = [{"name": "kserve-container", "image": "registry.example.com/runtime:1", **model}]
    predictor["initContainers"] = [_storage_container(d) for d in storage]
    predictor["volumes"].append({"name": "kserve-provision-location", "emptyDir": {"sizeLimit": "1Gi"}})
    predictor["automountServiceAccountToken"] = False    # KServe's business
    return predictor


def pod(doc, docs):
    """The PodSpec in a resource, or None where a resource has none. docs: the other resources of its file."""
    kind = doc["kind"]
    if kind == "Pod":
        return doc["spec"]
    if kind in ("Deployment", "DaemonSet", "Job"):
        return doc["spec"]["template"]["spec"]
    if kind == "CronJob":
        return doc["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    if kind == "Workspace":
        return doc["inference"]["template"]["spec"]
    if kind == "InferenceService":
        return _inference_service(doc, docs)
    if kind in ("ConfigMap", "Secret", "PersistentVolumeClaim", "NetworkPolicy", "ClusterStorageContainer"):
        return None    # the last one is part of the InferenceService's
    raise AssertionError(f"say in lib/k8s.py where the Pod of a {kind} stands")


def pods(name):
    """[(resource, PodSpec)] of a file."""
    docs = load(name)
    found = [(doc, pod(doc, docs)) for doc in docs]
    return [(doc, spec) for doc, spec in found if spec]


def containers(spec):
    return [*spec.get("initContainers", ()), *spec["containers"]]


def ours(spec):
    """The containers that run fetcher's image."""
    return [c for c in containers(spec) if c["image"].startswith(OURS)]


def environment(container, node="127.0.0.1"):
    """Its variables as the kubelet would set them; fieldRef status.hostIP is node."""
    env = {}
    for entry in container.get("env", ()):
        if "valueFrom" in entry:
            assert entry["valueFrom"] == {"fieldRef": {"fieldPath": "status.hostIP"}}, entry
            value = node
        else:
            value = entry["value"]
            for known, text in env.items():
                value = value.replace(f"$({known})", text)
        assert "$(" not in value, entry
        env[entry["name"]] = value
    return env


def mounted(container, volumes):
    """[(mountPath, what stands for it)]: volumes is {volume: path}. The longest mountPath first, for replacing."""
    mounts = [(m["mountPath"], str(volumes[m["name"]])) for m in container.get("volumeMounts", ())]
    return sorted(mounts, key=lambda m: -len(m[0]))


def moved(text, mounts):
    """text with its paths where the mounts are."""
    for path, real in mounts:
        if text == path or text.startswith(path + "/"):
            return real + text[len(path):]
        flag, eq, value = text.partition("=")
        if eq and (value == path or value.startswith(path + "/")):
            return flag + eq + real + value[len(path):]
    return text


def size(text):
    """Bytes (or cores) of a quantity."""
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "m": 0.001}
    for unit, factor in units.items():
        if str(text).endswith(unit):
            return float(str(text)[:-len(unit)]) * factor
    return float(text)
