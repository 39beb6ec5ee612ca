// SPDX-License-Identifier: Apache-2.0
/*
 * What becomes of one entry of the archive (unpack.h): the policy of kinds, repetitions and
 * filters.
 */
#include <archive.h>
#include <archive_entry.h>
#include <string.h>

#include "json.h"
#include "unpack_internal.h"

/* --- what is wanted --- */

static bool any_glob(const char *const *globs, const char *path)
{
	for (; globs && *globs; globs++)
		if (layout_glob(*globs, path))
			return true;
	return false;
}

bool run_wants(const struct run *r, const char *path)
{
	const struct layout_options *g = r->o->globs;

	return !g || ((!g->include || !g->include[0] || any_glob(g->include, path)) &&
		      !any_glob(g->exclude, path));
}

/* The only file of a tree may still move to `single`: then that name decides. */
static bool wanted(const struct run *r, const char *path)
{
	return run_wants(r, path) ||
	       (r->single && strcmp(path, r->single) == 0 && run_wants(r, r->t->single));
}

/* What libarchive says becomes ours; what the source said before goes first. */
int run_fail_tar(struct run *r, struct err *e)
{
	const char *text = archive_error_string(r->tar);
	char shown[UNPACK_SHOWN];

	if (r->broken)
		return -1;
	if (!text)
		return err_set(e, CODE_INTEGRITY,
			       "the layer's tar archive ends too early or is damaged");
	return err_set(e, CODE_INTEGRITY, "the layer's tar archive is damaged: %s",
		       json_show(str_of(text), shown, sizeof(shown)));
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
		return err_set(e, CODE_UNSAFE,
			       "the holes of sparse files in the layer are larger than those of "
			       "any real one");
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
		if (r->w.sparse && (uint64_t)off > r->w.pos &&
		    count_holes(r, (uint64_t)off - r->w.pos, e))
			return -1;
		if (writer_data(&r->w, (uint64_t)off, p, n, e))
			return -1;
		got += n;
		at = place_of(r, p);
		if (at && !r->w.sparse && !r->w.dry && run_checkpoint_inside(r, f, at + n, e))
			return -1;
	}
	if (rc != ARCHIVE_EOF)
		return run_fail_tar(r, e);
	if (got != promised)
		return err_set(e, CODE_INTEGRITY,
			       "an entry of the layer's tar archive has less data than it says");
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
	f->has_mtime = archive_entry_mtime_is_set(en) && sec >= INT64_C(-62135596800) &&
		       sec < INT64_C(253402300800) && nsec >= 0 && nsec < 1000000000;
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
		return unpack_unsafe(path,
				     is == LIST_DIR ? "it is a directory of the archive as well"
						    : "the archive has it twice, and not the same",
				     e);
	if (run_no_more_checkpoints(r, e) || writer_remove(&r->w, path, e))
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
static int compare_file(struct run *r, const char *path, size_t other, uint64_t size,
			uint64_t promised, bool sparse, struct err *e)
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

	if (name_target(r->t, path, target, &text, e) ||
	    unpack_list_look(&r->list, path, &is, &other, e))
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
static int find_target(struct run *r, const char *path, const char *target, size_t *ret,
		       struct err *e)
{
	_cleanup_free_ char *to = NULL;
	enum place place;
	enum list_is is;

	if (name_place(r->t, target, &place, &to, e))
		return -1;
	if (place == PLACE_OUTSIDE)
		return err_set(e, CODE_UNSUPPORTED,
			       "a hard link to a file of the image that is not below %s",
			       r->t->subdir);
	if (place != PLACE_ENTRY)
		return unpack_unsafe(path, "a hard link to what is no file", e);
	if (unpack_list_look(&r->list, to, &is, ret, e))
		return -1;
	if (is == LIST_FILE && r->list.files[*ret].kind == LAYOUT_FILE)
		return 0;
	if (is == LIST_NOTHING && !wanted(r, to)) {
		char shown[UNPACK_SHOWN];
		return err_set(e, CODE_UNSUPPORTED,
			       "a wanted file is a hard link to %s, which --include and --exclude "
			       "leave out",
			       json_show(str_of(to), shown, sizeof(shown)));
	}
	return unpack_unsafe(path, "a hard link to what is no earlier file of the archive", e);
}

static int take_hardlink(struct run *r, const char *path, const char *target, struct err *e)
{
	struct layout_file f;
	enum list_is is;
	size_t to, other;

	if (find_target(r, path, target, &to, e) ||
	    unpack_list_look(&r->list, path, &is, &other, e))
		return -1;
	if (is == LIST_FILE &&
	    (other == to ||
	     (!r->t->image && r->list.files[other].kind == LAYOUT_FILE &&
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

	/*
	 * Readers disagree about whether data follow such headers: what one skips another takes for
	 * the next entry.
	 */
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

/*
 * Left out by globs. In an image it still ends what earlier entries put there, and what lower layers have below its name: that can only be
 * a directory, as the globs leave out a file of the name there, too.
 */
static int leave_out(struct run *r, struct archive_entry *en, const char *path, struct err *e)
{
	enum list_is is;
	size_t other;

	r->p.skipped++;
	if (!r->t->image || (archive_entry_filetype(en) == AE_IFDIR && !archive_entry_hardlink(en)))
		return 0;
	if (unpack_list_look(&r->list, path, &is, &other, e) || make_way(r, path, is, e))
		return -1;
	if (r->list.n_whiteouts >= LIMIT_LEFT_OUT)
		return 0;
	char *copy = strdup(path);
	return copy ? unpack_list_whiteout(&r->list, copy, e) : err_oom(e);
}

int run_take_entry(struct run *r, struct archive_entry *en, struct err *e)
{
	const char *name = archive_entry_pathname(en);
	_cleanup_free_ char *path = NULL;
	enum place place;

	if (++r->p.entries > LIMIT_ENTRIES)
		return err_set(e, CODE_UNSAFE, "the layer has more entries than any real one");
	if (!name)
		return err_set(e, CODE_INTEGRITY,
			       "an entry of the layer's tar archive has no name");
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
