// SPDX-License-Identifier: Apache-2.0
/* A manifest, piece by piece, and what layout_plan makes of it. */
#ifndef LAYOUT_FIXTURE_H
#define LAYOUT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "json.h"
#include "layout.h"

#define A "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" /* abc */
#define B "sha256:cb8379ac2098aa165029e3938a51da0bcecfc008fd6795f401178647f96c5b34" /* def */
#define EMPTY "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define RAW "application/vnd.cncf.model.weight.v1.raw"
#define PATH "org.cncf.model.filepath"
#define OLD_PATH "org.cnai.model.filepath"
#define TITLE "org.opencontainers.image.title"
#define UNPACK "io.deis.oras.content.unpack"
#define META "org.cncf.model.file.metadata+json"
#define OLD_META "org.cnai.model.file.metadata+json"

static struct buf text;
static unsigned layers;
static bool closed;
static const char *config; /* of the artifact; NULL = not read */

static inline void begin(const char *config_type)
{
	buf_release(&text);
	text = BUF_INIT(LIMIT_MANIFEST);
	layers = 0;
	config = NULL;
	closed = false;
	buf_addf(&text,
		 "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"%s\",\"digest\":\"" A
		 "\",\"size\":3},\"layers\":[",
		 config_type);
}

/* Annotations as key, value, ..., NULL. */
__attribute__((sentinel)) static inline void layer(const char *type, const char *digest,
						   uint64_t size, ...)
{
	va_list ap;
	const char *key, *sep = "";

	buf_addf(&text, "%s{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%llu,\"annotations\":{",
		 layers++ ? "," : "", type, digest, (unsigned long long)size);
	va_start(ap, size);
	while ((key = va_arg(ap, const char *))) {
		const char *value = va_arg(ap, const char *);
		buf_addf(&text, "%s\"%s\":", sep, key);
		json_add_string(&text, value, strlen(value));
		sep = ",";
	}
	va_end(ap);
	buf_adds(&text, "}}");
}

static struct oci_manifest manifest;

static inline int plan(const struct layout_options *o, struct layout *ret, struct err *e)
{
	if (!closed)
		buf_adds(&text, "]}");
	closed = true;
	oci_manifest_release(&manifest);
	if (oci_manifest_parse(buf_cstr(&text), text.len, NULL, &manifest, e))
		fail_msg("%s: %s", buf_cstr(&text), e->msg);
	struct layout_options with = o ? *o : (struct layout_options){ 0 };
	with.config = config;
	with.config_len = config ? strlen(config) : 0;
	return layout_plan(&manifest, &with, ret, e);
}

static inline struct layout planned_with(const struct layout_options *o)
{
	struct layout l = { 0 };
	struct err e = { 0 };

	if (plan(o, &l, &e))
		fail_msg("%s: %s", buf_cstr(&text), e.msg);
	return l;
}

static inline struct layout planned(void)
{
	return planned_with(NULL);
}

static inline void refused_with(const struct layout_options *o, enum code code, const char *why)
{
	struct layout l = { 0 };
	struct err e = { 0 };

	if (plan(o, &l, &e) != -1)
		fail_msg("accepted: %s", buf_cstr(&text));
	assert_null(l.files);
	if (e.code != code || !strstr(e.msg, why))
		fail_msg("%s: code %d, message \"%s\" lacks \"%s\"", buf_cstr(&text), (int)e.code,
			 e.msg, why);
}

static inline void refused(enum code code, const char *why)
{
	refused_with(NULL, code, why);
}

static inline int teardown(void **state)
{
	(void)state;
	buf_release(&text);
	oci_manifest_release(&manifest);
	return 0;
}

#define WORDS(...) (const char *const[]){ __VA_ARGS__, NULL }

#endif
