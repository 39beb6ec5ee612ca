// SPDX-License-Identifier: Apache-2.0
/*
 * ModelPack's org.cncf.model.file.metadata+json: mode, time, kind of file. Pure;
 * layout_internal.h.
 */
#include "layout_internal.h"

#include <stdio.h>
#include <string.h>

/* Exactly n digits at *p. */
static bool digits(const char **p, const char *end, size_t n, int64_t *ret)
{
	int64_t v = 0;

	if ((size_t)(end - *p) < n)
		return false;
	for (size_t i = 0; i < n; i++) {
		if ((*p)[i] < '0' || (*p)[i] > '9')
			return false;
		v = v * 10 + ((*p)[i] - '0');
	}
	*p += n;
	*ret = v;
	return true;
}

static bool literal(const char **p, const char *end, const char *any_of)
{
	if (*p == end || !**p || !strchr(any_of, **p))
		return false;
	(*p)++;
	return true;
}

/* Days from 1970-01-01 in the proleptic Gregorian calendar; month 1..12. */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
	static const int64_t before[] = { 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334 };
	int64_t y = year - (month <= 2); /* the leap day of this year counts from March on */

	return 365 * (year - 1970) + (y / 4 - y / 100 + y / 400) -
	       (1969 / 4 - 1969 / 100 + 1969 / 400) + before[month - 1] + day - 1;
}

static bool date_ok(int64_t year, int64_t month, int64_t day)
{
	static const int64_t length[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	if (year < 1 || month < 1 || month > 12 || day < 1)
		return false;
	return day <= length[month - 1] + (leap && month == 2);
}

/* ".123456789..." as nanoseconds; further digits are dropped. */
static bool fraction(const char **p, const char *end, uint32_t *ret)
{
	uint32_t nsec = 0, n = 0;

	if (*p == end || **p != '.')
		return true;
	for ((*p)++; *p < end && **p >= '0' && **p <= '9'; (*p)++, n++)
		if (n < 9)
			nsec = nsec * 10 + (uint32_t)(**p - '0');
	for (uint32_t i = n; i < 9; i++)
		nsec *= 10;
	*ret = nsec;
	return n > 0;
}

/* "Z" or "+hh:mm" as seconds east of UTC. */
static bool offset(const char **p, const char *end, int64_t *ret)
{
	int64_t h, m;

	*ret = 0;
	if (literal(p, end, "Zz"))
		return true;
	bool west = *p < end && **p == '-';
	if (!literal(p, end, "+-") || !digits(p, end, 2, &h) || !literal(p, end, ":") ||
	    !digits(p, end, 2, &m) || h > 23 || m > 59)
		return false;
	*ret = (h * 3600 + m * 60) * (west ? -1 : 1);
	return true;
}

/* RFC 3339 5.6. Go's zero time (year 1) means "not set": *ret_set is false then. */
static bool parse_time(struct str s, bool *ret_set, int64_t *ret_sec, uint32_t *ret_nsec)
{
	const char *p = s.p, *end = s.p + s.n;
	int64_t year, month, day, hour, minute, second, east;
	uint32_t nsec = 0;

	if (!digits(&p, end, 4, &year) || !literal(&p, end, "-") || !digits(&p, end, 2, &month) ||
	    !literal(&p, end, "-") || !digits(&p, end, 2, &day) || !literal(&p, end, "Tt ") ||
	    !digits(&p, end, 2, &hour) || !literal(&p, end, ":") || !digits(&p, end, 2, &minute) ||
	    !literal(&p, end, ":") || !digits(&p, end, 2, &second) || !fraction(&p, end, &nsec) ||
	    !offset(&p, end, &east) || p != end)
		return false;
	if (!date_ok(year, month, day) || hour > 23 || minute > 59 || second > 60)
		return false;
	*ret_set = year > 1;
	if (*ret_set) {
		*ret_sec = days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second -
			   east;
		*ret_nsec = nsec;
	}
	return true;
}

/*
 * What is wrong with the metadata, or NULL. *ret_dir: it describes a directory, so there is no
 * file.
 */
static const char *apply_metadata(yyjson_val *root, struct layout_file *f, bool *ret_dir)
{
	uint64_t mode = 0, type = 0;
	struct str mtime;
	bool set = false;

	if (json_u64(root, "mode", &mode) < 0)
		return "mode is not a decimal number, default taken";
	/* Go's file mode keeps setuid and the like above the nine bits: all dropped */
	f->mode = mode & 0777 ? (uint32_t)(mode & 0777) | 0400 : 0;
	int r = json_str(root, "mtime", &mtime);
	if (r < 0 || (r == 1 && !parse_time(mtime, &set, &f->mtime_sec, &f->mtime_nsec)))
		return "mtime is not an RFC 3339 time, ignored";
	f->has_mtime = set;
	if (json_u64(root, "typeflag", &type) < 0)
		return "typeflag is not a number, ignored";
	*ret_dir = type == 5 || type == '5';
	if (!*ret_dir && type != 0 && type != '0')
		return "typeflag says it is no regular file, placed as one";
	return NULL;
}

static const char *metadata_of(const struct oci_descriptor *d)
{
	const char *text = layout_annotation(d, "org.cncf.model.file.metadata+json");

	return text ? text : layout_annotation(d, "org.cnai.model.file.metadata+json");
}

/*
 * Mistakes here never fail a pull: the bytes are right, only their looks are in doubt. *ret_dir as
 * above.
 */
int layout_read_metadata(const struct layout_layer *l, struct layout *out, struct layout_file *f,
			 bool *ret_dir, struct err *e)
{
	const char *text = metadata_of(l->d), *fault;
	struct json_doc doc;
	struct err why;

	if (!text)
		return 0;
	if (json_parse(text, strlen(text), "file metadata", &doc, &why)) {
		if (why.code == CODE_INTERNAL)
			return err_oom(e);
		return layout_warn(out, "file metadata is malformed, ignored", l->index, text, e);
	}
	fault = yyjson_is_obj(doc.root) ? apply_metadata(doc.root, f, ret_dir)
					: "it is no object, ignored";
	json_release(&doc);
	if (!fault)
		return 0;
	char message[160];
	snprintf(message, sizeof(message), "file metadata: %s", fault);
	return layout_warn(out, message, l->index, text, e);
}

/* AIKit's archives of many files have a metadata of their own making, with a key "files". */
int layout_metadata_is_single(const struct oci_descriptor *d, bool *ret, struct err *e)
{
	const char *text = metadata_of(d);
	struct json_doc doc;
	struct err why;
	uint64_t type;

	*ret = false;
	if (!text)
		return 0;
	if (json_parse(text, strlen(text), "file metadata", &doc, &why))
		return why.code == CODE_INTERNAL ? err_oom(e) : 0;
	*ret = json_u64(doc.root, "typeflag", &type) == 1 && (type == 0 || type == '0') &&
	       !yyjson_obj_get(doc.root, "files");
	json_release(&doc);
	return 0;
}
