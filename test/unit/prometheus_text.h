// SPDX-License-Identifier: Apache-2.0
/*
 * A strict reader of Prometheus' text format 0.0.4, for the tests of metrics and serve. Stricter than Prometheus: each family
 * needs HELP, then TYPE, then its samples, together; no blank lines, no timestamps, no doubles, counters end in _total.
 */
#ifndef TEST_PROMETHEUS_TEXT_H
#define TEST_PROMETHEUS_TEXT_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

#define PROM_MAX 512

struct prom {
	const char *text;
	char family[128], type[16];
	char seen[PROM_MAX][128];	/* families that had their turn */
	size_t n_seen;
	const char *samples[PROM_MAX];	/* name and labels of each */
	size_t samples_len[PROM_MAX], n_samples;
};

static inline size_t prom_name(const char *p, bool label)
{
	size_t n = 0;

	while ((p[n] >= 'a' && p[n] <= 'z') || (p[n] >= 'A' && p[n] <= 'Z') || p[n] == '_' ||
	       (!label && p[n] == ':') || (n && p[n] >= '0' && p[n] <= '9'))
		n++;
	return n;
}

/* Length of {a="b",...} at p, 0 when there is none; (size_t)-1 when it is wrong. */
static inline size_t prom_labels(const char *p)
{
	const char *at = p, *names[16];
	size_t n_names = 0;

	if (*at != '{')
		return 0;
	do {
		size_t n = prom_name(++at, true);
		if (!n || n_names == 16)
			return (size_t)-1;
		for (size_t i = 0; i < n_names; i++)
			if (strncmp(names[i], at, n) == 0 && names[i][n] == '=')
				return (size_t)-1;
		names[n_names++] = at;
		at += n;
		if (*at++ != '=' || *at++ != '"')
			return (size_t)-1;
		for (; *at != '"'; at++) {
			if (!*at || *at == '\n')
				return (size_t)-1;
			if (*at == '\\' && !strchr("\\\"n", *++at))
				return (size_t)-1;
		}
		at++;
	} while (*at == ',');
	return *at == '}' ? (size_t)(at + 1 - p) : (size_t)-1;
}

/* The number at p, which must end the line. NaN and Inf are none that we would write. */
static inline bool prom_number(const char *p, double *ret)
{
	size_t n = strspn(p, "0123456789.-");
	char *end;

	*ret = strtod(p, &end);
	return n && end == p + n && *end == '\n' && p[n - 1] != '.' && *p != '.';
}

static inline const char *prom_head(struct prom *s, const char *p)
{
	size_t n;

	if (strncmp(p, "# HELP ", 7) != 0)
		return "a comment that is no HELP";
	p += 7;
	n = prom_name(p, false);
	if (!n || n >= sizeof(s->family) || p[n] != ' ' || p[n + 1] == '\n')
		return "a HELP without name or text";
	snprintf(s->family, sizeof(s->family), "%.*s", (int)n, p);
	for (size_t i = 0; i < s->n_seen; i++)
		if (strcmp(s->seen[i], s->family) == 0)
			return "a family twice";
	if (s->n_seen == PROM_MAX)
		return "too many families";
	memcpy(s->seen[s->n_seen++], s->family, sizeof(s->family));
	for (p += n; *p != '\n'; p++)
		if (*p == '\\' && !strchr("\\n", *++p))
			return "a wrong escape in HELP";
	p++;
	if (strncmp(p, "# TYPE ", 7) != 0 || strncmp(p + 7, s->family, n) != 0 || p[7 + n] != ' ')
		return "no TYPE after HELP";
	p += 8 + n;
	n = strcspn(p, "\n");
	snprintf(s->type, sizeof(s->type), "%.*s", (int)n, p);
	if (strcmp(s->type, "gauge") != 0 && strcmp(s->type, "counter") != 0 && strcmp(s->type, "summary") != 0)
		return "an unknown TYPE";
	n = strlen(s->family);
	if (strcmp(s->type, "counter") == 0 && (n < 6 || strcmp(s->family + n - 6, "_total") != 0))
		return "a counter without _total";
	return NULL;
}

static inline const char *prom_sample(struct prom *s, const char *p)
{
	size_t n = prom_name(p, false), family = strlen(s->family), labels;
	const char *suffix = p + family;
	double v;

	if (!family || n < family || strncmp(p, s->family, family) != 0)
		return "a sample that belongs to no family above it";
	if (strcmp(s->type, "summary") == 0) {
		if (strncmp(suffix, "_sum ", 5) != 0 && strncmp(suffix, "_count ", 7) != 0)
			return "a summary's sample that is neither _sum nor _count";
	} else if (n != family) {
		return "a sample of another family";
	}
	labels = prom_labels(p + n);
	if (labels == (size_t)-1)
		return "wrong labels";
	n += labels;
	for (size_t i = 0; i < s->n_samples; i++)
		if (s->samples_len[i] == n && memcmp(s->samples[i], p, n) == 0)
			return "a sample twice";
	if (s->n_samples == PROM_MAX)
		return "too many samples";
	s->samples[s->n_samples] = p;
	s->samples_len[s->n_samples++] = n;
	if (p[n] != ' ' || !prom_number(p + n + 1, &v))
		return "no number, or something behind it";
	return v < 0 && strcmp(s->type, "gauge") != 0 ? "a negative counter" : NULL;
}

/* NULL = good, else what is wrong. */
static inline const char *prometheus_check(const char *text)
{
	static struct prom s;
	struct buf utf8 = BUF_INIT(4 << 20);
	const char *wrong = NULL;

	s = (struct prom){ .text = text };
	/* json_add_string changes what is no UTF-8 */
	json_add_string(&utf8, text, strlen(text));
	if (utf8.failed || (strstr(utf8.data, "\\ufffd") && !strstr(text, "\\ufffd")) ||
	    (strstr(utf8.data, "\xef\xbf\xbd") && !strstr(text, "\xef\xbf\xbd")))
		wrong = "no UTF-8";
	buf_release(&utf8);
	for (const char *p = text; *p && !wrong; p = strchr(p, '\n') + 1) {
		if (!strchr(p, '\n'))
			return "no line feed at the end";
		if (*p != '#') {
			wrong = prom_sample(&s, p);
			continue;
		}
		wrong = prom_head(&s, p);
		p = strchr(p, '\n') + 1;	/* the TYPE line */
		if (!wrong && !strchr(p, '\n'))
			return "no line feed at the end";
	}
	return wrong;
}

/* The value of the sample whose name and labels are exactly these. */
static inline bool prometheus_value(const char *text, const char *sample, double *ret)
{
	size_t n = strlen(sample);

	for (const char *p = text; *p; p = strchr(p, '\n') + 1)
		if (strncmp(p, sample, n) == 0 && p[n] == ' ')
			return prom_number(p + n + 1, ret);
	return false;
}

#endif
