#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh TARGET LIB: builds one library of deps/manifest into build/TARGET/sysroot. TARGET is amd64 or arm64 (musl,
# static) or host (this machine's compiler and libc, for the unit tests and fuzzers). The Makefile calls it in the right
# order and keeps the stamps; nothing here looks at what is already built.
set -eu

[ $# -eq 2 ] || { echo "usage: build.sh amd64|arm64|host LIB" >&2; exit 2; }
target=$1 lib=$2
top=$(cd "$(dirname "$0")/.." && pwd)
out=$top/build/$target
root=$out/sysroot
srcdir=$top/build/src
work=$out/deps
jobs=${JOBS:-$(nproc 2>/dev/null || echo 2)}
machine=$(uname -m)
log=$work/$lib.log

case $target in
amd64) cpu=x86_64 ;;
arm64) cpu=aarch64 ;;
host) cpu=$machine ;;
*) echo "build.sh: unknown target $target" >&2; exit 2 ;;
esac

# The compiler below the musl wrapper.
if [ "$cpu" = "$machine" ]; then prefix=; else prefix=$cpu-linux-gnu-; fi
gcc=${prefix}gcc
triplet=$cpu-linux-musl
if [ "$target" = host ]; then
	cc=$gcc
	gnu=$machine-linux-gnu
	flags="-O2 -g1 -fPIC"
else
	cc=$root/bin/musl-gcc
	gnu=$triplet
	flags="-O2 -fPIE"
fi
flags="$flags -ffunction-sections -fdata-sections -fstack-protector-strong -ffile-prefix-map=$work=/deps -ffile-prefix-map=$root=/sysroot"
# D: no time of day, uid or gid inside the archives.
ar=${prefix}ar ranlib="${prefix}ranlib -D"
export LC_ALL=C ARFLAGS=crD AR_FLAGS=crD
unset CFLAGS CPPFLAGS LDFLAGS LIBS MAKEFLAGS MFLAGS MAKELEVEL

mkdir -p "$root/include" "$root/lib" "$root/bin" "$work"

# unpack: the source tree of $lib into $work/$lib, without the tarball's own top folder. The hash is looked at here again.
unpack() {
	"$top/deps/fetch.sh" "$lib"
	file=$(awk -v n="$lib" '!/^#/ && $1 == n { print $3 }' "$top/deps/manifest")
	rm -rf "${work:?}/$lib"
	mkdir -p "$work/$lib"
	tar -xf "$srcdir/$file" -C "$work/$lib" --strip-components=1 --no-same-owner
	cd "$work/$lib"
	for patch in "$top/deps/patches/$lib"-*.patch; do
		[ ! -f "$patch" ] || patch -p1 --fuzz=0 <"$patch"
	done
}

# The kernel's own headers (openat2, fs.h) belong to no libc: those of this machine are copied.
linux_headers() {
	for dir in "/usr/$cpu-linux-gnu/include" "/usr/include/$cpu-linux-gnu" /usr/include; do
		[ -d "$dir/asm" ] && cp -rL "$dir/asm" "$root/include/" && break
	done
	for dir in "/usr/$cpu-linux-gnu/include" /usr/include; do
		[ -d "$dir/linux" ] && cp -rL "$dir/linux" "$dir/asm-generic" "$root/include/" && break
	done
	[ -d "$root/include/asm" ] && [ -d "$root/include/linux" ]
}

build_musl() {
	unpack
	./configure --target="$triplet" --prefix="$root" --syslibdir="$root/lib" --disable-shared --disable-wrapper \
		CC="$gcc" AR="$ar" RANLIB="$ranlib" CFLAGS="$flags"
	make -j"$jobs"
	make install
	linux_headers
	# Always a static PIE: rcrt1.o relocates it, and the linker is told so by hand because a compiler made for another
	# libc would bring its own start files.
	cat >"$root/lib/musl-gcc.specs" <<-SPECS
	%rename cpp_options old_cpp_options

	*cpp_options:
	-nostdinc -isystem $root/include -isystem include%s %(old_cpp_options)

	*cc1:
	%(cc1_cpu) -nostdinc -isystem $root/include -isystem include%s

	*link_libgcc:
	-L$root/lib -L .%s

	*libgcc:
	libgcc.a%s

	*startfile:
	$root/lib/rcrt1.o $root/lib/crti.o crtbeginS.o%s

	*endfile:
	crtendS.o%s $root/lib/crtn.o

	*link:
	-static -pie --no-dynamic-linker -z text -nostdlib

	SPECS
	cat >"$root/bin/musl-gcc" <<-WRAPPER
	#!/bin/sh
	exec $gcc "\$@" -specs "$root/lib/musl-gcc.specs"
	WRAPPER
	chmod +x "$root/bin/musl-gcc"
}

build_mbedtls() {
	unpack
	cp "$top/deps/mbedtls_config.h" include/mbedtls/mbedtls_config.h
	cp "$top/crypto/gcm_alt.h" include/
	[ "$target" != host ] || flags="$flags -DFETCHER_CRYPTO_SELF_TEST"
	# -I of the sysroot: gcm_alt.h shows nettle's types. The sources in the tarball are complete, nothing is generated.
	make -C library -j"$jobs" CC="$cc" AR="$ar" ARFLAGS=crD RL="${prefix}ranlib" RLFLAGS=-D \
		CFLAGS="$flags -I$root/include" GEN_FILES= static
	cp library/libmbedtls.a library/libmbedx509.a library/libmbedcrypto.a "$root/lib/"
	rm -rf "$root/include/mbedtls" "$root/include/psa"
	cp -r include/mbedtls include/psa include/gcm_alt.h "$root/include/"
}

build_nettle() {
	unpack
	# On arm64 nettle asks glibc alone for the CPU's features; musl has getauxval as well. Without it: plain C, 20 times slower.
	flags="$flags -DUSE_GETAUXVAL=1"
	./configure --build="$machine-linux-gnu" --host="$gnu" --prefix="$root" --libdir="$root/lib" --enable-fat \
		--disable-public-key --disable-shared --disable-openssl --disable-documentation \
		CC="$cc" CC_FOR_BUILD=gcc AR="$ar" RANLIB="$ranlib" CFLAGS="$flags"
	sed -i 's/ -ggdb3//' config.make Makefile
	make -j"$jobs" ARFLAGS=crD libnettle.a
	make install-headers
	cp libnettle.a "$root/lib/"
}

build_curl() {
	unpack
	# mbedtls_ssl_init is there, but configure's test of it could not link: GCM is ours and comes with our objects.
	# CURL_MAX_WRITE_SIZE: the write callback gets what one recv brought, not slices of 16 KiB.
	./configure --build="$machine-linux-gnu" --host="$gnu" --prefix="$root" --libdir="$root/lib" \
		--disable-shared --enable-static --disable-dependency-tracking --enable-symbol-hiding \
		--with-mbedtls="$root" --without-ca-bundle --without-ca-path --without-ca-fallback \
		--disable-ftp --disable-file --disable-ipfs --disable-ldap --disable-ldaps --disable-rtsp --disable-dict \
		--disable-telnet --disable-tftp --disable-pop3 --disable-imap --disable-smb --disable-smtp --disable-gopher \
		--disable-mqtt --disable-websockets --disable-manual --disable-docs --disable-libcurl-option \
		--disable-alt-svc --disable-hsts --disable-httpsrr --disable-doh --disable-netrc --disable-cookies \
		--disable-mime --disable-form-api --disable-aws --disable-ntlm --disable-tls-srp --disable-unix-sockets \
		--disable-digest-auth --disable-kerberos-auth --disable-negotiate-auth --disable-sha512-256 \
		--disable-get-easy-options --disable-progress-meter --disable-ares \
		--enable-ipv6 --enable-proxy --enable-http-auth --enable-threaded-resolver \
		--without-nghttp2 --without-libpsl --without-libidn2 --without-zlib --without-brotli --without-zstd \
		--without-libssh2 --without-librtmp --without-libgsasl \
		ac_cv_lib_mbedtls_mbedtls_ssl_init=yes \
		CC="$cc" AR="$ar" RANLIB="$ranlib" CFLAGS="$flags" CPPFLAGS="-DCURL_MAX_WRITE_SIZE=524288"
	make -C lib -j"$jobs" V=0 libcurl.la
	make -C include install
	cp lib/.libs/libcurl.a "$root/lib/"
}

build_yyjson() {
	unpack
	$cc $flags -DYYJSON_DISABLE_FAST_FP_CONV=1 -DYYJSON_DISABLE_NON_STANDARD=1 -c src/yyjson.c -o yyjson.o
	rm -f "$root/lib/libyyjson.a"
	$ar crD "$root/lib/libyyjson.a" yyjson.o
	cp src/yyjson.h "$root/include/"
}

# The plainest server: GET and HEAD, one thread in poll. No TLS, no credentials, no forms, no cookies, no texts of its own.
# mhd_cv_eventfd_usable: a cross build cannot try it.
build_libmicrohttpd() {
	unpack
	./configure --build="$machine-linux-gnu" --host="$gnu" --prefix="$root" --libdir="$root/lib" \
		--disable-shared --enable-static --disable-dependency-tracking \
		--disable-doc --disable-examples --disable-tools --disable-curl \
		--enable-https=no --disable-bauth --disable-dauth --disable-postprocessor --disable-httpupgrade \
		--disable-cookie --disable-messages --disable-sendfile --enable-epoll=no --enable-poll=yes \
		--enable-itc=eventfd mhd_cv_eventfd_usable=yes --with-threads=posix \
		CC="$cc" AR="$ar" RANLIB="$ranlib" CFLAGS="$flags"
	make -C src/microhttpd -j"$jobs" libmicrohttpd.la
	cp src/microhttpd/.libs/libmicrohttpd.a "$root/lib/"
	cp src/include/microhttpd.h "$root/include/"
}

# Decompression alone, no dictionary builder, no formats from before 1.0. The symbols of its assembler stay inside.
build_zstd() {
	unpack
	make -C lib -j"$jobs" libzstd.a CC="$cc" AR="$ar" CFLAGS="$flags" ARFLAGS=crD \
		ZSTD_LIB_COMPRESSION=0 ZSTD_LIB_DICTBUILDER=0 ZSTD_LIB_DEPRECATED=0 ZSTD_LEGACY_SUPPORT=0
	cp lib/libzstd.a "$root/lib/"
	cp lib/zstd.h lib/zstd_errors.h "$root/include/"
}

# Inflate and gzip's CRC; the linker leaves the rest out. zlib's checksum, which nobody asks for, is the plain C one:
# its dispatcher would bring all of deflate along.
build_isal() {
	unpack
	sed -i 's/^adler32_base(uint32_t adler32, uint8_t \*start, uint32_t length)/adler32_base(uint32_t adler32, const unsigned char *start, uint64_t length)/' \
		igzip/adler32_base.c
	case $cpu in
	aarch64) arch=aarch64 ;;
	*) arch= ;;
	esac
	make -f Makefile.unx -j"$jobs" units="crc igzip" host_cpu="$cpu" arch="$arch" lib_name=libisal.a \
		CC="$cc" AR="$ar" DEBUG= DEBUG_nasm= \
		CFLAGS_$arch="$flags -Disal_adler32=adler32_base" ARFLAGS_$arch='crD $@' lib
	cp libisal.a "$root/lib/"
	cp include/igzip_lib.h include/crc.h "$root/include/"
}

# The tar reader; of all else only what configure cannot leave out, and the linker does.
build_libarchive() {
	unpack
	./configure --build="$machine-linux-gnu" --host="$gnu" --prefix="$root" --libdir="$root/lib" \
		--disable-shared --enable-static --disable-dependency-tracking \
		--disable-bsdtar --disable-bsdcat --disable-bsdcpio --disable-bsdunzip --disable-posix-regex-lib \
		--disable-xattr --disable-acl --without-zlib --without-bz2lib --without-libb2 --without-iconv \
		--without-lz4 --without-zstd --without-lzma --without-lzo2 --without-cng --without-mbedtls \
		--without-nettle --without-openssl --without-xml2 --without-expat \
		CC="$cc" AR="$ar" RANLIB="$ranlib" CFLAGS="$flags"
	make -j"$jobs" V=0 libarchive.la
	cp .libs/libarchive.a "$root/lib/"
	cp libarchive/archive.h libarchive/archive_entry.h "$root/include/"
}

case $lib in
musl|mbedtls|nettle|curl|yyjson|libmicrohttpd|zstd|isal|libarchive) ;;
*) echo "build.sh: unknown library $lib" >&2; exit 2 ;;
esac

printf 'deps: %s for %s\n' "$lib" "$target"
# Not in a condition: set -e must hold inside. The trap tells where to look.
trap 'if [ $? -ne 0 ]; then tail -n 30 "$log" >&2; echo "deps: $lib for $target failed, see $log" >&2; fi' EXIT
# Two runs of make in one tree do not disturb each other.
exec 9>"$work/$lib.lock"
flock 9
"build_$lib" >"$log" 2>&1
rm -rf "${work:?}/$lib"
