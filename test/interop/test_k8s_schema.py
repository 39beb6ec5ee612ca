# SPDX-License-Identifier: Apache-2.0
"""The manifests of k8s/ against the schemas of Kubernetes releases, strictly (a field that is unknown there is an error), and of
KServe's resources. KAITO's schema cannot be had as a package: of its Workspace the Pod template is checked, and the fields
around it by name. What the files say to fetcher is looked at by test/integration/test_k8s_files.py."""
import copy
import json
import pathlib
import subprocess

import pytest
import yaml

from lib import k8s
from lib.k8s import files, load

from conftest import TOOLS, find_tool

# From the first one with native sidecars to the newest that the validator has.
RELEASES = ["1.29", "1.31", "1.33", "1.35", "1.37"]
FOREIGN = {"serving.kserve.io/v1alpha1", "serving.kserve.io/v1beta1", "kaito.sh/v1beta1"}


@pytest.fixture(scope="module")
def validate():
    """validate(release, paths) -> (exit code, what it said)."""
    program = find_tool("kubernetes-validate")

    def go(release, paths):
        done = subprocess.run([program, "--strict", "--no-warn", "-k", release, *map(str, paths)], text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
        return done.returncode, done.stdout
    return go


def resources(name):
    """What Kubernetes itself knows: the file's own resources, and the Pods inside of others, as templates."""
    for doc in load(name):
        if doc["apiVersion"] not in FOREIGN:
            yield doc
        elif k8s.pod(doc, load(name)):
            yield {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "inside"},
                   "template": {"spec": k8s.pod(doc, load(name))}}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resources")
    for name in files():
        docs = list(resources(name))
        assert docs, name
        (folder / name).write_text(yaml.safe_dump_all(docs))
    return sorted(folder.iterdir())


@pytest.mark.parametrize("release", RELEASES)
def test_kubernetes(validate, written, release):
    code, said = validate(release, written)
    assert code == 0, said


def test_strict_is_strict(validate, written, tmp_path):
    """What must not pass does not: a field of a newer release, a wrong name, a wrong type."""
    sidecar = next(p for p in written if p.name == "sidecar-sglang.yaml")
    code, said = validate("1.27", [sidecar])    # no restartPolicy of a container yet
    assert code != 0 and "restartPolicy" in said
    good = load("job-pvc.yaml")[1]
    for path, value in ((("spec", "backoffLimits"), 6), (("spec", "backoffLimit"), "six"),
                        (("spec", "template", "spec", "containers", 0, "readOnly"), True)):
        bad = copy.deepcopy(good)
        inner = bad
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        (tmp_path / "bad.yaml").write_text(yaml.safe_dump(bad))
        code, said = validate(RELEASES[-1], [tmp_path / "bad.yaml"])
        assert code != 0, path


def test_kustomize(validate, tmp_path):
    """The kustomization as it is, and with everything in it that stands there as a comment."""
    program = find_tool("kustomize")

    def build(folder):
        done = subprocess.run([program, "build", str(folder)], text=True, check=False, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=120)
        assert done.returncode == 0, done.stderr
        return list(yaml.safe_load_all(done.stdout))

    assert {d["kind"] for d in build(k8s.FOLDER)} == {"Deployment", "NetworkPolicy"}
    for path in k8s.FOLDER.glob("*.yaml"):
        text = path.read_text()
        if path.name == "kustomization.yaml":
            text = text.replace("  # - ", "  - ").replace("# namespace:", "namespace:").replace("newTag: 0.1.0", "newTag: 9.9.9")
        (tmp_path / path.name).write_text(text)
    docs = build(tmp_path)
    assert len(docs) == sum(len(load(name)) for name in files())
    for doc in docs:
        spec = k8s.pod(doc, docs)
        if spec and doc["apiVersion"] not in FOREIGN:
            assert {c["image"] for c in k8s.ours(spec)} == {k8s.OURS + "9.9.9"} and doc["metadata"]["namespace"] == "models"
    (tmp_path / "built").write_text(yaml.safe_dump_all([d for d in docs if d["apiVersion"] not in FOREIGN]))
    code, said = validate(RELEASES[-1], [tmp_path / "built"])
    assert code == 0, said


# -- resources of others -------------------------------------------------------------------------


def closed(schema):
    """A CustomResourceDefinition's schema with unknown fields refused, as strict field validation does."""
    if isinstance(schema, list):
        return [closed(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    out = {k: closed(v) for k, v in schema.items() if k not in ("description", "default", "pattern", "format")}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema \
            and not schema.get("x-kubernetes-preserve-unknown-fields"):
        out["additionalProperties"] = False
    return out


# jsonschema comes with the validator's own environment
CHECK = """
import json, sys, jsonschema
schema, doc = json.load(sys.stdin)
for e in jsonschema.Draft7Validator(schema).iter_errors(doc):
    print("/".join(map(str, e.absolute_path)), e.message[:300])
"""


def errors(schema, doc):
    python = pathlib.Path(find_tool("kubernetes-validate")).resolve().parent / "python"
    return subprocess.run([str(python), "-c", CHECK], input=json.dumps([closed(schema), doc]), text=True, check=True,
                          stdout=subprocess.PIPE, timeout=120).stdout


def definitions():
    top = TOOLS / "bin" / "kserve"
    if not top.exists():
        why = TOOLS / "kserve.why"
        pytest.skip(f"no sources of KServe: {why.read_text().strip() if why.exists() else 'run test/interop.sh'}")
    found = {}
    for path in (top / "config" / "crd" / "full").rglob("*.yaml"):
        for crd in yaml.safe_load_all(path.read_text()):
            if crd and crd.get("kind") == "CustomResourceDefinition":
                for version in crd["spec"].get("versions", ()):    # patches have none
                    name = (f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"])
                    found[name] = version["schema"]["openAPIV3Schema"]
    return found


def test_kserve():
    schemas = definitions()
    docs = load("kserve-clusterstoragecontainer.yaml")
    assert len(docs) == 2
    for doc in docs:
        schema = schemas[doc["apiVersion"], doc["kind"]]
        assert errors(schema, doc) == ""
        bad = copy.deepcopy(doc)
        bad["spec"]["noSuchField"] = 1
        assert "noSuchField" in errors(schema, bad)
    # the environment that KServe's webhook would match the URI by
    storage, service = docs
    uri = service["spec"]["predictor"]["model"]["storageUri"]
    assert any(uri.startswith(f["prefix"]) for f in storage["spec"]["supportedUriFormats"])


def test_kaito_by_name():
    """Field by field, after api/v1beta1/workspace_types.go of kaito-project/kaito."""
    doc, = load("kaito.yaml")
    assert (doc["apiVersion"], doc["kind"]) == ("kaito.sh/v1beta1", "Workspace")
    assert doc.keys() == {"apiVersion", "kind", "metadata", "resource", "inference"}
    assert doc["resource"].keys() <= {"count", "instanceType", "labelSelector", "preferredNodes"}
    assert doc["resource"]["labelSelector"]["matchLabels"] and doc["inference"].keys() == {"template"}
    assert doc["inference"]["template"].keys() <= {"metadata", "spec"}
