#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# make demo: a registry on this machine, a small model in it, and fetcher that brings it to a
# folder. Everything happens on loopback and below build/demo; the registry ends with the script.
#
#	test/demo.sh [FETCHER]		the binary, default build/fetcher

set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
fetcher=${1:-${FETCHER_BIN:-$top/build/fetcher}}
bin=${FETCHER_PARTS:-$top/build/parts}/bin
work=$top/build/demo
pid=

if [ -t 1 ]; then
	bold=$(printf '\033[1m') dim=$(printf '\033[2m') off=$(printf '\033[0m')
else
	bold= dim= off=
fi

# The registry and the working folder go away however the script ends.
finish() {
	rc=$?
	trap - EXIT
	if [ -n "$pid" ]; then
		kill "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	fi
	if [ "$rc" -ne 0 ] && [ -s "$work/registry.log" ]; then
		echo "demo: failed; the registry's last words:" >&2
		tail -n 5 "$work/registry.log" >&2
	fi
	rm -rf "$work"
	exit "$rc"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step=0
explain() {
	step=$((step + 1))
	printf '\n%s%d. %s%s\n' "$bold" "$step" "$*" "$off"
}

run() {
	printf '%s$ %s%s\n' "$dim" "$(echo "$*" | sed "s|$fetcher|fetcher|; s|$work/||g")" "$off"
	"$@"
}

[ -x "$fetcher" ] || { echo "demo: $fetcher is missing; run make first" >&2; exit 1; }
"$top/test/parts.sh" test

rm -rf "$work"
mkdir -p "$work/model" "$work/data"

explain "A registry for container images starts on a free port of this machine."
cat >"$work/registry.json" <<END
{"version": 0.1, "log": {"level": "error", "accesslog": {"disabled": true}},
 "storage": {"filesystem": {"rootdirectory": "$work/data"}},
 "http": {"addr": "127.0.0.1:0"}}
END
"$bin/docker-registry" serve "$work/registry.json" >"$work/registry.log" 2>&1 &
pid=$!
# It chose the port itself; the kernel's table of listening sockets says which one.
host=
tries=0
while [ -z "$host" ]; do
	tries=$((tries + 1))
	[ "$tries" -le 100 ] || { echo "demo: the registry does not start" >&2; exit 1; }
	sleep 0.1
	kill -0 "$pid" 2>/dev/null || { echo "demo: the registry ended" >&2; exit 1; }
	host=$(python3 - "$pid" <<'END'
import os, sys
pid = sys.argv[1]
inodes = set()
for fd in os.listdir(f"/proc/{pid}/fd"):
    try:
        link = os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        continue
    if link.startswith("socket:["):
        inodes.add(link[8:-1])
for line in open(f"/proc/{pid}/net/tcp").readlines()[1:]:
    words = line.split()
    if words[3] == "0A" and words[9] in inodes:
        print("127.0.0.1:%d" % int(words[1].split(":")[1], 16))
END
	)
done
ref=$host/demo/model:v1
echo "listening on $host"

explain "A small model: a configuration, a tokenizer and two shards of 64 MiB."
python3 - "$work/model" <<'END'
import json, os, random, struct, sys
folder = sys.argv[1]
layers = {"config.json": {"architectures": ["DemoForCausalLM"], "hidden_size": 4096,
                          "num_hidden_layers": 2, "torch_dtype": "bfloat16"},
          "tokenizer.json": {"version": "1.0", "model": {"type": "BPE",
                             "vocab": {chr(97 + i): i for i in range(26)}, "merges": []}}}
for name, body in layers.items():
    with open(os.path.join(folder, name), "w") as f:
        json.dump(body, f, indent=1)
size = 64 << 20
for n in (1, 2):
    # As safetensors: length of the header, the header, the numbers.
    name = f"model.layers.{n - 1}.weight"
    def head(length):
        return json.dumps({name: {"dtype": "BF16", "shape": [length // 2],
                                  "data_offsets": [0, length]}}).encode().ljust(120)
    body = size - 8 - 120
    with open(os.path.join(folder, f"model-0000{n}-of-00002.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", 120) + head(body))
        block = random.Random(n).randbytes(1 << 20)
        while body > 0:
            f.write(block[:body])
            body -= len(block)
END
(cd "$work/model" && ls -l | awk 'NR > 1 { printf "%12d  %s\n", $5, $NF }')

explain "oras, the usual tool, pushes it to the registry as one artifact."
(cd "$work/model" && env HOME="$work" DOCKER_CONFIG="$work" "$bin/oras" push --plain-http --no-tty \
	"$ref" * 2>&1 | sed -n 's/^Pushed/pushed/p; s/^Digest/digest/p')

explain "fetcher pulls it: concurrent ranges, SHA-256 checked on the way, nothing visible before."
run "$fetcher" pull --plain-http "$ref" "$work/dest"

explain "The files stand under their names; what fetcher keeps for itself is in .fetcher."
(cd "$work/dest" && find . -type f | sort | while read -r f; do
	printf '%12d  %s\n' "$(stat -c %s "$f")" "${f#./}"
done)
for f in "$work"/model/*; do
	cmp "$f" "$work/dest/${f##*/}"
done
echo "each file equals the one that was pushed"

explain "The ready marker, renamed into place last, says what this is."
run cat "$work/dest/.fetcher/ready.json"
echo

explain "A readiness probe needs no network: exit 0 means complete and verified."
run "$fetcher" probe "$work/dest"
echo "exit 0"

explain "The same pull again: the digest is there already, no blob is asked for."
run "$fetcher" pull --plain-http "$ref" "$work/dest"

printf '\n%sThat is all.%s The registry stops and build/demo is removed.\n' "$bold" "$off"
