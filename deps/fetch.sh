#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fetch.sh [NAME ...]: brings the sources named in deps/manifest (all of them without an argument) into build/src.
# Order: the cache folder itself, the Debian archive the machine already uses, the upstream URL.
# Every file is compared with its SHA-256, also when it was there before; another hash stops the build.
# FETCHER_SRC_DIR names another cache folder.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
src=${FETCHER_SRC_DIR:-$here/../build/src}
mkdir -p "$src"
src=$(cd "$src" && pwd)
tmp=

say() { printf 'fetch: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

cleanup() { if [ -n "$tmp" ]; then rm -rf "$tmp"; fi; }
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# entry NAME: sets name version file sha url deb from the manifest.
entry() {
	line=$(awk -v n="$1" '!/^#/ && $1 == n' "$here/manifest")
	[ -n "$line" ] || die "deps/manifest has no source named $1"
	# shellcheck disable=SC2086 # the fields hold no blanks
	set -- $line
	[ $# -eq 7 ] || die "deps/manifest: the line of $1 has $# fields, 7 are needed"
	version=$2 file=$3 sha=$4 url=$6 deb=$7
}

hash_of() { sha256sum "$1" | cut -d' ' -f1; }

# accept PATH ORIGIN: moves PATH into the cache if its hash is the pinned one.
accept() {
	got=$(hash_of "$1")
	if [ "$got" != "$sha" ]; then
		say "$file from $2 has SHA-256 $got"
		say "deps/manifest wants   $sha"
		return 1
	fi
	mv -f "$1" "$src/.$file.new"
	mv -f "$src/.$file.new" "$src/$file"
}

# Private apt: its own lists and cache, one deb-src entry. Only what the machine's own Debian entry says about the
# archive (address, key) is taken over, so a local mirror is used where one is configured.
apt_prepare() {
	[ -z "${apt_state:-}" ] || return "$apt_state"
	apt_state=1
	command -v apt-get >/dev/null || return 1
	found=$(sh "$here/debian-entry.sh") || { say "no Debian archive among this machine's apt sources"; return 1; }
	uri=${found%% *} key=${found#* }
	mkdir -p "$tmp/apt/parts" "$tmp/apt/lists/partial" "$tmp/apt/cache/archives/partial"
	{
		printf 'Types: deb-src\nURIs: %s\nSuites: trixie\nComponents: main\n' "$uri"
		[ "$key" = - ] || printf 'Signed-By: %s\n' "$key"
	} >"$tmp/apt/parts/trixie.sources"
	cat >"$tmp/apt/apt.conf" <<-CONF
		Dir::State::lists "$tmp/apt/lists";
		Dir::Cache "$tmp/apt/cache";
		Dir::Etc::SourceList "/dev/null";
		Dir::Etc::SourceParts "$tmp/apt/parts";
		APT::Sandbox::User "root";
		Acquire::Languages "none";
		Acquire::Retries "3";
	CONF
	if ! APT_CONFIG=$tmp/apt/apt.conf apt-get update >"$tmp/apt/log" 2>&1 ||
	     grep -q '^[WE]: .*Failed' "$tmp/apt/log"; then
		say "the Debian archive's list of trixie sources could not be read:"
		tail -n 5 "$tmp/apt/log" >&2
		return 1
	fi
	apt_state=0
}

from_debian() {
	apt_prepare || return 1
	say "$file: from the Debian archive (apt-get source $deb, trixie)"
	mkdir -p "$tmp/deb"
	(cd "$tmp/deb" && APT_CONFIG=$tmp/apt/apt.conf apt-get -qq source --download-only --tar-only "$deb") \
		>"$tmp/apt/log" 2>&1 || { tail -n 3 "$tmp/apt/log" >&2; return 1; }
	if [ ! -f "$tmp/deb/$file" ]; then
		say "trixie holds another version of $deb now: $(ls "$tmp/deb")"
		return 1
	fi
	accept "$tmp/deb/$file" "the Debian archive" || exit 1
}

from_upstream() {
	say "$file: from $url"
	if command -v curl >/dev/null; then
		curl -fsSL --retry 3 --connect-timeout 20 -o "$tmp/$file" "$url" || return 1
	elif command -v wget >/dev/null; then
		wget -q -O "$tmp/$file" "$url" || return 1
	else
		say "neither curl nor wget is installed"
		return 1
	fi
	accept "$tmp/$file" "$url" || exit 1
}

get() {
	entry "$1"
	if [ -f "$src/$file" ]; then
		got=$(hash_of "$src/$file")
		[ "$got" = "$sha" ] && return 0
		die "$src/$file has SHA-256 $got, deps/manifest wants $sha; remove the file to have it fetched again"
	fi
	[ -n "$tmp" ] || tmp=$(mktemp -d "$src/.tmp.XXXXXX")
	from_debian || from_upstream ||
		die "$1 $version could not be had; put the file $file (SHA-256 $sha) into $src"
}

[ $# -gt 0 ] || set -- $(awk '!/^#/ && NF { print $1 }' "$here/manifest")
for name do
	get "$name"
done
