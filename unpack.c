// SPDX-License-Identifier: Apache-2.0
#include "unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <string.h>

#include "json.h"
#include "unpack_internal.h"

#define CHECKPOINT_MS 1000
/* A checkpoint is never a large part of what is written. */
#define CHECKPOINT_SHARE 8
uint64_t unpack_checkpoint_bytes = 8 * MIB;

struct run {
	const struct unpack_source *src;
	const struct unpack_options *o;
	const struct layout_tree *t;
	struct decoder *dec;
	struct archive *tar;
	struct list list;
	struct writer w;
	struct unpack_progress p;	/* p.bytes: of all files begun */
	uint64_t max_bytes, holes;
	uint64_t base;			/* of the layer or tar, where libarchive began */
	/* the piece that libarchive works on */
	const uint8_t *block;
	size_t block_n;
	uint64_t block_at;		/* its place in the tar */
	uint64_t handed;		/* end of it */
	struct err *feed_err;		/* why decoder_next failed, set while broken */
	bool broken;
	bool hash_inner;
	struct hasher inner;
	/* checkpoints */
	bool checkpoints;
	uint64_t last_at, last_ms;
	struct buf state;
	char *single;			/* where the entry that tree->single speaks of lands at first */
};

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

static bool any_glob(const char *const *globs, const char *path)
{
	for (; globs && *globs; globs++)
		if (layout_glob(*globs, path))
			return true;
	return false;
}

static bool wanted_path(const struct run *r, const char *path)
{
	const struct layout_options *g = r->o->globs;

	return !g || ((!g->include || !g->include[0] || any_glob(g->include, path)) && !any_glob(g->exclude, path));
}

/* The only file of a tree may still move to `single`: then that name decides. */
static bool wanted(const struct run *r, const char *path)
{
	return wanted_path(r, path) || (r->single && strcmp(path, r->single) == 0 && wanted_path(r, r->t->single));
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

/* What libarchive says becomes ours; what the source said before goes first. */
static int fail_tar(struct run *r, struct err *e)
{
	const char *text = archive_error_string(r->tar);
	char shown[UNPACK_SHOWN];

	if (r->broken)
		return -1;
	if (!text)
		return err_set(e, CODE_INTEGRITY, "the layer's tar archive ends too early or is damaged");
	return err_set(e, CODE_INTEGRITY, "the layer's tar archive is damaged: %s",
		       json_show(str_of(text), shown, sizeof(shown)));
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
		return err_set(e, CODE_INTEGRITY, "the layer's tar archive is damaged behind byte %llu",
			       (unsigned long long)r->base);
	return err_set(e, CODE_UNSUPPORTED, "the layer holds no tar archive");
}

/* --- checkpoints --- */

static bool checkpoint_due(const struct run *r, uint64_t at)
{
	uint64_t fresh = at - r->last_at;

	if (!r->checkpoints || fresh < CHECKPOINT_SHARE * r->state.len)
		return false;
	return fresh >= unpack_checkpoint_bytes || (fresh > 0 && sys_now_ms() - r->last_ms >= CHECKPOINT_MS);
}

static int tell_checkpoint(struct run *r, uint64_t at, struct err *e)
{
	struct unpack_checkpoint c = { .offset = at, .state = r->state };

	r->last_at = at;
	r->last_ms = sys_now_ms();
	return r->o->checkpoint(r->o->arg, &c, e);
}

/* `at`: everything before this byte of the layer is on disk, but for what p.open says. */
static int checkpoint(struct run *r, uint64_t at, struct err *e)
{
	r->p.offset = at;
	if (state_save(r->t, &r->p, &r->list, &r->state)) {
		r->checkpoints = false;	/* too much to say; the last one stays good */
		return 0;
	}
	return tell_checkpoint(r, at, e);
}

/* In the middle of a file's data. */
static int checkpoint_inside(struct run *r, const struct layout_file *f, uint64_t at, struct err *e)
{
	struct unpack_open *o = &r->p.open;
	int rc;

	if (!checkpoint_due(r, at))
		return 0;
	if (writer_flush(&r->w, e))
		return -1;
	*o = (struct unpack_open){ .file = *f, .done = r->w.pos };
	o->hashed = hasher_export(&r->w.hash, o->hash);
	rc = checkpoint(r, at, e);
	*o = (struct unpack_open){ 0 };
	return rc;
}

/*
 * Before something on disk that a checkpoint speaks of is replaced: whoever resumed there would find other content under
 * the name. A checkpoint without state says: from the start.
 */
static int no_more_checkpoints(struct run *r, struct err *e)
{
	if (!r->checkpoints)
		return 0;
	r->checkpoints = false;
	buf_clear(&r->state);
	return tell_checkpoint(r, 0, e);
}

/* --- files --- */

static int count_bytes(struct run *r, uint64_t n, struct err *e)
{
	if (!u64_add(r->p.bytes, n, &r->p.bytes) || r->p.bytes > r->max_bytes)
		return err_set(e, CODE_SPACE, "the layer unpacks to more than %llu bytes",
			       (unsigned long long)r->max_bytes);
	return 0;
}

/* Holes cost no disk and no bytes of the layer, but each of their bytes is hashed. */
static int count_holes(struct run *r, uint64_t n, struct err *e)
{
	if (!u64_add(r->holes, n, &r->holes) ||
	    (r->holes > LIMIT_HOLES && r->holes / LIMIT_EXPANSION > decoder_in(r->dec)))
		return err_set(e, CODE_UNSAFE, "the holes of sparse files in the layer are larger than those of any real one");
	return 0;
}

/* Bytes that the map of a sparse entry promises. false: no map, the entry is not sparse. */
static bool sparse_bytes(struct archive_entry *en, uint64_t *ret)
{
	la_int64_t off, n;

	*ret = 0;
	if (archive_entry_sparse_count(en) == 0)
		return false;
	archive_entry_sparse_reset(en);
	while (archive_entry_sparse_next(en, &off, &n) == ARCHIVE_OK)
		*ret += (uint64_t)n;
	return true;
}

/* Where libarchive's pointer stands in the layer; 0 = it is a copy of its own. */
static uint64_t place_of(const struct run *r, const void *p)
{
	uintptr_t at = (uintptr_t)p, from = (uintptr_t)r->block;

	return r->block && at >= from && at - from < r->block_n ? r->block_at + (at - from) : 0;
}

static int copy_data(struct run *r, const struct layout_file *f, uint64_t promised, struct err *e)
{
	uint64_t got = 0, at;
	const void *p;
	la_int64_t off;
	size_t n;
	int rc;

	while ((rc = archive_read_data_block(r->tar, &p, &n, &off)) == ARCHIVE_OK) {
		if (off < 0)
			return err_set(e, CODE_INTEGRITY, "the layer's tar archive is damaged");
		if (r->w.sparse && (uint64_t)off > r->w.pos && count_holes(r, (uint64_t)off - r->w.pos, e))
			return -1;
		if (writer_data(&r->w, (uint64_t)off, p, n, e))
			return -1;
		got += n;
		at = place_of(r, p);
		if (at && !r->w.sparse && !r->w.dry && checkpoint_inside(r, f, at + n, e))
			return -1;
	}
	if (rc != ARCHIVE_EOF)
		return fail_tar(r, e);
	if (got != promised)
		return err_set(e, CODE_INTEGRITY, "an entry of the layer's tar archive has less data than it says");
	return r->w.sparse ? count_holes(r, r->w.size - r->w.pos, e) : 0;
}

/* Mode and mtime, within what we keep. */
static void dress(const struct run *r, struct archive_entry *en, struct layout_file *f)
{
	uint32_t mask = r->o->file_mode_mask ? r->o->file_mode_mask & 0777 : 0777;
	int64_t sec = archive_entry_mtime(en);
	long nsec = archive_entry_mtime_nsec(en);

	f->mode = ((uint32_t)archive_entry_perm(en) & mask) | 0400;
	/* Years 1 to 9999; what lies outside is nonsense, and file systems disagree about it. */
	f->has_mtime = archive_entry_mtime_is_set(en) && sec >= INT64_C(-62135596800) && sec < INT64_C(253402300800) &&
		       nsec >= 0 && nsec < 1000000000;
	if (f->has_mtime) {
		f->mtime_sec = sec;
		f->mtime_nsec = (uint32_t)nsec;
	}
}

/* Images: what stands where a later entry comes gives way. Others: only directories may meet. */
static int make_way(struct run *r, const char *path, enum list_is is, struct err *e)
{
	if (is == LIST_NOTHING)
		return 0;
	if (!r->t->image)
		return unpack_unsafe(path, is == LIST_DIR ? "it is a directory of the archive as well" :
			      "the archive has it twice, and not the same", e);
	if (no_more_checkpoints(r, e) || writer_remove(&r->w, path, e))
		return -1;
	unpack_list_drop(&r->list, path);
	return 0;
}

static int add(struct run *r, struct layout_file *f, struct err *e)
{
	int rc = unpack_list_add(&r->list, f, e);

	layout_file_release(f);
	return rc;
}

/* The path of the plan of an entry that is made now; the caller's `path` stays its own. */
static int new_file(const char *path, enum layout_kind kind, struct layout_file *ret, struct err *e)
{
	*ret = (struct layout_file){ .kind = kind, .path = strdup(path) };
	return ret->path ? 0 : err_oom(e);
}

/* Once more the same path: in an archive of files only with the same content. */
static int compare_file(struct run *r, const char *path, size_t other, uint64_t size, uint64_t promised, bool sparse,
			struct err *e)
{
	const struct layout_file *f = &r->list.files[other];
	struct digest digest;

	if (f->kind != LAYOUT_FILE || f->size != size)
		return make_way(r, path, LIST_FILE, e);
	if (writer_begin(&r->w, path, size, sparse, true, e) || copy_data(r, f, promised, e) ||
	    writer_end(&r->w, &digest, e))
		return -1;
	r->p.bytes -= size;
	return digest_equal(&f->digest, &digest) ? 0 : make_way(r, path, LIST_FILE, e);
}

static int take_file(struct run *r, struct archive_entry *en, const char *path, struct err *e)
{
	uint64_t size = (uint64_t)archive_entry_size(en), promised;
	bool sparse = sparse_bytes(en, &promised);
	enum list_is is;
	size_t other;
	struct layout_file f;

	if (archive_entry_size(en) < 0)
		return err_set(e, CODE_INTEGRITY, "the layer's tar archive is damaged");
	if (!sparse)
		promised = size;
	if (unpack_list_look(&r->list, path, &is, &other, e) || count_bytes(r, size, e))
		return -1;
	if (is == LIST_FILE && !r->t->image)
		return compare_file(r, path, other, size, promised, sparse, e);
	if (make_way(r, path, is, e) || new_file(path, LAYOUT_FILE, &f, e))
		return -1;
	f.size = size;
	dress(r, en, &f);
	if (writer_begin(&r->w, path, size, sparse, false, e) || copy_data(r, &f, promised, e) ||
	    writer_end(&r->w, &f.digest, e)) {
		free(f.path);
		return -1;
	}
	return add(r, &f, e);
}

/* --- other entries --- */

static int take_link(struct run *r, const char *path, const char *target, struct err *e)
{
	_cleanup_free_ char *text = NULL;
	struct layout_file f;
	enum list_is is;
	size_t other;

	if (name_target(r->t, path, target, &text, e) || unpack_list_look(&r->list, path, &is, &other, e))
		return -1;
	if (is == LIST_FILE && r->list.files[other].kind == LAYOUT_SYMLINK &&
	    strcmp((const char *)r->list.files[other].data, text) == 0)
		return 0;
	if (make_way(r, path, is, e) || unpack_list_symlink(path, text, &f, e))
		return -1;
	return add(r, &f, e);
}

static int take_dir(struct run *r, const char *path, struct err *e)
{
	struct layout_file f;
	enum list_is is;
	size_t other;

	if (unpack_list_look(&r->list, path, &is, &other, e))
		return -1;
	if (is == LIST_DIR && other != SIZE_MAX)
		return 0;
	if ((is == LIST_FILE && make_way(r, path, is, e)) || new_file(path, LAYOUT_DIR, &f, e))
		return -1;
	digest_of(DIGEST_SHA256, "", 0, &f.digest);
	return add(r, &f, e);
}

/* Which earlier file a hard link means. */
static int find_target(struct run *r, const char *path, const char *target, size_t *ret, struct err *e)
{
	_cleanup_free_ char *to = NULL;
	enum place place;
	enum list_is is;

	if (name_place(r->t, target, &place, &to, e))
		return -1;
	if (place == PLACE_OUTSIDE)
		return err_set(e, CODE_UNSUPPORTED, "a hard link to a file of the image that is not below %s",
			       r->t->subdir);
	if (place != PLACE_ENTRY)
		return unpack_unsafe(path, "a hard link to what is no file", e);
	if (unpack_list_look(&r->list, to, &is, ret, e))
		return -1;
	if (is == LIST_FILE && r->list.files[*ret].kind == LAYOUT_FILE)
		return 0;
	if (is == LIST_NOTHING && !wanted(r, to)) {
		char shown[UNPACK_SHOWN];
		return err_set(e, CODE_UNSUPPORTED, "a wanted file is a hard link to %s, which --include and --exclude leave out",
			       json_show(str_of(to), shown, sizeof(shown)));
	}
	return unpack_unsafe(path, "a hard link to what is no earlier file of the archive", e);
}

static int take_hardlink(struct run *r, const char *path, const char *target, struct err *e)
{
	struct layout_file f;
	enum list_is is;
	size_t to, other;

	if (find_target(r, path, target, &to, e) || unpack_list_look(&r->list, path, &is, &other, e))
		return -1;
	if (is == LIST_FILE && (other == to || (!r->t->image && r->list.files[other].kind == LAYOUT_FILE &&
						digest_equal(&r->list.files[other].digest, &r->list.files[to].digest))))
		return 0;
	/* A directory that gives way must not take the target along. */
	if (is == LIST_DIR)
		return unpack_unsafe(path, "it is a directory of the archive as well", e);
	if (make_way(r, path, is, e) || new_file(path, LAYOUT_FILE, &f, e))
		return -1;
	char *own = f.path;
	f = r->list.files[to];
	f.path = own;
	if (writer_link(&r->w, r->list.files[to].path, path, e)) {
		free(f.path);
		return -1;
	}
	return add(r, &f, e);
}

/* --- one entry --- */

static int take_kind(struct run *r, struct archive_entry *en, const char *path, struct err *e)
{
	const char *link = archive_entry_hardlink(en);
	unsigned type = archive_entry_filetype(en);

	/* Readers disagree about whether data follow such headers: what one skips another takes for the next entry. */
	if ((link || type != AE_IFREG) && archive_entry_size(en) != 0)
		return unpack_unsafe(path, "a link or directory with content", e);
	if (link)
		return take_hardlink(r, path, link, e);
	switch (type) {
	case AE_IFREG:
		return take_file(r, en, path, e);
	case AE_IFDIR:
		return take_dir(r, path, e);
	case AE_IFLNK:
		link = archive_entry_symlink(en);
		return take_link(r, path, link ? link : "", e);
	case AE_IFCHR:
	case AE_IFBLK:
	case AE_IFIFO:
	case AE_IFSOCK:
		return unpack_unsafe(path, "a device, fifo or socket", e);
	default:
		return unpack_unsafe(path, "an entry of unknown type", e);
	}
}

/* Left out by globs. In an image it still ends what earlier entries put there. */
static int leave_out(struct run *r, struct archive_entry *en, const char *path, struct err *e)
{
	enum list_is is;
	size_t other;

	r->p.skipped++;
	if (!r->t->image || (archive_entry_filetype(en) == AE_IFDIR && !archive_entry_hardlink(en)))
		return 0;
	if (unpack_list_look(&r->list, path, &is, &other, e))
		return -1;
	return make_way(r, path, is, e);
}

static int take_entry(struct run *r, struct archive_entry *en, struct err *e)
{
	const char *name = archive_entry_pathname(en);
	_cleanup_free_ char *path = NULL;
	enum place place;

	if (++r->p.entries > LIMIT_ENTRIES)
		return err_set(e, CODE_UNSAFE, "the layer has more entries than any real one");
	if (!name)
		return err_set(e, CODE_INTEGRITY, "an entry of the layer's tar archive has no name");
	if (name_place(r->t, name, &place, &path, e))
		return -1;
	r->p.saw_subdir = r->p.saw_subdir || place == PLACE_ENTRY ||
			  (place == PLACE_ROOT && archive_entry_filetype(en) == AE_IFDIR);
	switch (place) {
	case PLACE_ENTRY:
		break;
	case PLACE_ROOT:
		/* CVE-2021-29136: "." as something else than a directory. */
		if (archive_entry_filetype(en) == AE_IFDIR && archive_entry_size(en) == 0)
			return 0;
		if (!r->t->image || !r->t->subdir || !*r->t->subdir)
			return unpack_unsafe(name, "the top of the archive is no directory", e);
		r->p.skipped++;
		return 0;
	case PLACE_WHITEOUT:
		return unpack_list_whiteout(&r->list, steal_ptr(&path), e);
	default:
		r->p.skipped++;
		return 0;
	}
	r->p.regular += archive_entry_filetype(en) == AE_IFREG || archive_entry_hardlink(en);
	return wanted(r, path) ? take_kind(r, en, path, e) : leave_out(r, en, path, e);
}

/* --- the archive --- */

static bool all_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/*
 * Behind the last entry: the mark, then nothing but padding up to the end of the source. Without a mark nobody can tell
 * whether entries are missing; runtimes take such image layers nevertheless.
 */
static int finish_tar(struct run *r, struct err *e)
{
	uint64_t start = (uint64_t)archive_read_header_position(r->tar), end = (uint64_t)archive_filter_bytes(r->tar, 0);
	const uint8_t *p = r->block;
	size_t n = r->block_n;

	if (end == start && !r->t->image)
		return err_set(e, CODE_INTEGRITY, "the layer's tar archive ends without its end mark");
	end += r->base;
	if (end > r->block_at) {
		size_t used = (size_t)MIN(end - r->block_at, (uint64_t)n);
		p += used;
		n -= used;
	}
	do {
		if (!all_zero(p, n))
			return err_set(e, CODE_INTEGRITY, "something follows the end of the layer's tar archive");
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
		return r->t->image ? 0 : err_set(e, CODE_INTEGRITY, "the layer's tar archive ends too early");
	while ((rc = archive_read_next_header(r->tar, &en)) == ARCHIVE_OK) {
		uint64_t at = r->base + (uint64_t)archive_read_header_position(r->tar);

		if (at % TAR_BLOCK)
			return err_set(e, CODE_INTEGRITY, "the layer's tar archive is damaged");
		if (checkpoint_due(r, at) && checkpoint(r, at, e))
			return -1;
		if (take_entry(r, en, e))
			return -1;
	}
	/* Warnings too: a header that was only half understood may hide what another reader sees. */
	return rc == ARCHIVE_EOF ? finish_tar(r, e) : fail_tar(r, e);
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
		if (f && (writer_data(&r->w, r->w.pos, p, k, e) || checkpoint_inside(r, f, r->base, e)))
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
		return wanted_path(r, r->single) ? 0 : drop_file(r, r->single, e);
	if (!wanted_path(r, r->t->single))
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
	f.path = steal_ptr(&to);
	return add(r, &f, e);
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

/* An uncompressed layer is its own inner tar; hashing it once more is for another algorithm alone. */
static int prepare_inner(struct run *r, struct err *e)
{
	const struct layout_tree *t = r->t;

	if (t->inner.alg == DIGEST_NONE)
		return 0;
	r->hash_inner = t->codec != CODEC_NONE || t->inner.alg != t->digest.alg;
	if (r->hash_inner)
		hasher_init(&r->inner, t->inner.alg);
	else if (!digest_equal(&t->inner, &t->digest))
		return err_set(e, CODE_INTEGRITY, "the layer's digest and that of its content contradict each other");
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
	return err_set(e, CODE_INTEGRITY, "the unpacked layer has the digest %s, not the promised one",
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

	if (find_single(r, e) || prepare_inner(r, e))
		return -1;
	r->checkpoints = r->o->checkpoint && r->t->codec == CODEC_NONE && !r->hash_inner;
	if (r->o->resume && resume(r, e))
		return -1;
	if (!r->dec && decoder_open(&r->dec, r->src, r->t->codec, 0, e))
		return -1;
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

int unpack_run(const struct unpack_source *src, const struct unpack_options *o, struct unpack_result *ret, struct err *e)
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
