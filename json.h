// SPDX-License-Identifier: Apache-2.0
/*
 * Bounded JSON reading over yyjson, and writing. Row 0; peers: buf, log.
 *
 * json_parse refuses: invalid UTF-8, NUL in strings, duplicate keys of one object, depth over
 * LIMIT_JSON_DEPTH, trailing garbage. Numbers are exact: json_u64 refuses fractions, exponents and
 * negatives.
 */
#ifndef FETCHER_JSON_H
#define FETCHER_JSON_H

#include <yyjson.h>

#include "buf.h"
#include "log.h"

struct json_doc {
	yyjson_doc *doc;
	yyjson_val *root;	/* never NULL after json_parse; any type */
};

/* what names the document in messages. e gets CODE_INTEGRITY (callers may change the code). */
int json_parse(const char *p, size_t n, const char *what, struct json_doc *ret, struct err *e);
void json_release(struct json_doc *d);

/*
 * Getters: 1 = present with the right type, 0 = absent (or null), -1 = wrong type, or obj is no
 * object. ret untouched unless 1. Strings are borrowed from the document, are valid UTF-8, and hold
 * no NUL (a NUL follows them).
 */
int json_str(yyjson_val *obj, const char *key, struct str *ret);
int json_u64(yyjson_val *obj, const char *key, uint64_t *ret);
int json_bool(yyjson_val *obj, const char *key, bool *ret);
int json_obj(yyjson_val *obj, const char *key, yyjson_val **ret);
int json_arr(yyjson_val *obj, const char *key, yyjson_val **ret);
/*
 * strndup of a json_str. 0: *ret is the copy (the caller frees), or NULL when absent. -1 on wrong
 * type or memory: *ret is untouched.
 */
int json_strdup(yyjson_val *obj, const char *key, char **ret);

/* Appends a quoted, escaped JSON string; invalid UTF-8 bytes become U+FFFD. */
int json_add_string(struct buf *b, const char *s, size_t n);
/*
 * Members of an object that is being written: a comma where one belongs, the name as it is, the value. NULL = null. What failed is in
 * b->failed.
 */
void json_add_key(struct buf *b, const char *name);
void json_add_text(struct buf *b, const char *name, const char *value);
void json_add_number(struct buf *b, const char *name, uint64_t value);
void json_add_bool(struct buf *b, const char *name, bool value);

/*
 * Foreign text for a message: escaped as in JSON (plus DEL and the C1 controls), without quotes,
 * cut to n-1 bytes with "..." at the end. Returns ret. n is at least 16.
 */
const char *json_show(struct str s, char *ret, size_t n);

#endif
