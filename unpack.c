// SPDX-License-Identifier: Apache-2.0
#include "unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <string.h>

#include "json.h"
#include "unpack_internal.h"

/* --- results --- */

void unpack_result_release(struct unpack_result *r)
{
	for (size_t i = 0; i < r->n_files; i++)
		layout_file_release(&r->files[i]);
	free(r->files);
	for (size_t i = 0; i < r->n_whiteouts; i++)
		free(r->whiteouts[i]);
	free(r->whiteouts);
	*r = (struct unpack_result){ 0 };
}

/* --- the tar reader's source --- */

static la_ssize_t feed(struct archive *a, void *arg, const void **ret)
{
	struct run *r = arg;
	const uint8_t *p = NULL;
	size_t n = 0;

	(void)a;
	if (r->broken || decoder_next(r->dec, &p, &n, r->feed_err)) {
		r->broken = true;
		return ARCHIVE_FATAL;
	}
	if (r->hash_inner)
		hasher_update(&r->inner, p, n);
	r->block = p;
	r->block_n = n;
	r->block_at = r->handed;
	r->handed += n;
	*ret = p;
	return (la_ssize_t)n;
}

static int open_tar(struct run *r, struct err *e)
{
	r->tar = archive_read_new();
	if (!r->tar || archive_read_support_format_tar(r->tar) != ARCHIVE_OK ||
	    archive_read_set_callback_data(r->tar, r) != ARCHIVE_OK ||
	    archive_read_set_read_callback(r->tar, feed) != ARCHIVE_OK)
		return err_oom(e);
	if (archive_read_open1(r->tar) == ARCHIVE_OK)
		return 0;
	if (r->broken)
		return -1;
	if (r->handed == r->base)
		return 1;	/* nothing there */
	if (r->base)
		return err_set(e, CODE_INTEGRITY,
			       "the layer's tar archive is damaged behind byte %llu",
			       (unsigned long long)r->base);
	return err_set(e, CODE_UNSUPPORTED, "the layer holds no tar archive");
}

/* --- the archive --- */

static bool all_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/*
 * Behind the last entry: the mark, then nothing but padding up to the end of the source. Without a
 * mark nobody can tell whether entries are missing; runtimes take such image layers nevertheless.
 */
static int finish_tar(struct run *r, struct err *e)
{
	uint64_t start = (uint64_t)archive_read_header_position(r->tar),
		 end = (uint64_t)archive_filter_bytes(r->tar, 0);
	const uint8_t *p = r->block;
	size_t n = r->block_n;

	if (end == start && !r->t->image)
		return err_set(e, CODE_INTEGRITY,
			       "the layer's tar archive ends without its end mark");
	end += r->base;
	if (end > r->block_at) {
		size_t used = (size_t)MIN(end - r->block_at, (uint64_t)n);
		p += used;
		n -= used;
	}
	do {
		if (!all_zero(p, n))
			return err_set(e, CODE_INTEGRITY,
				       "something follows the end of the layer's tar archive");
		if (decoder_next(r->dec, &p, &n, e))
			return -1;
		if (r->hash_inner)
			hasher_update(&r->inner, p, n);
	} while (n);
	return 0;
}

static int read_tar(struct run *r, struct err *e)
{
	struct archive_entry *en;
	int rc = open_tar(r, e);

	if (rc < 0)
		return -1;
	if (rc > 0)
		return r->t->image ? 0
				   : err_set(e, CODE_INTEGRITY,
					     "the layer's tar archive ends too early");
	while ((rc = archive_read_next_header(r->tar, &en)) == ARCHIVE_OK) {
		uint64_t at = r->base + (uint64_t)archive_read_header_position(r->tar);

		if (at % TAR_BLOCK)
			return err_set(e, CODE_INTEGRITY, "the layer's tar archive is damaged");
		if (run_checkpoint_due(r, at) && run_checkpoint(r, at, e))
			return -1;
		if (run_take_entry(r, en, e))
			return -1;
	}
	/*
	 * Warnings too: a header that was only half understood may hide what another reader sees.
	 */
	return rc == ARCHIVE_EOF ? finish_tar(r, e) : run_fail_tar(r, e);
}

/* --- resuming --- */

/* The bytes of the layer that come next, n of them; f NULL = they are padding. */
static int copy_raw(struct run *r, const struct layout_file *f, uint64_t n, struct err *e)
{
	const uint8_t *p;
	size_t k;

	while (n) {
		if (decoder_raw(r->dec, n, &p, &k, e))
			return -1;
		if (k == 0)
			return err_set(e, CODE_INTEGRITY, "the layer's tar archive ends too early");
		r->base += k;
		n -= k;
		if (f && (writer_data(&r->w, r->w.pos, p, k, e) ||
			  run_checkpoint_inside(r, f, r->base, e)))
			return -1;
	}
	return 0;
}

/* The rest of the entry that was interrupted. */
static int finish_open(struct run *r, struct unpack_open *o, struct err *e)
{
	struct layout_file *f = &o->file;

	if (writer_resume(&r->w, f->path, f->size, o->done, o->hashed, o->hash, e) ||
	    copy_raw(r, f, f->size - o->done, e) || copy_raw(r, NULL, -f->size % TAR_BLOCK, e) ||
	    writer_end(&r->w, &f->digest, e))
		return -1;
	return unpack_list_add(&r->list, f, e);
}

static int resume(struct run *r, struct err *e)
{
	const struct unpack_checkpoint *c = r->o->resume;
	struct unpack_open o;
	int rc = 0;

	r->w.leftovers = true;
	if (c->offset == 0 && c->state.len == 0)
		return 0;
	if (r->t->codec != CODEC_NONE || r->hash_inner)
		return err_set(e, CODE_INTERNAL, "resume in a compressed layer");
	if (state_load(r->t, c, &r->w, &r->p, &r->list, e))
		return -1;
	o = r->p.open;
	r->p.open = (struct unpack_open){ 0 };
	r->base = r->last_at = c->offset;
	if (decoder_open(&r->dec, r->src, CODEC_NONE, c->offset, e))
		rc = -1;
	else if (o.file.path)
		rc = finish_open(r, &o, e);
	free(o.file.path);
	return rc;
}

/* --- the run --- */

static int drop_file(struct run *r, const char *path, struct err *e)
{
	if (writer_remove(&r->w, path, e))
		return -1;
	unpack_list_drop(&r->list, path);
	r->p.skipped++;
	return 0;
}

/* AIKit's tars: the only file goes where the layer's annotation says, if it is called like that. */
static int place_single(struct run *r, struct err *e)
{
	_cleanup_free_ char *to = NULL;
	struct layout_file f;
	enum list_is is;
	size_t i;

	if (!r->single || unpack_list_look(&r->list, r->single, &is, &i, NULL) || is != LIST_FILE ||
	    r->list.files[i].kind != LAYOUT_FILE)
		return 0;
	if (r->p.regular != 1 || strcmp(r->t->single, r->single) == 0)
		return run_wants(r, r->single) ? 0 : drop_file(r, r->single, e);
	if (!run_wants(r, r->t->single))
		return drop_file(r, r->single, e);
	if (layout_check_path(str_of(r->t->single), &to, e) || writer_move(&r->w, r->single, to, e))
		return -1;
	f = r->list.files[i];
	f.path = NULL;
	unpack_list_drop(&r->list, r->single);
	if (unpack_list_look(&r->list, to, &is, &i, e))
		return -1;
	if (is != LIST_NOTHING)
		return unpack_unsafe(to, "the archive has it twice, and not the same", e);
	f.path = to;
	if (unpack_list_add(&r->list, &f, e))
		return -1;
	to = NULL;	/* the list's now */
	return 0;
}

static int find_single(struct run *r, struct err *e)
{
	const char *single = r->t->single, *slash = single ? strrchr(single, '/') : NULL;
	_cleanup_buf_ struct buf b = BUF_INIT(2 * LIMIT_PATH);

	if (!single)
		return 0;
	if (r->t->prefix)
		buf_adds(&b, r->t->prefix);
	buf_adds(&b, slash ? slash + 1 : single);
	r->single = buf_steal(&b);
	return r->single ? 0 : err_oom(e);
}

/*
 * An uncompressed layer is its own inner tar; hashing it once more is for another algorithm alone.
 */
static int prepare_inner(struct run *r, struct err *e)
{
	const struct layout_tree *t = r->t;

	if (t->inner.alg == DIGEST_NONE)
		return 0;
	r->hash_inner = t->codec != CODEC_NONE || t->inner.alg != t->digest.alg;
	if (r->hash_inner)
		hasher_init(&r->inner, t->inner.alg);
	else if (!digest_equal(&t->inner, &t->digest))
		return err_set(e, CODE_INTEGRITY,
			       "the layer's digest and that of its content contradict each other");
	return 0;
}

static int finish_inner(struct run *r, struct digest *ret, struct err *e)
{
	char text[DIGEST_STR_MAX];

	*ret = r->t->inner;
	if (!r->hash_inner)
		return 0;
	hasher_final(&r->inner, ret);
	if (digest_equal(&r->t->inner, ret))
		return 0;
	return err_set(e, CODE_INTEGRITY,
		       "the unpacked layer has the digest %s, not the promised one",
		       digest_format(ret, ':', text));
}

static void run_release(struct run *r)
{
	archive_read_free(r->tar);
	decoder_free(r->dec);
	writer_release(&r->w);
	unpack_list_release(&r->list);
	buf_release(&r->state);
	free(r->single);
}

static int run_all(struct run *r, struct unpack_result *ret, struct err *e)
{
	struct unpack_result out = { 0 };
	int rc;

	if (find_single(r, e) || prepare_inner(r, e))
		return -1;
	r->checkpoints = r->o->checkpoint && r->t->codec == CODEC_NONE && !r->hash_inner;
	if (r->o->resume && resume(r, e))
		return -1;
	if (!r->dec && (rc = decoder_open(&r->dec, r->src, r->t->codec, 0, e)))
		return rc;
	r->handed = r->base;
	if (read_tar(r, e) || finish_inner(r, &out.inner, e) || place_single(r, e))
		return -1;
	unpack_list_finish(&r->list);
	out.files = steal_ptr(&r->list.files);
	out.n_files = r->list.n_files;
	out.whiteouts = steal_ptr(&r->list.whiteouts);
	out.n_whiteouts = r->list.n_whiteouts;
	r->list.n_files = r->list.n_whiteouts = 0;
	out.bytes = r->p.bytes;
	out.entries = r->p.entries;
	out.skipped = r->p.skipped;
	out.saw_subdir = r->p.saw_subdir;
	*ret = out;
	return 0;
}

int unpack_run(const struct unpack_source *src, const struct unpack_options *o,
	       struct unpack_result *ret, struct err *e)
{
	struct run r = {
		.src = src, .o = o, .t = o->tree, .feed_err = e,
		.max_bytes = o->max_bytes ? o->max_bytes : LIMIT_TOTAL,
		.w = { .dirfd = o->dirfd, .fd = -1, .written = o->written, .arg = o->arg },
		.state = BUF_INIT(LIMIT_UNPACK_STATE),
		.last_ms = sys_now_ms(),
	};
	int rc = run_all(&r, ret, e);

	run_release(&r);
	return rc;
}
