#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# test/interop.sh [ARGUMENT OF PYTEST]...
#
# Tests with tools that Debian does not have, or not for this: gets them below build/interop, then runs test/interop. A tool
# that cannot be had is no failure: the tests that want it are skipped and say why. `make test` does not run this. Tools of the
# table need a Go of 1.26 or later; modctl (0.2.2 was used), zot (2.1.20, built with sync) and spegel (0.7.4) are taken from PATH
# where they are there.
#
# A further tool is one line in the table (and a function get_KIND where it comes from elsewhere); a further part is one
# test_*.py in test/interop.
set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
dir=$top/build/interop
cd "$top"
mkdir -p "$dir/bin"
PATH=$PATH:/usr/local/go/bin    # where Go's own archive unpacks to
export PATH

# name in build/interop/bin, kind, source at its version, the name it is built under
tools='
crane go github.com/google/go-containerregistry/cmd/crane@v0.22.1 crane
regctl go github.com/regclient/regclient/cmd/regctl@v0.11.7 regctl
containerd deb containerd containerd
ctr deb containerd ctr
distribution go github.com/distribution/distribution/v3/cmd/registry@v3.1.2 registry
kustomize go sigs.k8s.io/kustomize/kustomize/v5@v5.8.1 kustomize
kserve module github.com/kserve/kserve@v0.20.0 kserve
kubernetes-validate pypi kubernetes-validate==1.37.0 kubernetes-validate
moto_server pypi moto[server]==5.2.5 moto_server
'

# get_go SOURCE NAME FOLDER: through the module proxy that `go env` names, with its checksum database.
get_go() {
	if ! command -v go >/dev/null; then
		echo "go is not installed"
		return 1
	fi
	GOBIN=$3 GOFLAGS=-mod=mod CGO_ENABLED=0 timeout 900 go install "$1"
}

# get_module SOURCE NAME FOLDER: a link to a Go module's sources, for the schemas in it.
get_module() {
	if ! command -v go >/dev/null; then
		echo "go is not installed"
		return 1
	fi
	ln -s "$(timeout 900 go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')" "$3/$2"
	[ -d "$3/$2" ] || { go mod download "$1" 2>&1 || return 1; }
}

# get_deb SOURCE NAME FOLDER: one program of the machine's own Debian, unpacked and not installed; it needs libc alone.
get_deb() {
	(cd "$3" && apt-get -q download "$1" && dpkg-deb -x ./*.deb root && mv "root/usr/bin/$2" .)
}

# get_pypi SOURCE NAME FOLDER: in an environment of its own, which has to stay where it was made.
get_pypi() {
	rm -rf "$dir/venv-$2"
	"${PYTHON:-/usr/bin/python3}" -m venv "$dir/venv-$2" &&
		"$dir/venv-$2/bin/pip" install --quiet --disable-pip-version-check "$1" &&
		ln -s "$dir/venv-$2/bin/$2" "$3/$2"
}

get() { # NAME KIND SOURCE BUILT
	if [ -x "$dir/bin/$1" ] && [ "$(cat "$dir/$1.source" 2>/dev/null)" = "$3" ]; then
		return
	fi
	echo "interop: $1 from $3"
	rm -rf "$dir/new" "$dir/$1.why" "$dir/bin/$1"
	mkdir "$dir/new"
	if "get_$2" "$3" "$4" "$dir/new" >"$dir/$1.log" 2>&1 </dev/null && mv "$dir/new/$4" "$dir/bin/$1"; then
		echo "$3" >"$dir/$1.source"
	else
		tail -n 1 "$dir/$1.log" | cut -c 1-200 >"$dir/$1.why"
		echo "interop: $1 is left out: $(cat "$dir/$1.why")"
	fi
	rm -rf "$dir/new"
}

test/parts.sh
test/parts.sh bench
echo "$tools" | while read -r name kind source built; do
	[ -z "$name" ] || get "$name" "$kind" "$source" "$built"
done

export PYTHONDONTWRITEBYTECODE=1
exec "${PYTHON:-/usr/bin/python3}" -m pytest -q -p no:cacheprovider test/interop "$@"
