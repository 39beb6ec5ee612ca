// SPDX-License-Identifier: Apache-2.0
#include "trees.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory.h"
#include "sys.h"
#include "unpack.h"

#define TREE_SUFFIX ".tree"
#define JOURNAL_SUFFIX ".tree-journal"
#define JOURNAL_MAGIC "fetchtr1"
#define NAME_MAX_BYTES (LAYOUT_TREE_NAME + 32)
#define TAR_SLACK (16 * MIB)	/* headers and padding of a tar are hardly more */
#define JOURNAL_FLOOR (16 * KIB)
#define JOURNAL_SHARE 64	/* a journal may cost this part of what was unpacked since the last one */

/* One layer on its way to being files. */
struct job {
	const struct trees_options *o;
	const struct layout_tree *t;
	char name[LAYOUT_TREE_NAME], dir_name[NAME_MAX_BYTES], journal_name[NAME_MAX_BYTES];
	int dirfd;			/* of the tree directory */
	struct unpack_result result;
	bool ready;			/* result holds the files of a verified layer */
	const struct job *twin;		/* the same layer, with the same outcome, came before (images repeat layers) */
	/* a run that was killed in mid-layer */
	bool resuming, resumed;		/* now; in this try */
	struct unpack_checkpoint resume;
	uint64_t hashed_at;
	uint8_t hash_state[HASHER_STATE_MAX];
	/* while it runs */
	const struct unpack_source *src;
	uint64_t skip;			/* bytes between the hash state and the checkpoint */
	uint64_t journal_at;
};

/* The journal: this head, then `len` bytes of the checkpoint's state. */
struct head {
	char magic[8];
	char boot_id[40];
	uint64_t size, ino, offset, hashed_at, len;
	uint8_t hash_state[HASHER_STATE_MAX];
	uint8_t check[32];		/* sha256 of the head before it, and the state */
};

static void head_check(const struct head *h, const void *state, uint8_t ret[static 32])
{
	struct hasher hash;
	struct digest d;

	hasher_init(&hash, DIGEST_SHA256);
	hasher_update(&hash, h, offsetof(struct head, check));
	hasher_update(&hash, state, h->len);
	hasher_final(&hash, &d);
	memcpy(ret, d.bytes, 32);
}

static int partial_fd(const struct job *j)
{
	return store_partial_dirfd(j->o->store);
}

/* --- the tree directory --- */

static int open_dir(struct job *j, struct err *e)
{
	if (mkdirat(partial_fd(j), j->dir_name, 0700) && errno != EEXIST)
		return err_errno(e, CODE_LOCAL, errno, "cannot make .fetcher/partial/%s", j->dir_name);
	j->dirfd = sys_open_beneath(partial_fd(j), j->dir_name, O_RDONLY | O_DIRECTORY, 0);
	/* something else under the name: the directory is ours alone, so it goes */
	if (j->dirfd < 0 && (errno == ELOOP || errno == ENOTDIR) &&
	    sys_remove_tree(partial_fd(j), j->dir_name) == 0 && mkdirat(partial_fd(j), j->dir_name, 0700) == 0)
		j->dirfd = sys_open_beneath(partial_fd(j), j->dir_name, O_RDONLY | O_DIRECTORY, 0);
	if (j->dirfd < 0)
		return err_errno(e, CODE_LOCAL, errno, "cannot open .fetcher/partial/%s", j->dir_name);
	return 0;
}

static int clear_dir(struct job *j, struct err *e)
{
	cleanup_close_fn(&j->dirfd);
	unlinkat(partial_fd(j), j->journal_name, 0);
	if (sys_remove_tree(partial_fd(j), j->dir_name))
		return err_errno(e, CODE_LOCAL, errno, "cannot remove .fetcher/partial/%s", j->dir_name);
	unpack_result_release(&j->result);
	j->resuming = false;
	return open_dir(j, e);
}

/* --- the journal --- */

static bool journal_read(struct job *j)
{
	_cleanup_buf_ struct buf text = BUF_INIT(LIMIT_META);
	char boot_id[40];
	uint8_t check[32];
	struct head h;
	struct stat st;
	_cleanup_close_ int fd = sys_open_beneath(partial_fd(j), j->journal_name, O_RDONLY | O_NONBLOCK, 0);

	/* as a blob's journal: a hash state is believed only in a file of our own */
	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_uid != geteuid() ||
	    sys_read_file(partial_fd(j), j->journal_name, &text) || text.len < sizeof(h))
		return false;
	memcpy(&h, text.data, sizeof(h));
	if (memcmp(h.magic, JOURNAL_MAGIC, 8) || h.len != text.len - sizeof(h))
		return false;
	head_check(&h, text.data + sizeof(h), check);
	if (memory_is_network_fs(fd))
		return false;
	sys_boot_id(boot_id);
	h.boot_id[sizeof(h.boot_id) - 1] = '\0';
	if (memcmp(check, h.check, 32) || !*boot_id || strcmp(boot_id, h.boot_id) || h.size != j->t->size ||
	    h.hashed_at > h.offset || h.offset > h.size || fstat(j->dirfd, &st) || h.ino != st.st_ino)
		return false;
	j->resume.offset = h.offset;
	buf_init(&j->resume.state, LIMIT_META);
	if (buf_add(&j->resume.state, text.data + sizeof(h), h.len))
		return false;
	j->hashed_at = h.hashed_at;
	memcpy(j->hash_state, h.hash_state, sizeof(h.hash_state));
	return true;
}

/* What was unpacked so far survives a kill; a restart of the machine makes it void (boot id), so nothing is flushed. */
static int on_checkpoint(void *arg, const struct unpack_checkpoint *c, struct err *e)
{
	struct job *j = arg;
	_cleanup_buf_ struct buf text = BUF_INIT(LIMIT_META);
	struct head h = { .size = j->t->size, .offset = c->offset, .len = c->state.len };
	struct stat st;

	/* nothing can be taken up again: what the journal lists has been replaced */
	if (c->offset == 0) {
		if (unlinkat(partial_fd(j), j->journal_name, 0) && errno != ENOENT)
			return err_errno(e, CODE_LOCAL, errno, "cannot remove .fetcher/partial/%s", j->journal_name);
		j->journal_at = 0;
		return 0;
	}
	if (c->state.len > (c->offset - j->journal_at) / JOURNAL_SHARE + JOURNAL_FLOOR ||
	    transfer_stream_state(j->src, c->offset, &h.hashed_at, h.hash_state) || fstat(j->dirfd, &st))
		return 0; /* the next one, then */
	memcpy(h.magic, JOURNAL_MAGIC, 8);
	sys_boot_id(h.boot_id);
	h.ino = st.st_ino;
	head_check(&h, c->state.data, h.check);
	buf_add(&text, &h, sizeof(h));
	buf_add(&text, c->state.data, c->state.len);
	if (text.failed)
		return 0;
	j->journal_at = c->offset;
	if (sys_replace_file(partial_fd(j), j->journal_name, text.data, text.len, 0600, false))
		return err_errno(e, CODE_LOCAL, errno, "cannot write .fetcher/partial/%s", j->journal_name);
	return 0;
}

/* --- as a stream of the engine --- */

static int on_start(void *arg, uint64_t *ret_at, uint8_t state[HASHER_STATE_MAX], struct err *e)
{
	struct job *j = arg;

	if (open_dir(j, e))
		return -1;
	j->resuming = j->resumed = j->t->codec == CODEC_NONE && journal_read(j);
	if (!j->resuming) {
		*ret_at = 0;
		return clear_dir(j, e);
	}
	*ret_at = j->hashed_at;
	memcpy(state, j->hash_state, HASHER_STATE_MAX);
	return 0;
}

static int on_again(void *arg, struct err *e)
{
	return clear_dir(arg, e);
}

/* What lies between the hash state and the checkpoint was unpacked already. */
static int read_rest(void *arg, const void **ret, size_t *ret_n, struct err *e)
{
	struct job *j = arg;

	for (;;) {
		const uint8_t *p;
		size_t n;
		if (j->src->read(j->src->arg, (const void **)&p, &n, e))
			return -1;
		size_t cut = (size_t)MIN((uint64_t)n, j->skip);
		j->skip -= cut;
		if (n > cut || n == 0) {
			*ret = p + cut;
			*ret_n = n - cut;
			return 0;
		}
	}
}

static int on_run(void *arg, const struct unpack_source *src, struct err *e)
{
	struct job *j = arg;
	const struct unpack_source rest = { .read = read_rest, .arg = j };
	const struct unpack_options o = {
		.tree = j->t,
		.globs = j->o->globs,
		.dirfd = j->dirfd,
		.max_bytes = j->o->max_bytes,
		.resume = j->resuming ? &j->resume : NULL,
		.checkpoint = on_checkpoint,
		.arg = j,
	};

	j->src = src;
	j->skip = j->resuming ? j->resume.offset - j->hashed_at : 0;
	j->journal_at = j->resuming ? j->resume.offset : 0;
	int rc = unpack_run(&rest, &o, &j->result, e);
	if (rc)
		err_wrap(e, "layer %zu", j->t->layer + 1);
	return rc;
}

/* --- the whole --- */

struct run {
	const struct trees_options *o;
	struct job *jobs;		/* one per tree */
	size_t n;
	size_t *of_item;		/* index of the job */
};

static int on_verified(void *arg, size_t item, struct blob *b, struct err *e)
{
	struct run *r = arg;
	struct job *j = &r->jobs[r->of_item[item]];

	(void)b;
	unlinkat(partial_fd(j), j->journal_name, 0);
	if (store_layer_write(r->o->store, j->name, j->result.files, j->result.n_files,
			      j->result.whiteouts, j->result.n_whiteouts, j->result.saw_subdir, r->o->sync, e))
		return -1;
	j->ready = true;
	return 0;
}

static void on_tick(void *arg)
{
	const struct run *r = arg;

	r->o->tick(r->o->tick_arg);
}

/* Where the content of a file lies below the partial directory. */
static int set_from(const struct job *j, struct layout_file *f, struct err *e)
{
	struct buf path = BUF_INIT(2 * LIMIT_PATH);

	buf_addf(&path, "%s/%s", j->dir_name, f->path);
	f->from = buf_steal(&path);
	return f->from ? 0 : err_oom(e);
}

/* Does the tree directory still hold this file, as it was left? */
static bool in_tree(const struct job *j, const struct layout_file *f)
{
	_cleanup_close_ int fd = sys_open_beneath(j->dirfd, f->path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == f->size &&
	       st.st_uid == geteuid();
}

static int on_volume(const struct job *j, const struct layout_file *f, struct err *e)
{
	char *path = NULL;
	int have = store_find(j->o->store, &f->digest, f->size, &path, e);

	free(path);
	return have;
}

/* 1: a record says what comes of the layer, and all of it is here; 0: it has to be fetched. */
static int take_record(struct job *j, struct err *e)
{
	struct store_layer l = { 0 };
	int have = store_layer_read(j->o->store, j->name, &l, e);

	if (have != 1)
		return have;
	j->dirfd = sys_open_beneath(partial_fd(j), j->dir_name, O_RDONLY | O_DIRECTORY, 0);
	/* what was not flushed outlives a process, not a machine, and not always on a network file system */
	bool kept = l.same_boot && j->dirfd >= 0 && !memory_is_network_fs(j->dirfd);
	for (size_t i = 0; i < l.n_files && have == 1; i++) {
		struct layout_file *f = &l.files[i];
		if (f->kind != LAYOUT_FILE || f->size == 0)
			continue;
		if (kept && in_tree(j, f))
			have = set_from(j, f, e) ? -1 : 1;
		else
			have = on_volume(j, f, e);
	}
	cleanup_close_fn(&j->dirfd);
	if (have == 1) {
		j->result = (struct unpack_result){
			.files = steal_ptr(&l.files), .n_files = l.n_files,
			.whiteouts = steal_ptr(&l.whiteouts), .n_whiteouts = l.n_whiteouts,
			.saw_subdir = l.saw_subdir,
		};
		l.n_files = l.n_whiteouts = 0;
		j->ready = true;
	}
	store_layer_release(&l);
	return have;
}

static int prepare(struct run *r, struct layout *l, uint64_t *ret_reused, struct err *e)
{
	for (size_t i = 0; i < r->n; i++) {
		struct job *j = &r->jobs[i];
		j->o = r->o;
		j->t = &l->trees[i];
		j->dirfd = -1;
		layout_tree_name(j->t, j->name);
		snprintf(j->dir_name, sizeof(j->dir_name), "%s" TREE_SUFFIX, j->name);
		snprintf(j->journal_name, sizeof(j->journal_name), "%s" JOURNAL_SUFFIX, j->name);
		for (size_t k = 0; k < i && !j->twin; k++)
			if (strcmp(r->jobs[k].name, j->name) == 0)
				j->twin = &r->jobs[k];
		int have = j->twin ? 0 : take_record(j, e);
		if (have < 0)
			return -1;
		*ret_reused += have ? j->t->size : 0;
	}
	return 0;
}

/*
 * Told before the first byte: what a whole layer brings is hardly less than the layer. With globs or a subdir, and where a run goes on
 * in mid-layer, nobody knows.
 */
static int check_space(const struct run *r, struct err *e)
{
	const struct layout_options *g = r->o->globs;
	uint64_t need = 0, free_bytes;
	struct stat st;

	if ((g->include && *g->include) || (g->exclude && *g->exclude))
		return 0;
	for (size_t i = 0; i < r->n; i++) {
		const struct job *j = &r->jobs[i];
		if (!j->ready && !j->twin && !*j->t->subdir &&
		    fstatat(partial_fd(j), j->journal_name, &st, AT_SYMLINK_NOFOLLOW))
			need += j->t->size - MIN(j->t->size, TAR_SLACK);
	}
	if (sys_free_bytes(partial_fd(&r->jobs[0]), &free_bytes))
		return err_errno(e, CODE_LOCAL, errno, "cannot ask the volume for its free space");
	if (need > free_bytes)
		return err_set(e, CODE_SPACE, "the volume has %llu bytes free, the layers to unpack have %llu; use a "
			       "larger volume or --include less", (unsigned long long)free_bytes,
			       (unsigned long long)need);
	if (r->o->max_bytes && need > r->o->max_bytes)
		return err_set(e, CODE_SPACE, "the layers to unpack have %llu bytes, --max-bytes allows %llu",
			       (unsigned long long)need, (unsigned long long)r->o->max_bytes);
	return 0;
}

static int fetch(struct run *r, struct transfer_stats *stats, struct err *e)
{
	_cleanup_free_ struct transfer_item *items = calloc(r->n + 1, sizeof(*items));
	_cleanup_free_ struct transfer_stream *streams = calloc(r->n + 1, sizeof(*streams));
	struct transfer_options o = *r->o->transfer;
	size_t n = 0;

	if (!items || !streams)
		return err_oom(e);
	for (size_t i = 0; i < r->n; i++) {
		struct job *j = &r->jobs[i];
		if (j->ready || j->twin)
			continue;
		streams[n] = (struct transfer_stream){ .start = on_start, .run = on_run, .again = on_again, .arg = j };
		items[n] = (struct transfer_item){
			.digest = j->t->digest,
			.size = j->t->size,
			.stream = &streams[n],
		};
		r->of_item[n++] = i;
	}
	o.verified = on_verified;
	o.tick = on_tick;
	o.arg = r;
	return transfer_run(r->o->http, items, n, &o, stats, e);
}

static int copy_file(const struct layout_file *f, struct layout_file *to, struct err *e)
{
	*to = *f;
	to->path = strdup(f->path);
	to->from = f->from ? strdup(f->from) : NULL;
	uint8_t *data = f->data ? malloc(f->size) : NULL;
	if (data)
		memcpy(data, f->data, f->size);
	to->data = data;
	return to->path && !to->from == !f->from && !data == !f->data ? 0 : err_oom(e);
}

/* What a layer became, once more: layout_merge takes the first ones away. */
static int copy_result(const struct unpack_result *u, struct unpack_result *to, struct err *e)
{
	to->saw_subdir = u->saw_subdir;
	to->files = calloc(u->n_files + 1, sizeof(*to->files));
	to->whiteouts = calloc(u->n_whiteouts + 1, sizeof(*to->whiteouts));
	if (!to->files || !to->whiteouts)
		return err_oom(e);
	for (; to->n_files < u->n_files; to->n_files++)
		if (copy_file(&u->files[to->n_files], &to->files[to->n_files], e))
			return -1;
	for (; to->n_whiteouts < u->n_whiteouts; to->n_whiteouts++)
		if (!(to->whiteouts[to->n_whiteouts] = strdup(u->whiteouts[to->n_whiteouts])))
			return err_oom(e);
	return 0;
}

static int find_content(const struct job *j, struct err *e)
{
	for (size_t k = 0; k < j->result.n_files && j->dirfd >= 0; k++) {
		struct layout_file *f = &j->result.files[k];
		if (f->kind == LAYOUT_FILE && f->size && !f->from && set_from(j, f, e))
			return -1;
	}
	return 0;
}

/* In layer order: what a later layer of an image brings or removes wins. */
static int merge(struct run *r, struct layout *l, struct err *e)
{
	for (size_t i = 0; i < r->n; i++) {
		struct job *j = &r->jobs[i];
		if (!j->twin && find_content(j, e))
			return -1;
	}
	for (size_t i = 0; i < r->n; i++) {
		struct job *j = &r->jobs[i];
		if (j->twin && copy_result(&j->twin->result, &j->result, e))
			return -1;
	}
	for (size_t i = 0; i < r->n; i++) {
		struct unpack_result *u = &r->jobs[i].result;
		if (layout_merge(l, i, u->files, u->n_files, u->whiteouts, u->n_whiteouts, e))
			return -1;
		/* what lies outside the subdir of an image was not left out by anybody's wish */
		if (!*l->trees[i].subdir)
			l->n_excluded += u->skipped;
	}
	return layout_finish(l, e);
}

/* What an earlier run left in mid-layer was damaged meanwhile: those layers start over. */
static bool forget_resumed(struct run *r)
{
	bool some = false;

	for (size_t i = 0; i < r->n; i++) {
		struct job *j = &r->jobs[i];
		if (!j->resumed || j->ready)
			continue;
		unlinkat(partial_fd(j), j->journal_name, 0);
		cleanup_close_fn(&j->dirfd);
		buf_release(&j->resume.state);
		unpack_result_release(&j->result);
		j->resuming = false;
		some = true;
	}
	return some;
}

int trees_unpack(struct layout *l, const struct trees_options *o, struct transfer_stats *stats, uint64_t *ret_reused,
		 struct err *e)
{
	struct run r = { .o = o, .n = l->n_trees };

	r.jobs = calloc(r.n + 1, sizeof(*r.jobs));
	r.of_item = calloc(r.n + 1, sizeof(*r.of_item));
	int rc = r.jobs && r.of_item ? 0 : err_oom(e);
	if (rc == 0)
		rc = prepare(&r, l, ret_reused, e) || check_space(&r, e) ? -1 : 0;
	if (rc == 0) {
		rc = fetch(&r, stats, e);
		if (rc && e->code == CODE_LOCAL && forget_resumed(&r))
			rc = fetch(&r, stats, e);
	}
	if (rc == 0)
		rc = merge(&r, l, e);
	for (size_t i = 0; r.jobs && i < r.n; i++) {
		cleanup_close_fn(&r.jobs[i].dirfd);
		buf_release(&r.jobs[i].resume.state);
		unpack_result_release(&r.jobs[i].result);
	}
	free(r.jobs);
	free(r.of_item);
	return rc;
}
