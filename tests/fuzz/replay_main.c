/*
 * Runs a fuzz target on files instead of under a fuzzer: on each file given, and on each file in each
 * directory given. So the corpus is a test that every compiler and sanitizer can run.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path);
static int replay_directory(const char *path);
static int replay_file(const char *path);

static unsigned nr_files;

int main(int argc, char **argv)
{
	int status = EXIT_SUCCESS;

	if (argc < 2) {
		fprintf(stderr, "usage: %s FILE-OR-DIRECTORY...\n", argv[0]);
		return EXIT_FAILURE;
	}
	for (int i = 1; i < argc; i++)
		if (replay(argv[i]))
			status = EXIT_FAILURE;
	if (nr_files == 0) {
		fprintf(stderr, "%s: no input found\n", argv[0]);
		status = EXIT_FAILURE;
	}
	printf("%u inputs replayed\n", nr_files);
	return status;
}

static int replay(const char *path)
{
	struct stat st;

	if (stat(path, &st)) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return -1;
	}
	return S_ISDIR(st.st_mode) ? replay_directory(path) : replay_file(path);
}

static int replay_directory(const char *path)
{
	struct dirent **entries;
	int nr = scandir(path, &entries, NULL, alphasort), err = 0;

	if (nr < 0) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return -1;
	}
	for (int i = 0; i < nr; i++) {
		char *full;

		if (entries[i]->d_name[0] != '.' && asprintf(&full, "%s/%s", path, entries[i]->d_name) >= 0) {
			err |= replay(full);
			free(full);
		}
		free(entries[i]);
	}
	free(entries);
	return err;
}

static int replay_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = NULL;
	long size = -1;

	if (f && fseek(f, 0, SEEK_END) == 0)
		size = ftell(f);
	/* Exactly as large as the input, so that a sanitizer sees a read past its end. */
	if (size >= 0)
		data = malloc(size ? (size_t)size : 1);
	if (!data || fseek(f, 0, SEEK_SET) || fread(data, 1, (size_t)size, f) != (size_t)size) {
		fprintf(stderr, "%s: cannot be read\n", path);
		free(data);
		if (f)
			fclose(f);
		return -1;
	}
	fclose(f);
	LLVMFuzzerTestOneInput(data, (size_t)size);
	free(data);
	nr_files++;
	return 0;
}
