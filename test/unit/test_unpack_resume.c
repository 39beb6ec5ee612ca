// SPDX-License-Identifier: Apache-2.0
/* Plain tars taken up again, from every place, and from states that somebody else wrote. */
#include "tar_fixture.h"

#include "unpack_internal.h"

static char *big, *small;
#define BIG 100003
#define SMALL 9001
/* the first byte of `big` in the tape */
#define BIG_AT (5 * 512 + 9216)

static struct unpack_checkpoint last;
static unsigned told, told_inside;

static int remember(void *arg, const struct unpack_checkpoint *c, struct err *e)
{
	(void)arg;
	(void)e;
	buf_release(&last.state);
	last = (struct unpack_checkpoint){ .offset = c->offset, .state = BUF_INIT(LIMIT_UNPACK_STATE) };
	buf_add(&last.state, c->state.data, c->state.len);
	told++;
	told_inside += c->offset > BIG_AT && c->offset < BIG_AT + BIG;
	return 0;
}

static int set_up(void **state)
{
	defaults();
	tar_start();
	last = (struct unpack_checkpoint){ .state = BUF_INIT(LIMIT_UNPACK_STATE) };
	told = told_inside = 0;
	options.checkpoint = remember;
	unpack_checkpoint_bytes = 1;
	if (!big) {
		big = noise(BIG, 7);
		small = noise(SMALL, 8);
	}
	return tree_make(state);
}

static int tear_down(void **state)
{
	unpack_result_release(&result);
	buf_release(&tape);
	buf_release(&last.state);
	return tree_remove(state);
}

static void make_tape(void)
{
	tar_entry("d", '5', NULL);
	tar_bytes("d/small", small, SMALL);
	tar_entry("link", '2', "d/small");
	tar_entry("hard", '1', "d/small");
	tar_bytes("big", big, BIG);
	tar_pax("path", "long/name");
	tar_bytes("x", small, SMALL);
	tar_entry("hollow", '5', NULL);
	tar_pax_many("GNU.sparse.size", "20000", "GNU.sparse.map", "0,10,19990,10", NULL);
	tar_file("sparse", "0123456789abcdefghij");
	tar_bytes("last", big, BIG);
	tar_end();
}

static void is_tape(void)
{
	char *holes = calloc(1, 20000);

	memcpy(holes, "0123456789", 10);
	memcpy(holes + 19990, "abcdefghij", 10);
	assert_int_equal(result.n_files, 8);
	is_bytes("d/small", small, SMALL);
	is_bytes("hard", small, SMALL);
	is_bytes("big", big, BIG);
	is_bytes("last", big, BIG);
	is_bytes("long/name", small, SMALL);
	is_bytes("sparse", holes, 20000);
	is_link("link", "d/small");
	assert_int_equal(file_at("hollow")->kind, LAYOUT_DIR);
	assert_int_equal(file_at("big")->mtime_sec, 1610612736);
	assert_int_equal(result.entries, 9);
	assert_int_equal(result.bytes, 2 * BIG + 2 * SMALL + 20000);
	free(holes);
}

/* A run that ends at byte `at` of the source as a kill would end it, with the last checkpoint in `last`. */
static void interrupted(size_t from, size_t at)
{
	struct tape_source s = { .p = tape.data, .n = tape.len, .at = from, .block = block, .fail_at = at };
	struct unpack_source src = { tape_read, &s };
	struct err e = { 0 };

	options.dirfd = tree_dir;
	tree.size = tape.len;
	assert_int_equal(unpack_run(&src, &options, &result, &e), -1);
	if (e.code != CODE_NETWORK)
		fail_msg("%s", e.msg);
	free(s.last);
}

static int resumed(const struct unpack_checkpoint *c)
{
	struct tape_source s = { .p = tape.data, .n = tape.len, .at = (size_t)MIN(c->offset, (uint64_t)tape.len), .block = block };
	struct unpack_source src = { tape_read, &s };
	int rc;

	options.dirfd = tree_dir;
	options.resume = c;
	unpack_result_release(&result);
	error = (struct err){ 0 };
	rc = unpack_run(&src, &options, &result, &error);
	options.resume = NULL;
	free(s.last);
	return rc;
}

static struct unpack_checkpoint copy_of(const struct unpack_checkpoint *c)
{
	struct unpack_checkpoint copy = { .offset = c->offset, .state = BUF_INIT(LIMIT_UNPACK_STATE) };

	buf_add(&copy.state, c->state.data, c->state.len);
	return copy;
}

static void test_from_everywhere(void **state)
{
	static const size_t blocks[] = { 512, 1000, 4096, 30001 };

	(void)state;
	make_tape();
	for (size_t b = 0; b < ARRAY_SIZE(blocks); b++) {
		block = blocks[b];
		for (size_t at = block; at < tape.len; at += 5003) {
			interrupted(0, at);
			if (last.state.len) {
				/* a second kill on the way from the first */
				struct unpack_checkpoint first = copy_of(&last);
				if (at % 2 && first.offset + 20000 < tape.len) {
					options.resume = &first;
					interrupted((size_t)first.offset, (size_t)first.offset + 20000);
					options.resume = NULL;
				}
				struct unpack_checkpoint c = copy_of(&last);
				if (resumed(&c))
					fail_msg("from %llu: %s", (unsigned long long)c.offset, error.msg);
				is_tape();
				buf_release(&c.state);
				buf_release(&first.state);
			}
			unpack_result_release(&result);
			buf_release(&last.state);
			last = (struct unpack_checkpoint){ .state = BUF_INIT(LIMIT_UNPACK_STATE) };
			tree_again();
		}
	}
	assert_true(told > 100 && told_inside > 20);
}

/* Everything that lies on disk at a checkpoint is what the state says: nothing is only in memory. */
static int bytes_are_there(void *arg, const struct unpack_checkpoint *c, struct err *e)
{
	struct stat st;

	remember(arg, c, e);
	if (c->offset > BIG_AT && c->offset < BIG_AT + BIG) {
		_cleanup_buf_ struct buf b = BUF_INIT(1 << 20);
		size_t done = (size_t)(c->offset - BIG_AT);
		assert_int_equal(fstatat(tree_dir, "big", &st, 0), 0);
		assert_int_equal(sys_read_file(tree_dir, "big", &b), 0);
		assert_true(b.len >= done);
		assert_memory_equal(b.data, big, done);
		told_inside++;
	}
	return 0;
}

static void test_flushed(void **state)
{
	(void)state;
	make_tape();
	options.checkpoint = bytes_are_there;
	block = 4096;
	must_run();
	assert_true(told_inside > 1);
	is_tape();
}

static int refuse(void *arg, const struct unpack_checkpoint *c, struct err *e)
{
	(void)arg;
	(void)c;
	return err_set(e, CODE_DEADLINE, "no time left");
}

static void test_callback_ends_the_run(void **state)
{
	(void)state;
	make_tape();
	options.checkpoint = refuse;
	block = 4096;
	must_fail(CODE_DEADLINE, "no time left");
}

static void test_no_checkpoints_where_none_are_possible(void **state)
{
	(void)state;
	make_tape();
	block = 4096;
	digest_of(DIGEST_SHA512, tape.data, tape.len, &tree.inner);
	must_run(); /* the inner hash has no state that could be kept */
	assert_int_equal(told, 0);
	unpack_checkpoint_bytes = 8 * MIB;
	tree.inner = (struct digest){ 0 };
	tree_again();
	must_run();
	assert_int_equal(told, 0);
}

/* Somebody else's bytes: none may be believed, none may write elsewhere, and ASan looks on. */
static void test_hostile_states(void **state)
{
	(void)state;
	make_tape();
	block = 4096;
	interrupted(0, 60000);
	struct unpack_checkpoint good = copy_of(&last);
	assert_true(good.state.len > 200 && good.offset > BIG_AT && good.offset < BIG_AT + BIG);
	/* cut anywhere, changed anywhere, with a right and with a wrong sum */
	for (size_t i = 0; i < good.state.len; i++) {
		struct unpack_checkpoint c = copy_of(&good);
		c.state.len = i;
		assert_int_equal(resumed(&c), -1);
		if (i)
			assert_true(error.code == CODE_LOCAL && error.retryable);
		c.state.len = good.state.len;
		c.state.data[i] ^= (char)(1 << (i % 8));
		assert_int_equal(resumed(&c), -1);
		assert_true(error.code == CODE_LOCAL && error.retryable);
		if (i < good.state.len - 32) {
			struct digest d;
			digest_of(DIGEST_SHA256, c.state.data, c.state.len - 32, &d);
			memcpy(c.state.data + c.state.len - 32, d.bytes, 32);
			/* some fields may say anything: modes, times, counts, digests */
			if (resumed(&c) == 0)
				for (size_t k = 0; k < result.n_files; k++) {
					char *path = NULL;
					struct err e = { 0 };
					assert_int_equal(layout_check_path(str_of(result.files[k].path), &path, &e), 0);
					free(path);
				}
			unpack_result_release(&result);
		}
		buf_release(&c.state);
		assert_false(on_disk("../fetcher-unpack-must-not-be"));
		tree_again();
		interrupted(0, 60000);
	}
	/* other places, other trees */
	struct unpack_checkpoint c = copy_of(&good);
	c.offset += 512;
	assert_int_equal(resumed(&c), -1);
	c.offset = UINT64_MAX;
	assert_int_equal(resumed(&c), -1);
	c.offset = good.offset;
	tree.key = (char *)"other globs";
	assert_int_equal(resumed(&c), -1);
	assert_non_null(strstr(error.msg, "something else"));
	tree.key = (char *)"key";
	tree.digest.bytes[0] ^= 1;
	assert_int_equal(resumed(&c), -1);
	tree.digest.bytes[0] ^= 1;
	if (resumed(&c))
		fail_msg("%s", error.msg);
	is_tape();
	buf_release(&c.state);
	buf_release(&good.state);
}

static void shorten(const char *path, off_t size)
{
	int fd = openat(tree_dir, path, O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0 && ftruncate(fd, size) == 0);
	close(fd);
}

static void test_changed_disk(void **state)
{
	(void)state;
	make_tape();
	block = 4096;
	for (int i = 0; i < 6; i++) {
		tree_again();
		interrupted(0, 60000);
		struct unpack_checkpoint c = copy_of(&last);
		switch (i) {
		case 0: assert_int_equal(unlinkat(tree_dir, "big", 0), 0); break;
		case 1: assert_int_equal(unlinkat(tree_dir, "d/small", 0), 0); break;
		case 2: shorten("big", 10); break;
		case 3: assert_int_equal(unlinkat(tree_dir, "big", 0), 0);
			assert_int_equal(symlinkat("/etc/passwd", tree_dir, "big"), 0); break;
		case 4: shorten("d/small", SMALL - 1); break;
		case 5: assert_int_equal(unlinkat(tree_dir, "big", 0), 0);
			assert_int_equal(mkfifoat(tree_dir, "big", 0600), 0); break;
		}
		assert_int_equal(resumed(&c), -1);
		assert_int_equal(error.code, CODE_LOCAL);
		/* from the start, over what lies there */
		struct unpack_checkpoint start = { 0 };
		if (resumed(&start))
			fail_msg("%d: %s", i, error.msg);
		is_tape();
		buf_release(&c.state);
	}
}

/* A later entry takes a file's place: no older checkpoint may be used after that. */
static void test_replaced_in_an_image(void **state)
{
	(void)state;
	tree.image = true;
	tar_bytes("a", big, BIG);
	tar_file("f", "first");
	tar_bytes("b", big, BIG);
	tar_file("f", "other");
	tar_bytes("c", big, BIG);
	tar_entry("hard", '1', "f");
	tar_end();
	block = 4096;
	for (size_t at = 4096; at < tape.len; at += 9001) {
		interrupted(0, at);
		struct unpack_checkpoint c = copy_of(&last);
		if (at > 2 * BIG + 8192)
			assert_true(c.offset == 0 && c.state.len == 0);
		if (resumed(&c))
			fail_msg("at %zu: %s", at, error.msg);
		is_text("f", "other");
		is_text("hard", "other");
		is_bytes("c", big, BIG);
		buf_release(&c.state);
		buf_release(&last.state);
		last = (struct unpack_checkpoint){ .state = BUF_INIT(LIMIT_UNPACK_STATE) };
		tree_again();
	}
}

static int free_all(void **state)
{
	(void)state;
	free(big);
	free(small);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
		TEST(test_from_everywhere), TEST(test_flushed), TEST(test_callback_ends_the_run),
		TEST(test_no_checkpoints_where_none_are_possible), TEST(test_hostile_states), TEST(test_changed_disk),
		TEST(test_replaced_in_an_image),
	};

	return cmocka_run_group_tests(tests, NULL, free_all);
}
