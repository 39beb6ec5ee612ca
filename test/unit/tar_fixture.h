// SPDX-License-Identifier: Apache-2.0
/*
 * Tar archives made by hand, header by header (POSIX pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format"),
 * and a source that hands them out in blocks. For test_unpack*.c; everything is of one translation unit.
 */
#ifndef TEST_TAR_FIXTURE_H
#define TEST_TAR_FIXTURE_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "sys.h"
#include "unpack.h"

#define MAYBE __attribute__((unused))

/* --- building --- */

static struct buf tape;

static MAYBE void tar_start(void)
{
	buf_release(&tape);
	tape = BUF_INIT((size_t)1 << 30);
}

static void tar_sum(uint8_t h[static 512])
{
	unsigned sum = 0;
	char text[8];

	memset(h + 148, ' ', 8);
	for (int i = 0; i < 512; i++)
		sum += h[i];
	snprintf(text, sizeof(text), "%06o", sum);
	memcpy(h + 148, text, 7);
}

/* An ustar header; size as octal digits. */
static void tar_header(uint8_t h[static 512], const char *name, char type, uint64_t size, const char *link)
{
	char num[13];

	memset(h, 0, 512);
	memcpy(h, name, MIN(strlen(name), (size_t)100));
	memcpy(h + 100, "0000644", 8);
	memcpy(h + 108, "0001750", 8);
	memcpy(h + 116, "0001750", 8);
	snprintf(num, sizeof(num), "%011llo", (unsigned long long)(size & 077777777777));
	memcpy(h + 124, num, 12);
	memcpy(h + 136, "14000000000", 12);
	h[156] = (uint8_t)type;
	if (link)
		memcpy(h + 157, link, MIN(strlen(link), (size_t)100));
	memcpy(h + 257, "ustar\00000", 8);
	tar_sum(h);
}

static void tar_put(const uint8_t h[static 512])
{
	assert_int_equal(buf_add(&tape, h, 512), 0);
}

static void tar_body(const void *p, size_t n)
{
	static const char zeros[512];

	assert_int_equal(buf_add(&tape, p, n), 0);
	assert_int_equal(buf_add(&tape, zeros, -n & 511), 0);
}

static MAYBE void tar_entry(const char *name, char type, const char *link)
{
	uint8_t h[512];

	tar_header(h, name, type, 0, link);
	tar_put(h);
}

static MAYBE void tar_bytes(const char *name, const void *p, size_t n)
{
	uint8_t h[512];

	tar_header(h, name, '0', n, NULL);
	tar_put(h);
	tar_body(p, n);
}

static MAYBE void tar_file(const char *name, const char *text)
{
	tar_bytes(name, text, strlen(text));
}

/* One record of a pax header, which may hold NULs. */
static MAYBE void pax_record(struct buf *b, const char *key, const char *value, size_t n_value)
{
	size_t rest = strlen(key) + n_value + 3, len = rest + 1;
	char num[24];

	while ((size_t)snprintf(num, sizeof(num), "%zu", len) + rest != len)
		len++;
	buf_addf(b, "%zu %s=", len, key);
	buf_add(b, value, n_value);
	buf_addc(b, '\n');
}

static MAYBE void tar_pax_body(char type, const struct buf *b)
{
	uint8_t h[512];

	tar_header(h, "pax", type, b->len, NULL);
	tar_put(h);
	tar_body(b->data, b->len);
}

static MAYBE void tar_pax_n(char type, const char *key, const char *value, size_t n_value)
{
	_cleanup_buf_ struct buf b = BUF_INIT(1 << 20);

	pax_record(&b, key, value, n_value);
	tar_pax_body(type, &b);
}

/* Keys and values, NULL at the end. */
__attribute__((sentinel)) static MAYBE void tar_pax_many(const char *key, ...)
{
	_cleanup_buf_ struct buf b = BUF_INIT(1 << 20);
	va_list ap;

	va_start(ap, key);
	for (; key; key = va_arg(ap, const char *)) {
		const char *value = va_arg(ap, const char *);
		pax_record(&b, key, value, strlen(value));
	}
	va_end(ap);
	tar_pax_body('x', &b);
}

static MAYBE void tar_pax(const char *key, const char *value)
{
	tar_pax_n('x', key, value, strlen(value));
}

static MAYBE void tar_end(void)
{
	static const char zeros[1024];

	assert_int_equal(buf_add(&tape, zeros, sizeof(zeros)), 0);
}

/* --- a place on disk --- */

static char tree_name[64];
static int tree_dir = -1;

static MAYBE int tree_make(void **state)
{
	(void)state;
	snprintf(tree_name, sizeof(tree_name), "/tmp/fetcher-unpack-XXXXXX");
	assert_non_null(mkdtemp(tree_name));
	tree_dir = open(tree_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return tree_dir < 0;
}

static MAYBE int tree_remove(void **state)
{
	(void)state;
	close(tree_dir);
	int tmp = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int failed = sys_remove_tree(tmp, tree_name + 5);
	close(tmp);
	return failed;
}

static MAYBE void tree_again(void)
{
	tree_remove(NULL);
	tree_make(NULL);
}

/* --- the source --- */

struct tape_source {
	const char *p;
	size_t n, at, block, fail_at;	/* block 0 = everything at once; fail_at 0 = never */
	char *last;			/* a copy of its own, so that ASan sees late reads */
};

static MAYBE int tape_read(void *arg, const void **ret, size_t *ret_n, struct err *e)
{
	struct tape_source *s = arg;
	size_t n = MIN(s->n - s->at, s->block ? s->block : s->n);

	free(s->last);
	s->last = NULL;
	if (s->fail_at && s->at >= s->fail_at)
		return err_set(e, CODE_NETWORK, "the line broke");
	*ret_n = n;
	if (n == 0)
		return 0;
	s->last = malloc(n);
	memcpy(s->last, s->p + s->at, n);
	*ret = s->last;
	s->at += n;
	return 0;
}

/* --- running --- */

static struct layout_tree tree;
static struct layout_options globs;
static struct unpack_options options;
static struct unpack_result result;
static struct err error;
static size_t block;

static MAYBE void defaults(void)
{
	unpack_result_release(&result);
	tree = (struct layout_tree){ .prefix = (char *)"", .subdir = (char *)"", .key = (char *)"key" };
	digest_of(DIGEST_SHA256, "layer", 5, &tree.digest);
	globs = (struct layout_options){ 0 };
	options = (struct unpack_options){ .tree = &tree, .globs = &globs };
	block = 0;
}

static MAYBE int run_bytes(const void *p, size_t n)
{
	struct tape_source s = { .p = p, .n = n, .block = block };
	struct unpack_source src = { tape_read, &s };

	unpack_result_release(&result);
	error = (struct err){ 0 };
	options.dirfd = tree_dir;
	tree.size = n;
	int rc = unpack_run(&src, &options, &result, &error);
	free(s.last);
	if (rc)
		assert_true(error.code != CODE_OK && error.msg[0]);
	return rc;
}

static MAYBE int run_tape(void)
{
	return run_bytes(tape.data ? tape.data : "", tape.len);
}

static MAYBE void must_run(void)
{
	if (run_tape())
		fail_msg("%s", error.msg);
}

static MAYBE void must_fail(enum code code, const char *why)
{
	if (run_tape() == 0)
		fail_msg("accepted; expected \"%s\"", why);
	assert_null(result.files);
	if (error.code != code || !strstr(error.msg, why))
		fail_msg("code %d, \"%s\" lacks \"%s\"", (int)error.code, error.msg, why);
}

static MAYBE struct layout_file *file_at(const char *path)
{
	for (size_t i = 0; i < result.n_files; i++)
		if (strcmp(result.files[i].path, path) == 0)
			return &result.files[i];
	fail_msg("%s is not in the result (%zu files)", path, result.n_files);
	return NULL;
}

static MAYBE void is_bytes(const char *path, const void *p, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT((size_t)1 << 30);
	struct layout_file *f = file_at(path);
	struct digest d;

	assert_int_equal(f->kind, LAYOUT_FILE);
	assert_int_equal(f->size, n);
	digest_of(DIGEST_SHA256, p, n, &d);
	assert_true(digest_equal(&d, &f->digest));
	assert_int_equal(sys_read_file(tree_dir, path, &b), 0);
	assert_int_equal(b.len, n);
	if (n)
		assert_memory_equal(b.data, p, n);
}

static MAYBE void is_text(const char *path, const char *text)
{
	is_bytes(path, text, strlen(text));
}

static MAYBE void is_link(const char *path, const char *target)
{
	struct layout_file *f = file_at(path);
	struct digest d;
	struct stat st;

	assert_int_equal(f->kind, LAYOUT_SYMLINK);
	assert_string_equal((const char *)f->data, target);
	assert_int_equal(f->size, strlen(target));
	digest_of(DIGEST_SHA256, target, strlen(target), &d);
	assert_true(digest_equal(&d, &f->digest));
	assert_int_equal(fstatat(tree_dir, path, &st, AT_SYMLINK_NOFOLLOW), -1);
}

static MAYBE bool on_disk(const char *path)
{
	struct stat st;

	return fstatat(tree_dir, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Pseudo-random, not compressible, the same each time. */
static MAYBE char *noise(size_t n, uint32_t seed)
{
	char *p = malloc(n + 1);

	for (size_t i = 0; i < n; i++)
		p[i] = (char)((seed = seed * 1664525u + 1013904223u) >> 24);
	return p;
}

/* Output of a program of this machine that reads `in`. */
static MAYBE void filter(char *const argv[], const void *in, size_t n, struct buf *ret)
{
	char name[] = "/tmp/fetcher-unpack-in-XXXXXX";
	int from = mkstemp(name), out[2];
	char chunk[65536];
	ssize_t k;
	pid_t pid;
	int status;

	assert_true(from >= 0 && unlink(name) == 0);
	assert_int_equal(sys_pwrite_full(from, in, n, 0), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		lseek(from, 0, SEEK_SET);
		dup2(from, 0);
		dup2(out[1], 1);
		execvp(argv[0], argv);
		_exit(127);
	}
	close(out[1]);
	close(from);
	while ((k = read(out[0], chunk, sizeof(chunk))) > 0)
		assert_int_equal(buf_add(ret, chunk, (size_t)k), 0);
	close(out[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

#endif
