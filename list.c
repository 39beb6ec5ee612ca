// SPDX-License-Identifier: Apache-2.0
#include "list_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "pull.h"
#include "sys.h"

#define PRINT_MAX (256 * MIB)
#define STOP_CHECK_MS 100	/* a signal must be seen within a second, with room */
#define LEAST_TIMEOUT_MS 100	/* what config.c would take, too */

/* --- the rule --- */

int list_rule(const struct ref *r, struct buf *ret)
{
	const char *host = r->registry, *end = host + strlen(host);
	const char *close = strchr(host, ']');
	const char *port = strchr(close ? close : host, ':');
	char digest[DIGEST_STR_MAX];

	for (const char *p = host; p < end; p++)
		if (*p != '[' && *p != ']')
			buf_addc(ret, p == port ? '_' : *p);
	buf_addf(ret, "/%s@%s", r->repo, r->has_digest ? digest_format(&r->digest, '-', digest) : r->tag);
	return ret->failed ? -1 : 0;
}

/* "sha256-HEX" as a digest; false: it is none. */
static bool dashed_digest(const char *s, char ret[static DIGEST_STR_MAX])
{
	struct digest d;
	size_t n = strlen(s);

	if (n >= DIGEST_STR_MAX || n < 7 || s[6] != '-')
		return false;
	memcpy(ret, s, n + 1);
	ret[6] = ':';
	return digest_parse(str_of(ret), &d);
}

/* Back to the reference, and there again: what comes out as it went in was made by the rule. */
bool list_rule_fits(const char *path)
{
	_cleanup_buf_ struct buf text = BUF_INIT(LIMIT_PATH), again = BUF_INIT(LIMIT_PATH);
	const char *slash = strchr(path, '/'), *at = strrchr(path, '@');
	char digest[DIGEST_STR_MAX];
	struct ref r;

	if (!slash || !at || at < slash)
		return false;
	int host = (int)(slash - path), name = (int)strcspn(path, "_/");
	bool v6 = memchr(path, ':', (size_t)host) != NULL;
	buf_addf(&text, "%s%.*s%s", v6 ? "[" : "", name, path, v6 ? "]" : "");
	if (name < host)
		buf_addf(&text, ":%.*s", host - name - 1, path + name + 1);
	buf_addf(&text, "%.*s", (int)(at - slash), slash);
	if (dashed_digest(at + 1, digest))
		buf_addf(&text, "@%s", digest);
	else
		buf_addf(&text, ":%s", at + 1);
	return !text.failed && ref_parse(buf_cstr(&text), &r, NULL) == 0 && list_rule(&r, &again) == 0 &&
	       strcmp(buf_cstr(&again), path) == 0;
}

/* --- parsing --- */

struct parse {
	const char *root;	/* cleaned; NULL = not given */
	struct list l;
	unsigned line;
	struct err *e;
};

static int bad(struct parse *p, struct str what, const char *why)
{
	char shown[160];

	return err_set(p->e, CODE_USAGE, "line %u: \"%s\" %s", p->line, json_show(what, shown, sizeof(shown)),
		       why);
}

/* Appends the components of a path, without empty ones and dots. NULL, or what is wrong with it. */
static const char *add_path(struct buf *b, struct str path, bool dest)
{
	const char *p = path.p, *end = p + path.n;

	if (path.n && *p == '/')
		buf_addc(b, '/');
	while (p < end) {
		const char *slash = memchr(p, '/', (size_t)(end - p));
		struct str c = { p, (size_t)((slash ? slash : end) - p) };

		p = slash ? slash + 1 : end;
		if (c.n == 0 || str_eq(c, "."))
			continue;
		if (dest && str_eq(c, ".."))
			return "has a \"..\" in it";
		if (dest && str_caseeq(c, ".fetcher"))
			return "has a \".fetcher\" in it";
		if (c.n > LIMIT_COMPONENT)
			return "has a component of more than 255 bytes; give a shorter DEST";
		if (b->len && b->data[b->len - 1] != '/')
			buf_addc(b, '/');
		buf_add(b, c.p, c.n);
	}
	return b->failed ? "is longer than a path may be" : NULL;
}

/* Where the entry goes: what = DEST as written, or the reference for messages. Caller frees; NULL = told. */
static char *place(struct parse *p, struct str what, const char *rule)
{
	_cleanup_buf_ struct buf b = BUF_INIT(LIMIT_PATH - 1);
	struct str path = rule ? str_of(rule) : what;
	const char *why;

	if (path.p[0] != '/') {
		if (!p->root)
			return bad(p, what, rule ? "has no DEST, and --root is not given"
						 : "does not begin with a '/', and --root is not given"), NULL;
		buf_adds(&b, p->root);
		if (b.len && b.data[b.len - 1] != '/')
			buf_addc(&b, '/');
	}
	why = add_path(&b, path, true);
	if (why)
		return bad(p, what, why), NULL;
	/* A name for the whole of a tree would have all others inside. */
	if (!b.len || strcmp(b.data, "/") == 0 || (b.data[b.len - 1] == '/') ||
	    (p->root && strcmp(b.data, p->root) == 0))
		return bad(p, what, "is --root itself, or the root directory"), NULL;
	char *dest = buf_steal(&b);
	if (!dest)
		err_oom(p->e);
	return dest;
}

static char *copy(struct str s)
{
	struct buf b = BUF_INIT(s.n);

	buf_add(&b, s.p, s.n);
	return buf_steal(&b);
}

static int add_entry(struct parse *p, struct str ref_text, struct str dest_text)
{
	_cleanup_free_ char *ref = copy(ref_text), *dest = NULL;
	_cleanup_buf_ struct buf rule = BUF_INIT(LIMIT_PATH);
	struct err why = { 0 };
	struct list_entry *more;
	struct ref r;

	if (!ref)
		return err_oom(p->e);
	if (ref_parse(ref, &r, &why) < 0)
		return err_set(p->e, why.code, "line %u: %s", p->line, why.msg);
	if (!dest_text.n && list_rule(&r, &rule) < 0)
		return err_oom(p->e);
	dest = dest_text.n ? place(p, dest_text, NULL) : place(p, ref_text, buf_cstr(&rule));
	if (!dest)
		return -1;
	more = realloc(p->l.v, (p->l.n + 1) * sizeof(*more));
	if (!more)
		return err_oom(p->e);
	p->l.v = more;
	more[p->l.n++] = (struct list_entry){ steal_ptr(&ref), steal_ptr(&dest), p->line };
	return 0;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static int take_line(struct parse *p, struct str line)
{
	struct str words[2] = { { 0 } };
	size_t n = 0;

	if (line.n && line.p[line.n - 1] == '\r')
		line.n--;
	for (size_t i = 0; i < line.n;) {
		struct str word = { line.p + i, 0 };

		if (is_blank(line.p[i])) {
			i++;
			continue;
		}
		if (line.p[i] == '#')
			break;
		while (i < line.n && !is_blank(line.p[i])) {
			if ((unsigned char)line.p[i] < 0x20 || line.p[i] == 0x7f)
				return bad(p, line, "has a control character in it");
			word.n++;
			i++;
		}
		if (n == ARRAY_SIZE(words))
			return bad(p, word, "is too much: a line is REF DEST, or REF alone with --root");
		words[n++] = word;
	}
	return n ? add_entry(p, words[0], words[1]) : 0;
}

/* By path, so that what is inside a directory follows it at once: '/' sorts before all other bytes. */
static int by_dest(const void *a, const void *b)
{
	const unsigned char *x = (const unsigned char *)(*(struct list_entry *const *)a)->dest;
	const unsigned char *y = (const unsigned char *)(*(struct list_entry *const *)b)->dest;

	while (*x && *x == *y) {
		x++;
		y++;
	}
	if (*x == *y)
		return 0;
	if (!*x || !*y)
		return *x ? 1 : -1;
	return *x == '/' ? -1 : *y == '/' ? 1 : *x < *y ? -1 : 1;
}

static int check_apart(const struct list *l, struct err *e)
{
	_cleanup_free_ const struct list_entry **v = calloc(l->n + 1, sizeof(*v));
	char shown[160];

	if (!v)
		return err_oom(e);
	for (size_t i = 0; i < l->n; i++)
		v[i] = &l->v[i];
	qsort(v, l->n, sizeof(*v), by_dest);
	for (size_t i = 1; i < l->n; i++) {
		const struct list_entry *a = v[i - 1], *b = v[i];
		size_t n = strlen(a->dest);
		unsigned first = MIN(a->line, b->line), second = MAX(a->line, b->line);

		if (strncmp(a->dest, b->dest, n) || (b->dest[n] && b->dest[n] != '/'))
			continue;
		return err_set(e, CODE_USAGE, "line %u: the DEST of line %u %s: \"%s\"", second, first,
			       b->dest[n] ? "and this one lie one inside the other" : "is named again",
			       json_show(str_of(b->dest), shown, sizeof(shown)));
	}
	return 0;
}

int list_parse(const char *text, size_t len, const char *root, struct list *ret, struct err *e)
{
	_cleanup_buf_ struct buf clean = BUF_INIT(LIMIT_PATH - 1);
	struct parse p = { .e = e };
	const char *at = text, *end = text + len;
	int rc = 0;

	if (root) {
		if (add_path(&clean, str_of(root), false))
			return err_set(e, CODE_USAGE, "--root is longer than a path may be");
		p.root = buf_cstr(&clean);
	}
	while (rc == 0 && at < end) {
		const char *nl = memchr(at, '\n', (size_t)(end - at));

		if (++p.line > LIMIT_LIST_LINES)
			rc = err_set(e, CODE_USAGE, "more than %d lines", LIMIT_LIST_LINES);
		else
			rc = take_line(&p, (struct str){ at, (size_t)((nl ? nl : end) - at) });
		at = nl ? nl + 1 : end;
	}
	if (rc == 0)
		rc = check_apart(&p.l, e);
	if (rc == 0)
		*ret = p.l;
	else
		list_release(&p.l);
	return rc;
}

void list_release(struct list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->v[i].ref);
		free(l->v[i].dest);
	}
	free(l->v);
	*l = (struct list){ 0 };
}

/* --- the run --- */

struct run {
	const struct config *cfg;
	const atomic_int *stop;
	struct list list;
	uint64_t started_ms, deadline_ms;	/* sys_now_ms; 0 = none */
	size_t ok, failed;
	unsigned first_line;
	const char *first_ref;
	struct err first;
	struct buf entries;			/* JSON */
	struct list_pruned pruned;
};

static int load(struct run *r, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(LIMIT_LIST);
	const char *path = r->cfg->list;

	if (sys_read_file(AT_FDCWD, path, &text) < 0) {
		if (errno == EFBIG)
			return err_set(e, CODE_USAGE, "%s is larger than 1 MiB", path);
		return err_errno(e, CODE_LOCAL, errno, "cannot read the list %s", path);
	}
	if (list_parse(buf_cstr(&text), text.len, r->cfg->root, &r->list, e) < 0)
		return err_wrap(e, "%s", path);
	return 0;
}

static int stopped(const struct run *r, struct err *e)
{
	int code = atomic_load(r->stop);

	return code ? err_set(e, (enum code)code, "stopped before the list was done") : 0;
}

static int random_delay(const struct run *r, struct err *e)
{
	uint64_t most = r->cfg->random_delay_ms, now = sys_now_ms(), end;
	char text[24];

	if (!most)
		return 0;
	end = now + sys_random64() % (most + 1);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)(end - now));
	log_line(LOG_INFO, "waiting before the start", "ms", text, NULL);
	while ((now = sys_now_ms()) < end) {
		if (stopped(r, e) < 0)
			return -1;
		sys_sleep_ms((unsigned)MIN(end - now, (uint64_t)STOP_CHECK_MS));
	}
	return 0;
}

/* This very DEST was named now; without .fetcher there is nothing that pruning would look at. */
static void note_listed(const char *dest)
{
	const int flags = O_WRONLY | O_CREAT | O_NONBLOCK | O_NOCTTY;
	_cleanup_close_ int dir = sys_open_dir(dest, 0), fd = -1;

	if (dir >= 0)
		fd = sys_open_beneath(dir, ".fetcher/" STORE_LISTED, flags, 0644);
	if (fd >= 0 && futimens(fd, NULL) == 0)
		return;
	if (errno != ENOENT && errno != EROFS)
		log_line(LOG_WARN, "cannot note that this directory is in use", "dest", dest, "error",
			 strerror(errno), NULL);
}

/* No step of this pull may wait longer than the run has time for. -1: it has none left. */
static int fit_deadline(const struct run *r, struct config *cfg, struct err *e)
{
	uint64_t now = sys_now_ms(), left, timeout;

	if (!r->deadline_ms)
		return 0;
	if (now >= r->deadline_ms)
		return err_set(e, CODE_DEADLINE, "not tried: --deadline is over");
	left = r->deadline_ms - now;
	timeout = MAX(left, (uint64_t)LEAST_TIMEOUT_MS);
	cfg->lock_timeout_ms = MIN(cfg->lock_timeout_ms, left);
	cfg->retry_timeout_ms = MIN(cfg->retry_timeout_ms, left);
	cfg->stall_timeout_ms = MIN(cfg->stall_timeout_ms, timeout);
	cfg->connect_timeout_ms = MIN(cfg->connect_timeout_ms, timeout);
	return 0;
}

static void add_result(struct buf *b, const struct list_entry *en, const struct pull_result *r, uint64_t ms,
		       const struct err *e)
{
	char digest[DIGEST_STR_MAX], msg[sizeof(e->msg)];
	bool ok = e->code == CODE_OK;

	snprintf(msg, sizeof(msg), "%s", e->msg);
	log_redact(msg);
	buf_adds(b, b->len ? ",{" : "{");
	json_add_number(b, "line", en->line);
	json_add_text(b, "ref", en->ref);
	json_add_text(b, "dest", en->dest);
	json_add_number(b, "code", (uint64_t)e->code);
	json_add_text(b, "digest", ok ? digest_format(&r->marker.digest, ':', digest) : NULL);
	json_add_bool(b, "upToDate", r->up_to_date);
	json_add_number(b, "downloaded", r->downloaded);
	json_add_number(b, "bytes", r->marker.bytes);
	json_add_number(b, "durationMs", ms);
	json_add_text(b, "error", ok ? NULL : msg);
	buf_addc(b, '}');
}

/* -1: stopped. */
static int run_entry(struct run *r, const struct list_entry *en, struct err *e)
{
	struct config cfg = *r->cfg;
	const struct pull_options o = {
		.cfg = &cfg, .ref = en->ref, .dest = en->dest, .stop = r->stop, .deadline_ms = r->deadline_ms,
	};
	uint64_t start = sys_now_ms();
	struct pull_result result = { 0 };
	struct err why = { 0 };
	int rc;

	if (stopped(r, e) < 0)
		return -1;
	rc = fit_deadline(r, &cfg, &why) < 0 ? -1 : pull_run(&o, &result, &why);
	if (rc < 0 && stopped(r, e) < 0)
		return -1;
	/* a lock or a server that was waited for until then */
	if (rc < 0 && r->deadline_ms && sys_now_ms() >= r->deadline_ms &&
	    (why.code == CODE_LOCKED || why.code == CODE_NETWORK))
		why.code = CODE_DEADLINE;
	note_listed(en->dest);
	if (rc < 0) {
		char line[24];

		snprintf(line, sizeof(line), "%u", en->line);
		log_line(LOG_WARN, "this line of the list failed", "line", line, "ref", en->ref, "dest", en->dest,
			 "code", code_name(why.code), "error", why.msg, NULL);
		if (!r->failed++) {
			r->first = why;
			r->first_line = en->line;
			r->first_ref = en->ref;
		}
	} else {
		r->ok++;
	}
	if (cfg.output == OUTPUT_JSON)
		add_result(&r->entries, en, &result, sys_now_ms() - start, &why);
	pull_result_release(&result);
	return 0;
}

static int print_summary(const struct run *r, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT(PRINT_MAX);

	buf_addc(&b, '{');
	json_add_text(&b, "list", r->cfg->list);
	json_add_key(&b, "entries");
	buf_addc(&b, '[');
	buf_add(&b, buf_cstr(&r->entries), r->entries.len);
	buf_addc(&b, ']');
	json_add_number(&b, "ok", r->ok);
	json_add_number(&b, "failed", r->failed);
	json_add_key(&b, "pruned");
	buf_addc(&b, '{');
	json_add_number(&b, "versions", r->pruned.versions);
	json_add_number(&b, "directories", r->pruned.directories);
	json_add_number(&b, "bytes", r->pruned.bytes);
	buf_adds(&b, "}}\n");
	if (b.failed || r->entries.failed)
		return err_oom(e);
	if (sys_write_full(STDOUT_FILENO, b.data, b.len))
		return err_errno(e, CODE_LOCAL, errno, "cannot write to stdout");
	return 0;
}

static void say_done(const struct run *r)
{
	char ok[24], failed[24], versions[24], directories[24], bytes[24], ms[24];

	snprintf(ok, sizeof(ok), "%zu", r->ok);
	snprintf(failed, sizeof(failed), "%zu", r->failed);
	snprintf(versions, sizeof(versions), "%llu", (unsigned long long)r->pruned.versions);
	snprintf(directories, sizeof(directories), "%llu", (unsigned long long)r->pruned.directories);
	snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)r->pruned.bytes);
	snprintf(ms, sizeof(ms), "%llu", (unsigned long long)(sys_now_ms() - r->started_ms));
	log_line(LOG_INFO, "list done", "list", r->cfg->list, "ok", ok, "failed", failed, "prunedVersions",
		 versions, "prunedDirectories", directories, "prunedBytes", bytes, "ms", ms, NULL);
}

static int run_all(struct run *r, struct err *e)
{
	if (load(r, e) < 0 || random_delay(r, e) < 0)
		return -1;
	r->started_ms = sys_now_ms();
	if (r->cfg->deadline_ms)
		r->deadline_ms = r->started_ms + r->cfg->deadline_ms;
	for (size_t i = 0; i < r->list.n; i++)
		if (run_entry(r, &r->list.v[i], e) < 0)
			return -1;
	if (r->cfg->prune) {
		list_prune(r->cfg, &r->list, r->stop, &r->pruned);
		if (stopped(r, e) < 0)
			return -1;
	}
	say_done(r);
	if (r->cfg->output == OUTPUT_JSON && print_summary(r, e) < 0 && !r->failed)
		return -1;
	if (!r->failed)
		return 0;
	*e = r->first;
	return err_wrap(e, "%zu of %zu lines failed; line %u, %s", r->failed, r->list.n, r->first_line,
			r->first_ref);
}

int list_run(const struct config *cfg, const atomic_int *stop, struct err *e)
{
	struct run r = { .cfg = cfg, .stop = stop, .entries = BUF_INIT(PRINT_MAX) };
	int rc = run_all(&r, e);

	list_release(&r.list);
	buf_release(&r.entries);
	return rc;
}
