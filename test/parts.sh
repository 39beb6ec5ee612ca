#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Unpacks the servers and clients that the tests talk to into build/parts, beside the tree.
# Nothing is installed: no daemon starts, no file outside build/parts changes, no root is needed.
#
#	test/parts.sh [GROUP]...	groups: test (default), bench; or "check" to run each part once
#
# Each package comes with its whole dependency closure from Debian trixie, libc included, and
# build/parts/bin/NAME starts the program through that libc's own loader. So the same versions
# run on bookworm, trixie and in a minimal root. The archive's address is the machine's own (its
# Debian entry with the suite exchanged), or FETCHER_DEBIAN_MIRROR where there is no such entry.

set -eu
umask 022

top=$(cd "$(dirname "$0")/.." && pwd)
dir=${FETCHER_PARTS:-$top/build/parts}
root=$dir/root
suite=trixie

# One line per program: group, name, package, path below the root, arguments that show it runs.
# A change here makes a new stamp, hence a new unpacking.
parts='
test docker-registry docker-registry usr/bin/docker-registry --version
test nginx nginx usr/sbin/nginx -v
test haproxy haproxy usr/sbin/haproxy -v
test tinyproxy tinyproxy-bin usr/bin/tinyproxy -v
test oras oras usr/bin/oras version
test skopeo skopeo usr/bin/skopeo --version
test htpasswd apache2-utils usr/bin/htpasswd -nbB -C 4 user word
test openssl openssl usr/bin/openssl version
bench aria2c aria2 usr/bin/aria2c --version
bench umoci umoci usr/bin/umoci --version
bench zstd zstd usr/bin/zstd --version
'

say() { echo "parts: $*"; }
die() { echo "parts: $*" >&2; exit 1; }

of_group() { # GROUP -> its lines
	echo "$parts" | awk -v g="$1" '$1 == g'
}

check_group() {
	of_group "$1" | while read -r _ name _ _ args; do
		# shellcheck disable=SC2086
		"$dir/bin/$name" $args >"$dir/check.log" 2>&1 </dev/null || {
			cat "$dir/check.log" >&2
			die "$name does not run"
		}
		say "$name runs: $(head -n 1 "$dir/check.log" | cut -c 1-70)"
	done
}

find_mirror() {
	if [ -n "${FETCHER_DEBIAN_MIRROR:-}" ]; then
		echo "$FETCHER_DEBIAN_MIRROR"
		return
	fi
	found=$(apt-get indextargets --format '$(IDENTIFIER) $(RELEASE) $(COMPONENT) $(REPO_URI)' |
		awk '$1 == "Packages" && $3 == "main" &&
		     $2 ~ /^(bullseye|bookworm|trixie|forky|sid|stable|oldstable|testing|unstable)$/ {
			print $4
			exit
		     }')
	# another relative of Debian: the archive the sources come from
	[ -n "$found" ] || found=$(sh "$top/deps/debian-entry.sh" | cut -d' ' -f1)
	echo "$found"
}

# A private apt: own lists, own cache, and an empty status file, so that it believes nothing is
# installed and names the full closure.
apt_setup() {
	command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
		die "needs apt-get and dpkg-deb (Debian or a relative of it)"
	mirror=$(find_mirror)
	[ -n "$mirror" ] || die "no Debian entry in this machine's apt sources: set FETCHER_DEBIAN_MIRROR"
	options=
	for keyring in /usr/share/keyrings/debian-archive-keyring.gpg \
		       /usr/share/keyrings/debian-archive-keyring.pgp; do
		if [ -e "$keyring" ]; then
			options="[signed-by=$keyring] "
			break
		fi
	done
	apt=$dir/apt
	mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$apt/etc/preferences.d"
	: >"$apt/state/status"
	echo "deb ${options}${mirror} $suite main" >"$apt/etc/sources.list"
	cat >"$apt/apt.conf" <<-END
		#clear APT::Update::Post-Invoke;
		#clear APT::Update::Post-Invoke-Success;
		#clear APT::Architectures;
		#clear DPkg::Post-Invoke;
		#clear DPkg::Pre-Install-Pkgs;
		#clear Acquire::IndexTargets::deb::DEP-11;
		#clear Acquire::IndexTargets::deb::DEP-11-icons;
		#clear Acquire::IndexTargets::deb::DEP-11-icons-small;
		#clear Acquire::IndexTargets::deb::DEP-11-icons-hidpi;
		#clear Acquire::IndexTargets::deb::DEP-11-icons-large;
		#clear Acquire::IndexTargets::deb::DEP-11-icons-large-hidpi;
		APT::Architectures { "$(dpkg --print-architecture)"; };
		APT::Install-Recommends "false";
		APT::Install-Suggests "false";
		APT::Sandbox::User "";
		APT::Get::List-Cleanup "false";
		Acquire::Languages "none";
		Acquire::Retries "3";
		Debug::NoLocking "true";
		Dir::State "$apt/state";
		Dir::State::lists "$apt/state/lists";
		Dir::State::status "$apt/state/status";
		Dir::Cache "$apt/cache";
		Dir::Cache::archives "$apt/cache/archives";
		Dir::Etc::sourcelist "$apt/etc/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "$apt/etc/preferences.d";
		Dir::Log "$apt";
	END
}

my_apt() { apt-get -q -c "$apt/apt.conf" "$@"; }

write_wrapper() { # NAME PATH
	cat >"$dir/bin/$1.new" <<-END
		#!/bin/sh
		# Written by test/parts.sh: runs $2 with the libc it was built for.
		here=\${0%/*}
		root=\${here%/*}/root
		for ld in "\$root"/usr/lib64/ld-linux-*.so.* "\$root"/usr/lib/ld-linux-*.so.* \\
			  "\$root"/lib64/ld-linux-*.so.* "\$root"/lib/ld-linux-*.so.*; do
			[ -e "\$ld" ] && break
		done
		OPENSSL_CONF=\${OPENSSL_CONF-/dev/null}
		export OPENSSL_CONF
		exec "\$ld" --library-path "$libs" "\$root/$2" "\$@"
	END
	chmod +x "$dir/bin/$1.new"
	mv "$dir/bin/$1.new" "$dir/bin/$1"
}

unpack_group() {
	group=$1
	lines=$(of_group "$group")
	[ -n "$lines" ] || die "unknown group $group (test, bench)"
	stamp=$dir/stamp.$group
	want=$(cat "$0" | cksum)
	if [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
		return
	fi
	packages=$(echo "$lines" | awk '{ print $3 }' | sort -u | tr '\n' ' ')
	say "from Debian $suite, unpacked in $dir, not installed: $packages"
	apt_setup
	mkdir -p "$root" "$dir/bin"
	my_apt update >"$apt/update.log" 2>&1 ||
		{ cat "$apt/update.log" >&2; die "apt-get update failed"; }
	# shellcheck disable=SC2086
	my_apt install --print-uris -y $packages >"$apt/uris" 2>"$apt/uris.err" ||
		{ cat "$apt/uris" "$apt/uris.err" >&2; die "cannot resolve $packages"; }
	# 'URI' name size hash: names with %3a are kept as apt writes them
	awk '/^\047/ { print $2 }' "$apt/uris" >"$apt/debs"
	awk '/^\047/ { n++; s += $3 }
	     END { printf "parts: %d packages, %.0f MB\n", n, s / 1e6 }' "$apt/uris"
	# shellcheck disable=SC2086
	my_apt install --download-only -y $packages >"$apt/download.log" 2>&1 ||
		{ tail -n 20 "$apt/download.log" >&2; die "download failed"; }
	while read -r deb; do
		grep -qx "$deb" "$dir/unpacked" 2>/dev/null && continue
		dpkg-deb -x "$apt/cache/archives/$deb" "$root"
		echo "$deb" >>"$dir/unpacked"
	done <"$apt/debs"
	rm -rf "$apt/cache"
	arch=$(cd "$root/usr/lib" && echo *-linux-gnu*)
	libs="\$root/usr/lib/$arch:\$root/lib/$arch:\$root/usr/lib/$arch/systemd"
	echo "$lines" | while read -r _ name _ path _; do
		[ -x "$root/$path" ] || die "package of $name has no $path"
		write_wrapper "$name" "$path"
	done
	check_group "$group"
	echo "$want" >"$stamp"
}

[ $# -gt 0 ] || set -- test
# Two makes at a time must not unpack into each other's folder.
mkdir -p "$dir"
if [ -z "${FETCHER_PARTS_LOCKED:-}" ] && command -v flock >/dev/null; then
	exec env FETCHER_PARTS_LOCKED=1 flock "$dir/lock" "$0" "$@"
fi
for group; do
	if [ "$group" = check ]; then
		for g in test bench; do
			[ ! -e "$dir/stamp.$g" ] || check_group "$g"
		done
	else
		unpack_group "$group"
	fi
done
