// SPDX-License-Identifier: Apache-2.0
/*
 * What may come out of an archive and what may not. [A..] are the edge cases of the artifact layouts; CVE numbers name
 * the hole of another unpacker that a test goes after.
 */
#include "tar_fixture.h"

static int set_up(void **state)
{
	defaults();
	tar_start();
	return tree_make(state);
}

static int tear_down(void **state)
{
	unpack_result_release(&result);
	buf_release(&tape);
	return tree_remove(state);
}

/* --- what is accepted --- */

static void test_plain(void **state)
{
	(void)state;
	tar_entry("./", '5', NULL);
	tar_file("./config.json", "{}");	/* "./" is dropped */
	tar_entry("dir/", '5', NULL);
	tar_file("dir/a b.bin", "abc");		/* [A1] */
	tar_file("dir/sub/a b.bin", "def");	/* [A4] same name, another directory */
	tar_file("d\xc3\xa9j\xc3\xa0/\xe6\xa8\xa1.bin", "u");	/* [A2] */
	tar_file(".hidden-x_y", "h");		/* [A3] */
	tar_file("v1..2.bin", "dots");		/* [A16] */
	tar_file("empty", "");			/* [A6] */
	tar_entry("hollow/", '5', NULL);
	tar_end();
	must_run();
	assert_int_equal(result.n_files, 8);
	is_text("config.json", "{}");
	is_text("dir/a b.bin", "abc");
	is_text("dir/sub/a b.bin", "def");
	is_text("d\xc3\xa9j\xc3\xa0/\xe6\xa8\xa1.bin", "u");
	is_text(".hidden-x_y", "h");
	is_text("v1..2.bin", "dots");
	is_text("empty", "");
	assert_int_equal(file_at("hollow")->kind, LAYOUT_DIR);
	assert_int_equal(result.entries, 10);
	assert_int_equal(result.bytes, 2 + 3 + 3 + 1 + 1 + 4);
	struct stat st;
	assert_int_equal(fstatat(tree_dir, "dir", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
}

static void test_every_block_size(void **state)
{
	static const size_t sizes[] = { 0, 1, 7, 511, 512, 513, 1000, 1024, 4096, 65537 };
	char *big = noise(300001, 1);

	(void)state;
	tar_file("a", "abc");
	tar_bytes("big", big, 300001);
	tar_pax("path", "long/name");
	tar_file("short", "def");
	tar_end();
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		tree_make(NULL);
		block = sizes[i];
		must_run();
		is_text("a", "abc");
		is_bytes("big", big, 300001);
		is_text("long/name", "def");
		close(tree_dir);
		tree_dir = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		sys_remove_tree(tree_dir, tree_name + 5);
		close(tree_dir);
	}
	tree_make(NULL);
	free(big);
}

static void test_modes_and_times(void **state)
{
	static const struct { const char *mode; uint32_t want; } modes[] = {
		{ "0000750", 0750 }, { "0000600", 0600 }, { "0000444", 0444 }, { "0000000", 0400 },
		{ "0006755", 0755 }, { "0001777", 0777 }, { "0100644", 0644 },
	};
	uint8_t h[512];
	char name[8];

	(void)state; /* [A22] setuid and sticky dropped, owner can read; [A26] owners never kept */
	umask(077);
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		snprintf(name, sizeof(name), "m%zu", i);
		tar_header(h, name, '0', 0, NULL);
		memcpy(h + 100, modes[i].mode, 8);
		tar_sum(h);
		tar_put(h);
	}
	tar_pax("mtime", "1700000000.123456789"); /* [A23] */
	tar_file("nano", "x");
	tar_pax("mtime", "-1.5");
	tar_file("before", "x");
	tar_pax("mtime", "99999999999999999999");
	tar_file("never", "x");
	tar_header(h, "epoch", '0', 0, NULL);
	memcpy(h + 136, "00000000000", 12);
	tar_sum(h);
	tar_put(h);
	tar_end();
	must_run();
	umask(022);
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		snprintf(name, sizeof(name), "m%zu", i);
		assert_int_equal(file_at(name)->mode, modes[i].want);
	}
	assert_int_equal(file_at("nano")->mtime_sec, 1700000000);
	assert_int_equal(file_at("nano")->mtime_nsec, 123456789);
	assert_true(file_at("epoch")->has_mtime && file_at("epoch")->mtime_sec == 0);
	assert_int_equal(file_at("before")->mtime_sec, -1);
	assert_false(file_at("never")->has_mtime);
	tree_again();
	options.file_mode_mask = 0640;
	must_run();
	assert_int_equal(file_at("m0")->mode, 0640);
}

static void test_long_names(void **state)
{
	char name[181], link[256] = "l/";
	uint8_t h[512];

	(void)state; /* [A29] GNU long name and link, pax path, ustar prefix */
	memset(name, 'n', 180);
	name[90] = '/';
	name[180] = '\0';
	tar_header(h, "././@LongLink", 'L', 181, NULL);
	memcpy(h + 257, "ustar  ", 8);
	tar_sum(h);
	tar_put(h);
	tar_body(name, 181);
	tar_file("cut", "gnu");
	memset(link + 2, 'k', 120);
	tar_header(h, "././@LongLink", 'K', strlen(link) + 1, NULL);
	memcpy(h + 257, "ustar  ", 8);
	tar_sum(h);
	tar_put(h);
	tar_body(link, strlen(link) + 1);
	tar_entry("to-long", '2', "short");
	name[0] = 'p';
	tar_pax("path", name);
	tar_file("cut", "pax");
	tar_header(h, "base", '0', 0, NULL);
	memcpy(h + 345, "pre/fix", 7);
	tar_sum(h);
	tar_put(h);
	tar_end();
	must_run();
	is_text(name, "pax");
	name[0] = 'n';
	is_text(name, "gnu");
	is_link("to-long", link);
	is_text("pre/fix/base", "");
}

static void test_base256_and_huge_sizes(void **state)
{
	uint8_t h[512];

	(void)state; /* [A29] base-256: 9 GiB claimed, 3 bytes there; then a small one that is whole */
	tar_header(h, "huge", '0', 0, NULL);
	memset(h + 124, 0, 12);
	h[124] = 0x80;
	h[131] = 2;
	h[132] = 0x40;
	tar_sum(h);
	tar_put(h);
	tar_body("abc", 3);
	tar_end();
	options.max_bytes = 4 * GIB;
	must_fail(CODE_SPACE, "more than 4294967296");
	tree_again();
	options.max_bytes = 0;
	tape.data[124 + 7] = 0;
	tape.data[124 + 8] = 0;
	tape.data[124 + 11] = 3;
	tar_sum((uint8_t *)tape.data);
	must_run();
	is_text("huge", "abc");
}

static void test_pax_size_wins(void **state)
{
	uint8_t h[512], inner[512];

	(void)state;
	/* CVE-2025-62518: the ustar size is 0, so a reader that believes it takes the content for the next header. */
	tar_header(inner, "smuggled", '0', 0, NULL);
	tar_pax("size", "512");
	tar_header(h, "outer", '0', 0, NULL);
	tar_put(h);
	tar_body(inner, 512);
	tar_end();
	must_run();
	assert_int_equal(result.n_files, 1);
	is_bytes("outer", inner, 512);
	/* and the reverse */
	tree_again();
	tar_start();
	tar_pax("size", "0");
	tar_header(h, "outer", '0', 512, NULL);
	tar_put(h);
	tar_put(inner);
	tar_end();
	must_run();
	assert_int_equal(result.n_files, 2);
	is_text("outer", "");
	is_text("smuggled", "");
	static const char *const nonsense[] = { "", "12x", "-1", " 5", "0x10", "99999999999999999999" };
	for (size_t i = 0; i < ARRAY_SIZE(nonsense); i++) {
		tree_again();
		tar_start();
		tar_pax("size", nonsense[i]);
		tar_file("x", "y");
		tar_end();
		must_fail(CODE_INTEGRITY, "tar archive");
	}
}

static void test_gnu_tar_wrote_it(void **state)
{
	static const char *const formats[] = { "v7", "oldgnu", "gnu", "ustar", "pax" };
	char cmd[512];

	(void)state; /* [A29] the real program: every format, padding to 20 blocks, sparse in each of its ways */
	for (size_t i = 0; i < ARRAY_SIZE(formats) + 3; i++) {
		static const char *const sparse[] = { "0.0", "0.1", "1.0" };
		_cleanup_buf_ struct buf b = BUF_INIT((size_t)1 << 28);
		bool v7 = i == 0, ustar = i == 3;
		if (i < ARRAY_SIZE(formats))
			snprintf(cmd, sizeof(cmd), "-H %s %s", formats[i], v7 || ustar ? "" : "-S");
		else
			snprintf(cmd, sizeof(cmd), "-H pax -S --sparse-version=%s", sparse[i - ARRAY_SIZE(formats)]);
		char script[1024];
		snprintf(script, sizeof(script),
			 "cd %s && rm -rf in && mkdir in && cd in && printf abc >a && mkdir -p d/e && printf def >d/e/f && "
			 "ln a hard && ln -s e/f d/soft && truncate -s 3M holes && "
			 "printf middle | dd of=holes bs=1 seek=1048576 conv=notrunc status=none && "
			 "truncate -s 200000 hollow && printf end | dd of=tail bs=1 seek=700000 status=none && "
			 "tar -c %s -f - .", tree_name, cmd);
		char *argv[] = { (char *)"sh", (char *)"-c", script, NULL };
		filter(argv, "", 0, &b);
		tree_again();
		if (run_bytes(b.data, b.len))
			fail_msg("%s: %s", cmd, error.msg);
		is_text("a", "abc");
		is_text("hard", "abc");
		is_text("d/e/f", "def");
		is_link("d/soft", "e/f");
		char *holes = calloc(1, 3 << 20);
		memcpy(holes + (1 << 20), "middle", 6);
		is_bytes("holes", holes, 3 << 20);
		memset(holes, 0, 3 << 20);
		is_bytes("hollow", holes, 200000);
		memcpy(holes + 700000, "end", 3);
		is_bytes("tail", holes, 700003);
		free(holes);
		struct stat a, h;
		assert_int_equal(fstatat(tree_dir, "a", &a, 0), 0);
		assert_int_equal(fstatat(tree_dir, "hard", &h, 0), 0);
		assert_int_equal(a.st_ino, h.st_ino);
		assert_int_equal(fstatat(tree_dir, "holes", &h, 0), 0);
		if (!v7 && !ustar) /* holes stay holes */
			assert_true(h.st_blocks * 512 < 2 << 20);
	}
}

static void test_same_entry_twice(void **state)
{
	(void)state;
	tar_file("a", "abc");
	tar_entry("l", '2', "a");
	tar_entry("d", '5', NULL);
	tar_file("a", "abc");
	tar_file("./a", "abc"); /* [A9] two names of one path */
	tar_entry("l", '2', "./a");
	tar_entry("d/", '5', NULL);
	tar_end();
	must_run();
	assert_int_equal(result.n_files, 3);
	is_text("a", "abc");
	static const struct { char type; const char *name, *link; } others[] = {
		{ '0', "a", NULL }, { '2', "a", "b" }, { '5', "a", NULL }, { '2', "l", "b" }, { '0', "l", NULL },
		{ '0', "d", NULL }, { '2', "d", "a" }, { '0', "a/x", NULL } /* [A10] */, { '0', "l/x", NULL },
		{ '5', "l", NULL }, { '1', "d", "a" },
	};
	size_t common = tape.len - 1024;
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) { /* [A8] */
		tree_again();
		tape.len = common;
		tar_entry(others[i].name, others[i].type, others[i].link);
		tar_end();
		must_fail(CODE_UNSAFE, others[i].name);
	}
}

/* --- names --- */

static void test_unsafe_names(void **state)
{
	char component[300], deep[200] = "", path[5000];

	(void)state; /* [A12] [A13] [A14] [A15] [A17] */
	memset(component, 'c', 256);
	component[256] = '\0';
	for (int i = 0; i < 65; i++)
		memcpy(deep + 2 * i, "d/", 3);
	deep[129] = '\0';
	memset(path, 'p', sizeof(path) - 1);
	for (size_t i = 100; i < sizeof(path); i += 100)
		path[i] = '/';
	path[sizeof(path) - 1] = '\0';
	const char *const names[] = {
		"../x", "../../x", "a/../../x", "a/../b", "/etc/passwd", "//x", "..", "a/..", ".fetcher/x", "./.fetcher",
		".FETCHER/x", "current", "current/x", "a\nb", "a\x1b[31m", "x\x7f", component, deep, path,
	};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		tree_again();
		tar_start();
		tar_pax("path", names[i]);
		tar_file("innocent", "x");
		tar_end();
		must_fail(CODE_UNSAFE, "unsafe");
		assert_null(strpbrk(error.msg, "\n\x1b\x7f"));
	}
	/* a name that one reader ends at the NUL and another does not */
	tree_again();
	tar_start();
	tar_pax_n('x', "path", "good\0/../../evil", 16);
	tar_file("x", "y");
	tar_end();
	must_fail(CODE_INTEGRITY, "NUL");
	tree_again();
	tar_start();
	tar_pax_n('x', "linkpath", "a\0b", 3);
	tar_entry("x", '2', "y");
	tar_end();
	must_fail(CODE_INTEGRITY, "NUL");
	/* nothing of it hides behind a filter */
	tree_again();
	tar_start();
	tar_file("../x", "x");
	tar_end();
	globs.include = (const char *const[]){ "*.json", NULL };
	must_fail(CODE_UNSAFE, "..");
	assert_false(on_disk("../x"));
}

static void test_names_are_bytes(void **state)
{
	(void)state; /* [A2] NFC, NFD and what is no UTF-8 at all, in pax headers too */
	static const char *const names[] = { "caf\xc3\xa9", "cafe\xcc\x81", "latin-\xe9", "back\\slash", "*?[x]" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char text[64];
		snprintf(text, sizeof(text), "pax-%s", names[i]);
		tar_file(names[i], names[i]);
		tar_pax("path", text);
		tar_file("x", names[i]);
	}
	tar_end();
	must_run();
	assert_int_equal(result.n_files, 2 * ARRAY_SIZE(names));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char text[64];
		snprintf(text, sizeof(text), "pax-%s", names[i]);
		is_text(names[i], names[i]);
		is_text(text, names[i]);
	}
}

/* --- links --- */

static void test_symlinks(void **state)
{
	/* in their own words, but for what says nothing */
	static const struct { const char *at, *target, *text; } good[] = {
		{ "d/rel", "e/f", "e/f" }, { "d/up", "../a", "../a" }, { "d/e/two", "../../a", "../../a" },
		{ "d/dots", "./e/.//f", "e/f" }, { "d/e/around", "../../d/e/f", "../../d/e/f" }, { "d/self", "../d", "../d" },
		{ "d/e/dir", "..", ".." }, { "d/gone", "nowhere", "nowhere" },
		{ "d/e/g/x", "../../../b/../a", "../../../b/../a" }, { "top", "d/", "d" }, { "d/root", "..", ".." },
		{ "ab", "a", "a" }, { "d/da", "../da", "../da" },
	};
	static const struct { const char *at, *target; } bad[] = {
		{ "l", "/etc/passwd" }, { "l", ".." }, { "d/l", "../../x" }, { "l", "a/../../b" }, { "l", "" },
		{ "l", ".fetcher/meta" }, { "d/l", "../current" }, { "l", "x\ny" }, { "d/e/l", "../../../d/e/l" },
	};

	(void)state; /* [A20] */
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		tar_entry(good[i].at, '2', good[i].target);
	tar_end();
	must_run();
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		is_link(good[i].at, good[i].text);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		tree_again();
		tar_start();
		tar_entry(bad[i].at, '2', bad[i].target);
		tar_end();
		must_fail(CODE_UNSAFE, "");
	}
}

/*
 * [A19] CVE-2026-85731: each link stays inside, taken by itself. `l` goes through `s`, which stands higher than its name
 * says, so that its ".." leads out. Nothing is written through links here; the plan, which knows all of them, refuses.
 */
static void test_symlink_chain(void **state)
{
	struct err e = { 0 };

	(void)state;
	tar_entry("p/q/r/s", '2', "../../../top");
	tar_file("top/file", "x");
	tar_entry("p/q/r/l", '2', "s/../../x");
	tar_end();
	must_run();
	struct layout l = { .n_trees = 1, .trees = calloc(1, sizeof(*l.trees)) };
	l.trees[0].prefix = strdup("");
	l.trees[0].subdir = strdup("");
	int rc = layout_merge(&l, 0, result.files, result.n_files, NULL, 0, &e) ? -1 : layout_finish(&l, &e);
	assert_int_equal(rc, -1);
	assert_int_equal(e.code, CODE_UNSAFE);
	assert_non_null(strstr(e.msg, "p/q/r/l"));
	layout_release(&l);
}

/* [A18] [A19] CVE-2026-42574, CVE-2021-32760, CVE-2021-32803: through a link of the archive, or over it. */
static void test_below_a_link(void **state)
{
	static const struct { const char *name; char type; const char *link; } then[] = {
		{ "l/x", '0', NULL }, { "l/x", '5', NULL }, { "l/x", '1', "a" }, { "l/x", '2', "a" }, { "l", '0', NULL },
		{ "l/d/e/f", '0', NULL },
	};

	(void)state;
	for (int image = 0; image < 2; image++)
		for (size_t i = 0; i < ARRAY_SIZE(then); i++) {
			tree_again();
			tar_start();
			tar_file("a", "abc");
			tar_entry("l", '2', "d");
			tar_entry(then[i].name, then[i].type, then[i].link);
			tar_end();
			tree.image = image;
			if (image && strcmp(then[i].name, "l") == 0)
				must_run(); /* a later entry takes the link's place, not its target's */
			else
				must_fail(CODE_UNSAFE, "l");
			assert_false(on_disk("d"));
		}
}

static void test_neighbours_link(void **state)
{
	(void)state; /* [A18] CVE-2018-15664: a link that somebody else put into the directory */
	for (int walk = 0; walk < 2; walk++) {
		tree_again();
		sys_no_openat2 = walk;
		assert_int_equal(symlinkat("/tmp", tree_dir, "d"), 0);
		assert_int_equal(symlinkat("/tmp/fetcher-unpack-must-not-be", tree_dir, "f"), 0);
		tar_start();
		tar_file("d/fetcher-unpack-must-not-be", "x");
		tar_end();
		must_fail(CODE_LOCAL, "cannot create");
		tar_start();
		tar_file("f", "x");
		tar_end();
		must_fail(CODE_LOCAL, "cannot create");
		assert_int_equal(access("/tmp/fetcher-unpack-must-not-be", F_OK), -1);
	}
	sys_no_openat2 = false;
}

static void test_hardlinks(void **state)
{
	struct stat a, b;

	(void)state; /* [A21] */
	tree.prefix = (char *)"m/";
	tar_file("d/a", "abc");
	tar_entry("b", '1', "d/a");
	tar_entry("e/c", '1', "./b");	/* of a link */
	tar_entry("b", '1', "b");	/* itself */
	tar_end();
	must_run();
	assert_int_equal(result.n_files, 3);
	is_text("m/d/a", "abc");
	is_text("m/b", "abc");
	is_text("m/e/c", "abc");
	assert_int_equal(file_at("m/b")->mode, file_at("m/d/a")->mode);
	assert_int_equal(fstatat(tree_dir, "m/d/a", &a, 0), 0);
	assert_int_equal(fstatat(tree_dir, "m/e/c", &b, 0), 0);
	assert_int_equal(a.st_ino, b.st_ino);
	assert_int_equal(result.bytes, 3);
}

/* CVE-2026-50163 (target checked below one directory, linked below another), CVE-2021-21272, CVE-2026-17106. */
static void test_hardlinks_refused(void **state)
{
	static const char *const targets[] = {
		"nowhere", "later", "d", "l", "l/x", "../a", "/etc/passwd", "a/x", "", "d/../a", ".",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(targets); i++) {
		tree_again();
		tar_start();
		tar_file("a", "abc");
		tar_entry("l", '2', "a");
		tar_file("d/x", "y");
		tar_entry("h", '1', targets[i]);
		tar_file("later", "z");
		tar_end();
		must_fail(CODE_UNSAFE, "");
		assert_false(on_disk("h"));
	}
	/* one that was there before the run is none of the archive */
	tree_again();
	int fd = openat(tree_dir, "planted", O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	close(fd);
	tar_start();
	tar_entry("h", '1', "planted");
	tar_end();
	must_fail(CODE_UNSAFE, "no earlier file");
}

/* Readers differ in whether such a header has a body; so the next entry would be another one for each. */
static void test_content_where_none_belongs(void **state)
{
	static const char types[] = { '1', '2', '5', '6' };
	uint8_t h[512], inner[512];

	(void)state;
	tar_header(inner, "smuggled", '0', 0, NULL);
	for (size_t i = 0; i < sizeof(types); i++) {
		tree_again();
		tar_start();
		tar_file("a", "abc");
		tar_pax("size", "512");
		tar_header(h, "odd", types[i], 512, types[i] < '3' ? "a" : NULL);
		tar_put(h);
		tar_put(inner);
		tar_end();
		must_fail(CODE_UNSAFE, "odd");
	}
}

static void test_devices(void **state)
{
	static const struct { char type; const char *why; } types[] = {
		{ '3', "device" }, { '4', "device" }, { '6', "device" }, { 'M', "unknown type" },
	};

	(void)state; /* [A21] */
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		tree_again();
		tar_start();
		tar_entry("dev", types[i].type, NULL);
		tar_end();
		must_fail(CODE_UNSAFE, types[i].why);
		assert_false(on_disk("dev"));
	}
	/* CVE-2021-29136: the top itself as a link or file */
	for (const char *t = "02"; *t; t++) {
		tree_again();
		tar_start();
		tar_entry("./.", *t, "x");
		tar_end();
		must_fail(CODE_UNSAFE, "top of the archive");
	}
}

/* --- selection --- */

static void test_globs(void **state)
{
	(void)state; /* [A48] */
	globs.include = (const char *const[]){ "*.json", "d/**", NULL };
	globs.exclude = (const char *const[]){ "*.bin", NULL };
	tar_file("a.json", "1");
	tar_file("b.txt", "2");
	tar_file("d/x", "3");
	tar_file("d/y.bin", "4");
	tar_entry("dev", '3', NULL); /* left out, so not judged */
	tar_entry("link", '2', "/etc");
	tar_end();
	must_run();
	assert_int_equal(result.n_files, 2);
	is_text("a.json", "1");
	is_text("d/x", "3");
	assert_false(on_disk("b.txt") || on_disk("d/y.bin"));
	assert_int_equal(result.skipped, 4);
	tree_again();
	tar_start();
	tar_file("base.txt", "1");
	tar_entry("d/wanted", '1', "base.txt");
	tar_end();
	must_fail(CODE_UNSUPPORTED, "--include");
}

static void test_single(void **state)
{
	(void)state;
	tree.single = (char *)"weights/deep/model.bin";
	tar_entry("./", '5', NULL);
	tar_file("model.bin", "w"); /* [A28] base name in the tar, nested path outside */
	tar_end();
	must_run();
	assert_int_equal(result.n_files, 1);
	is_text("weights/deep/model.bin", "w");
	assert_false(on_disk("model.bin"));
	tree_again();
	globs.include = (const char *const[]){ "weights/**", NULL };
	must_run();
	is_text("weights/deep/model.bin", "w");
	tree_again();
	globs.include = (const char *const[]){ "model.bin", NULL };
	globs.exclude = (const char *const[]){ "weights/", NULL };
	must_run();
	assert_int_equal(result.n_files, 0);
	tree_again();
	globs = (struct layout_options){ 0 };
	tree.single = (char *)"model.bin/model.bin"; /* the directory is called like the file */
	must_run();
	is_text("model.bin/model.bin", "w");
	/* [A27] several files: the path is a label only */
	tree_again();
	tar_start();
	tar_file("model.bin", "w");
	tar_file("config.json", "c");
	tar_end();
	must_run();
	assert_int_equal(result.n_files, 2);
	is_text("model.bin", "w");
	tree_again();
	globs.include = (const char *const[]){ "model.bin/**", NULL };
	must_run();
	assert_int_equal(result.n_files, 0);
	assert_false(on_disk("model.bin"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
		TEST(test_plain), TEST(test_every_block_size), TEST(test_modes_and_times), TEST(test_long_names),
		TEST(test_base256_and_huge_sizes), TEST(test_pax_size_wins), TEST(test_gnu_tar_wrote_it),
		TEST(test_same_entry_twice), TEST(test_unsafe_names), TEST(test_names_are_bytes), TEST(test_symlinks),
		TEST(test_symlink_chain), TEST(test_below_a_link), TEST(test_neighbours_link), TEST(test_hardlinks),
		TEST(test_hardlinks_refused), TEST(test_content_where_none_belongs), TEST(test_devices),
		TEST(test_globs), TEST(test_single),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
