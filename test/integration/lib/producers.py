# SPDX-License-Identifier: Apache-2.0
"""Artifacts as each producer packs them, made by hand after the producers' own sources, which each function names. For producers
that run in a test see test_producers.py (oras, podman, skopeo) and test/interop (modctl).

    made = modelpack(model(), "tar+zstd", "cnai")
    pushed = put(registry, "some/repo", "v1", made)       by plain HTTP PUT
    ref = serve(faults, made)                             on a fault server
    holds(dest, made.files);  links_in(dest) == made.links
"""

import gzip
import json
import os
import random
import shutil
import struct
import subprocess
import tarfile

from . import oci
from .oci import FILEPATH, METADATA, TITLE, descriptor, digest_of

MIB = 1 << 20
MTIME = 1748779200  # 2025-06-01T12:00:00Z
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
UNPACK = "io.deis.oras.content.unpack"
INNER = "io.deis.oras.content.digest"
PACKINGS = ("tar", "tar+gzip", "tar+zstd")


class Made:
    """manifest (dict), blobs (all but the empty config), files {path: bytes} and links {path: target} that must land, unpacked:
    how many layers become trees."""

    def __init__(self, manifest, blobs, files, links=None, unpacked=0):
        self.manifest = manifest
        self.blobs = blobs
        self.files = files
        self.links = links or {}
        self.unpacked = unpacked

    @property
    def layers(self):
        return self.manifest["layers"]


def put(registry, repo, tag, made):
    return registry.api.put_manifest(repo, tag, made.manifest, blobs=made.blobs)


def serve(faults, made, tag="v1"):
    for body in [*made.blobs, b"{}"]:
        faults.blob(body)
    faults.manifest(made.manifest, tag=tag, media_type=made.manifest.get("mediaType", oci.MANIFEST))
    return faults.ref(tag)


def links_in(path):
    """{relative name: target} of the symlinks below path, without fetcher's own."""
    seen = {}
    for base, dirs, files in os.walk(path):
        if base == str(path):
            dirs[:] = [d for d in dirs if d not in (".fetcher", "current")]
        for name in dirs + files:
            full = os.path.join(base, name)
            if os.path.islink(full):
                seen[os.path.relpath(full, path)] = os.readlink(full)
    return seen


# -- a small model -------------------------------------------------------------------------------

# Most bf16 weights lie between 2^-12 and 1: few values of the byte with sign and exponent, any of the other.
_EXPONENT = bytes((0x3A + i % 6) | (0x80 if i & 1 else 0) for i in range(256))


def weights(seed, size):
    """size bytes that look, and can be compressed, like bf16."""
    chance = random.Random(seed)
    body = bytearray(size)
    body[0::2] = chance.randbytes((size + 1) // 2)
    body[1::2] = chance.randbytes(size // 2).translate(_EXPONENT)
    return bytes(body)


def safetensors(seed, size, names):
    """huggingface/safetensors README, "Format": u64 length of the header, JSON, data."""
    each = size // len(names) & ~1
    head = {n: {"dtype": "BF16", "shape": [each // 2], "data_offsets": [i * each, (i + 1) * each]}
            for i, n in enumerate(names)}
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + weights(seed, each * len(names))


def gguf(seed, size):
    """ggml docs/gguf.md: magic, version 3, counts, key/values, tensor infos, data aligned to 32."""
    key, value = b"general.architecture", b"llama"
    head = struct.pack("<4sIQQ", b"GGUF", 3, 1, 1)
    head += struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    name = b"token_embd.weight"
    head += struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, size // 2, 30, 0)
    return head + bytes(-len(head) % 32) + weights(seed, size)


def model(seed=1, size=MIB):
    """{path: bytes}: a safetensors index with two shards, tokenizer files, configuration, a doc and some code."""
    shards = {f"model-0000{i}-of-00002.safetensors": [f"layers.{i}.{part}" for part in ("q", "k", "v")] for i in (1, 2)}
    files = {name: safetensors(seed * 10 + i, size + 1000 * i, tensors)
             for i, (name, tensors) in enumerate(shards.items())}
    index = {"metadata": {"total_size": sum(map(len, files.values()))},
             "weight_map": {t: name for name, tensors in shards.items() for t in tensors}}
    vocab = {f"\u0120token{seed}_{i}": i for i in range(2000)}
    return {
        **files,
        "model.safetensors.index.json": json.dumps(index, indent=2).encode(),
        "config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16", "seed": seed}).encode(),
        "tokenizer.json": json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": vocab}}, ensure_ascii=False).encode(),
        "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}\n',
        "README.md": b"# A model\n",
        "code/modeling.py": b"print(1)\n" * 7,
    }


def gguf_model(seed=1, size=MIB):
    return {"model.gguf": gguf(seed, size)}


def kind_of(path):
    """ModelPack's word for a file."""
    if path.endswith((".safetensors", ".gguf", ".bin")):
        return "weight"
    if path.endswith((".json", ".jinja")):
        return "weight.config"
    return "code" if path.endswith(".py") else "doc"


# -- archives ------------------------------------------------------------------------------------


def entry(name, body=b"", kind=tarfile.REGTYPE, link="", mode=0o644, mtime=MTIME, format=tarfile.PAX_FORMAT, pax=None, **fields):
    """One entry: header, data, padding. fields: of tarfile.TarInfo (uid, size, devmajor...)."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.mtime, info.size = kind, link, mode, mtime, len(body)
    info.pax_headers = pax or {}
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(format, "utf-8", "surrogateescape") + body + bytes(-len(body) % 512)


def directory(name, mode=0o755, **fields):
    return entry(name, kind=tarfile.DIRTYPE, mode=mode, **fields)


def symlink(name, target, **fields):
    return entry(name, kind=tarfile.SYMTYPE, link=target, mode=0o777, **fields)


def hardlink(name, target, **fields):
    return entry(name, kind=tarfile.LNKTYPE, link=target, **fields)


def tar(*entries, record=512):
    """The entries with the end mark; record=10240: padded as GNU tar and Python do."""
    body = b"".join(entries) + bytes(1024)
    return body + bytes(-len(body) % record)


def tar_of(files, record=512, **fields):
    return tar(*[entry(name, body, **fields) for name, body in files.items()], record=record)


def zstd_frame(body):
    """A frame of stored blocks (RFC 8878 3.1.1): what every decoder takes, whatever tools are installed."""
    out = [struct.pack("<IBQ", 0xFD2FB528, 0xE0, len(body))]
    pieces = [body[i:i + (128 << 10)] for i in range(0, len(body), 128 << 10)] or [b""]
    for i, piece in enumerate(pieces):
        out.append(struct.pack("<I", len(piece) << 3 | (i == len(pieces) - 1))[:3] + piece)
    return b"".join(out)


def zstd(body, *flags):
    """Compressed where the program is installed, with a checksum; stored otherwise."""
    program = shutil.which("zstd")
    if not program:
        return zstd_frame(body)
    return subprocess.run([program, "-q", "-3", "-c", *flags], input=body, stdout=subprocess.PIPE, check=True).stdout


def pack(body, packing):
    """A tar as the suffix of its media type says."""
    if packing.endswith("gzip"):
        return gzip.compress(body, 1, mtime=0)
    return zstd(body) if packing.endswith("zstd") else body


# -- ModelPack -----------------------------------------------------------------------------------


def metadata(path, body, typeflag=0, mode=0o644, **more):
    """model-spec docs/annotations.md; specs-go/v1 FileMetadata."""
    return json.dumps({"name": os.path.basename(path), "mode": mode, "uid": 0, "gid": 0, "size": len(body),
                       "mtime": "2025-06-01T12:00:00Z", "typeflag": typeflag, **more})


def _spell(manifest, prefix):
    """The twin of before September 2025: everything called cnai."""
    return manifest if prefix == "cncf" else json.loads(json.dumps(manifest).replace("cncf.model", "cnai.model"))


def modelpack(files, packing="raw", prefix="cncf"):
    """modctl pkg/backend/build*: one file per layer, configs, models, codes, docs, each sorted by path; filepath and metadata, no
    title; the entry's name is the filepath; Go's tar writer ends with two zero blocks. It makes raw and tar; the specification
    also allows tar+gzip and tar+zstd. model-spec docs/config.md: the config."""
    order = ["weight.config", "weight", "code", "doc"]
    layers, blobs = [], []
    for path in sorted(files, key=lambda p: (order.index(kind_of(p)), p)):
        body = files[path]
        blob = body if packing == "raw" else pack(tar(entry(path, body, uid=1000, gid=1000)), packing)
        blobs.append(blob)
        layers.append(descriptor(blob, f"application/vnd.cncf.model.{kind_of(path)}.v1.{packing}", annotations={
            FILEPATH: path, METADATA: metadata(path, body), "org.cncf.model.file.mediatype.untested": "true"}))
    config = json.dumps({"descriptor": {"name": "small"}, "config": {"architecture": "transformer", "format": "safetensors"},
                         "modelfs": {"type": "layers", "diffIds": [x["digest"] for x in layers]}}).encode()
    body = oci.manifest(layers, config=descriptor(config, oci.MODELPACK_CONFIG), artifact_type=oci.MODELPACK,
                        annotations={"org.cncf.modctl.modelfile": "NAME small\n"})
    return Made(_spell(body, prefix), [*blobs, config], files, unpacked=0 if packing == "raw" else len(layers))


def modelpack_all_types(prefix="cncf"):
    """model-spec docs/spec.md: five kinds, each raw, tar, tar+gzip and tar+zstd."""
    layers, blobs, files = [], [], {}
    for kind in ("weight", "weight.config", "doc", "code", "dataset"):
        for packing in ("raw", *PACKINGS):
            path = f"{kind}/{packing}.bin"
            files[path] = weights(path, 3000)
            blob = files[path] if packing == "raw" else pack(tar(entry(path, files[path])), packing)
            blobs.append(blob)
            layers.append(descriptor(blob, f"application/vnd.cncf.model.{kind}.v1.{packing}", annotations={FILEPATH: path}))
    config = descriptor(b"{}", oci.MODELPACK_CONFIG)
    return Made(_spell(oci.manifest(layers, config=config, artifact_type=oci.MODELPACK), prefix), blobs, files, unpacked=15)


# -- AIKit, what KAITO pulls ---------------------------------------------------------------------


def aikit(files, packing="raw"):
    """aikit pkg/packager/build_templates.go: weights one layer each; in archives the entry is only the base name (tar -C PARENT
    BASENAME) while filepath is the whole path; the other categories go into one GNU tar each, whose filepath is the category's
    word. config {}; metadata of an archive of many files has a key "files"."""
    layers, blobs = [], []

    def add(blob, kind, path, meta):
        blobs.append(blob)
        layers.append(descriptor(blob, f"application/vnd.cncf.model.{kind}.v1.{packing}", annotations={
            TITLE: path, FILEPATH: path, METADATA: meta, "org.cncf.model.file.mediatype.untested": "true"}))

    for path, body in sorted(files.items()):
        if packing == "raw":
            add(body, kind_of(path), path, metadata(path, body, name=path, mtime="1970-01-01T00:00:00Z"))
        elif kind_of(path) == "weight":
            add(pack(tar(entry(os.path.basename(path), body), record=10240), packing), "weight", path,
                metadata(path, body, name=path))
    for kind, word in (("weight.config", "config"), ("doc", "docs"), ("code", "code")):
        mine = {p: b for p, b in sorted(files.items()) if kind_of(p) == kind}
        if packing != "raw" and mine:
            blob = pack(tar_of(mine, record=10240, format=tarfile.GNU_FORMAT), packing)
            add(blob, kind, word, metadata(word, blob, files=sorted(mine)))
    body = oci.manifest(layers, config=descriptor(b"{}", oci.MODELPACK_CONFIG), artifact_type=oci.MODELPACK)
    return Made(body, blobs, files, unpacked=0 if packing == "raw" else len(layers))


def aikit_generic(files, packing="raw"):
    """The same file, packager/generic: octet-streams with titles, or one archive called allfiles.tar* without any annotation that
    says so."""
    if packing == "raw":
        layers = [oci.titled(body, path, "application/octet-stream") for path, body in files.items()]
        return Made(oci.manifest(layers), list(files.values()), files)
    blob = pack(tar(directory("./"), *[entry("./" + p, b) for p, b in files.items()], record=10240), packing)
    suffix = {"tar": "", "tar+gzip": ".gz", "tar+zstd": ".zst"}[packing]
    layer = oci.titled(blob, "allfiles.tar" + suffix, "application/vnd.oci.image.layer.v1." + packing)
    return Made(oci.manifest([layer]), [blob], files, unpacked=1)


# -- KitOps --------------------------------------------------------------------------------------


def kitops(files, packing="tar+gzip", old=False):
    """kitops pkg/artifact/kitfile.go, pkg/lib/filesystem: the Kitfile as JSON is the config; no mediaType, no artifactType, no layer
    annotations; a layer per entry; names relative to the kit's root. old: before entries had a digest and diffId, names are relative
    to the directory of the entry's path."""
    def add(word, path, mine):
        base = os.path.dirname(path.rstrip("/")) if old else ""
        names = {p: os.path.relpath(p, base) if base else p for p in mine}
        top = names[path.rstrip("/")] if path.rstrip("/") in names else os.path.relpath(path, base or ".")
        dirs = [] if path in mine or top == "." else [directory(top + "/", uid=1000, mtime=0)]
        raw = tar(*dirs, *[entry(names[p], files[p], uid=1000, mtime=0) for p in mine])
        blobs.append(pack(raw, packing))
        layers.append(descriptor(blobs[-1], f"application/vnd.kitops.modelkit.{word}.v1.{packing}"))
        return {"path": path, **({} if old else {"digest": layers[-1]["digest"], "diffId": digest_of(raw)})}

    layers, blobs = [], []
    first, second = sorted(p for p in files if p.endswith(".safetensors"))
    kit = {"manifestVersion": "1.0.0", "package": {"name": "small"}, "model": {"name": "small", **add("model", first, [first])}}
    kit["model"]["parts"] = [{"name": "rest", **add("modelpart", p, [p])}
                             for p in [second, *(p for p in files if kind_of(p) == "weight.config")]]
    kit["code"] = [add("code", "code/" if not old else "code", [p for p in files if p.startswith("code/")])]
    kit["docs"] = [add("docs", "README.md", ["README.md"])]
    config = json.dumps(kit).encode()
    body = oci.manifest(layers, config=descriptor(config, "application/vnd.kitops.modelkit.config.v1+json"), artifact_type=None,
                        mediaType=None, annotations={"ml.kitops.modelkit.cli-version": "0.4.0" if old else "1.7.0"})
    return Made(body, [*blobs, config], files, unpacked=len(layers))


def kitops_nested_old(seed=1):
    """An old kit whose entries lie in directories: that of the path goes in front."""
    files = {"weights/deep/model.safetensors": weights(seed, 70_000), "src/run.py": b"print(2)\n", "data/a.csv": b"1,2\n",
             "data/b.csv": b"3,4\n"}
    layers, blobs = [], []
    for word, names in (("model", ["model.safetensors"]), ("code", ["src/run.py"]), ("dataset", ["a.csv"]), ("dataset", ["b.csv"])):
        by_base = {os.path.basename(p): b for p, b in files.items()}
        blobs.append(pack(tar(*[entry(n, by_base[os.path.basename(n)], mtime=0) for n in names]), "tar+gzip"))
        layers.append(descriptor(blobs[-1], f"application/vnd.kitops.modelkit.{word}.v1.tar+gzip"))
    kit = {"manifestVersion": "1.0.0", "model": {"path": "./weights/deep/model.safetensors"}, "code": [{"path": "src"}],
           "datasets": [{"path": "data/a.csv"}, {"path": "data/b.csv"}]}
    config = json.dumps(kit).encode()
    body = oci.manifest(layers, config=descriptor(config, "application/vnd.kitops.modelkit.config.v1+json"), artifact_type=None,
                        mediaType=None)
    return Made(body, [*blobs, config], files, unpacked=len(layers))


# -- Docker Model Runner -------------------------------------------------------------------------

DOCKER_AI = "application/vnd.docker.ai."


def docker_runner(files, version="v0.2"):
    """model-runner pkg/distribution/types/config.go, builder: one layer per file with filepath (v0.2), or names by convention and
    the small files in one archive (v0.1, internal/bundle/unpack.go)."""
    layers, blobs, want = [], [], {}

    def add(blob, word, path=None, body=None):
        notes = {"annotations": {FILEPATH: path, METADATA: metadata(path, body if body is not None else blob),
                                 "org.cncf.model.file.mediatype.untested": "false"}} if path else {}
        blobs.append(blob)
        layers.append(descriptor(blob, DOCKER_AI + word, **notes))

    shards = sorted(p for p in files if p.endswith(".safetensors"))
    if version == "v0.2":
        for path, body in files.items():
            add(body, "safetensors" if path in shards else "model.file", path)
        want = dict(files)
    else:
        for i, path in enumerate(shards):
            add(files[path], "safetensors")
            want[f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"] = files[path]
        small = {p: b for p, b in files.items() if p.endswith(".json")}
        add(tar_of(small), "vllm.config.tar")
        add(b"{{ messages }}", "chat.template.jinja")
        add(b"Apache-2.0", "license")
        add(tar(directory("code/"), entry("code/modeling.py", files["code/modeling.py"])), "dir.tar")
        want.update(small, **{"template.jinja": b"{{ messages }}", "LICENSE": b"Apache-2.0",
                              "code/modeling.py": files["code/modeling.py"]})
    config = json.dumps({"config": {"format": "safetensors"}, "descriptor": {}, "rootfs": {"type": "rootfs"}}).encode()
    body = oci.manifest(layers, config=descriptor(config, f"{DOCKER_AI}model.config.{version}+json"), artifact_type=None)
    return Made(body, [*blobs, config], want, unpacked=0 if version == "v0.2" else 2)


def docker_gguf(seed=1):
    """v0.1 with one GGUF and its projector."""
    body, projector = gguf(seed, MIB), gguf(seed + 1, 70_000)
    layers = [descriptor(body, DOCKER_AI + "gguf.v3"), descriptor(projector, DOCKER_AI + "mmproj")]
    config = b'{"config": {"format": "gguf"}, "rootfs": {"type": "rootfs"}}'
    made = oci.manifest(layers, config=descriptor(config, DOCKER_AI + "model.config.v0.1+json"), artifact_type=None)
    return Made(made, [body, projector, config], {"model.gguf": body, "model.mmproj": projector})


# -- Ollama --------------------------------------------------------------------------------------


def ollama(seed=1):
    """ollama manifest/, server/: Docker's types, layers without a name."""
    parts = [("model", "model.gguf", gguf(seed, MIB)), ("projector", "mmproj.gguf", gguf(seed + 1, 50_000)),
             ("template", "template", b"{{ .Prompt }}"), ("system", "system", b"You are a model."),
             ("params", "params.json", b'{"stop": ["<s>"]}'), ("license", "license", b"Apache-2.0"),
             ("license", "license-2", b"MIT")]
    return _ollama([descriptor(b, "application/vnd.ollama.image." + w) for w, _, b in parts], {n: b for _, n, b in parts})


def ollama_tensors(files):
    """Newer ones: image.tensor and image.json with a key `name` on the layer object."""
    layers = [descriptor(b, "application/vnd.ollama.image." + ("json" if p.endswith(".json") else "tensor"), name=p)
              for p, b in files.items()]
    return _ollama(layers, files)


def _ollama(layers, files):
    config = json.dumps({"model_format": "gguf", "architecture": "amd64", "os": "linux",
                         "rootfs": {"type": "layers", "diff_ids": [x["digest"] for x in layers]}}).encode()
    body = {"schemaVersion": 2, "mediaType": oci.DOCKER_MANIFEST, "config": descriptor(config, oci.DOCKER_CONFIG), "layers": layers}
    return Made(body, [*files.values(), config], files)


# -- images: ramalama, olot, modelcars -----------------------------------------------------------


def ramalama_artifact(files):
    """ramalama through `podman artifact add`: ModelPack's annotations, typeflag ord('0'), a title that is the digest-named blob of
    its store, a sniffed media type (podman cmd/podman/artifact/add.go)."""
    layers = []
    for path, body in files.items():
        kind = "application/json" if path.endswith(".json") else "application/octet-stream"
        layers.append(descriptor(body, kind, annotations={
            FILEPATH: path, METADATA: metadata(path, body, typeflag=48, name=path), TITLE: digest_of(body).replace(":", "-"),
            "org.cncf.model.file.mediatype.untested": "true"}))
    return Made(oci.manifest(layers, artifact_type=oci.MODELPACK), list(files.values()), files)


def image(layers, files, links=None, packing="tar+gzip", annotations=(), docker=False, labels=None, **config):
    """An ordinary image of tars (bytes). annotations: one dict per layer, or none."""
    blobs = [pack(x, packing) for x in layers]
    kind = "application/vnd.oci.image.layer.v1." + packing
    if docker:
        kind = "application/vnd.docker.image.rootfs.diff." + packing.replace("+gzip", ".gzip")
    notes = list(annotations) or [None] * len(blobs)
    found = [descriptor(b, kind, **({"annotations": n} if n else {})) for b, n in zip(blobs, notes)]
    body = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Labels": labels or {}},
                       "rootfs": {"type": "layers", "diff_ids": [digest_of(x) for x in layers]}, **config}).encode()
    made = {"schemaVersion": 2, "mediaType": oci.DOCKER_MANIFEST if docker else oci.MANIFEST,
            "config": descriptor(body, oci.DOCKER_CONFIG if docker else IMAGE_CONFIG), "layers": found}
    return Made(made, [*blobs, body], files, links, unpacked=len(blobs))


def modelcar(files, packing="tar+gzip", docker=False):
    """KServe's modelcar: a base of other files, then COPY . /models/."""
    base = tar(directory("bin/", uid=0), entry("bin/sh", b"\x7fELF" + bytes(3000), mode=0o755), directory("etc/"),
               entry("etc/passwd", b"root:x:0:0::/:/bin/sh\n"), symlink("lib", "usr/lib"))
    rest = tar(directory("models/"), directory("models/code/"), *[entry("models/" + p, b) for p, b in files.items()])
    return image([base, rest], files, packing=packing, docker=docker)


def ramalama_car(files):
    """ramalama convert --type car: files below models/NAME, and models/model.file that leads to the model."""
    name = next(p for p in files if p.endswith((".gguf", ".safetensors")))
    body = tar(directory("models/"), *[entry("models/small/" + p, b) for p, b in files.items()],
               symlink("models/model.file", "/models/small/" + name))
    return image([body], {"small/" + p: b for p, b in files.items()}, {"model.file": "small/" + name}, "tar",
                 labels={"org.containers.type": "ai.model.car"})


def olot(files, packing="tar"):
    """olot backend: a layer per file at /models/NAME, annotated with what is in it; the inner digest is the file's."""
    layers, notes = [], []
    for path, body in files.items():
        layers.append(tar(entry("models/" + path, body, mode=0o664)))
        notes.append({"olot.layer.content.type": "file", "olot.layer.content.name": os.path.basename(path), TITLE: path,
                      "olot.layer.content.inlayerpath": "/models/" + path, "olot.layer.content.digest": digest_of(body)})
    return image(layers, files, packing=packing, annotations=notes)


def oras_folder(name, files, extra=(), title=None, **annotations):
    """oras-go content/file: one tar+gzip whose names begin with the directory's, with the digest of the uncompressed tar."""
    raw = tar(directory(name + "/"), *[entry(f"{name}/{p}", b) for p, b in files.items()], *extra)
    blob = pack(raw, "tar+gzip")
    layer = oci.titled(blob, title or name, "application/vnd.oci.image.layer.v1.tar+gzip")
    layer["annotations"].update({INNER: digest_of(raw), UNPACK: "true", **annotations})
    return Made(oci.manifest([layer]), [blob], {f"{name}/{p}": b for p, b in files.items()}, unpacked=1)
