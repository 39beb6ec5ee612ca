// SPDX-License-Identifier: Apache-2.0
/*
 * What came out of an archive so far (unpack.h): the files, and a tree of all names on the way to
 * them, so that an entry can be compared with earlier ones, and a directory replaced, in time that
 * does not depend on how many there are.
 */
#include "unpack_internal.h"

#include <string.h>

#define NO_FILE UINT32_MAX

enum node_kind { NODE_DIR = 0, NODE_FILE, NODE_DEAD };

struct list_node {
	uint32_t parent, child, sibling, chain;	/* 0 = none: the root is nobody's child */
	uint32_t file;			/* index, or NO_FILE */
	uint32_t hash;
	uint32_t name;			/* offset in names */
	uint16_t name_n;
	uint8_t kind;
};

void unpack_list_release(struct list *l)
{
	for (size_t i = 0; i < l->n_files; i++)
		layout_file_release(&l->files[i]);
	free(l->files);
	for (size_t i = 0; i < l->n_whiteouts; i++)
		free(l->whiteouts[i]);
	free(l->whiteouts);
	free(l->nodes);
	free(l->buckets);
	free(l->names);
	*l = (struct list){ 0 };
}

/* Room for one more element of an array; `array` points at the pointer to it. */
static int grow(void *array, size_t *cap, size_t n, size_t size, struct err *e)
{
	size_t to = *cap ? *cap * 2 : 16, bytes;
	void *p;

	if (n < *cap)
		return 0;
	memcpy(&p, array, sizeof(p));
	if (!size_mul(to, size, &bytes) || !(p = realloc(p, bytes)))
		return err_oom(e);
	memcpy(array, &p, sizeof(p));
	*cap = to;
	return 0;
}

static int too_many(const char *what, struct err *e)
{
	return err_set(e, CODE_UNSAFE, "the archive has more %s than any real one", what);
}

/* --- the tree of names --- */

static uint32_t hash_of(const struct list *l, uint32_t parent, struct str name)
{
	uint64_t h = l->seed ^ (parent * UINT64_C(0x9e3779b97f4a7c15));

	for (size_t i = 0; i < name.n; i++) {
		h = (h ^ (uint8_t)name.p[i]) * UINT64_C(0xff51afd7ed558ccd);
		h ^= h >> 29;
	}
	return (uint32_t)(h ^ h >> 32);
}

/* 0 = not there. */
static uint32_t child_of(const struct list *l, uint32_t parent, struct str name)
{
	uint32_t h = hash_of(l, parent, name);

	if (l->n_buckets == 0)
		return 0;
	for (uint32_t i = l->buckets[h & (l->n_buckets - 1)]; i; i = l->nodes[i].chain) {
		const struct list_node *n = &l->nodes[i];
		if (n->hash == h && n->parent == parent && n->name_n == name.n &&
		    memcmp(l->names + n->name, name.p, name.n) == 0)
			return i;
	}
	return 0;
}

static int rehash(struct list *l, struct err *e)
{
	size_t n = l->n_buckets ? l->n_buckets * 2 : 64, bytes;
	uint32_t *b;

	if (l->n_nodes < l->n_buckets)
		return 0;
	if (!size_mul(n, sizeof(*b), &bytes) || !(b = malloc(bytes)))
		return err_oom(e);
	memset(b, 0, bytes);
	for (uint32_t i = 1; i < l->n_nodes; i++) {
		struct list_node *node = &l->nodes[i];
		if (node->kind == NODE_DEAD)
			continue;
		node->chain = b[node->hash & (n - 1)];
		b[node->hash & (n - 1)] = i;
	}
	free(l->buckets);
	l->buckets = b;
	l->n_buckets = n;
	return 0;
}

static int add_name(struct list *l, struct str name, uint32_t *ret, struct err *e)
{
	if (l->n_names + name.n > LIMIT_TREE_NAMES)
		return too_many("names", e);
	while (l->n_names + name.n > l->cap_names)
		if (grow(&l->names, &l->cap_names, l->cap_names, 1, e))
			return -1;
	memcpy(l->names + l->n_names, name.p, name.n);
	*ret = (uint32_t)l->n_names;
	l->n_names += name.n;
	return 0;
}

static int add_root(struct list *l, struct err *e)
{
	if (l->n_nodes)
		return 0;
	if (grow(&l->nodes, &l->cap_nodes, 0, sizeof(*l->nodes), e))
		return -1;
	l->nodes[0] = (struct list_node){ .file = NO_FILE };
	l->n_nodes = 1;
	l->seed = sys_random64();
	return 0;
}

static int add_child(struct list *l, uint32_t parent, struct str name, uint32_t *ret, struct err *e)
{
	struct list_node n = {
		.parent = parent,
		.file = NO_FILE,
		.hash = hash_of(l, parent, name),
		.name_n = (uint16_t)name.n,
	};
	uint32_t i = (uint32_t)l->n_nodes;

	if (l->n_nodes >= LIMIT_TREE_NODES)
		return too_many("names", e);
	if (rehash(l, e) || grow(&l->nodes, &l->cap_nodes, l->n_nodes, sizeof(*l->nodes), e) ||
	    add_name(l, name, &n.name, e))
		return -1;
	n.sibling = l->nodes[parent].child;
	n.chain = l->buckets[n.hash & (l->n_buckets - 1)];
	l->nodes[i] = n;
	l->nodes[parent].child = i;
	l->buckets[n.hash & (l->n_buckets - 1)] = i;
	l->n_nodes++;
	*ret = i;
	return 0;
}

/* The first component of *p, which moves behind it and its slash. Paths are clean. */
static struct str component(const char **p)
{
	struct str c = { *p, strcspn(*p, "/") };

	*p += c.n + ((*p)[c.n] == '/');
	return c;
}

/* --- files --- */

static uint32_t find(const struct list *l, const char *path, bool *ret_blocked)
{
	uint32_t at = 0;

	*ret_blocked = false;
	if (l->n_nodes == 0)
		return 0;
	for (const char *p = path; *p;) {
		*ret_blocked = l->nodes[at].kind == NODE_FILE;
		if (*ret_blocked)
			return 0;
		at = child_of(l, at, component(&p));
		if (at == 0)
			return 0;
	}
	return at;
}

int unpack_list_look(struct list *l, const char *path, enum list_is *ret, size_t *ret_file,
		     struct err *e)
{
	bool blocked;
	uint32_t i = find(l, path, &blocked);

	if (blocked)
		return unpack_unsafe(
			path, "an earlier file or link of the archive is one of its directories",
			e);
	*ret_file = SIZE_MAX;
	*ret = LIST_NOTHING;
	if (i == 0)
		return 0;
	*ret = l->nodes[i].kind == NODE_FILE ? LIST_FILE : LIST_DIR;
	if (l->nodes[i].file != NO_FILE)
		*ret_file = l->nodes[i].file;
	return 0;
}

int unpack_list_add(struct list *l, struct layout_file *f, struct err *e)
{
	uint32_t at = 0, next;

	if (l->n_files >= LIMIT_TREE_FILES)
		return too_many("files", e);
	l->path_bytes += strlen(f->path) + (f->data ? f->size : 0);
	if (l->path_bytes > LIMIT_TREE_NAMES)
		return too_many("names", e);
	if (add_root(l, e) || grow(&l->files, &l->cap_files, l->n_files, sizeof(*l->files), e))
		return -1;
	for (const char *p = f->path; *p; at = next) {
		struct str c = component(&p);
		next = child_of(l, at, c);
		if (next == 0 && add_child(l, at, c, &next, e))
			return -1;
	}
	l->nodes[at].kind = f->kind == LAYOUT_DIR ? NODE_DIR : NODE_FILE;
	l->nodes[at].file = (uint32_t)l->n_files;
	l->files[l->n_files++] = *f;
	f->path = NULL;
	f->data = NULL;
	return 0;
}

int unpack_list_whiteout(struct list *l, char *path, struct err *e)
{
	l->path_bytes += strlen(path);
	if ((l->n_whiteouts >= LIMIT_TREE_FILES || l->path_bytes > LIMIT_TREE_NAMES) ?
	    too_many("whiteouts", e) :
	    grow(&l->whiteouts, &l->cap_whiteouts, l->n_whiteouts, sizeof(*l->whiteouts), e)) {
		free(path);
		return -1;
	}
	l->whiteouts[l->n_whiteouts++] = path;
	return 0;
}

static void kill_node(struct list *l, uint32_t i)
{
	struct list_node *n = &l->nodes[i];
	uint32_t *link = &l->buckets[n->hash & (l->n_buckets - 1)];

	if (n->kind == NODE_DEAD)
		return;
	while (*link != i)
		link = &l->nodes[*link].chain;
	*link = n->chain;
	if (n->file != NO_FILE) {
		layout_file_release(&l->files[n->file]);
		l->files[n->file] = (struct layout_file){ 0 };
	}
	n->kind = NODE_DEAD;
	n->file = NO_FILE;
}

/*
 * A name that comes again gets a new node. A dead one is met here once more at most: when its
 * parent dies.
 */
void unpack_list_drop(struct list *l, const char *path)
{
	bool blocked;
	uint32_t top = find(l, path, &blocked), i = top;

	if (top == 0)
		return;
	for (;;) {
		kill_node(l, i);
		if (l->nodes[i].child) {
			uint32_t child = l->nodes[i].child;
			l->nodes[i].child = 0;
			i = child;
			continue;
		}
		while (i != top && !l->nodes[i].sibling)
			i = l->nodes[i].parent;
		if (i == top)
			return;
		i = l->nodes[i].sibling;
	}
}

static bool holds_something(const struct list *l, uint32_t i)
{
	for (uint32_t c = l->nodes[i].child; c; c = l->nodes[c].sibling)
		if (l->nodes[c].kind != NODE_DEAD)
			return true;
	return false;
}

void unpack_list_finish(struct list *l)
{
	size_t kept = 0;

	for (uint32_t i = 1; i < l->n_nodes; i++)
		if (l->nodes[i].kind == NODE_DIR && l->nodes[i].file != NO_FILE &&
		    holds_something(l, i)) {
			free(l->files[l->nodes[i].file].path);
			l->files[l->nodes[i].file].path = NULL;
		}
	for (size_t i = 0; i < l->n_files; i++)
		if (l->files[i].path)
			l->files[kept++] = l->files[i];
	l->n_files = kept;
	free(l->nodes);
	free(l->buckets);
	free(l->names);
	l->nodes = NULL;
	l->buckets = NULL;
	l->names = NULL;
	l->n_nodes = l->cap_nodes = l->n_buckets = l->n_names = l->cap_names = 0;
}

int unpack_list_symlink(const char *path, const char *text, struct layout_file *ret, struct err *e)
{
	size_t n_text = strlen(text);
	char *own_path = strdup(path), *own_text = strdup(text);

	if (!own_path || !own_text) {
		free(own_path);
		free(own_text);
		return err_oom(e);
	}
	*ret = (struct layout_file){
		.kind = LAYOUT_SYMLINK, .path = own_path,
		.data = (const uint8_t *)own_text, .size = n_text,
	};
	digest_of(DIGEST_SHA256, text, n_text, &ret->digest);
	return 0;
}
