// SPDX-License-Identifier: Apache-2.0
// ldflags: -Wl,--wrap=fdatasync,--wrap=sync_file_range
/* The blob on disk: any order of writes, any place to stop, hostile journals. */
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
#include <unistd.h>

#include <cmocka.h>

#include "blob.h"

#define SIZE 300000
static uint8_t data[SIZE], scratch[65536];
static struct digest digest;
static int dir = -1;
static char dir_name[64];
static const struct blob_options journaled = { .journal = true, .sync = true };

/* A disk that fails: the calls below say EIO while this is set. */
static bool broken;
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
	return broken ? errno = EIO, -1 : __real_fdatasync(fd);
}
int __real_sync_file_range(int fd, off_t from, off_t n, unsigned flags);
int __wrap_sync_file_range(int fd, off_t from, off_t n, unsigned flags)
{
	return broken ? errno = EIO, -1 : __real_sync_file_range(fd, from, n, flags);
}

static int set_up(void **state)
{
	uint32_t x = 1;

	(void)state;
	for (size_t i = 0; i < SIZE; i++)
		data[i] = (uint8_t)((x = x * 1664525u + 1013904223u) >> 24);
	digest_of(DIGEST_SHA256, data, SIZE, &digest);
	snprintf(dir_name, sizeof(dir_name), "/tmp/fetcher-blob-XXXXXX");
	assert_non_null(mkdtemp(dir_name));
	dir = open(dir_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir < 0;
}

static int tear_down(void **state)
{
	(void)state;
	close(dir);
	int tmp = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int failed = sys_remove_tree(tmp, dir_name + 5);
	close(tmp);
	return failed;
}

static struct blob *must_open(const struct blob_options *o)
{
	struct blob *b;
	struct err e = { 0 };

	if (blob_open(&b, dir, &digest, SIZE, o, &e))
		fail_msg("%s", e.msg);
	return b;
}

static void put(struct blob *b, uint64_t from, uint64_t to)
{
	struct err e = { 0 };

	uint64_t fresh;
	if (blob_write(b, from, data + from, to - from, &fresh, &e))
		fail_msg("%s", e.msg);
}

static void hash_all(struct blob *b)
{
	struct err e = { 0 };

	while (blob_hash_some(b, 50000, scratch, 1000, &e) == 1)
		;
}

static void must_be_right(struct blob *b)
{
	struct err e = { 0 };
	struct stat st;

	hash_all(b);
	if (blob_verdict(b, &e) != 1)
		fail_msg("%s", e.msg);
	assert_int_equal(fstat(blob_fd(b), &st), 0);
	assert_int_equal(st.st_size, SIZE);
	uint8_t *back = malloc(SIZE);
	assert_int_equal(sys_pread_full(blob_fd(b), back, SIZE, 0), SIZE);
	assert_memory_equal(back, data, SIZE);
	free(back);
}

static void any_order_and_duplicates(void **state)
{
	struct blob *b = must_open(&journaled);
	struct err e = { 0 };
	uint8_t lie[5000];
	uint64_t fresh = 1;

	(void)state;
	put(b, 100000, 200000);
	assert_int_equal(blob_verdict(b, &e), 0);
	put(b, 250001, SIZE);
	put(b, 0, 777);
	assert_int_equal(blob_frontier(b), 777); /* hashed from memory on the way */
	/* what is there is never overwritten, not even by other bytes */
	memset(lie, 0xee, sizeof(lie));
	assert_int_equal(blob_write(b, 100, lie, 600, &fresh, &e), 0);
	assert_int_equal(fresh, 0);
	assert_int_equal(blob_write(b, 150000, lie, sizeof(lie), &fresh, &e), 0);
	put(b, 500, 120000); /* overlaps both ends */
	put(b, 190000, 260000);
	assert_int_equal(blob_done_bytes(b), SIZE);
	must_be_right(b);
	blob_close(b, false);
	assert_int_equal(faccessat(dir, "sha256-", F_OK, 0), -1);
}

static void beyond_the_size_is_refused(void **state)
{
	struct blob *b = must_open(&journaled);
	struct err e = { 0 };
	uint64_t fresh;

	(void)state;
	assert_int_equal(blob_write(b, SIZE - 10, data, 11, &fresh, &e), -1);
	assert_int_equal(e.code, CODE_INTEGRITY);
	assert_int_equal(blob_write(b, UINT64_MAX - 3, data, 10, &fresh, &e), -1);
	blob_close(b, false);
}

static void wrong_bytes_are_found(void **state)
{
	struct blob *b = must_open(&journaled);
	struct err e = { 0 };

	(void)state;
	data[123456] ^= 1;
	put(b, 0, SIZE);
	data[123456] ^= 1;
	hash_all(b);
	assert_int_equal(blob_verdict(b, &e), -1);
	assert_int_equal(e.code, CODE_INTEGRITY);
	assert_int_equal(blob_reset(b, &e), 0);
	assert_int_equal(blob_done_bytes(b), 0);
	put(b, 0, SIZE);
	must_be_right(b);
	blob_close(b, false);
}

static void resumes_where_it_stopped(void **state)
{
	(void)state;
	for (uint64_t cut = 1; cut < SIZE; cut += 29989) {
		struct blob *b = must_open(&journaled);
		put(b, 0, cut);
		put(b, cut + (SIZE - cut) / 2, SIZE);
		blob_close(b, true);
		b = must_open(&journaled);
		assert_int_equal(blob_done_bytes(b), cut + SIZE - (cut + (SIZE - cut) / 2));
		/* the chaining value was kept: at most a block is hashed again */
		assert_true(blob_frontier(b) <= cut && cut - blob_frontier(b) < 64);
		struct span gap;
		assert_true(blob_gap(b, 0, &gap));
		assert_int_equal(gap.start, cut);
		put(b, gap.start, gap.end);
		must_be_right(b);
		blob_close(b, false);
	}
}

/* Changes `len` bytes at `at` of both journal slots. */
static void poke_journal(off_t at, const void *p, size_t len)
{
	char name[256], d[DIGEST_STR_MAX];

	snprintf(name, sizeof(name), "%s.journal", digest_format(&digest, '-', d));
	int fd = openat(dir, name, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	for (off_t slot = 0; slot < 2; slot++)
		assert_int_equal(pwrite(fd, p, len, slot * 4096 + at), (ssize_t)len);
	close(fd);
}

static void a_damaged_journal_counts_for_nothing(void **state)
{
	static const uint8_t junk[16] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

	(void)state;
	for (off_t at = 0; at < 4000; at += 37) {
		struct blob *b = must_open(&journaled);
		put(b, 0, 1000);
		blob_close(b, true);
		poke_journal(at, junk, sizeof(junk));
		b = must_open(&journaled);
		assert_int_equal(blob_done_bytes(b), 0);
		put(b, 0, SIZE);
		must_be_right(b);
		blob_close(b, false);
	}
}

static void a_torn_record_leaves_the_one_before(void **state)
{
	struct err e;
	char name[256], d[DIGEST_STR_MAX];
	uint8_t zero[4096] = { 0 };

	(void)state;
	snprintf(name, sizeof(name), "%s.journal", digest_format(&digest, '-', d));
	for (int slot = 0; slot < 2; slot++) {
		struct blob *b = must_open(&journaled);
		put(b, 0, 1000);
		assert_int_equal(blob_maintain(b, sys_now_ms() + 5000, &e), 0);
		put(b, 1000, 2000);
		assert_int_equal(blob_maintain(b, sys_now_ms() + 20000, &e), 0);
		put(b, 2000, 3000);
		blob_close(b, true);
		int fd = openat(dir, name, O_WRONLY | O_CLOEXEC);
		assert_int_equal(pwrite(fd, zero, sizeof(zero), slot * 4096), sizeof(zero));
		close(fd);
		b = must_open(&journaled);
		assert_true(blob_done_bytes(b) >= 1000);
		put(b, 0, SIZE);
		must_be_right(b);
		blob_close(b, false);
	}
}

static void another_boot_trusts_only_what_was_synced(void **state)
{
	struct err e = { 0 };
	struct blob *b = must_open(&journaled);

	(void)state;
	put(b, 0, 100000);
	assert_int_equal(blob_maintain(b, sys_now_ms() + 60000, &e), 0); /* fdatasync is due */
	put(b, 100000, 150000);
	blob_close(b, true);
	/* as if the machine had restarted: what this process reads as its boot id is another one */
	sys_boot_id_override = "00000000-0000-0000-0000-000000000000";
	b = must_open(&journaled);
	assert_int_equal(blob_done_bytes(b), 100000);
	assert_int_equal(blob_frontier(b), 0); /* hashed again */
	put(b, 100000, SIZE);
	must_be_right(b);
	blob_close(b, false);
	sys_boot_id_override = NULL;
}

static void a_file_of_another_size_or_inode_starts_over(void **state)
{
	char d[DIGEST_STR_MAX];
	struct blob *b = must_open(&journaled);

	(void)state;
	put(b, 0, 1000);
	blob_close(b, true);
	int fd = openat(dir, digest_format(&digest, '-', d), O_WRONLY | O_CLOEXEC);
	assert_int_equal(ftruncate(fd, SIZE - 1), 0);
	close(fd);
	b = must_open(&journaled);
	assert_int_equal(blob_done_bytes(b), 0);
	put(b, 0, 1000);
	blob_close(b, true);
	/* a stranger's file of the right size under the name; the old one is kept so that its inode is not used again */
	assert_int_equal(renameat(dir, d, dir, "kept"), 0);
	fd = openat(dir, d, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	close(fd);
	b = must_open(&journaled);
	assert_int_equal(blob_done_bytes(b), 0);
	put(b, 0, SIZE);
	must_be_right(b);
	blob_close(b, false);
	unlinkat(dir, "kept", 0);
}

/* The cut file keeps its inode: killed again before the next record, the old one must not speak for the zeros. */
static void a_file_that_starts_over_has_no_journal(void **state)
{
	const struct blob_options quiet = { .journal = true };
	char d[DIGEST_STR_MAX];
	struct blob *b = must_open(&quiet);

	(void)state;
	put(b, 0, 128000); /* whole blocks: all of it is in the hash state */
	blob_close(b, true);
	int fd = openat(dir, digest_format(&digest, '-', d), O_WRONLY | O_CLOEXEC);
	assert_int_equal(ftruncate(fd, 0), 0);
	close(fd);
	b = must_open(&quiet);
	assert_int_equal(blob_done_bytes(b), 0);
	blob_close(b, true); /* nothing was written: no record either */
	b = must_open(&quiet);
	assert_int_equal(blob_done_bytes(b), 0);
	put(b, 0, 128000);
	blob_close(b, true);
	/* nor when the next run takes it for a small one, which needs no journal */
	b = must_open(&(struct blob_options){ 0 });
	blob_close(b, true);
	b = must_open(&quiet);
	assert_int_equal(blob_done_bytes(b), 0);
	assert_int_equal(blob_frontier(b), 0);
	put(b, 0, SIZE);
	must_be_right(b);
	blob_close(b, false);
}

/* With write permission anybody can journal the hash state of the right bytes beside wrong ones. */
static void a_hash_state_of_another_uid_is_not_believed(void **state)
{
	char name[2][DIGEST_STR_MAX + 16], d[DIGEST_STR_MAX];

	(void)state;
	if (geteuid())
		skip();
	digest_format(&digest, '-', d);
	snprintf(name[0], sizeof(name[0]), "%s", d);
	snprintf(name[1], sizeof(name[1]), "%s.journal", d);
	for (int i = 0; i < 2; i++) {
		struct blob *b = must_open(&journaled);
		struct err e = { 0 };
		put(b, 0, 128000);
		blob_close(b, true);
		int fd = openat(dir, d, O_WRONLY | O_CLOEXEC);
		assert_int_equal(pwrite(fd, "wrong", 5, 1000), 5);
		close(fd);
		assert_int_equal(fchownat(dir, name[i], 12345, 12345, 0), 0);
		b = must_open(&journaled);
		assert_int_equal(blob_done_bytes(b), 128000);
		assert_int_equal(blob_frontier(b), 0);
		put(b, 128000, SIZE);
		hash_all(b);
		assert_int_equal(blob_verdict(b, &e), -1);
		assert_int_equal(e.code, CODE_INTEGRITY);
		assert_int_equal(blob_reset(b, &e), 0);
		blob_close(b, false);
	}
}

/* After an error of writing back the kernel calls the lost pages clean: the next flush would succeed. */
static void a_failed_flush_ends_all_trust(void **state)
{
	const struct blob_options dropping = { .journal = true, .drop_behind = 1000 };

	(void)state;
	for (int i = 0; i < 2; i++) {
		const struct blob_options *o = i ? &dropping : &journaled;
		struct err e = { 0 };
		struct blob *b = must_open(o);
		put(b, 0, 64000);
		assert_int_equal(blob_maintain(b, sys_now_ms() + 2000, &e), 0);
		put(b, 64000, 128000);
		broken = true;
		assert_int_equal(blob_maintain(b, sys_now_ms() + 60000, &e), -1);
		broken = false;
		assert_int_equal(e.code, CODE_LOCAL);
		assert_int_equal(e.sys_errno, EIO);
		blob_close(b, true);
		b = must_open(o);
		assert_int_equal(blob_done_bytes(b), 0);
		put(b, 0, SIZE);
		must_be_right(b);
		blob_close(b, false);
	}
}

static void a_link_or_a_pipe_under_the_name_is_not_followed(void **state)
{
	char d[DIGEST_STR_MAX];
	struct err e = { 0 };
	struct blob *b;

	(void)state;
	digest_format(&digest, '-', d);
	assert_int_equal(symlinkat("/etc/passwd", dir, d), 0);
	assert_int_equal(blob_open(&b, dir, &digest, SIZE, &journaled, &e), -1);
	assert_int_equal(unlinkat(dir, d, 0), 0);
	assert_int_equal(mkfifoat(dir, d, 0600), 0);
	assert_int_equal(blob_open(&b, dir, &digest, SIZE, &journaled, &e), -1);
	assert_int_equal(unlinkat(dir, d, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_order_and_duplicates),
		cmocka_unit_test(beyond_the_size_is_refused),
		cmocka_unit_test(wrong_bytes_are_found),
		cmocka_unit_test(resumes_where_it_stopped),
		cmocka_unit_test(a_damaged_journal_counts_for_nothing),
		cmocka_unit_test(a_torn_record_leaves_the_one_before),
		cmocka_unit_test(another_boot_trusts_only_what_was_synced),
		cmocka_unit_test(a_file_of_another_size_or_inode_starts_over),
		cmocka_unit_test(a_file_that_starts_over_has_no_journal),
		cmocka_unit_test(a_hash_state_of_another_uid_is_not_believed),
		cmocka_unit_test(a_failed_flush_ends_all_trust),
		cmocka_unit_test(a_link_or_a_pipe_under_the_name_is_not_followed),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
