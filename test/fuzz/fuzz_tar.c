// SPDX-License-Identifier: Apache-2.0
/*
 * A layer of anybody's making, unpacked into a directory in memory: plain, and as the content of gzip members and zstd
 * frames that the harness closes properly, and as hostile gzip and zstd. Byte 0 says how, byte 1 in which blocks and with
 * how large buffers of ours: small ones, so that small inputs reach their ends, and a run costs less.
 * Nothing may appear beside the directory, and what the result says must be there.
 */
#include <crc.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys.h"
#include "unpack_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__asan_default_options(void);

/*
 * 256 MiB of freed memory are kept from being used again: each run touches fresh pages, and spends its time in page
 * faults. 4 MiB are what several runs free.
 */
const char *__asan_default_options(void)
{
	return "quarantine_size_mb=4:malloc_context_size=6:allocator_release_to_os_interval_ms=-1";
}

#define INPUT_MAX ((size_t)1 << 20)

static struct {
	char name[64];
	int top, tree;
	struct timespec changed;	/* of top, which holds nothing but tree */
} place = { .top = -1, .tree = -1 };

static void tear_down(void)
{
	int shm = open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	sys_remove_tree(shm, place.name + 9);
	close(shm);
}

static void set_up(void)
{
	struct stat st;

	if (place.top >= 0)
		return;
	snprintf(place.name, sizeof(place.name), "/dev/shm/fetcher-fuzz-XXXXXX");
	if (!mkdtemp(place.name) || (place.top = open(place.name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ||
	    mkdirat(place.top, "tree", 0700) < 0 ||
	    (place.tree = openat(place.top, "tree", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ||
	    fstat(place.top, &st) < 0)
		abort();
	place.changed = st.st_mtim;
	atexit(tear_down);
}

/* Empties the tree and looks whether anything was made or removed next to it. */
static void check_place(void)
{
	struct dirent *de;
	struct stat st;
	DIR *d;

	if (fstat(place.top, &st) < 0 || st.st_mtim.tv_sec != place.changed.tv_sec ||
	    st.st_mtim.tv_nsec != place.changed.tv_nsec)
		abort();
	/* Most inputs make nothing: a directory in memory is as large as it has names. */
	if (fstat(place.tree, &st) < 0 || st.st_size == 0)
		return;
	d = fdopendir(openat(place.tree, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	if (!d)
		abort();
	while ((de = readdir(d)))
		if (strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0 &&
		    (de->d_type == DT_LNK || sys_remove_tree(place.tree, de->d_name) < 0))
			abort();
	closedir(d);
}

/* --- the layer --- */

/* A mutation should not have to guess checksums: blocks that call themselves headers get the right one. */
static void fix_sums(uint8_t *p, size_t n)
{
	for (; n >= 512; p += 512, n -= 512) {
		unsigned sum = 0;
		char text[8];

		if (memcmp(p + 257, "ustar", 5) != 0)
			continue;
		memset(p + 148, ' ', 8);
		for (int i = 0; i < 512; i++)
			sum += p[i];
		snprintf(text, sizeof(text), "%06o", sum);
		memcpy(p + 148, text, 7);
	}
}

/*
 * Windows of at most 64 KiB: what a frame's header promises is allocated, and ASan marks all of it. The limit itself is
 * test_unpack's. RFC 8878 3.1.1.1: descriptor, window unless "single segment", dictionary, size of the content.
 */
static void cap_windows(uint8_t *p, size_t n)
{
	static const uint8_t dictionary[] = { 0, 1, 2, 4 }, content[] = { 0, 2, 4, 8 };
	uint8_t *end = p + n;

	while ((p = memmem(p, (size_t)(end - p), "\x28\xb5\x2f\xfd", 4)) && end - (p += 4) >= 14) {
		size_t at = dictionary[*p & 3] + 1U, size = content[*p >> 6];

		if (!(*p & 0x20))
			p[1] &= 0x37;
		else if (size > 2)
			memset(p + at + 2, 0, size - 2);
	}
}

static void add_le(struct buf *b, uint64_t v, unsigned n)
{
	while (n--) {
		buf_addc(b, (char)v);
		v >>= 8;
	}
}

/* One member of stored blocks; the header flags come from the input. */
static void add_gzip(struct buf *b, const uint8_t *p, size_t n)
{
	uint32_t crc = crc32_gzip_refl(0, p, n), size = (uint32_t)n;

	buf_add(b, "\x1f\x8b\x08\0\0\0\0\0\0\xff", 10);
	do {
		size_t k = MIN(n, (size_t)30000);
		buf_addc(b, k == n);
		add_le(b, k, 2);
		add_le(b, ~k, 2);
		buf_add(b, p, k);
		p += k;
		n -= k;
	} while (n);
	add_le(b, crc, 4);
	add_le(b, size, 4);
}

/* One frame of raw blocks without checksum, with a window of 8 KiB. */
static void add_zstd(struct buf *b, const uint8_t *p, size_t n)
{
	buf_add(b, "\x28\xb5\x2f\xfd\x00\x18", 6);
	do {
		size_t k = MIN(n, (size_t)8192);
		add_le(b, k << 3 | (k == n), 3);
		buf_add(b, p, k);
		p += k;
		n -= k;
	} while (n);
}

/* Two members or frames: everything must be one stream. */
static void wrap(struct buf *b, enum layout_codec codec, const uint8_t *p, size_t n)
{
	void (*add)(struct buf *, const uint8_t *, size_t) = codec == CODEC_GZIP ? add_gzip : add_zstd;

	add(b, p, n / 3);
	add(b, p + n / 3, n - n / 3);
}

struct source {
	const uint8_t *p;
	size_t n, block;
};

static int read_some(void *arg, const void **ret, size_t *ret_n, struct err *e)
{
	struct source *s = arg;
	size_t n = s->n < s->block ? s->n : s->block;

	(void)e;
	*ret = s->p;
	*ret_n = n;
	s->p += n;
	s->n -= n;
	return 0;
}

/* --- what came out --- */

static void check_file(const struct layout_tree *t, const struct layout_file *f)
{
	_cleanup_free_ char *path = NULL;
	struct err e = { 0 };
	struct stat st;
	int rc = fstatat(place.tree, f->path, &st, AT_SYMLINK_NOFOLLOW);

	if (layout_check_path(str_of(f->path), &path, &e) || strcmp(path, f->path) != 0 || (f->mode & ~0777U))
		abort();
	/* `single` is a whole path of the plan; layouts have either */
	if (t->prefix[0] && !(t->single && strcmp(f->path, t->single) == 0) &&
	    strncmp(f->path, t->prefix, strlen(t->prefix)) != 0)
		abort();
	switch (f->kind) {
	case LAYOUT_FILE:
		if (rc < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != f->size || (st.st_mode & 07777) != 0600)
			abort();
		break;
	case LAYOUT_SYMLINK:
		if (rc == 0 || !name_target_ok(f->path, (const char *)f->data) || f->size != strlen((const char *)f->data))
			abort();
		break;
	default:
		if (f->size)
			abort();
	}
}

static void unpack(const struct layout_tree *t, bool filtered, const uint8_t *p, size_t n, size_t block)
{
	struct source s = { p, n, block };
	struct unpack_source src = { read_some, &s };
	static const char *const globs[] = { "*b*", "d/*", NULL };
	const struct layout_options filter = { .exclude = globs };
	struct unpack_options o = {
		.tree = t, .dirfd = place.tree, .max_bytes = 4 * MIB, .globs = filtered ? &filter : NULL,
	};
	struct unpack_result r = { 0 };
	struct err e = { 0 };

	if (unpack_run(&src, &o, &r, &e) == 0) {
		if (s.n)
			abort();	/* the digest is over all of it */
		for (size_t i = 0; i < r.n_files; i++)
			check_file(t, &r.files[i]);
		unpack_result_release(&r);
	} else if (!e.msg[0] || (e.code != CODE_INTEGRITY && e.code != CODE_UNSAFE && e.code != CODE_UNSUPPORTED &&
				 e.code != CODE_SPACE)) {
		fprintf(stderr, "code %d: %s\n", (int)e.code, e.msg);
		abort();
	}
	check_place();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const size_t blocks[] = { INPUT_MAX, 1, 511, 512, 513, 1536, 4096, 70 },
			    pieces[] = { 4096, 512, 65536, 1536 }, collects[] = { 1000, 1, 65536, 4096 };
	_cleanup_buf_ struct buf wrapped = BUF_INIT(4 * INPUT_MAX);
	struct layout_tree t = { .size = size, .key = (char *)"" };

	if (size < 2 || size > INPUT_MAX)
		return 0;
	set_up();
	t.image = data[0] & 1;
	t.subdir = (char *)(data[0] & 2 ? "models/" : "");
	t.prefix = (char *)(data[0] & 4 ? "in/side/" : "");
	t.single = (char *)(data[0] & 8 ? "w/x" : NULL);
	size_t block = blocks[data[1] & 7];
	bool filtered = data[0] & 0x80;
	unpack_piece_bytes = pieces[data[1] >> 3 & 3];
	unpack_collect_bytes = collects[data[1] >> 5 & 3];
	/* Exactly as large as it is: one byte too far is an error that ASan sees. */
	size_t n = size - 2;
	_cleanup_free_ uint8_t *copy = malloc(n + !n);
	memcpy(copy, data + 2, n);
	/* 6 and 7: the input is compressed data as it stands; gzip and zstd: it is the tar inside */
	unsigned way = data[0] >> 4 & 7;
	if (way == 6 || way == 7) {
		t.codec = way == 6 ? CODEC_GZIP : CODEC_ZSTD;
		cap_windows(copy, n);
		unpack(&t, filtered, copy, n, block);
		return 0;
	}
	fix_sums(copy, n);
	if (way == 1 || way == 3) {
		t.codec = way == 1 ? CODEC_GZIP : CODEC_ZSTD;
		wrap(&wrapped, t.codec, copy, n);
		unpack(&t, filtered, (const uint8_t *)wrapped.data, wrapped.len, block);
		return 0;
	}
	unpack(&t, filtered, copy, n, block);
	return 0;
}
