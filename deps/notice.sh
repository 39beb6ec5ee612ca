#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Prints NOTICE: what the binary is made of (deps/manifest) and the licence texts that must go with it, as they stand in
# the pinned tarballs of build/src.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
src=${FETCHER_SRC_DIR:-$here/../build/src}

# The licence files inside each tarball; Apache-2.0 is LICENSE, the MPL one is named by address as that licence allows.
texts() {
	case $1 in
	musl) echo COPYRIGHT ;;
	nettle) echo COPYING.LESSERv3 COPYINGv3 ;;
	curl) echo COPYING ;;
	libmicrohttpd | libarchive) echo COPYING ;;
	yyjson | zstd | isal) echo LICENSE ;;
	mbedtls | ca-certificates) ;;
	*) echo "notice.sh: say where the licence of $1 stands" >&2; exit 1 ;;
	esac
}

sources() { awk '!/^#/ && NF { print $1, $2, $3, $5, $6 }' "$here/manifest"; }

cat <<'TEXT'
fetcher
Licensed under the Apache License, Version 2.0 (see LICENSE).

The binary contains the software below, built from the sources whose SHA-256 stands in deps/manifest and the changes in
deps/patches. `make` in a copy of this repository fetches the same sources and links the binary anew, also with a changed
library.

TEXT
sources | while read -r name version _ licence url; do
	printf '  %-16s %-10s %-18s %s\n' "$name" "$version" "$licence" "$url"
done
cat <<'TEXT'

Of ca-certificates the binary contains Mozilla's root certificates trusted for TLS servers (mozilla/certdata.txt, under the
Mozilla Public License 2.0, https://mozilla.org/MPL/2.0/), converted by deps/certdata.py.
TEXT
sources | while read -r name version file licence _; do
	for text in $(texts "$name"); do
		printf '\n%s\n%s %s: %s (%s)\n%s\n\n' \
			"================================================================================" \
			"$name" "$version" "$text" "$licence" \
			"================================================================================"
		tar -xOf "$src/$file" --wildcards --no-wildcards-match-slash "*/$text"
	done
done
