// SPDX-License-Identifier: Apache-2.0
/*
 * Checkpoints of unpack.h: what was done of a plain tar, as bytes. Integers are little-endian;
 * texts and digests carry their length. The last 32 bytes are the SHA-256 of the rest: it tells a
 * torn write, not a forger.
 */
#include "unpack_internal.h"

#include <string.h>

#define MAGIC "fetcher unpack 1\n"
#define CHECKPOINT_MS 1000
/* A checkpoint is never a large part of what is written. */
#define CHECKPOINT_SHARE 8

uint64_t unpack_checkpoint_bytes = 8 * MIB;

/* --- writing --- */

static void put(struct buf *b, uint64_t v, unsigned bytes)
{
	uint8_t le[8];

	for (unsigned i = 0; i < bytes; i++)
		le[i] = (uint8_t)(v >> (8 * i));
	buf_add(b, le, bytes);
}

static void put_bytes(struct buf *b, const void *p, size_t n)
{
	put(b, n, 4);
	buf_add(b, p, n);
}

static void put_digest(struct buf *b, const struct digest *d)
{
	put(b, d->alg, 1);
	put_bytes(b, d->bytes, digest_len(d->alg));
}

static void put_file(struct buf *b, const struct layout_file *f)
{
	put(b, f->kind, 1);
	put(b, f->mode, 4);
	put(b, f->has_mtime, 1);
	put(b, (uint64_t)f->mtime_sec, 8);
	put(b, f->mtime_nsec, 4);
	put(b, f->size, 8);
	put_digest(b, &f->digest);
	put_bytes(b, f->path, strlen(f->path));
	if (f->kind == LAYOUT_SYMLINK)
		put_bytes(b, f->data, (size_t)f->size);
}

/* Of which layer, unpacked in which way. */
static void put_tree(struct buf *b, const struct layout_tree *t)
{
	struct digest key;

	put_digest(b, &t->digest);
	digest_of(DIGEST_SHA256, t->key ? t->key : "", t->key ? strlen(t->key) : 0, &key);
	put_digest(b, &key);
}

int state_save(const struct layout_tree *t, const struct unpack_progress *p, const struct list *l,
	       struct buf *ret)
{
	struct digest sum;
	size_t n = 0;

	buf_clear(ret);
	ret->max = LIMIT_UNPACK_STATE;
	buf_adds(ret, MAGIC);
	put_tree(ret, t);
	put(ret, p->offset, 8);
	put(ret, p->entries, 8);
	put(ret, p->skipped, 8);
	put(ret, p->bytes, 8);
	put(ret, p->regular, 8);
	put(ret, p->saw_subdir, 1);
	put(ret, l->n_whiteouts, 4);
	for (size_t i = 0; i < l->n_whiteouts; i++)
		put_bytes(ret, l->whiteouts[i], strlen(l->whiteouts[i]));
	for (size_t i = 0; i < l->n_files; i++)
		n += l->files[i].path != NULL;
	put(ret, n, 4);
	for (size_t i = 0; i < l->n_files && !ret->failed; i++)
		if (l->files[i].path)
			put_file(ret, &l->files[i]);
	put(ret, p->open.file.path != NULL, 1);
	if (p->open.file.path) {
		put_file(ret, &p->open.file);
		put(ret, p->open.done, 8);
		put(ret, p->open.hashed, 8);
		put_bytes(ret, p->open.hash, sizeof(p->open.hash));
	}
	if (ret->failed)
		return -1;
	digest_of(DIGEST_SHA256, ret->data, ret->len, &sum);
	return buf_add(ret, sum.bytes, digest_len(DIGEST_SHA256));
}

/* --- reading --- */

struct reader {
	const uint8_t *p;
	size_t n;
	bool bad;
};

static uint64_t get(struct reader *r, unsigned bytes)
{
	uint64_t v = 0;

	if (r->bad || r->n < bytes) {
		r->bad = true;
		return 0;
	}
	for (unsigned i = 0; i < bytes; i++)
		v |= (uint64_t)r->p[i] << (8 * i);
	r->p += bytes;
	r->n -= bytes;
	return v;
}

static struct str get_bytes(struct reader *r, size_t max)
{
	size_t n = (size_t)get(r, 4);
	struct str s = { (const char *)r->p, n };

	if (r->bad || n > max || n > r->n) {
		r->bad = true;
		return (struct str){ "", 0 };
	}
	r->p += n;
	r->n -= n;
	return s;
}

static void get_digest(struct reader *r, struct digest *ret)
{
	uint64_t alg = get(r, 1);
	struct str s = get_bytes(r, sizeof(ret->bytes));

	*ret = (struct digest){ 0 };
	if (alg > DIGEST_SHA512 || s.n != digest_len((enum digest_alg)alg)) {
		r->bad = true;
		return;
	}
	ret->alg = (enum digest_alg)alg;
	memcpy(ret->bytes, s.p, s.n);
}

/* A clean path, as name_place would have made it. */
static char *get_path(struct reader *r)
{
	struct str s = get_bytes(r, LIMIT_PATH);
	struct err ignored = { 0 };
	char *path = NULL;

	if (r->bad || layout_check_path(s, &path, &ignored) || strlen(path) != s.n) {
		free(path);
		r->bad = true;
		return NULL;
	}
	return path;
}

static void get_link(struct reader *r, struct layout_file *f)
{
	struct str s = get_bytes(r, LIMIT_PATH);
	_cleanup_free_ char *path = f->path, *text = r->bad ? NULL : strndup(s.p, s.n);
	struct layout_file link = { 0 };
	struct err ignored = { 0 };

	f->path = NULL;
	if (!path || !text || strlen(text) != f->size || !name_target_ok(path, text) ||
	    unpack_list_symlink(path, text, &link, &ignored) ||
	    !digest_equal(&link.digest, &f->digest)) {
		layout_file_release(&link);
		r->bad = true;
		return;
	}
	f->path = link.path;
	f->data = link.data;
}

static void get_file(struct reader *r, struct layout_file *ret)
{
	struct layout_file f = { 0 };
	uint64_t kind = get(r, 1);

	f.kind = (enum layout_kind)kind;
	f.mode = (uint32_t)get(r, 4);
	f.has_mtime = get(r, 1) != 0;
	f.mtime_sec = (int64_t)get(r, 8);
	f.mtime_nsec = (uint32_t)get(r, 4);
	f.size = get(r, 8);
	get_digest(r, &f.digest);
	f.path = get_path(r);
	r->bad = r->bad || kind > LAYOUT_DIR || (f.mode & ~0777U) || f.mtime_nsec >= 1000000000 ||
		 f.size > INT64_MAX || (kind == LAYOUT_DIR && f.size);
	if (kind == LAYOUT_SYMLINK)
		get_link(r, &f);
	if (r->bad)
		layout_file_release(&f);
	*ret = f;
}

static int refuse(const char *why, struct err *e)
{
	err_set(e, CODE_LOCAL, "the interrupted unpacking cannot be taken up: %s", why);
	e->retryable = true;
	return -1;
}

/* The same path twice, or below a file: no archive makes that. */
static int take_listed(const struct writer *w, struct list *l, struct layout_file *f, struct err *e)
{
	enum list_is is = LIST_NOTHING;
	struct err ignored = { 0 };
	size_t other;

	if (unpack_list_look(l, f->path, &is, &other, &ignored) || is == LIST_FILE ||
	    (is == LIST_DIR && (f->kind != LAYOUT_DIR || other != SIZE_MAX)))
		return refuse("its list of files contradicts itself", e);
	if (f->kind == LAYOUT_FILE &&
	    (f->digest.alg != DIGEST_SHA256 || !writer_has(w, f->path, f->size)))
		return refuse("a file of it is missing", e);
	return unpack_list_add(l, f, e);
}

/* As name_place writes them. */
static char *get_whiteout(struct reader *r)
{
	struct str s = get_bytes(r, 2 * LIMIT_PATH), path = s;
	_cleanup_free_ char *checked = NULL;
	struct err ignored = { 0 };

	if (r->bad || s.n == 0)
		return NULL;
	path.n -= path.p[path.n - 1] == '/';
	if (path.n && (layout_check_path(path, &checked, &ignored) || strlen(checked) != path.n))
		return NULL;
	return strndup(s.p, s.n);
}

static int get_lists(struct reader *r, const struct writer *w, struct list *l, struct err *e)
{
	size_t n = (size_t)get(r, 4);

	for (size_t i = 0; i < n && !r->bad; i++) {
		char *copy = get_whiteout(r);
		if (!copy)
			return refuse("its state is damaged", e);
		if (unpack_list_whiteout(l, copy, e))
			return -1;
	}
	n = (size_t)get(r, 4);
	for (size_t i = 0; i < n && !r->bad; i++) {
		struct layout_file f;
		get_file(r, &f);
		if (r->bad)
			break;
		if (take_listed(w, l, &f, e)) {
			layout_file_release(&f);
			return -1;
		}
	}
	return r->bad ? refuse("its state is damaged", e) : 0;
}

static bool open_fits(const struct unpack_open *o, struct list *l, uint64_t offset)
{
	struct err ignored = { 0 };
	enum list_is is;
	size_t other;

	/*
	 * The midstate is one of whole blocks of SHA-256; the entry's data began at a block of the
	 * tar.
	 */
	return o->file.kind == LAYOUT_FILE && o->done <= o->file.size && o->hashed <= o->done &&
	       o->done - o->hashed < SHA256_BLOCK_SIZE && o->hashed % SHA256_BLOCK_SIZE == 0 &&
	       o->done <= offset && (offset - o->done) % TAR_BLOCK == 0 &&
	       unpack_list_look(l, o->file.path, &is, &other, &ignored) == 0 && is == LIST_NOTHING;
}

static int get_open(struct reader *r, struct list *l, uint64_t offset, struct unpack_open *ret,
		    struct err *e)
{
	struct unpack_open o = { 0 };

	if (get(r, 1) == 0)
		return offset % TAR_BLOCK ? refuse("its state is damaged", e) : 0;
	get_file(r, &o.file);
	o.done = get(r, 8);
	o.hashed = get(r, 8);
	struct str s = get_bytes(r, sizeof(o.hash));
	if (r->bad || s.n != sizeof(o.hash) || !open_fits(&o, l, offset)) {
		layout_file_release(&o.file);
		return refuse("its state is damaged", e);
	}
	memcpy(o.hash, s.p, s.n);
	*ret = o;
	return 0;
}

/* Magic, sum, and that it is about this tree. */
static int check_frame(const struct layout_tree *t, const struct unpack_checkpoint *c,
		       struct reader *r, struct err *e)
{
	_cleanup_buf_ struct buf head = BUF_INIT(1024);
	struct digest sum, stored = { .alg = DIGEST_SHA256 };
	size_t n_sum = digest_len(DIGEST_SHA256), n;

	buf_adds(&head, MAGIC);
	put_tree(&head, t);
	if (head.failed)
		return err_oom(e);
	if (c->state.len > LIMIT_UNPACK_STATE || c->state.len < head.len + n_sum ||
	    memcmp(c->state.data, head.data, head.len) != 0)
		return refuse("its state is that of something else", e);
	n = c->state.len - n_sum;
	digest_of(DIGEST_SHA256, c->state.data, n, &sum);
	memcpy(stored.bytes, c->state.data + n, n_sum);
	if (!digest_equal(&stored, &sum) || c->offset > t->size)
		return refuse("its state is damaged", e);
	*r = (struct reader){ (const uint8_t *)c->state.data + head.len, n - head.len, false };
	return 0;
}

int state_load(const struct layout_tree *t, const struct unpack_checkpoint *c,
	       const struct writer *w, struct unpack_progress *ret, struct list *l, struct err *e)
{
	struct unpack_progress p = { .offset = c->offset };
	struct reader r = { 0 };

	if (check_frame(t, c, &r, e))
		return -1;
	r.bad = get(&r, 8) != c->offset;
	p.entries = get(&r, 8);
	p.skipped = get(&r, 8);
	p.bytes = get(&r, 8);
	p.regular = get(&r, 8);
	p.saw_subdir = get(&r, 1) != 0;
	if (r.bad || p.entries > LIMIT_ENTRIES || p.bytes > LIMIT_TOTAL)
		return refuse("its state is damaged", e);
	if (get_lists(&r, w, l, e) || get_open(&r, l, c->offset, &p.open, e))
		return -1;
	if (r.n != 0) {
		free(p.open.file.path);
		return refuse("its state is damaged", e);
	}
	*ret = p;
	return 0;
}

/* --- when --- */

bool run_checkpoint_due(const struct run *r, uint64_t at)
{
	uint64_t fresh = at - r->last_at;

	if (!r->checkpoints || fresh < CHECKPOINT_SHARE * r->state.len)
		return false;
	return fresh >= unpack_checkpoint_bytes ||
	       (fresh > 0 && sys_now_ms() - r->last_ms >= CHECKPOINT_MS);
}

static int tell_checkpoint(struct run *r, uint64_t at, struct err *e)
{
	struct unpack_checkpoint c = { .offset = at, .state = r->state };

	r->last_at = at;
	r->last_ms = sys_now_ms();
	return r->o->checkpoint(r->o->arg, &c, e);
}

int run_checkpoint(struct run *r, uint64_t at, struct err *e)
{
	r->p.offset = at;
	if (state_save(r->t, &r->p, &r->list, &r->state)) {
		r->checkpoints = false;	/* too much to say; the last one stays good */
		return 0;
	}
	return tell_checkpoint(r, at, e);
}

int run_checkpoint_inside(struct run *r, const struct layout_file *f, uint64_t at, struct err *e)
{
	struct unpack_open *o = &r->p.open;
	int rc;

	if (!run_checkpoint_due(r, at))
		return 0;
	if (writer_flush(&r->w, e))
		return -1;
	*o = (struct unpack_open){ .file = *f, .done = r->w.pos };
	o->hashed = hasher_export(&r->w.hash, o->hash);
	rc = run_checkpoint(r, at, e);
	*o = (struct unpack_open){ 0 };
	return rc;
}

int run_no_more_checkpoints(struct run *r, struct err *e)
{
	if (!r->checkpoints)
		return 0;
	r->checkpoints = false;
	buf_clear(&r->state);
	return tell_checkpoint(r, 0, e);
}
