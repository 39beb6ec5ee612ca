#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# need.sh GROUP ...: the Debian and Ubuntu packages that a goal of the Makefile needs. What is missing is installed by
# apt-get, as root or through sudo, and named first. FETCHER_NO_INSTALL=1 only names it and fails.
# A machine without dpkg is taken as it is: the compiler will say what it misses.
set -eu

# One list per goal. a|b: either will do, the first that can be had is installed.
packages() {
	case $1 in
	build) echo gcc make libc6-dev linux-libc-dev m4 nasm patch python3 xz-utils bzip2 ca-certificates debian-archive-keyring ;;
	arm64) [ "$(uname -m)" = aarch64 ] || echo gcc-aarch64-linux-gnu libc6-dev-arm64-cross ;;
	amd64) [ "$(uname -m)" = x86_64 ] || echo gcc-x86-64-linux-gnu libc6-dev-amd64-cross ;;
	test)
		echo libcmocka-dev python3-pytest python3-yaml openssl zstd strace 'qemu-user-static|qemu-user'
		# the image: podman with the runtime that also knows hybrid cgroups, a base image of our own making
		echo podman runc catatonit debootstrap ;;
	fuzz) echo clang "$(clang_runtime)" ;;
	bench) echo strace curl openssl ;;
	*) echo "need.sh: unknown group $1" >&2; exit 2 ;;
	esac
}

# The sanitizers' run time has clang's version in its name.
clang_runtime() {
	v=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9][0-9]*\)$/\1/p' | head -n 1)
	[ -z "$v" ] || echo "libclang-rt-$v-dev"
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# missing NAME|NAME ...: prints the first name of each entry of which none is installed.
missing() {
	for entry do
		found=
		for name in $(echo "$entry" | tr '|' ' '); do
			if installed "$name"; then
				found=1
				break
			fi
		done
		[ -n "$found" ] || echo "$entry"
	done
}

# choose ENTRY: the first name that apt knows a version of.
choose() {
	for name in $(echo "$1" | tr '|' ' '); do
		if apt-cache policy "$name" 2>/dev/null | grep -q 'Candidate: [^(]'; then
			echo "$name"
			return
		fi
	done
	echo "${1%%|*}"
}

command -v dpkg-query >/dev/null || exit 0
# Several goals may ask at once (make -j): one installs, the next looks again.
mkdir -p build
exec 9>build/.install.lock
flock 9
want=
for group do
	want="$want $(packages "$group")"
done
# shellcheck disable=SC2086 # a list of words
lack=$(missing $want)
[ -n "$lack" ] || exit 0

if [ -n "${FETCHER_NO_INSTALL:-}" ]; then
	echo "make: these packages are missing:" $lack >&2
	exit 1
fi
if [ "$(id -u)" = 0 ]; then
	sudo=
elif command -v sudo >/dev/null; then
	sudo=sudo
else
	echo "make: these packages are missing, and neither root nor sudo is at hand to install them:" $lack >&2
	exit 1
fi

# A fresh root has no package lists, or old ones.
apt-cache policy gcc 2>/dev/null | grep -q 'Candidate: [^(]' || $sudo apt-get update -qq
names=
for entry in $lack; do
	names="$names $(choose "$entry")"
done
echo "make: installing by apt-get:$names"
# shellcheck disable=SC2086
install() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o DPkg::Lock::Timeout=300 --no-install-recommends $names; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! install >"$log" 2>&1; then
	$sudo apt-get update -qq
	install >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
fi
