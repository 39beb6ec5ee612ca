# SPDX-License-Identifier: Apache-2.0
#
# GNU make. Everything built lands in build/. `make help` names the goals.
#
#	build/src		pinned tarballs (deps/manifest)
#	build/ARCH/sysroot	musl and the static libraries
#	build/ARCH/fetcher	the release binary; build/fetcher is the one of this machine
#	build/host		the same libraries and the modules for the unit tests (this machine's libc, ASan and UBSan)
#	build/gen		generated sources

VERSION := 0.1.0

MAKEFLAGS += --no-builtin-rules --no-builtin-variables
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all
# All cores, unless make was told how many.
ifeq ($(filter -j% --jobserver%,$(MAKEFLAGS)),)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif

SHELL := /bin/sh
PYTHON ?= /usr/bin/python3
INSTALL ?= install
PREFIX ?= /usr/local
DESTDIR ?=

NATIVE := $(subst aarch64,arm64,$(subst x86_64,amd64,$(shell uname -m)))
ARCH ?= $(NATIVE)
ifeq ($(filter $(ARCH),amd64 arm64),)
$(error ARCH is amd64 or arm64, not "$(ARCH)")
endif
CPU_amd64 := x86_64
CPU_arm64 := aarch64
CROSS := $(if $(filter-out $(NATIVE),$(ARCH)),$(CPU_$(ARCH))-linux-gnu-)

GIT := git -c safe.directory=* --git-dir=.git
COMMIT ?= $(shell $(GIT) rev-parse --short=12 HEAD 2>/dev/null)
SOURCE_DATE_EPOCH ?= $(or $(shell $(GIT) log -1 --format=%ct 2>/dev/null),0)
export SOURCE_DATE_EPOCH
export LC_ALL := C

# Modules: every source at the top level and in crypto/, and what is generated.
MODULES := $(sort $(wildcard *.c crypto/*.c))
GENERATED := build/gen/ca_bundle.c
LIBS := -lcurl -lmbedtls -lmbedx509 -lmbedcrypto -lnettle -lyyjson -lmicrohttpd -larchive -lzstd -lisal
DEPLIBS := nettle mbedtls curl yyjson libmicrohttpd zstd isal libarchive

WARN := -Wall -Wextra -Werror -Wvla -Wformat=2 -Wwrite-strings -Wstrict-prototypes -Wmissing-prototypes
COMMON := -std=gnu11 -D_GNU_SOURCE $(WARN) -Ibuild/gen -MMD -MP
BANNED := -include banned.h

help:	## these lines
	@echo "make [GOAL] [ARCH=amd64|arm64]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r goal text; do printf '  %-14s %s\n' "$$goal" "$$text"; done

all: build/$(ARCH)/fetcher $(if $(filter $(NATIVE),$(ARCH)),build/fetcher)	## the static binary (the default)
.PHONY: all help FORCE

# ---- packages and sources -------------------------------------------------------------------------------------------

need-%:
	@deps/need.sh $*
# Order-only: asked on every run, never a reason to rebuild.
NEED := need-build need-$(ARCH)

build/src/.stamp: deps/manifest | need-build
	@deps/fetch.sh
	@touch $@

# ---- libraries: one stamp each, for amd64, arm64 and host ---------------------------------------------------------

define library_rules
build/$(1)/stamp/nettle: deps/build.sh build/src/.stamp $(2) | need-build $(3)
build/$(1)/stamp/mbedtls: deps/mbedtls_config.h crypto/gcm_alt.h $(wildcard deps/patches/mbedtls-*) \
		build/$(1)/stamp/nettle
build/$(1)/stamp/curl: build/$(1)/stamp/mbedtls
build/$(1)/stamp/yyjson: deps/build.sh build/src/.stamp $(2) | need-build $(3)
build/$(1)/stamp/libmicrohttpd: deps/build.sh $(wildcard deps/patches/libmicrohttpd-*) build/src/.stamp $(2) \
		| need-build $(3)
build/$(1)/stamp/zstd build/$(1)/stamp/isal: deps/build.sh build/src/.stamp $(2) | need-build $(3)
build/$(1)/stamp/libarchive: deps/build.sh $(wildcard deps/patches/libarchive-*) build/src/.stamp $(2) \
		| need-build $(3)
build/$(1)/stamp/%:
	@deps/build.sh $(1) $$*
	@mkdir -p $$(@D) && touch $$@
endef
$(eval $(call library_rules,amd64,build/amd64/stamp/musl,need-amd64))
$(eval $(call library_rules,arm64,build/arm64/stamp/musl,need-arm64))
$(eval $(call library_rules,host,,))
build/amd64/stamp/musl: deps/build.sh build/src/.stamp | need-build need-amd64
build/arm64/stamp/musl: deps/build.sh build/src/.stamp | need-build need-arm64

deps: $(DEPLIBS:%=build/$(ARCH)/stamp/%)	## only the libraries
.PHONY: deps
.PRECIOUS: build/amd64/stamp/% build/arm64/stamp/% build/host/stamp/%

# ---- generated sources ----------------------------------------------------------------------------------------------

build/gen/ca_bundle.c: deps/certdata.py build/src/.stamp
	@mkdir -p build/gen/certs
	@tar -xf build/src/$$(awk '$$1 == "ca-certificates" { print $$3 }' deps/manifest) -C build/gen/certs \
		--strip-components=2 ca-certificates/mozilla/certdata.txt
	@$(PYTHON) deps/certdata.py build/gen/certs/certdata.txt build/gen
	@rm -rf build/gen/certs
build/gen/ca_bundle.h: build/gen/ca_bundle.c ;

# Written anew only when it says something new.
build/gen/version.h: FORCE
	@mkdir -p $(@D)
	@printf '#define FETCHER_VERSION "%s"\n#define FETCHER_COMMIT "%s"\n' '$(VERSION)' '$(COMMIT)' >$@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
GEN := build/gen/ca_bundle.h build/gen/version.h

# ---- the release binary ---------------------------------------------------------------------------------------------

OUT ?= build/$(ARCH)
SYSROOT := build/$(ARCH)/sysroot
MUSL_CC := $(SYSROOT)/bin/musl-gcc
# musl has no FORTIFY; the wrapper always makes a static PIE.
RELEASE := $(COMMON) -O2 -g -fPIE -ffunction-sections -fdata-sections -fstack-protector-strong \
	-fstack-clash-protection -ffile-prefix-map=$(CURDIR)=.
# The stack size is that of threads: musl's own default is 128 KiB.
LINK := -Wl,--gc-sections -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,-z,stack-size=1048576
OBJECTS := $(MODULES:%.c=$(OUT)/obj/%.o) $(GENERATED:build/gen/%.c=$(OUT)/obj/%.o)
READY := $(DEPLIBS:%=build/$(ARCH)/stamp/%)

$(OUT)/obj/%.o: %.c Makefile $(READY) | $(GEN)
	@mkdir -p $(@D)
	@echo "  CC $(ARCH)  $<"
	@$(MUSL_CC) $(RELEASE) $(BANNED) -c $< -o $@
$(OUT)/obj/%.o: build/gen/%.c Makefile $(READY) | $(GEN)
	@mkdir -p $(@D)
	@$(MUSL_CC) $(RELEASE) -c $< -o $@

$(OUT)/fetcher.debug: $(OBJECTS) $(READY)
	@echo "  LD $(ARCH)  fetcher"
	@$(MUSL_CC) -o $@ $(OBJECTS) -L$(SYSROOT)/lib $(LIBS) $(LINK)
$(OUT)/fetcher: $(OUT)/fetcher.debug
	@$(CROSS)objcopy --strip-all $< $@
build/fetcher: build/$(NATIVE)/fetcher
	@ln -sfn $(NATIVE)/fetcher $@
-include $(OBJECTS:.o=.d)

build/fetcher.1: build/$(NATIVE)/fetcher
	@$< help --man >$@

install: build/$(ARCH)/fetcher build/fetcher.1	## to $(DESTDIR)$(PREFIX)/bin and share/man/man1
	$(INSTALL) -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	$(INSTALL) -m 755 build/$(ARCH)/fetcher $(DESTDIR)$(PREFIX)/bin/fetcher
	$(INSTALL) -m 644 build/fetcher.1 $(DESTDIR)$(PREFIX)/share/man/man1/fetcher.1
.PHONY: install

NOTICE notice: build/src/.stamp	## write NOTICE anew from deps/manifest
	@deps/notice.sh >NOTICE.new && mv NOTICE.new NOTICE
.PHONY: NOTICE notice

# ---- unit tests and fuzzers -----------------------------------------------------------------------------------------
# Each test/unit/test_X.c is one program, linked with every module but fetcher.c. A line "// ldflags: ..." in it goes to
# the linker (--wrap). Each test/fuzz/fuzz_X.c becomes a replayer of its corpus (any compiler) and, for `make fuzz`, a
# libFuzzer program (clang).

HOST := build/host
HOST_SYSROOT := $(HOST)/sysroot
HOST_READY := $(DEPLIBS:%=$(HOST)/stamp/%)
HOST_CC ?= gcc
TESTED := $(filter-out fetcher.c,$(MODULES))
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
UNIT_FLAGS := $(COMMON) -isystem $(HOST_SYSROOT)/include -DFETCHER_CRYPTO_SELF_TEST -O1 -g $(SANITIZE)
UNITS := $(patsubst test/unit/%.c,$(HOST)/unit/%,$(sort $(wildcard test/unit/test_*.c)))
FUZZERS := $(patsubst test/fuzz/%.c,%,$(sort $(wildcard test/fuzz/fuzz_*.c)))
REPLAYERS := $(FUZZERS:%=$(HOST)/fuzz/%)

$(TESTED:%.c=$(HOST)/obj/%.o): $(HOST)/obj/%.o: %.c Makefile $(HOST_READY) | $(GEN)
	@mkdir -p $(@D)
	@echo "  CC unit   $<"
	@$(HOST_CC) $(UNIT_FLAGS) $(BANNED) -c $< -o $@
$(GENERATED:build/gen/%.c=$(HOST)/obj/%.o): $(HOST)/obj/%.o: build/gen/%.c Makefile $(HOST_READY) | $(GEN)
	@mkdir -p $(@D)
	@$(HOST_CC) $(UNIT_FLAGS) -c $< -o $@
$(HOST)/obj/test/%.o: test/%.c Makefile $(HOST_READY) | $(GEN) need-test
	@mkdir -p $(@D)
	@echo "  CC unit   $<"
	@$(HOST_CC) $(UNIT_FLAGS) -iquote . -iquote test/unit -Wno-missing-prototypes -c $< -o $@

$(HOST)/libfetcher.a: $(TESTED:%.c=$(HOST)/obj/%.o) $(GENERATED:build/gen/%.c=$(HOST)/obj/%.o)
	@rm -f $@
	@ar crD $@ $^

# A group: Mbed TLS calls back into crypto/gcm_alt.c.
HOST_LIBS := -Wl,--start-group $(HOST)/libfetcher.a -L$(HOST_SYSROOT)/lib $(LIBS) -Wl,--end-group
$(HOST)/unit/%: $(HOST)/obj/test/unit/%.o $(HOST)/libfetcher.a
	@mkdir -p $(@D)
	@$(HOST_CC) $(SANITIZE) -o $@ $< $(HOST_LIBS) -lcmocka -lpthread \
		$$(sed -n 's,^// ldflags: ,,p' test/unit/$*.c)
$(HOST)/fuzz/%: $(HOST)/obj/test/fuzz/%.o $(HOST)/obj/test/fuzz/replay.o $(HOST)/libfetcher.a
	@mkdir -p $(@D)
	@$(HOST_CC) $(SANITIZE) -o $@ $(filter %.o,$^) $(HOST_LIBS) -lpthread
.PRECIOUS: $(HOST)/obj/%.o $(HOST)/obj/test/%.o
-include $(TESTED:%.c=$(HOST)/obj/%.d) $(UNITS:$(HOST)/unit/%=$(HOST)/obj/test/unit/%.d) \
	$(FUZZERS:%=$(HOST)/obj/test/fuzz/%.d)

unit: $(if $(TEST),$(HOST)/unit/$(TEST),$(UNITS)) | need-test	## unit tests under ASan and UBSan; TEST=test_x for one
	@$(PYTHON) test/run.py unit $(if $(TEST),$(HOST)/unit/$(TEST),$(UNITS))

fuzz-replay: $(REPLAYERS)	## every fuzzer over its corpus, once
	@$(PYTHON) test/run.py fuzz $(REPLAYERS)

FUZZ ?= $(patsubst fuzz_%,%,$(firstword $(FUZZERS)))
TIME ?= 60
LIBFUZZ := $(HOST)/libfuzzer/fuzz_$(FUZZ)
fuzz: $(HOST_READY) $(GEN) $(GENERATED) | need-fuzz	## fuzz with clang: FUZZ=x TIME=60; new inputs join the corpus
	@mkdir -p $(@D) $(HOST)/libfuzzer test/fuzz/corpus/$(FUZZ)
	@clang -std=gnu11 -D_GNU_SOURCE -O1 -g -fsanitize=fuzzer $(SANITIZE) -iquote . -Ibuild/gen \
		-isystem $(HOST_SYSROOT)/include test/fuzz/fuzz_$(FUZZ).c $(TESTED) $(GENERATED) -o $(LIBFUZZ) \
		-L$(HOST_SYSROOT)/lib $(LIBS) -lpthread
	@$(LIBFUZZ) -max_total_time=$(TIME) -artifact_prefix=$(HOST)/libfuzzer/ test/fuzz/corpus/$(FUZZ)
.PHONY: unit fuzz-replay fuzz

# ---- whole-program tests --------------------------------------------------------------------------------------------

# The arm64 binary is run under qemu-user in the tests.
BINARIES := build/amd64/fetcher build/arm64/fetcher
ifneq ($(ARCH),$(NATIVE))
BINARIES := build/$(ARCH)/fetcher
endif

arm64-for-test: build/fetcher
	@[ $(NATIVE) = arm64 ] || $(MAKE) --no-print-directory ARCH=arm64 all
parts: | need-build	## unpack the servers of the tests beside the tree (build/parts)
	@test/parts.sh
integration: build/fetcher arm64-for-test parts | need-test	## whole-program tests against real servers; K=name for some
	@$(PYTHON) test/run.py integration $(if $(K),-k '$(K)')
test: $(UNITS) $(REPLAYERS) build/fetcher arm64-for-test parts | need-test	## unit tests, corpora, integration; last line: N passed, N failed
	@$(PYTHON) test/run.py all --unit $(UNITS) --fuzz $(REPLAYERS)
interop: build/fetcher parts | need-test	## tests with tools that Debian does not have (Go's); K=name for some
	@PYTHON=$(PYTHON) test/interop.sh $(if $(K),-k '$(K)')
soak: build/fetcher parts | need-test	## one sidecar through 10,000 swaps: memory, descriptors, readers; SWAPS=n for fewer
	@$(PYTHON) test/soak.py $(SWAPS)
bench: build/fetcher parts | need-bench	## measure against oras, skopeo, aria2, curl
	@test/parts.sh bench
	@$(PYTHON) bench/run.py $(BENCH)
demo: build/fetcher parts	## a registry, a model, a pull, on this machine
	@test/demo.sh
.PHONY: arm64-for-test parts integration interop test soak bench demo

# ---- cleaning -------------------------------------------------------------------------------------------------------

clean:	## remove what was built from this tree; libraries, tarballs and test servers stay
	@rm -rf build/fetcher build/fetcher.1 build/gen $(foreach a,amd64 arm64,build/$(a)/obj build/$(a)/fetcher \
		build/$(a)/fetcher.debug) $(HOST)/obj $(HOST)/unit $(HOST)/fuzz $(HOST)/libfuzzer $(HOST)/libfetcher.a
distclean:	## remove build/ whole
	@rm -rf build
.PHONY: clean distclean
