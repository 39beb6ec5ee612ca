// SPDX-License-Identifier: Apache-2.0
/*
 * What is on the volume already: meta files and ledgers, an index of them by digest, and the
 * ledger of the publication at hand. Also the cache of parent directories.
 */
#include "store_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LEDGER_MAGIC "fetcher-placed 1"
#define LEDGER_LINES 64			/* versions: small files between two writes of the ledger */
#define LEDGER_BYTES (32 * MIB)		/* and content that would have to be hashed again */
#define KNOWN_MAX 4096			/* meta files and ledgers that are looked at */

/* --- parent directories --- */

void dirs_init(struct dirs *d, int root)
{
	*d = (struct dirs){ .root = root };
	pthread_mutex_init(&d->lock, NULL);
}

void dirs_release(struct dirs *d)
{
	for (size_t i = 0; i < DIRS_SLOTS; i++) {
		if (!d->slots[i].path)
			continue;
		free(d->slots[i].path);
		cleanup_close_fn(&d->slots[i].fd);
	}
	pthread_mutex_destroy(&d->lock);
	*d = (struct dirs){ .root = -1 };
}

static struct dirs_slot *dirs_find(struct dirs *d, const char *path, size_t n)
{
	for (size_t i = 0; i < DIRS_SLOTS; i++) {
		struct dirs_slot *s = &d->slots[i];

		if (s->path && strncmp(s->path, path, n) == 0 && !s->path[n])
			return s;
	}
	return NULL;
}

/* The slot longest unused that nobody holds, emptied; NULL = all are held. */
static struct dirs_slot *dirs_evict(struct dirs *d)
{
	struct dirs_slot *best = NULL;

	for (size_t i = 0; i < DIRS_SLOTS; i++) {
		struct dirs_slot *s = &d->slots[i];

		if (!s->path)
			return s;
		if (!s->refs && (!best || s->used < best->used))
			best = s;
	}
	if (best) {
		free(steal_ptr(&best->path));
		cleanup_close_fn(&best->fd);
	}
	return best;
}

static int dirs_get_locked(struct dirs *d, const char *path, size_t n, mode_t make,
			   struct dirs_ref *ret)
{
	struct dirs_slot *s = dirs_find(d, path, n);

	if (!s) {
		_cleanup_free_ char *copy = strndup(path, n);
		int fd = copy ? sys_open_parent(d->root, path, make, &ret->leaf) : -1;

		if (fd < 0)
			return -1;
		s = dirs_evict(d);
		if (!s) {
			ret->fd = fd;
			ret->slot = DIRS_OWN;
			return 0;
		}
		*s = (struct dirs_slot){ .path = steal_ptr(&copy), .fd = fd };
	}
	s->refs++;
	s->used = ++d->clock;
	ret->fd = s->fd;
	ret->slot = (int)(s - d->slots);
	return 0;
}

int dirs_get(struct dirs *d, const char *path, mode_t make, struct dirs_ref *ret)
{
	const char *slash = strrchr(path, '/');
	int rc;

	*ret = (struct dirs_ref){ .dirs = d, .fd = -1, .slot = DIRS_OWN };
	ret->leaf = slash ? slash + 1 : path;
	if (!slash) {
		ret->fd = d->root;
		ret->slot = DIRS_ROOT;
		return 0;
	}
	pthread_mutex_lock(&d->lock);
	rc = dirs_get_locked(d, path, (size_t)(slash - path), make, ret);
	pthread_mutex_unlock(&d->lock);
	return rc;
}

void dirs_put(struct dirs_ref *r)
{
	if (r->slot == DIRS_OWN) {
		cleanup_close_fn(&r->fd);
	} else if (r->slot >= 0) {
		pthread_mutex_lock(&r->dirs->lock);
		r->dirs->slots[r->slot].refs--;
		pthread_mutex_unlock(&r->dirs->lock);
	}
	r->slot = DIRS_OWN;
	r->fd = -1;
}

/* --- ledgers --- */

static bool next_field(struct str *line, char sep, struct str *ret)
{
	const char *end = memchr(line->p, sep, line->n);

	if (!end)
		return false;
	*ret = (struct str){ line->p, (size_t)(end - line->p) };
	line->n -= ret->n + 1;
	line->p = end + 1;
	return true;
}

/* "[KIND ]DIGEST SIZE INO MTIME PATH"; what is torn or odd is skipped. */
static bool ledger_line(struct str line, struct store_file *ret)
{
	struct store_file f = { 0 };
	struct str digest, size, ino, mtime, rest = line;

	for (enum layout_kind k = LAYOUT_SYMLINK; k <= LAYOUT_DIR; k++) {
		if (next_field(&rest, ' ', &digest) && str_eq(digest, meta_kind_word(k))) {
			f.kind = k;
			line = rest;
		}
		rest = line;
	}
	if (!next_field(&line, ' ', &digest) || !digest_parse(digest, &f.digest) ||
	    !next_field(&line, ' ', &size) || !str_u64(size, &f.size) ||
	    !next_field(&line, ' ', &ino) || !str_u64(ino, &f.ino) ||
	    !next_field(&line, ' ', &mtime) ||
	    !mtime_parse(mtime, &f.mtime_sec, &f.mtime_nsec) || !meta_path_ok(line))
		return false;
	f.path = strndup(line.p, line.n);
	if (!f.path)
		return false;
	*ret = f;
	return true;
}

/* First line: "fetcher-placed 1 LAYOUT BOOT". */
static bool ledger_head(struct str line, struct known *k)
{
	const size_t n = strlen(LEDGER_MAGIC " ");
	struct str layout;
	char boot[40];

	if (line.n < n || memcmp(line.p, LEDGER_MAGIC " ", n))
		return false;
	line.p += n;
	line.n -= n;
	if (!next_field(&line, ' ', &layout))
		return false;
	k->layout = str_eq(layout, "versions") ? STORE_VERSIONS : STORE_FLAT;
	sys_boot_id(boot);
	k->trusted = boot[0] && str_eq(line, boot);
	return true;
}

static int by_path_then_line(const void *a, const void *b)
{
	const struct store_file *x = *(struct store_file *const *)a;
	const struct store_file *y = *(struct store_file *const *)b;
	int c = strcmp(x->path, y->path);

	return c ? c : (x > y) - (x < y);
}

/* Sorts by path; of several lines about one file the last one counts. -1 errno. */
static int ledger_sort(struct known *k)
{
	_cleanup_free_ struct store_file **order = calloc(k->n_files + 1, sizeof(*order));
	struct store_file *sorted = calloc(k->n_files + 1, sizeof(*sorted));
	size_t n = 0;

	if (!order || !sorted) {
		free(sorted);
		return errno = ENOMEM, -1;
	}
	for (size_t i = 0; i < k->n_files; i++)
		order[i] = &k->files[i];
	qsort(order, k->n_files, sizeof(*order), by_path_then_line);
	for (size_t i = 0; i < k->n_files; i++) {
		if (i + 1 < k->n_files && strcmp(order[i]->path, order[i + 1]->path) == 0)
			free(order[i]->path);
		else
			sorted[n++] = *order[i];
	}
	free(k->files);
	k->files = sorted;
	k->n_files = n;
	return 0;
}

/* 1 = filled, 0 = nothing usable, -1 errno. */
static int ledger_read(int partial_fd, const char *name, struct known *k)
{
	_cleanup_buf_ struct buf b = BUF_INIT(LIMIT_META);
	struct str rest, line;
	size_t lines = 0;

	if (sys_read_file(partial_fd, name, &b) < 0)
		return errno == ENOMEM ? -1 : 0;
	rest = (struct str){ buf_cstr(&b), b.len };
	for (size_t i = 0; i < rest.n; i++)
		lines += rest.p[i] == '\n';
	if (!next_field(&rest, '\n', &line) || !ledger_head(line, k))
		return 0;
	k->ledger = true;
	k->files = calloc(lines + 1, sizeof(*k->files));
	if (!k->files)
		return -1;
	while (next_field(&rest, '\n', &line))
		k->n_files += ledger_line(line, &k->files[k->n_files]);
	return ledger_sort(k) < 0 ? -1 : 1;
}

static void ledger_name(const struct publication *pub, char ret[static VERSION_MAX])
{
	snprintf(ret, VERSION_MAX, "%s" LEDGER_SUFFIX, pub->p->version);
}

int ledger_open(struct store *s)
{
	struct publication *pub = &s->pub;
	char name[VERSION_MAX], boot[40];
	bool fresh;

	ledger_name(pub, name);
	pub->ledger_known = INDEX_SELF;
	for (size_t i = 0; i < s->n_known; i++) {
		const struct known *k = &s->known[i];

		if (k->ledger && k->trusted && k->layout == pub->p->layout &&
		    strcmp(k->version, pub->p->version) == 0)
			pub->ledger_known = (uint32_t)i;
	}
	fresh = pub->ledger_known == INDEX_SELF;
	pub->ledger = BUF_INIT(4 * MIB);
	/* What another boot wrote down is worth nothing now: the files are looked at again. */
	if (fresh && sys_remove_tree(s->partial_fd, name) < 0)
		return -1;
	pub->ledger_fd = sys_open_beneath(s->partial_fd, name, O_WRONLY | O_CREAT | O_APPEND |
					  O_NONBLOCK, 0600);
	if (pub->ledger_fd < 0)
		return -1;
	sys_boot_id(boot);
	if (fresh)
		buf_addf(&pub->ledger, LEDGER_MAGIC " %s %s\n",
			 pub->p->layout == STORE_VERSIONS ? "versions" : "flat", boot);
	else
		buf_addc(&pub->ledger, '\n');	/* ends a torn line */
	ledger_flush(s);
	return 0;
}

void ledger_flush(struct store *s)
{
	struct publication *pub = &s->pub;

	if (pub->ledger_fd < 0 || !pub->ledger.len)
		return;
	/* A short or failed write leaves a torn line, which readers skip. */
	if (write(pub->ledger_fd, pub->ledger.data, pub->ledger.len) < (ssize_t)pub->ledger.len)
		cleanup_close_fn(&pub->ledger_fd);
	buf_clear(&pub->ledger);
	pub->ledger_bytes = 0;
}

bool ledger_lost(const struct store *s)
{
	return s->pub.ledger_fd < 0 || s->pub.ledger.failed;
}

void ledger_add(struct store *s, size_t file)
{
	struct publication *pub = &s->pub;
	const struct store_file *f = &pub->placed[file], *was = NULL;
	const char *kind = meta_kind_word(f->kind);
	char digest[DIGEST_STR_MAX];

	if (pub->ledger_known != INDEX_SELF)
		was = known_file(&s->known[pub->ledger_known], f->path);
	if (was && was->kind == f->kind && was->size == f->size && was->ino == f->ino &&
	    was->mtime_sec == f->mtime_sec && was->mtime_nsec == f->mtime_nsec)
		return;
	buf_addf(&pub->ledger, "%s%s%s %llu %llu %lld.%09u %s\n", kind ? kind : "", kind ? " " : "",
		 digest_format(&f->digest, ':', digest), (unsigned long long)f->size,
		 (unsigned long long)f->ino, (long long)f->mtime_sec, f->mtime_nsec, f->path);
	pub->ledger_bytes += MIN(f->size, (uint64_t)LEDGER_BYTES) + LEDGER_BYTES / LEDGER_LINES;
	/* flat: after a kill the ledger is all that tells our files from somebody else's */
	if (pub->p->layout == STORE_FLAT || pub->ledger_bytes >= LEDGER_BYTES)
		ledger_flush(s);
}

/* --- known versions --- */

static void known_release(struct known *k)
{
	free(k->version);
	for (size_t i = 0; i < k->n_files; i++) {
		free(k->files[i].path);
		free(k->files[i].target);
	}
	free(k->files);
	*k = (struct known){ 0 };
}

void known_forget(struct store *s)
{
	for (size_t i = 0; i < s->n_known; i++)
		known_release(&s->known[i]);
	free(s->known);
	s->known = NULL;
	s->n_known = 0;
	s->known_loaded = false;
	free(s->entries);
	s->entries = NULL;
	free(s->slots);
	s->slots = NULL;
	s->n_entries = s->cap_entries = s->n_slots = 0;
}

static int known_push(struct store *s, struct known *k)
{
	struct known *more = realloc(s->known, (s->n_known + 1) * sizeof(*more));

	if (!more)
		return errno = ENOMEM, -1;
	s->known = more;
	s->known[s->n_known++] = *k;
	return 0;
}

bool name_stem(const char *name, const char *suffix, char ret[static VERSION_MAX])
{
	size_t n = strlen(name), k = strlen(suffix);

	if (n <= k || n - k >= VERSION_MAX || strcmp(name + n - k, suffix))
		return false;
	memcpy(ret, name, n - k);
	ret[n - k] = 0;
	return store_version_ok(ret);
}

static int load_meta(void *arg, int dirfd, const char *name)
{
	struct store *s = arg;
	struct store_meta m;
	struct known k = { 0 };
	char version[VERSION_MAX];
	int rc;

	if (s->n_known >= KNOWN_MAX || !name_stem(name, META_SUFFIX, version) ||
	    meta_read(dirfd, version, false, &m, NULL) != 1)
		return 0;
	k = (struct known){ .version = strdup(version), .layout = m.layout, .trusted = m.trusted,
			    .files = steal_ptr(&m.files), .n_files = m.n_files };
	m.n_files = 0;
	store_meta_release(&m);
	rc = k.version ? known_push(s, &k) : (errno = ENOMEM, -1);
	if (rc < 0)
		known_release(&k);
	return rc;
}

static int load_ledger(void *arg, int dirfd, const char *name)
{
	struct store *s = arg;
	struct known k = { 0 };
	char version[VERSION_MAX];
	int rc;

	if (s->n_known >= KNOWN_MAX || !name_stem(name, LEDGER_SUFFIX, version))
		return 0;
	rc = ledger_read(dirfd, name, &k);
	if (rc > 0) {
		k.version = strdup(version);
		rc = k.version ? known_push(s, &k) : (errno = ENOMEM, -1);
		if (rc == 0)
			return 0;
	}
	known_release(&k);
	return rc;
}

int known_load(struct store *s, struct err *e)
{
	_cleanup_close_ int meta_fd = -1;

	if (s->known_loaded)
		return 0;
	meta_fd = store_subdir(s, META_DIR, 0);
	if (meta_fd < 0 && errno != ENOENT)
		return store_fail(s, e, "open", TOP_DIR "/" META_DIR);
	if ((meta_fd >= 0 && store_each_name(meta_fd, load_meta, s) < 0) ||
	    (s->partial_fd >= 0 && store_each_name(s->partial_fd, load_ledger, s) < 0)) {
		int saved = errno;

		known_forget(s);
		errno = saved;
		return store_fail(s, e, "read", TOP_DIR);
	}
	s->known_loaded = true;
	return 0;
}

const struct store_file *known_file(const struct known *k, const char *path)
{
	struct store_file key = { .path = (char *)(uintptr_t)path };

	if (!k->n_files)
		return NULL;
	return bsearch(&key, k->files, k->n_files, sizeof(key), meta_compare_files);
}

/* --- index by digest --- */

static const struct store_file *entry_file(const struct store *s, const struct index_entry *en)
{
	if (en->known == INDEX_SELF)
		return &s->pub.placed[en->file];
	return &s->known[en->known].files[en->file];
}

static size_t digest_slot(const struct store *s, const struct digest *d)
{
	uint64_t h;

	memcpy(&h, d->bytes, sizeof(h));
	return (size_t)h & (s->n_slots - 1);
}

static void index_add(struct store *s, uint32_t known, uint32_t file)
{
	struct index_entry en = { known, file };
	size_t at;

	/* Links and directories are nobody's content. */
	if (s->n_entries >= s->cap_entries || entry_file(s, &en)->kind != LAYOUT_FILE)
		return;
	at = digest_slot(s, &entry_file(s, &en)->digest);
	while (s->slots[at])
		at = (at + 1) & (s->n_slots - 1);
	s->entries[s->n_entries++] = en;
	s->slots[at] = (uint32_t)s->n_entries;
}

void index_add_self(struct store *s, size_t file)
{
	if (s->slots)
		index_add(s, INDEX_SELF, (uint32_t)file);
}

int index_build(struct store *s, size_t more, struct err *e)
{
	size_t n = more;

	for (size_t i = 0; i < s->n_known; i++)
		n += s->known[i].n_files;
	free(s->entries);
	free(s->slots);
	s->n_entries = 0;
	for (s->n_slots = 16; s->n_slots < n * 2; s->n_slots *= 2)
		;
	s->cap_entries = n;
	s->entries = calloc(n + 1, sizeof(*s->entries));
	s->slots = calloc(s->n_slots, sizeof(*s->slots));
	if (!s->entries || !s->slots || n >= UINT32_MAX) {
		free(steal_ptr(&s->entries));
		free(steal_ptr(&s->slots));
		s->cap_entries = 0;
		return err_oom(e);
	}
	for (size_t i = 0; i < s->n_known; i++) {
		if (!s->known[i].trusted)
			continue;
		for (size_t k = 0; k < s->known[i].n_files; k++)
			index_add(s, (uint32_t)i, (uint32_t)k);
	}
	return 0;
}

/* Next entry with this digest; *at starts as digest_slot. NULL = no more. */
static const struct index_entry *index_next(const struct store *s, const struct digest *d,
					    size_t *at)
{
	while (s->slots && s->slots[*at]) {
		const struct index_entry *en = &s->entries[s->slots[*at] - 1];

		*at = (*at + 1) & (s->n_slots - 1);
		if (digest_equal(d, &entry_file(s, en)->digest))
			return en;
	}
	return NULL;
}

bool index_same_inode(struct store *s, const struct digest *d, const struct stat *st)
{
	size_t at = digest_slot(s, d);
	const struct index_entry *en;

	while (!s->weak_ino && (en = index_next(s, d, &at)))
		if (store_same(s, entry_file(s, en), st))
			return true;
	return false;
}

static int entry_path(const struct store *s, const struct index_entry *en, struct buf *ret)
{
	const struct store_file *f = entry_file(s, en);
	const struct known *k = en->known == INDEX_SELF ? NULL : &s->known[en->known];
	enum store_layout layout = k ? k->layout : s->pub.p->layout;
	const char *version = k ? k->version : s->pub.p->version;

	buf_clear(ret);
	if (layout == STORE_FLAT)
		return buf_adds(ret, f->path);
	if (k ? !k->ledger : s->pub.complete)
		return buf_addf(ret, CURRENT_PREFIX "%s/%s", version, f->path);
	return buf_addf(ret, TOP_DIR "/" PARTIAL_DIR "/%s" STAGING_SUFFIX "/%s", version, f->path);
}

static bool untouched(struct store *s, const struct store_file *f, const char *path)
{
	_cleanup_dirs_ref_ struct dirs_ref dir = { .slot = DIRS_OWN, .fd = -1 };
	struct stat st;

	return dirs_get(&s->dirs, path, 0, &dir) == 0 &&
	       fstatat(dir.fd, dir.leaf, &st, AT_SYMLINK_NOFOLLOW) == 0 && store_same(s, f, &st);
}

static int find_locked(struct store *s, const struct digest *d, uint64_t size, char **ret_path)
{
	_cleanup_buf_ struct buf path = BUF_INIT(2 * LIMIT_PATH);
	const struct index_entry *en;
	size_t at = digest_slot(s, d);

	while ((en = index_next(s, d, &at))) {
		const struct store_file *f = entry_file(s, en);
		char *found;

		if (f->size != size || entry_path(s, en, &path) < 0 ||
		    !untouched(s, f, path.data))
			continue;
		found = buf_steal(&path);
		if (!found)
			return -1;
		*ret_path = found;
		return 1;
	}
	return 0;
}

int store_find(struct store *s, const struct digest *d, uint64_t size, char **ret_path,
	       struct err *e)
{
	int rc;

	pthread_mutex_lock(&s->lock);
	rc = known_load(s, e);
	if (rc == 0 && !s->slots)
		rc = index_build(s, 0, e);
	if (rc == 0) {
		rc = find_locked(s, d, size, ret_path);
		if (rc < 0)
			err_oom(e);
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}
