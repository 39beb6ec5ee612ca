// SPDX-License-Identifier: Apache-2.0
#include "units.h"

#include "caps.h"

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* digits[.digits] at the start of *s, times the unit that `unit` finds behind them. */
static bool scaled(struct str *s, bool (*unit)(struct str *s, uint64_t *ret), uint64_t *ret)
{
	uint64_t whole, frac = 0, scale = 1, factor, v;
	size_t n = 0, m = 0;

	while (n < s->n && is_digit(s->p[n]))
		n++;
	if (!str_u64((struct str){ s->p, n }, &whole))
		return false;
	if (n < s->n && s->p[n] == '.') {
		for (m = n + 1; m < s->n && is_digit(s->p[m]); m++) {
			if (m - n > 6)
				return false; /* frac * 2^40 stays below 2^64 */
			frac = frac * 10 + (uint64_t)(s->p[m] - '0');
			scale *= 10;
		}
		if (m == n + 1)
			return false;
		n = m;
	}
	s->p += n;
	s->n -= n;
	if (!unit(s, &factor) || (scale > 1 && factor == 1) || !u64_mul(whole, factor, &v))
		return false;
	return u64_add(v, frac * factor / scale, ret);
}

struct unit {
	const char *name;
	uint64_t factor;
};

/* The longest run of letters must be one of the names. */
static bool take_unit(struct str *s, const struct unit *units, uint64_t *ret)
{
	size_t n = 0;

	while (n < s->n && !is_digit(s->p[n]) && s->p[n] != '.')
		n++;
	for (; units->name; units++) {
		if (!str_eq((struct str){ s->p, n }, units->name))
			continue;
		s->p += n;
		s->n -= n;
		*ret = units->factor;
		return true;
	}
	return false;
}

static bool time_unit(struct str *s, uint64_t *ret)
{
	static const struct unit units[] = {
		{ "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 }, { "d", 86400000 }, { NULL, 0 },
	};

	return take_unit(s, units, ret);
}

bool units_duration(struct str s, uint64_t *ret_ms)
{
	uint64_t sum = 0, part;

	if (str_eq(s, "0")) {
		*ret_ms = 0;
		return true;
	}
	if (s.n == 0)
		return false;
	while (s.n)
		if (!scaled(&s, time_unit, &part) || !u64_add(sum, part, &sum))
			return false;
	*ret_ms = sum;
	return true;
}

static bool size_unit(struct str *s, uint64_t *ret)
{
	static const struct unit units[] = {
		{ "", 1 }, { "B", 1 },
		{ "KiB", KIB }, { "Ki", KIB }, { "kB", 1000 }, { "KB", 1000 }, { "k", 1000 }, { "K", 1000 },
		{ "MiB", MIB }, { "Mi", MIB }, { "MB", 1000000 }, { "M", 1000000 },
		{ "GiB", GIB }, { "Gi", GIB }, { "GB", 1000000000 }, { "G", 1000000000 },
		{ "TiB", GIB << 10 }, { "Ti", GIB << 10 },
		{ "TB", UINT64_C(1000000000000) }, { "T", UINT64_C(1000000000000) },
		{ NULL, 0 },
	};

	return take_unit(s, units, ret);
}

bool units_size(struct str s, uint64_t *ret_bytes)
{
	uint64_t v;

	if (!scaled(&s, size_unit, &v) || s.n)
		return false;
	*ret_bytes = v;
	return true;
}

void units_add_bytes(struct buf *b, uint64_t bytes)
{
	static const char *const names[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	size_t i = 0;
	uint64_t unit = 1;

	while (i + 1 < ARRAY_SIZE(names) && bytes / unit >= 1024) {
		unit <<= 10;
		i++;
	}
	if (i == 0)
		buf_addf(b, "%llu B", (unsigned long long)bytes);
	else
		buf_addf(b, "%llu.%u %s", (unsigned long long)(bytes / unit),
			 (unsigned)(bytes % unit / (unit / 1024) * 10 / 1024), names[i]);
}

void units_add_seconds(struct buf *b, uint64_t seconds)
{
	unsigned long long s = seconds;

	if (s < 60)
		buf_addf(b, "%llus", s);
	else if (s < 3600)
		buf_addf(b, "%llum%02llus", s / 60, s % 60);
	else
		buf_addf(b, "%lluh%02llum", s / 3600, s / 60 % 60);
}

/* --- times of day --- */

/* Exactly n digits at *at, no larger than max. */
static bool digits(struct str s, size_t *at, size_t n, unsigned max, unsigned *ret)
{
	unsigned v = 0;

	if (s.n < *at + n)
		return false;
	for (size_t i = 0; i < n; i++) {
		char c = s.p[(*at)++];
		if (c < '0' || c > '9')
			return false;
		v = v * 10 + (unsigned)(c - '0');
	}
	*ret = v;
	return v <= max;
}

static bool letter(struct str s, size_t *at, char c)
{
	char is = *at < s.n ? s.p[(*at)++] : '\0';

	return is == c || (c == 't' && is == 'T');
}

/* Days since 1970-01-01 of a date of the Gregorian calendar; years are counted from March, so that a leap day is the last. */
static int64_t days_of(unsigned year, unsigned month, unsigned day)
{
	int64_t y = (int64_t)year - (month <= 2);
	int64_t m = (month + 9) % 12;

	return y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + (int64_t)day - 1 - 719468;
}

bool units_rfc3339(struct str s, int64_t *ret)
{
	unsigned year, month, day, hour, minute, second, oh = 0, om = 0;
	size_t at = 0;
	char zone;

	if (!digits(s, &at, 4, 9999, &year) || !letter(s, &at, '-') || !digits(s, &at, 2, 12, &month) ||
	    !letter(s, &at, '-') || !digits(s, &at, 2, 31, &day) || !letter(s, &at, 't') ||
	    !digits(s, &at, 2, 23, &hour) || !letter(s, &at, ':') || !digits(s, &at, 2, 59, &minute) ||
	    !letter(s, &at, ':') || !digits(s, &at, 2, 60, &second) || !month || !day)
		return false;
	if (at < s.n && s.p[at] == '.') {
		size_t first = ++at;
		while (at < s.n && s.p[at] >= '0' && s.p[at] <= '9')
			at++;
		if (at == first)
			return false;
	}
	if (at >= s.n)
		return false;
	zone = s.p[at++];
	if (zone == '+' || zone == '-') {
		if (!digits(s, &at, 2, 23, &oh) || !letter(s, &at, ':') || !digits(s, &at, 2, 59, &om))
			return false;
	} else if (zone != 'Z' && zone != 'z') {
		return false;
	}
	if (at != s.n)
		return false;
	int64_t offset = (int64_t)(oh * 3600 + om * 60) * (zone == '-' ? -1 : 1);
	*ret = days_of(year, month, day) * 86400 + (int64_t)(hour * 3600 + minute * 60 + second) - offset;
	return true;
}
