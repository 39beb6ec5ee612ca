// SPDX-License-Identifier: Apache-2.0
#include "json.h"

#include <stdio.h>
#include <string.h>

/* --- reading --- */

/*
 * The parser itself does not recurse, but its result is walked by recursion: the depth is bounded
 * on the text, before any memory is spent. Malformed text is the parser's business.
 */
static bool depth_ok(const char *p, size_t n)
{
	size_t depth = 0;
	bool quoted = false;

	for (size_t i = 0; i < n; i++) {
		char c = p[i];
		if (quoted) {
			if (c == '\\')
				i++;
			else if (c == '"')
				quoted = false;
		} else if (c == '"') {
			quoted = true;
		} else if (c == '[' || c == '{') {
			if (++depth > LIMIT_JSON_DEPTH)
				return false;
		} else if ((c == ']' || c == '}') && depth > 0) {
			depth--;
		}
	}
	return true;
}

static int compare_keys(const void *a, const void *b)
{
	const struct str *x = a, *y = b;

	if (x->n != y->n)
		return x->n < y->n ? -1 : 1;
	return x->n ? memcmp(x->p, y->p, x->n) : 0;
}

/*
 * *ret_dup: the key that occurs twice, or NULL. Sorts, so that an object with a million keys costs
 * no minutes.
 */
static int find_duplicate(yyjson_val *obj, struct str *ret_dup, struct err *e)
{
	size_t n = yyjson_obj_size(obj), i, max, bytes;
	yyjson_val *key, *val;

	ret_dup->p = NULL;
	if (n < 2)
		return 0;
	if (!size_mul(n, sizeof(struct str), &bytes))
		return err_oom(e);
	_cleanup_free_ struct str *keys = malloc(bytes);
	if (!keys)
		return err_oom(e);
	yyjson_obj_foreach(obj, i, max, key, val)
		keys[i] = (struct str){ yyjson_get_str(key), yyjson_get_len(key) };
	qsort(keys, n, sizeof(*keys), compare_keys);
	for (i = 1; i < n; i++) {
		if (compare_keys(&keys[i - 1], &keys[i]) == 0) {
			*ret_dup = keys[i];
			break;
		}
	}
	return 0;
}

static bool has_nul(yyjson_val *v)
{
	return yyjson_is_str(v) && memchr(yyjson_get_str(v), '\0', yyjson_get_len(v)) != NULL;
}

/* Recursion is bounded by depth_ok. */
static int check_value(yyjson_val *v, const char *what, struct err *e)
{
	yyjson_val *key, *val;
	struct str dup;
	char shown[80];
	size_t i, max;

	if (has_nul(v))
		return err_set(e, CODE_INTEGRITY, "%s: a JSON string contains a NUL character",
			       what);
	if (yyjson_is_arr(v)) {
		yyjson_arr_foreach(v, i, max, val)
			if (check_value(val, what, e))
				return -1;
	}
	if (!yyjson_is_obj(v))
		return 0;
	if (find_duplicate(v, &dup, e))
		return -1;
	if (dup.p)
		return err_set(e, CODE_INTEGRITY,
			       "%s: the JSON key \"%s\" occurs twice in one object", what,
			       json_show(dup, shown, sizeof(shown)));
	yyjson_obj_foreach(v, i, max, key, val) {
		if (has_nul(key))
			return err_set(e, CODE_INTEGRITY, "%s: a JSON key contains a NUL character",
				       what);
		if (check_value(val, what, e))
			return -1;
	}
	return 0;
}

int json_parse(const char *p, size_t n, const char *what, struct json_doc *ret, struct err *e)
{
	yyjson_read_err re = { 0 };

	if (!depth_ok(p, n))
		return err_set(e, CODE_INTEGRITY, "%s: JSON nested deeper than %d levels", what,
			       LIMIT_JSON_DEPTH);
	/* without YYJSON_READ_INSITU the text is only read, the prototype just lacks the const */
	yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)p, n, 0, NULL, &re);
	if (!doc && re.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION)
		return err_oom(e);
	if (!doc)
		return err_set(e, CODE_INTEGRITY, "%s: not valid JSON at byte %zu: %s", what,
			       re.pos, re.msg ? re.msg : "no reason given");
	yyjson_val *root = yyjson_doc_get_root(doc);
	if (check_value(root, what, e)) {
		yyjson_doc_free(doc);
		return -1;
	}
	*ret = (struct json_doc){ .doc = doc, .root = root };
	return 0;
}

void json_release(struct json_doc *d)
{
	yyjson_doc_free(d->doc);
	*d = (struct json_doc){ 0 };
}

/* 1 = a value that is not null, 0 = none, -1 = obj is no object. */
static int get(yyjson_val *obj, const char *key, yyjson_val **ret)
{
	if (!yyjson_is_obj(obj))
		return -1;
	yyjson_val *v = yyjson_obj_get(obj, key);
	if (!v || yyjson_is_null(v))
		return 0;
	*ret = v;
	return 1;
}

int json_str(yyjson_val *obj, const char *key, struct str *ret)
{
	yyjson_val *v;
	int r = get(obj, key, &v);

	if (r <= 0)
		return r;
	if (!yyjson_is_str(v))
		return -1;
	*ret = (struct str){ yyjson_get_str(v), yyjson_get_len(v) };
	return 1;
}

int json_u64(yyjson_val *obj, const char *key, uint64_t *ret)
{
	yyjson_val *v;
	int r = get(obj, key, &v);

	if (r <= 0)
		return r;
	/* what does not fit is a real number to the parser, and a minus makes it a signed one */
	if (!yyjson_is_uint(v))
		return -1;
	*ret = yyjson_get_uint(v);
	return 1;
}

int json_bool(yyjson_val *obj, const char *key, bool *ret)
{
	yyjson_val *v;
	int r = get(obj, key, &v);

	if (r <= 0)
		return r;
	if (!yyjson_is_bool(v))
		return -1;
	*ret = yyjson_get_bool(v);
	return 1;
}

int json_obj(yyjson_val *obj, const char *key, yyjson_val **ret)
{
	yyjson_val *v;
	int r = get(obj, key, &v);

	if (r <= 0)
		return r;
	if (!yyjson_is_obj(v))
		return -1;
	*ret = v;
	return 1;
}

int json_arr(yyjson_val *obj, const char *key, yyjson_val **ret)
{
	yyjson_val *v;
	int r = get(obj, key, &v);

	if (r <= 0)
		return r;
	if (!yyjson_is_arr(v))
		return -1;
	*ret = v;
	return 1;
}

int json_strdup(yyjson_val *obj, const char *key, char **ret)
{
	struct str s;
	int r = json_str(obj, key, &s);

	if (r < 0)
		return -1;
	if (r == 0) {
		*ret = NULL;
		return 0;
	}
	char *copy = strndup(s.p, s.n);
	if (!copy)
		return -1;
	*ret = copy;
	return 0;
}

/* --- writing --- */

/* Length of the valid UTF-8 sequence at p (RFC 3629), 0 when invalid; n > 0. */
static size_t utf8_len(const unsigned char *p, size_t n)
{
	if (p[0] < 0x80)
		return 1;
	size_t len = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc2 ? 2 : 0;
	if (len == 0 || p[0] > 0xf4 || len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return len;
}

#define ESCAPED_MAX 8 /* "\u0000" and its NUL fit */

/* One character of s escaped into out; returns how many bytes of s it was. */
static size_t escape(const unsigned char *p, size_t n, char out[static ESCAPED_MAX],
		     size_t *ret_len)
{
	static const char short_from[] = "\"\\\b\f\n\r\t", short_to[] = "\"\\bfnrt";
	size_t len = utf8_len(p, n);

	if (len == 0) {
		memcpy(out, "\xef\xbf\xbd", 3);
		*ret_len = 3;
		return 1;
	}
	const char *s = *p ? strchr(short_from, *p) : NULL;
	bool c1 = len == 2 && p[0] == 0xc2 && p[1] < 0xa0;
	if (s && len == 1) {
		out[0] = '\\';
		out[1] = short_to[s - short_from];
		*ret_len = 2;
	} else if (c1 || p[0] < 0x20 || p[0] == 0x7f) {
		*ret_len =
			(size_t)snprintf(out, ESCAPED_MAX, "\\u%04x", (unsigned)(c1 ? p[1] : p[0]));
	} else {
		memcpy(out, p, len);
		*ret_len = len;
	}
	return len;
}

int json_add_string(struct buf *b, const char *s, size_t n)
{
	const unsigned char *p = (const unsigned char *)s, *end = p + n;
	char out[ESCAPED_MAX];
	size_t len;

	buf_addc(b, '"');
	while (p < end) {
		p += escape(p, (size_t)(end - p), out, &len);
		buf_add(b, out, len);
	}
	buf_addc(b, '"');
	return b->failed ? -1 : 0;
}

void json_add_key(struct buf *b, const char *name)
{
	if (b->len && b->data[b->len - 1] != '{')
		buf_addc(b, ',');
	buf_addf(b, "\"%s\":", name);
}

void json_add_text(struct buf *b, const char *name, const char *value)
{
	json_add_key(b, name);
	if (value)
		json_add_string(b, value, strlen(value));
	else
		buf_adds(b, "null");
}

void json_add_number(struct buf *b, const char *name, uint64_t value)
{
	json_add_key(b, name);
	buf_addf(b, "%llu", (unsigned long long)value);
}

void json_add_bool(struct buf *b, const char *name, bool value)
{
	json_add_key(b, name);
	buf_adds(b, value ? "true" : "false");
}

const char *json_show(struct str s, char *ret, size_t n)
{
	const unsigned char *p = (const unsigned char *)s.p, *end = p + s.n;
	size_t used = 0, cut = 0, len;
	char out[ESCAPED_MAX];

	while (p < end) {
		p += escape(p, (size_t)(end - p), out, &len);
		if (used + len > n - 1) {
			memcpy(ret + cut, "...", 4);
			return ret;
		}
		memcpy(ret + used, out, len);
		used += len;
		if (used <= n - 4)
			cut = used; /* as long as the dots still fit */
	}
	ret[used] = '\0';
	return ret;
}
