// SPDX-License-Identifier: Apache-2.0
#include "toml.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "json.h"

/* What brought a table into being decides who may add to it (TOML 1.0, "Keys", "Table", "Inline Table"). */
#define BY_HEADER 1u		/* [a] itself */
#define BY_PATH 2u		/* [a.b] before there was an [a] */
#define BY_DOTTED 4u		/* a.b = 1 */
#define BY_INLINE 8u		/* a = {}; complete */

struct parser {
	const unsigned char *p, *end;
	unsigned line, depth;
	size_t nodes;
	const char *what;
	struct err *e;
};

static int fail(struct parser *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int fail(struct parser *s, const char *fmt, ...)
{
	char why[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return err_set(s->e, CODE_USAGE, "%s, line %u: %s", s->what, s->line, why);
}

const char *toml_type_name(enum toml_type type)
{
	static const char *const names[] = { "a table", "an array", "a string", "a boolean", "an integer",
					     "a number or date" };

	return names[type];
}

void toml_free(struct toml *t)
{
	/* as deep as LIMIT_TOML_DEPTH lets it become, twice: headers, and values below them */
	while (t) {
		struct toml *next = t->next;
		toml_free(t->first);
		free(t->key);
		free(t->string);
		free(t);
		t = next;
	}
}

const struct toml *toml_get(const struct toml *table, const char *key)
{
	for (const struct toml *m = table->first; m; m = m->next)
		if (strcmp(m->key, key) == 0)
			return m;
	return NULL;
}

/* A new last member of parent; takes key over, also when it fails. */
static struct toml *add(struct parser *s, struct toml *parent, enum toml_type type, char *key)
{
	struct toml *t = NULL, **at = &parent->first;

	if (++s->nodes > LIMIT_TOML_NODES)
		fail(s, "more than %d values", LIMIT_TOML_NODES);
	else if (!(t = calloc(1, sizeof(*t))))
		err_oom(s->e);
	if (!t) {
		free(key);
		return NULL;
	}
	t->type = type;
	t->line = s->line;
	t->key = key;
	while (*at)
		at = &(*at)->next;
	*at = t;
	return t;
}

/* --- characters --- */

static int peek(const struct parser *s)
{
	return s->p < s->end ? *s->p : -1;
}

static void blanks(struct parser *s)
{
	while (peek(s) == ' ' || peek(s) == '\t')
		s->p++;
}

static void comment(struct parser *s)
{
	if (peek(s) == '#')
		while (s->p < s->end && *s->p != '\n')
			s->p++;
}

/* The end of a line, after blanks and a comment; false: something else stands there. */
static bool line_end(struct parser *s)
{
	blanks(s);
	comment(s);
	if (s->p == s->end)
		return true;
	if (peek(s) == '\r' && s->end - s->p > 1 && s->p[1] == '\n')
		s->p++;
	if (peek(s) != '\n')
		return false;
	s->p++;
	s->line++;
	return true;
}

/* Blanks, comments and line ends: what may stand between the members of an array. */
static void gap(struct parser *s)
{
	do
		blanks(s);
	while (s->p < s->end && (peek(s) == '#' || peek(s) == '\n' || peek(s) == '\r') && line_end(s));
}

/* Length of the UTF-8 sequence at p (RFC 3629), 0 = none. */
static size_t utf8_length(const unsigned char *p, size_t n)
{
	size_t len = *p < 0x80 ? 1 : *p < 0xc2 ? 0 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : *p < 0xf5 ? 4 : 0;

	if (len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) ||
	    (*p == 0xf4 && p[1] > 0x8f))
		return 0;
	return len;
}

/* Once over the whole text, so that nobody else has to look. */
static int check_bytes(struct parser *s)
{
	const unsigned char *start = s->p;
	size_t len;

	for (; s->p < s->end; s->p += len) {
		len = utf8_length(s->p, (size_t)(s->end - s->p));
		if (!len)
			return fail(s, "a byte that is not UTF-8");
		if (*s->p == '\n')
			s->line++;
		else if (*s->p == '\r' ? s->end - s->p < 2 || s->p[1] != '\n' : (*s->p < 0x20 && *s->p != '\t') || *s->p == 0x7f)
			return fail(s, "a control character");
	}
	s->p = start;
	s->line = 1;
	return 0;
}

/* --- strings --- */

static int hex_digit(int c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* \uXXXX and \UXXXXXXXX, at the first digit. */
static int unicode(struct parser *s, unsigned digits, struct buf *ret)
{
	uint32_t c = 0;

	for (unsigned i = 0; i < digits; i++, s->p++) {
		int v = hex_digit(peek(s));
		if (v < 0)
			return fail(s, "an escape that lacks digits");
		c = c << 4 | (uint32_t)v;
	}
	if (c == 0 || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return fail(s, "an escape that is no character");
	if (c < 0x80) {
		buf_addc(ret, (char)c);
	} else {
		unsigned more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
		buf_addc(ret, (char)((0xff00 >> (more + 1) & 0xff) | c >> 6 * more));
		while (more--)
			buf_addc(ret, (char)(0x80 | (c >> 6 * more & 0x3f)));
	}
	return 0;
}

static int escape(struct parser *s, struct buf *ret)
{
	static const char from[] = "btnfr\"\\", to[] = "\b\t\n\f\r\"\\";
	int c = peek(s);
	const char *at = c > 0 ? strchr(from, c) : NULL;

	if (c < 0)
		return fail(s, "a string that does not end");
	s->p++;
	if (c == 'u' || c == 'U')
		return unicode(s, c == 'u' ? 4 : 8, ret);
	if (!at)
		return fail(s, "an unknown escape in a string; write \\\\ for a backslash, or the string in single quotes");
	buf_addc(ret, to[at - from]);
	return 0;
}

/* At the opening quote. The caller frees *ret. */
static int string(struct parser *s, char **ret)
{
	_cleanup_buf_ struct buf b = BUF_INIT(LIMIT_HOSTS_FILE);
	int quote = *s->p++;

	if (s->end - s->p >= 2 && s->p[0] == quote && s->p[1] == quote)
		return fail(s, "strings over several lines are not supported here");
	for (;;) {
		int c = peek(s);
		if (c < 0 || c == '\n' || c == '\r')
			return fail(s, "a string that does not end");
		s->p++;
		if (c == quote)
			break;
		if (c != '\\' || quote == '\'')
			buf_addc(&b, (char)c);
		else if (escape(s, &b))
			return -1;
	}
	char *text = b.len ? buf_steal(&b) : strdup("");
	if (!text)
		return err_oom(s->e);
	*ret = text;
	return 0;
}

static bool bare(int c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

/* strndup may look for the end of a string, and the text that is parsed has none. */
static char *copy(const void *p, size_t n)
{
	char *text = malloc(n + 1);

	if (text) {
		memcpy(text, p, n);
		text[n] = '\0';
	}
	return text;
}

static int key_part(struct parser *s, char **ret)
{
	const unsigned char *from = s->p;

	if (peek(s) == '"' || peek(s) == '\'')
		return string(s, ret);
	while (bare(peek(s)))
		s->p++;
	if (s->p == from)
		return fail(s, "a key was expected; one with other characters than letters, digits, - and _ stands in quotes");
	char *text = copy(from, (size_t)(s->p - from));
	if (!text)
		return err_oom(s->e);
	*ret = text;
	return 0;
}

/* --- tables --- */

static int twice(struct parser *s, const char *key)
{
	char shown[100];

	return fail(s, "'%s' is there already", json_show(str_of(key), shown, sizeof(shown)));
}

/* The table `key` of *at, made when it is not there, becomes *at. Takes key over. may: what such a table may have come from. */
static int enter(struct parser *s, struct toml **at, char *key, unsigned may, unsigned made)
{
	struct toml *t = (struct toml *)toml_get(*at, key);
	int rc = 0;

	if (++s->depth > LIMIT_TOML_DEPTH)
		rc = fail(s, "nested deeper than %d", LIMIT_TOML_DEPTH);
	else if (t && (t->type != TOML_TABLE || !(t->how & may)))
		rc = twice(s, key);
	if (rc || t) {
		free(key);
	} else {
		t = add(s, *at, TOML_TABLE, key);
		if (!t)
			return -1;
		t->how = made;
	}
	*at = t;
	return rc;
}

/* key.key.key; all but the last become tables, which *at follows. *ret_last is the caller's. */
static int key(struct parser *s, struct toml **at, unsigned may, unsigned made, char **ret_last)
{
	char *part;

	for (;;) {
		if (key_part(s, &part))
			return -1;
		blanks(s);
		if (peek(s) != '.')
			break;
		s->p++;
		blanks(s);
		if (enter(s, at, part, may, made))
			return -1;
	}
	*ret_last = part;
	return 0;
}

static int value(struct parser *s, struct toml *parent, char *name);

/* key = value; in the table t */
static int member(struct parser *s, struct toml *t)
{
	unsigned depth = s->depth;
	char *last;

	if (key(s, &t, BY_DOTTED, BY_DOTTED, &last))
		return -1;
	if (toml_get(t, last)) {
		twice(s, last);
		free(last);
		return -1;
	}
	if (peek(s) != '=') {
		free(last);
		return fail(s, "'=' was expected after a key");
	}
	s->p++;
	blanks(s);
	int rc = value(s, t, last);
	s->depth = depth;
	return rc;
}

static int inline_table(struct parser *s, struct toml *t)
{
	t->how = BY_INLINE;
	s->p++;
	blanks(s);
	if (peek(s) == '}') {
		s->p++;
		return 0;
	}
	for (;;) {
		if (member(s, t))
			return -1;
		blanks(s);
		int c = peek(s);
		if (c != ',' && c != '}')
			return fail(s, "',' or '}' was expected in an inline table, which stands on one line");
		s->p++;
		if (c == '}')
			return 0;
		blanks(s);
	}
}

static int array(struct parser *s, struct toml *t)
{
	s->p++;
	for (;;) {
		gap(s);
		if (peek(s) == ']')
			break;
		if (value(s, t, NULL))
			return -1;
		gap(s);
		if (peek(s) == ']')
			break;
		if (peek(s) != ',')
			return fail(s, "',' or ']' was expected in an array");
		s->p++;
	}
	s->p++;
	return 0;
}

/* --- what is not quoted --- */

/* Decimal, with a sign, _ between digits, no leading zeros. */
static bool integer(struct str t, int64_t *ret)
{
	bool minus = t.n && *t.p == '-';
	char digits[24];
	uint64_t v;
	size_t n = 0;

	if (t.n && (*t.p == '-' || *t.p == '+'))
		t.p++, t.n--;
	for (size_t i = 0; i < t.n; i++) {
		if (t.p[i] == '_' && i && i + 1 < t.n && t.p[i - 1] != '_')
			continue;
		if (n == sizeof(digits) || t.p[i] < '0' || t.p[i] > '9')
			return false;
		digits[n++] = t.p[i];
	}
	if (!str_u64((struct str){ digits, n }, &v) || v > (uint64_t)INT64_MAX + minus)
		return false;
	*ret = minus ? (int64_t)(0 - v) : (int64_t)v;
	return true;
}

static int word(struct parser *s, struct toml *t)
{
	const unsigned char *from = s->p;
	char shown[80];

	while (bare(peek(s)) || peek(s) == '.' || peek(s) == '+' || peek(s) == ':')
		s->p++;
	struct str text = { (const char *)from, (size_t)(s->p - from) };
	if (str_eq(text, "true") || str_eq(text, "false")) {
		t->type = TOML_BOOL;
		t->boolean = *text.p == 't';
		return 0;
	}
	if (integer(text, &t->integer)) {
		t->type = TOML_INTEGER;
		return 0;
	}
	struct str digits = text.n && (*text.p == '-' || *text.p == '+') ? (struct str){ text.p + 1, text.n - 1 } : text;
	if (!text.n)
		return fail(s, "a value was expected");
	if (!digits.n || ((*digits.p < '0' || *digits.p > '9') && !str_eq(digits, "inf") && !str_eq(digits, "nan")))
		return fail(s, "'%s' is no value; a string stands in quotes", json_show(text, shown, sizeof(shown)));
	t->type = TOML_OTHER;
	t->string = copy(text.p, text.n);
	return t->string ? 0 : err_oom(s->e);
}

/* Takes name over. */
static int value(struct parser *s, struct toml *parent, char *name)
{
	struct toml *t = add(s, parent, TOML_OTHER, name);
	unsigned depth = s->depth;
	int rc;

	if (!t)
		return -1;
	if (++s->depth > LIMIT_TOML_DEPTH)
		return fail(s, "nested deeper than %d", LIMIT_TOML_DEPTH);
	switch (peek(s)) {
	case '"':
	case '\'':
		t->type = TOML_STRING;
		rc = string(s, &t->string);
		break;
	case '[':
		t->type = TOML_ARRAY;
		rc = array(s, t);
		break;
	case '{':
		t->type = TOML_TABLE;
		rc = inline_table(s, t);
		break;
	default:
		rc = word(s, t);
	}
	s->depth = depth;
	return rc;
}

/* [a.b]; *at becomes that table */
static int header(struct parser *s, struct toml *root, struct toml **at)
{
	struct toml *t = root;
	char *last;

	s->p++;
	if (peek(s) == '[')
		return fail(s, "arrays of tables are not supported here");
	blanks(s);
	if (key(s, &t, BY_HEADER | BY_PATH | BY_DOTTED, BY_PATH, &last))
		return -1;
	if (peek(s) != ']') {
		free(last);
		return fail(s, "']' was expected after the name of a table");
	}
	s->p++;
	if (enter(s, &t, last, BY_PATH, BY_HEADER))
		return -1;
	/* a table that only was on the way until now begins here */
	t->how = BY_HEADER;
	t->line = s->line;
	*at = t;
	return 0;
}

static int document(struct parser *s, struct toml *root)
{
	struct toml *table = root;

	for (;;) {
		gap(s);
		if (s->p == s->end)
			return 0;
		s->depth = 0;
		if (peek(s) == '[' ? header(s, root, &table) : member(s, table))
			return -1;
		if (!line_end(s))
			return fail(s, "the end of the line was expected");
	}
}

int toml_parse(const char *p, size_t n, const char *what, struct toml **ret, struct err *e)
{
	const unsigned char *text = (const unsigned char *)(p ? p : "");
	struct parser s = { .p = text, .end = text + n, .line = 1, .what = what, .e = e };
	struct toml *root = calloc(1, sizeof(*root));

	if (!root)
		return err_oom(e);
	root->line = 1;
	if (check_bytes(&s) || document(&s, root)) {
		toml_free(root);
		return -1;
	}
	*ret = root;
	return 0;
}
