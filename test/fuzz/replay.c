// SPDX-License-Identifier: Apache-2.0
/*
 * Runs a fuzz target over files and folders, once each: what `make test` does with every corpus, with any compiler.
 * Prints the name of an input before it runs it, so that a crash says which one it was. Exit 1 where there is no input.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run_file(const char *path, size_t size)
{
	/* Exactly as large as the input: one byte too far is an error that ASan sees. */
	uint8_t *data = malloc(size);
	FILE *f = fopen(path, "rbe");

	if (!f || (size > 0 && !data) || fread(data, 1, size, f) != size) {
		fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
		exit(2);
	}
	fclose(f);
	printf("input %s\n", path);
	fflush(stdout);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
}

static unsigned int run(const char *path)
{
	struct dirent **names;
	unsigned int done = 0;
	char below[4096];
	struct stat st;
	int n;

	if (stat(path, &st) < 0) {
		fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
		return 0;
	}
	if (!S_ISDIR(st.st_mode)) {
		run_file(path, (size_t)st.st_size);
		return 1;
	}
	n = scandir(path, &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		if (names[i]->d_name[0] != '.' &&
		    snprintf(below, sizeof(below), "%s/%s", path, names[i]->d_name) < (int)sizeof(below))
			done += run(below);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
	return done;
}

int main(int argc, char **argv)
{
	unsigned int done = 0;

	for (int i = 1; i < argc; i++)
		done += run(argv[i]);
	printf("inputs %u\n", done);
	return done > 0 ? 0 : 1;
}
