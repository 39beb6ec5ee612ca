// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include <fcntl.h>
#include <string.h>
#include <sys/vfs.h>

#include "buf.h"
#include "sys.h"

#define DROP_WINDOW (64 * MIB)

/* linux/magic.h and the file systems' own sources */
static const uint32_t network_fs[] = {
	0x6969,		/* nfs */
	0xff534d42,	/* cifs */
	0xfe534d42,	/* smb2 */
	0x517b,		/* smb */
	0x65735546,	/* fuse: s3fs, gcsfuse, juicefs, ... */
	0x00c36400,	/* ceph */
	0x0bd00bd0,	/* lustre */
	0x01021997,	/* 9p */
	0x5346414f,	/* afs */
	0x47504653,	/* gpfs */
};

static uint64_t read_limit(const char *path)
{
	_cleanup_buf_ struct buf b = BUF_INIT(64);
	uint64_t v;

	if (sys_read_file(AT_FDCWD, path, &b) || !b.len)
		return UINT64_MAX;
	struct str s = { b.data, strcspn(b.data, "\n") };
	/* "max" in v2, a number near 2^63 in v1: both mean none */
	return str_u64(s, &v) && v < ((uint64_t)1 << 60) ? v : UINT64_MAX;
}

uint64_t memory_limit(void)
{
	uint64_t v2 = read_limit("/sys/fs/cgroup/memory.max");
	uint64_t v1 = read_limit("/sys/fs/cgroup/memory/memory.limit_in_bytes");

	return MIN(v2, v1);
}

bool memory_is_network_fs(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(network_fs); i++)
		if ((uint32_t)fs.f_type == network_fs[i])
			return true;
	return false;
}

uint64_t memory_drop_window(int fd, uint64_t total)
{
	if (sys_is_memory_fs(fd))
		return 0;
	if (memory_is_network_fs(fd))
		return DROP_WINDOW;
	uint64_t limit = memory_limit();
	return limit / 10 * 7 < total ? DROP_WINDOW : 0;
}
