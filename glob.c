// SPDX-License-Identifier: Apache-2.0
/* Globs on paths. Pure; the headers are layout.h and layout_internal.h. */
#include "layout_internal.h"

#include <string.h>

/* One character; a byte that is no valid UTF-8 stands for itself. */
static uint32_t next_char(const char **pp, const char *end)
{
	const unsigned char *p = (const unsigned char *)*pp;
	size_t len = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc2 ? 2 : 1;
	uint32_t c = len == 1 ? p[0] : p[0] & (0xffU >> (len + 1));

	*pp += 1;
	if (len > (size_t)(end - (const char *)p))
		return p[0] | 0x80000000U;
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return p[0] | 0x80000000U;
		c = c << 6 | (p[i] & 0x3f);
	}
	*pp += len - 1;
	return c;
}

/* p stands behind '['. The end of the class (behind ']'), or NULL when it is not closed. */
static const char *class_end(const char *p, const char *end)
{
	if (p < end && (*p == '!' || *p == '^'))
		p++;
	for (const char *first = p; p < end; p++) {
		if (*p == ']' && p > first)
			return p + 1;
		if (*p == '\\' && p + 1 < end)
			p++;
	}
	return NULL;
}

static uint32_t class_char(const char **p, const char *end)
{
	if (**p == '\\' && *p + 1 < end)
		(*p)++;
	return next_char(p, end);
}

/* p stands behind '[', end on the ']' that closes. */
static bool in_class(const char *p, const char *end, uint32_t c)
{
	bool negated = p < end && (*p == '!' || *p == '^'), found = false;

	if (negated)
		p++;
	while (p < end) {
		uint32_t low = class_char(&p, end), high = low;
		if (end - p >= 2 && *p == '-') {
			p++;
			high = class_char(&p, end);
		}
		found = found || (c >= low && c <= high);
	}
	return found != negated && c != '/';
}

/*
 * One element of the pattern that is no star against one character; moves both on when they match.
 */
static bool match_one(const char **pp, const char *p_end, const char **ss, const char *s_end)
{
	const char *p = *pp, *s = *ss;

	if (p == p_end || s == s_end)
		return false;
	uint32_t c = next_char(&s, s_end);
	const char *close = *p == '[' ? class_end(p + 1, p_end) : NULL;
	bool ok;
	if (close) {
		ok = in_class(p + 1, close - 1, c);
		p = close;
	} else if (*p == '?') {
		ok = c != '/';
		p++;
	} else {
		if (*p == '\\' && p + 1 < p_end)
			p++;
		ok = next_char(&p, p_end) == c;
	}
	if (!ok)
		return false;
	*pp = p;
	*ss = s;
	return true;
}

/*
 * Where to go on after a mismatch: behind the star in the pattern, and the next place to try in the
 * text.
 */
struct retry {
	const char *p, *s;
	bool whole_components;
};

/*
 * The next place for a star: `*` stays in its component, `**` crosses, and "**" + "/" goes from
 * component to component.
 */
static bool advance(struct retry *r, bool crosses, const char *s_end)
{
	if (!r->p || r->s == s_end)
		return false;
	if (!crosses && *r->s == '/')
		return false;
	if (!r->whole_components) {
		r->s++;
		return true;
	}
	const char *slash = memchr(r->s, '/', (size_t)(s_end - r->s));
	if (!slash)
		return false;
	r->s = slash + 1;
	return true;
}

/*
 * Only the last star of each kind is ever tried again: what stands before it has matched as early
 * as it can, and a later match would leave the star less to choose from. So no exponential time.
 */
static bool match_path(const char *p, const char *p_end, const char *s, const char *s_end)
{
	struct retry star = { 0 }, globstar = { 0 };
	const char *start = p;

	for (;;) {
		if (p == p_end && s == s_end)
			return true;
		if (p < p_end && *p == '*') {
			bool double_star = p + 1 < p_end && p[1] == '*';
			bool at_component = p == start || p[-1] == '/';
			while (p < p_end && *p == '*')
				p++;
			if (double_star) {
				bool whole = at_component && p < p_end && *p == '/';
				p += whole;
				globstar = (struct retry){ p, s, whole };
				star.p = NULL;
			} else {
				star = (struct retry){ p, s, false };
			}
			continue;
		}
		if (match_one(&p, p_end, &s, s_end))
			continue;
		if (!advance(&star, false, s_end)) {
			star.p = NULL;
			if (!advance(&globstar, true, s_end))
				return false;
			p = globstar.p;
			s = globstar.s;
		} else {
			p = star.p;
			s = star.s;
		}
	}
}

static const char *base_name(const char *p, const char *end)
{
	const char *slash = memrchr(p, '/', (size_t)(end - p));

	return slash ? slash + 1 : p;
}

/* A pattern without its marks. */
struct pattern {
	const char *p, *end;
	bool below;	/* it ended in "/": everything below what it matches */
	bool anchored;	/* it had a "/": the whole path, not a base name */
};

static struct pattern pattern_of(const char *text, const char *end)
{
	struct pattern g = { .p = text, .end = end };

	g.below = g.end > g.p && g.end[-1] == '/';
	while (g.end > g.p && g.end[-1] == '/')
		g.end--;
	g.anchored = g.end > g.p && memchr(g.p, '/', (size_t)(g.end - g.p)) != NULL;
	if (g.end - g.p >= 2 && g.p[0] == '.' && g.p[1] == '/')
		g.p += 2;
	else if (g.p < g.end && g.p[0] == '/')
		g.p++;
	return g;
}

/* Does it match path[0, end)? */
static bool match_whole(const struct pattern *g, const char *path, const char *end)
{
	return match_path(g->p, g->end, g->anchored ? path : base_name(path, end), end);
}

/* One of the directories that path[0, end) lies in, or for whole the path itself too. */
static bool match_directory(const struct pattern *g, const char *path, const char *end, bool whole)
{
	for (const char *s = path; s < end && (s = memchr(s, '/', (size_t)(end - s))); s++)
		if (match_whole(g, path, s))
			return true;
	return whole && path < end && match_whole(g, path, end);
}

bool layout_glob(const char *pattern, const char *path)
{
	struct pattern g = pattern_of(pattern, pattern + strlen(pattern));
	const char *end = path + strlen(path);

	if (g.p == g.end)
		return false;
	return g.below ? match_directory(&g, path, end, false) : match_whole(&g, path, end);
}

bool layout_glob_all_below(const char *pattern, const char *dir)
{
	const char *end = pattern + strlen(pattern);
	bool deep = end - pattern >= 3 && memcmp(end - 3, "/**", 3) == 0;
	struct pattern g = pattern_of(pattern, deep ? end - 2 : end);

	if (deep) /* as "dir/", but with the "/" that anchored it */
		g.anchored = true;
	if (g.p == g.end) /* "/" nothing, "/" + "**" everything */
		return deep;
	bool stars = g.end - g.p <= 2 && g.p[0] == '*' && g.end[-1] == '*';
	if (!g.below)
		return stars && (!g.anchored || g.end - g.p == 2);
	return match_directory(&g, dir, dir + strlen(dir), true);
}

/* Component by component; where a class or a backslash might hide a "/", the answer is yes. */
bool layout_glob_below(const char *pattern, const char *dir)
{
	struct pattern g = pattern_of(pattern, pattern + strlen(pattern));
	const char *d = dir, *d_end = dir + strlen(dir), *p = g.p;

	if (g.p == g.end)
		return false;
	size_t n = (size_t)(g.end - p);
	if (!g.anchored || memchr(p, '[', n) || memchr(p, '\\', n))
		return true;
	while (d < d_end && p < g.end) {
		const char *p_slash = memchr(p, '/', (size_t)(g.end - p));
		const char *d_slash = memchr(d, '/', (size_t)(d_end - d));
		const char *p_stop = p_slash ? p_slash : g.end, *d_stop = d_slash ? d_slash : d_end;
		if (memmem(p, (size_t)(p_stop - p), "**", 2))
			return true;
		if (!match_path(p, p_stop, d, d_stop))
			return false;
		p = p_slash ? p_slash + 1 : g.end;
		d = d_slash ? d_slash + 1 : d_end;
	}
	return p < g.end || g.below;
}
