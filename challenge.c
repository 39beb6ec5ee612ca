// SPDX-License-Identifier: Apache-2.0
#include "challenge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "buf.h"
#include "caps.h"

void challenge_release(struct challenge *c)
{
	free(c->realm);
	free(c->service);
	free(c->scope);
	free(c->error);
	*c = (struct challenge){ 0 };
}

static bool is_tchar(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_token68(char c)
{
	return is_tchar(c) || c == '/';
}

static bool is_ctl(char c)
{
	return (unsigned char)c < 0x20 || c == 0x7f;
}

static const char *skip_blanks(const char *p)
{
	while (*p == ' ' || *p == '\t')
		p++;
	return p;
}

static const char *skip_separators(const char *p)
{
	while (*p == ' ' || *p == '\t' || *p == ',')
		p++;
	return p;
}

static struct str take_token(const char **p)
{
	const char *s = *p;

	while (is_tchar(**p))
		(*p)++;
	return (struct str){ s, (size_t)(*p - s) };
}

/* The part after the opening quote; *p ends behind the closing one. */
static int take_quoted(const char **p, struct buf *ret)
{
	const char *s = *p;

	for (; *s != '"'; s++) {
		if (*s == '\\')
			s++;
		if (is_ctl(*s))		/* the end of the text as well */
			return -1;
		buf_addc(ret, *s);
	}
	*p = s + 1;
	return ret->failed ? -1 : 0;
}

/*
 * Bare values are taken wider than RFC 9110 tokens: servers send realm=https://host/token without
 * quotes.
 */
static int take_bare(const char **p, struct buf *ret)
{
	const char *s = *p;

	while (*s && *s != ' ' && *s != '\t' && *s != ',' && *s != '"' && !is_ctl(*s))
		s++;
	if (s == *p || *s == '"' || (*s && *s != '\t' && is_ctl(*s)))
		return -1;
	buf_add(ret, *p, (size_t)(s - *p));
	*p = s;
	return ret->failed ? -1 : 0;
}

static void keep_param(struct challenge *c, struct str name, const struct buf *value)
{
	char **slot = str_caseeq(name, "realm")	  ? &c->realm
		      : str_caseeq(name, "service") ? &c->service
		      : str_caseeq(name, "scope")   ? &c->scope
		      : str_caseeq(name, "error")   ? &c->error
						    : NULL;

	if (slot && !*slot)	/* a repeated parameter does not replace the first */
		*slot = strdup(buf_cstr(value));
}

/*
 * One "name = value" at *p. 1: kept; 0: what stands here is not a parameter (a new challenge);
 * -1: malformed.
 */
static int take_param(const char **p, struct challenge *c)
{
	_cleanup_buf_ struct buf value = BUF_INIT(LIMIT_URL);
	const char *s = *p;
	struct str name = take_token(&s);

	s = skip_blanks(s);
	if (!name.n || *s != '=')
		return 0;
	s = skip_blanks(s + 1);
	if (*s == '"') {
		s++;
		if (take_quoted(&s, &value) < 0)
			return -1;
	} else if (take_bare(&s, &value) < 0) {
		return -1;
	}
	s = skip_blanks(s);
	if (*s && *s != ',')
		return -1;
	if (c)
		keep_param(c, name, &value);
	*p = s;
	return 1;
}

/* "Negotiate dG9rZW4=": true and *p behind it. */
static bool skip_token68(const char **p)
{
	const char *s = *p;

	while (is_token68(*s))
		s++;
	if (s == *p)
		return false;
	while (*s == '=')
		s++;
	s = skip_blanks(s);
	if (*s && *s != ',')
		return false;
	*p = s;
	return true;
}

/* Parameters of one challenge. -1 = malformed, nothing behind it can be trusted. */
static int take_params(const char **p, struct challenge *c)
{
	if (skip_token68(p))
		return 0;
	for (;;) {
		const char *s = skip_separators(*p);
		int rc = take_param(&s, c);

		if (rc <= 0)
			return rc;
		*p = s;
	}
}

size_t challenge_parse(const char *value, struct challenge *ret, size_t max)
{
	const char *p = value;
	size_t n = 0;

	while (n < max) {
		struct challenge skipped = { 0 }, *c = &skipped;
		struct str scheme;
		int rc = 0;

		p = skip_separators(p);
		scheme = take_token(&p);
		if (!scheme.n || (*p && *p != ' ' && *p != '\t' && *p != ','))
			break;
		if (str_caseeq(scheme, "bearer") || str_caseeq(scheme, "basic")) {
			c = &ret[n++];
			*c = (struct challenge){ 0 };
			c->scheme = str_caseeq(scheme, "bearer") ? CHALLENGE_BEARER :
								   CHALLENGE_BASIC;
		}
		if (*p == ' ' || *p == '\t') {
			p = skip_blanks(p);
			rc = take_params(&p, c);
		}
		challenge_release(&skipped);
		if (rc < 0)
			break;
	}
	return n;
}

void challenges_add(struct challenges *all, const char *value)
{
	all->n += challenge_parse(value, all->list + all->n, CHALLENGES_MAX - all->n);
}

const struct challenge *challenges_get(const struct challenges *all, enum challenge_scheme scheme)
{
	for (size_t i = 0; i < all->n; i++)
		if (all->list[i].scheme == scheme && (scheme == CHALLENGE_BASIC || all->list[i].realm))
			return &all->list[i];
	return NULL;
}

void challenges_release(struct challenges *all)
{
	for (size_t i = 0; i < all->n; i++)
		challenge_release(&all->list[i]);
	all->n = 0;
}

/* --- scopes --- */

/*
 * True when `have` speaks of the same resource as `own` ("repository:x:pull,push" of
 * "repository:x:pull").
 */
static bool covers(const char *have, const char *own)
{
	size_t n = (size_t)(strrchr(own, ':') - own) + 1;
	const char *actions;

	if (strncmp(have, own, n) != 0)
		return false;
	for (actions = have + n; *actions;) {
		size_t len = strcspn(actions, ",");

		if ((len == 4 && memcmp(actions, "pull", 4) == 0) || (len == 1 && *actions == '*'))
			return true;
		actions += len + (actions[len] == ',');
	}
	return false;
}

/* Takes s over. */
static void scopes_push(char **list, size_t *n, char *s)
{
	for (size_t i = 0; s && i < *n; i++) {
		if (strcmp(list[i], s) == 0) {
			free(s);
			return;
		}
	}
	if (s && *n < SCOPES_MAX)
		list[(*n)++] = s;
	else
		free(s);
}

int scopes_merge(char *list[static SCOPES_MAX], size_t *n, const char *repo, const char *challenged)
{
	_cleanup_free_ char *own = NULL;
	char *merged[SCOPES_MAX] = { 0 };
	size_t count = 0;
	bool covered = false;

	if (asprintf(&own, "repository:%s:pull", repo) < 0) {
		own = NULL;
		return -1;
	}
	for (const char *p = challenged ? challenged : ""; *p;) {
		size_t len = strcspn(p, " ");

		/* one place is kept for our own */
		if (len && count < SCOPES_MAX - 1)
			scopes_push(merged, &count, strndup(p, len));
		p += len + (p[len] == ' ');
	}
	for (size_t i = 0; i < count; i++)
		covered = covered || covers(merged[i], own);
	if (!covered)
		scopes_push(merged, &count, strdup(own));
	for (size_t i = 0; i < *n; i++) {
		if (covered && strcmp(list[i], own) == 0)
			free(list[i]);
		else
			scopes_push(merged, &count, list[i]);
	}
	memcpy(list, merged, sizeof(merged));
	*n = count;
	return 0;
}
