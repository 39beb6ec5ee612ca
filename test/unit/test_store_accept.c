// SPDX-License-Identifier: Apache-2.0
/*
 * Who may veto a version before anybody sees it, and what a watch finds on a volume that others
 * touched meanwhile. Numbers in names are those of the Kubernetes test cases.
 */
#include "store_fixture.h"

#include <sys/wait.h>

/* --- somebody who is asked --- */

static struct {
	const struct fx_plan *plan;	/* what must stand complete below the path */
	unsigned asked;
	bool veto;
	void (*also)(const char *path);
	char path[1024];
} who;

static int asked(void *arg, const char *path, struct err *e)
{
	char file[2048];

	assert_ptr_equal(arg, &who);
	who.asked++;
	snprintf(who.path, sizeof(who.path), "%s", path);
	assert_int_equal(path[0], '/');
	for (size_t i = 0; i < who.plan->layout.n_files; i++) {
		struct stat st;

		snprintf(file, sizeof(file), "%s/%s", path, who.plan->paths[i]);
		assert_int_equal(stat(file, &st), 0);
		assert_int_equal(st.st_size, who.plan->files[i].size);
	}
	if (who.also)
		who.also(path);
	return who.veto ? err_set(e, CODE_POLICY, "no, said the hook") : 0;
}

static void ask(struct fx_plan *f, bool veto)
{
	memset(&who, 0, sizeof(who));
	who.plan = f;
	who.veto = veto;
	f->p.accept = asked;
	f->p.accept_arg = &who;
}

static void publish(struct fx_plan *f)
{
	struct err e = { 0 };

	if (fx_publish(f, STORE_VERSIONS, &e) < 0)
		fail_msg("%d %s", (int)e.code, e.msg);
}

static void refused(struct fx_plan *f, enum code code, const char *word)
{
	struct err e = { 0 };

	assert_int_equal(fx_publish(f, STORE_VERSIONS, &e), -1);
	if (e.code != code || !strstr(e.msg, word))
		fail_msg("%d %s", (int)e.code, e.msg);
}

static void assert_ready(const struct fx_plan *f)
{
	struct err e = { 0 };

	if (fx_ready(f, false, &e) != 1)
		fail_msg("%s", e.msg);
	fx_assert_complete(f, "current/");
}

static const char *meta_of(const struct fx_plan *f)
{
	static char rel[2][256];
	static unsigned next;
	char *p = rel[next++ % 2];

	snprintf(p, sizeof(rel[0]), ".fetcher/meta/%s.json", f->version);
	return p;
}

static void backdate(const struct fx_plan *f, time_t sec)
{
	struct timespec ts[2] = { { .tv_sec = sec }, { .tv_sec = sec } };

	assert_int_equal(utimensat(AT_FDCWD, fx_path(meta_of(f)), ts, 0), 0);
}

static time_t mtime_of(const struct fx_plan *f)
{
	struct stat st;

	assert_int_equal(stat(fx_path(meta_of(f)), &st), 0);
	return st.st_mtim.tv_sec;
}

/* --- veto --- */

static void case_21_veto_keeps_the_version_back(void **state)
{
	struct fx_plan v1, v2;
	char expected[1024], *marker;

	(void)state;
	FX_PLAN(&v1, "d/same=unchanged", "model=one");
	FX_PLAN(&v2, "d/same=unchanged", "empty=", "model=two");
	publish(&v1);
	backdate(&v1, 1000);
	marker = strdup(fx_text(".fetcher/ready.json"));
	ask(&v2, true);
	refused(&v2, CODE_POLICY, "said the hook");
	assert_int_equal(v2.fetched, 1);
	snprintf(expected, sizeof(expected), "%s/.fetcher/partial/%s.d", fx_dest, v2.version);
	assert_string_equal(who.path, expected);
	for (unsigned i = 2; i < 5; i++) {
		/* the old one as if nothing had been: marker, link, age */
		assert_ready(&v1);
		fx_assert_text(".fetcher/ready.json", marker);
		assert_false(fx_exists(".fetcher/previous.json"));
		assert_false(fx_exists(meta_of(&v2)));
		assert_int_equal(mtime_of(&v1), 1000);
		/* and the new one without a byte, but asked again */
		refused(&v2, CODE_POLICY, "said the hook");
		assert_int_equal(v2.fetched, 0);
		assert_int_equal(who.asked, i);
	}
	who.veto = false;
	publish(&v2);
	assert_int_equal(who.asked, 5);
	assert_int_equal(v2.fetched, 0);
	assert_ready(&v2);
	assert_true(mtime_of(&v1) > 1000);
	/* it is published: nobody is asked any more */
	publish(&v2);
	assert_int_equal(who.asked, 5);
	free(marker);
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

static void veto_of_the_first_version(void **state)
{
	struct fx_plan f;

	(void)state;
	FX_PLAN(&f, "model=one");
	ask(&f, true);
	refused(&f, CODE_POLICY, "hook");
	assert_false(fx_exists("current"));
	assert_false(fx_exists(".fetcher/ready.json"));
	who.veto = false;
	publish(&f);
	assert_int_equal(f.fetched, 0);
	assert_ready(&f);
	fx_plan_release(&f);
}

static void veto_of_a_roll_back(void **state)
{
	struct fx_plan v1, v2;
	char expected[1024], *marker;

	(void)state;
	FX_PLAN(&v1, "model=one");
	FX_PLAN(&v2, "model=two");
	publish(&v1);
	publish(&v2);
	backdate(&v1, 1000);
	backdate(&v2, 2000);
	marker = strdup(fx_text(".fetcher/ready.json"));
	ask(&v1, true);
	refused(&v1, CODE_POLICY, "hook");
	snprintf(expected, sizeof(expected), "%s/.fetcher/versions/%s", fx_dest, v1.version);
	assert_string_equal(who.path, expected);
	assert_ready(&v2);
	fx_assert_text(".fetcher/ready.json", marker);
	/* asking again and again does not keep the old version young */
	assert_int_equal(mtime_of(&v1), 1000);
	assert_int_equal(mtime_of(&v2), 2000);
	who.veto = false;
	publish(&v1);
	assert_int_equal(who.asked, 2);
	assert_int_equal(v1.fetched, 0);
	assert_ready(&v1);
	assert_true(mtime_of(&v2) > 2000);
	free(marker);
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

/* The kept version to roll back to was damaged: it is filled again, and the published one stays. */
static void veto_of_a_roll_back_to_a_damaged_version(void **state)
{
	struct fx_plan v1, v2;
	char path[512], *marker;

	(void)state;
	FX_PLAN(&v1, "model=one", "other=1");
	FX_PLAN(&v2, "model=two");
	publish(&v1);
	publish(&v2);
	marker = strdup(fx_text(".fetcher/ready.json"));
	snprintf(path, sizeof(path), ".fetcher/versions/%s/model", v1.version);
	assert_int_equal(truncate(fx_path(path), 1), 0);
	ask(&v1, true);
	refused(&v1, CODE_POLICY, "hook");
	assert_int_equal(v1.fetched, 1);
	assert_non_null(strstr(who.path, "/.fetcher/partial/"));
	assert_ready(&v2);
	fx_assert_text(".fetcher/ready.json", marker);
	who.veto = false;
	publish(&v1);
	assert_int_equal(v1.fetched, 0);
	assert_ready(&v1);
	free(marker);
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

static void nobody_is_asked_about_the_published_version(void **state)
{
	struct fx_plan f, flat;
	char path[256];

	(void)state;
	FX_PLAN(&f, "a=first", "b=second");
	publish(&f);
	ask(&f, true);
	/* repairs of what readers have already */
	unlink(fx_path("current/a"));
	publish(&f);
	assert_int_equal(f.fetched, 1);
	snprintf(path, sizeof(path), ".fetcher/versions/%s", f.version);
	fx_wipe(fx_path(path));
	publish(&f);
	assert_int_equal(f.fetched, 2);
	unlink(fx_path(".fetcher/ready.json"));
	publish(&f);
	assert_int_equal(who.asked, 0);
	assert_ready(&f);
	FX_PLAN(&flat, "c=third");
	ask(&flat, true);
	FX_OK(fx_publish(&flat, STORE_FLAT, FX_E));
	assert_int_equal(who.asked, 0);
	fx_plan_release(&f);
	fx_plan_release(&flat);
}

static void also_write(const char *path)
{
	char file[2048];
	int fd;

	snprintf(file, sizeof(file), "%s/d/model", path);
	fd = open(file, O_WRONLY);
	assert_int_equal(write(fd, "TWO", 3), 3);
	close(fd);
}

static void also_remove(const char *path)
{
	char file[2048];

	snprintf(file, sizeof(file), "%s/d", path);
	assert_int_equal(rename(file, fx_path("elsewhere")), 0);
}

static void who_is_asked_must_not_write(void **state)
{
	void (*harm[])(const char *path) = { also_write, also_remove };
	struct fx_plan v1, v2;

	(void)state;
	FX_PLAN(&v1, "d/model=one");
	FX_PLAN(&v2, "d/model=two");
	for (size_t i = 0; i < ARRAY_SIZE(harm); i++) {
		publish(&v1);
		ask(&v2, false);
		who.also = harm[i];
		refused(&v2, CODE_INTEGRITY, "d/model was changed by somebody else");
		assert_ready(&v1);
		who.also = NULL;
		publish(&v2);
		assert_int_equal(v2.fetched, 1);
		assert_ready(&v2);
		/* the same while rolling back */
		ask(&v1, false);
		who.also = harm[i];
		fx_wipe(fx_path("elsewhere"));
		refused(&v1, CODE_INTEGRITY, "d/model was changed by somebody else");
		assert_ready(&v2);
		who.also = NULL;
		publish(&v1);
		assert_int_equal(v1.fetched, 1);
		assert_ready(&v1);
		v1.p.accept = NULL;
		fx_wipe(fx_dest);
	}
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

static void also_die(const char *path)
{
	(void)path;
	_exit(42);
}

static void killed_while_it_was_asked(void **state)
{
	struct fx_plan v1, v2;
	struct err e = { 0 };
	int status;
	pid_t pid;

	(void)state;
	FX_PLAN(&v1, "model=one");
	FX_PLAN(&v2, "a=1", "b=2", "c=3", "model=two");
	publish(&v1);
	ask(&v2, false);
	who.also = also_die;
	pid = fork();
	if (pid == 0) {
		fx_publish(&v2, STORE_VERSIONS, &e);
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 42);
	assert_ready(&v1);
	/* every file was in the ledger, so that none has to be looked into */
	char ledger[256];

	snprintf(ledger, sizeof(ledger), ".fetcher/partial/%s.placed", v2.version);
	for (size_t i = 0; i < v2.layout.n_files; i++) {
		char line[320];

		snprintf(line, sizeof(line), " %s\n", v2.paths[i]);
		assert_non_null(strstr(fx_text(ledger), line));
	}
	who.also = NULL;
	publish(&v2);
	assert_int_equal(v2.fetched, 0);
	assert_ready(&v2);
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

static void relative_dest_absolute_path(void **state)
{
	char absolute[80], was[1024];
	struct fx_plan f;

	(void)state;
	FX_PLAN(&f, "model=one");
	ask(&f, false);
	assert_non_null(getcwd(was, sizeof(was)));
	assert_int_equal(chdir(fx_base), 0);
	memcpy(absolute, fx_dest, sizeof(absolute));
	snprintf(fx_dest, sizeof(fx_dest), "./dest");
	publish(&f);
	memcpy(fx_dest, absolute, sizeof(absolute));
	assert_int_equal(chdir(was), 0);
	assert_true(strncmp(who.path, fx_dest, strlen(fx_dest)) == 0);
	fx_plan_release(&f);
}

/* Two lines about one file: the later one counts, whichever way they are sorted. */
static void last_line_of_the_ledger_counts(void **state)
{
	struct fx_plan f;
	char ledger[256], real[600], *text;

	(void)state;
	FX_PLAN(&f, "a=right", "b=2");
	for (int last_is_true = 0; last_is_true < 2; last_is_true++) {
		struct buf b = BUF_INIT(4096);
		char *line, *size;

		f.p.layout = STORE_VERSIONS;
		ask(&f, true);
		refused(&f, CODE_POLICY, "hook");
		snprintf(ledger, sizeof(ledger), ".fetcher/partial/%s.placed", f.version);
		text = strdup(fx_text(ledger));
		line = strstr(text, "\nsha256:") + 1;
		snprintf(real, sizeof(real), "%.*s", (int)(strchr(line, '\n') - line), line);
		assert_non_null(strstr(real, " a"));
		/* the same stat identity with another digest means: known to be wrong */
		buf_add(&b, text, (size_t)(line - text));
		size = strchr(real, ' ');
		for (int i = 0; i < 2; i++) {
			if (i == last_is_true)
				buf_addf(&b, "%s\n", real);
			else
				buf_addf(&b, "sha256:%064d%s\n", 0, size);
		}
		fx_put(ledger, buf_cstr(&b));
		who.veto = false;
		publish(&f);
		/* b is hashed; a is believed, or known to be wrong */
		assert_int_equal(f.fetched, last_is_true ? 0 : 1);
		free(text);
		buf_release(&b);
		fx_wipe(fx_dest);
	}
	fx_plan_release(&f);
}

/* --- what a watch finds --- */

static void case_4_killed_between_link_and_rename(void **state)
{
	struct fx_plan v1, v2;
	char target[256];

	(void)state;
	FX_PLAN(&v1, "model=one");
	FX_PLAN(&v2, "model=two");
	publish(&v1);
	/* v2 was promoted, its link stood under a temporary name, and that was the end */
	ask(&v2, false);
	publish(&v2);
	unlink(fx_path("current"));
	snprintf(target, sizeof(target), ".fetcher/versions/%s", v1.version);
	assert_int_equal(symlink(target, fx_path("current")), 0);
	snprintf(target, sizeof(target), ".fetcher/versions/%s", v2.version);
	assert_int_equal(symlink(target, fx_path(".fetcher/.tmp-0123456789abcdef")), 0);
	publish(&v2);
	assert_int_equal(v2.fetched, 0);
	assert_int_equal(who.asked, 2);
	assert_ready(&v2);
	assert_false(fx_exists(".fetcher/.tmp-0123456789abcdef"));
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

/* What another uid left under a temporary name cannot be removed, and stops nobody. */
static void case_4_temporary_of_somebody_else(void **state)
{
	const char *name = ".fetcher/partial/.tmp-0123456789abcdef";
	struct fx_plan v1, v2;
	struct err e = { 0 };
	int status;
	pid_t pid;

	(void)state;
	if (geteuid() != 0)
		skip();
	FX_PLAN(&v1, "model=one");
	FX_PLAN(&v2, "model=two");
	assert_int_equal(chmod(fx_base, 0777), 0);
	for (int i = 0; i < 2; i++) {
		pid = fork();
		if (pid == 0) {
			struct store_gc_policy policy = { 0 };
			struct store_gc_result r;
			struct store *s;

			if (setgid(65534) < 0 || setuid(65534) < 0 ||
			    fx_publish(i ? &v2 : &v1, STORE_VERSIONS, &e) < 0 ||
			    store_open(&s, fx_dest, true, &e) < 0 ||
			    store_lock(s, 0, NULL, NULL, NULL, &e) < 0 ||
			    store_gc(s, &policy, &r, &e) < 0) {
				fprintf(stderr, "%s\n", e.msg);
				_exit(1);
			}
			store_close(s);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		if (i)
			break;
		assert_int_equal(mkdir(fx_path(name), 0755), 0);
		fx_put(".fetcher/partial/.tmp-0123456789abcdef/x", "root's");
	}
	assert_true(fx_exists(name));
	assert_ready(&v2);
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

static void case_5_marker_of_another_digest(void **state)
{
	struct fx_plan v1, v2;
	struct err e = { 0 };
	char *marker;

	(void)state;
	FX_PLAN(&v1, "model=one");
	FX_PLAN(&v2, "model=two");
	publish(&v1);
	marker = strdup(fx_text(".fetcher/ready.json"));
	publish(&v2);
	fx_put(".fetcher/ready.json", marker);
	/* neither of them is ready, and readers go on with v2 */
	assert_int_equal(fx_ready(&v1, true, &e), 0);
	assert_int_equal(fx_ready(&v2, true, &e), 0);
	fx_assert_complete(&v2, "current/");
	ask(&v2, true);
	publish(&v2);
	assert_int_equal(v2.fetched, 0);
	assert_int_equal(who.asked, 0);
	assert_ready(&v2);
	free(marker);
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

static void case_5_current_version_deleted_then_a_new_one(void **state)
{
	struct fx_plan v1, v2;
	char path[256];

	(void)state;
	FX_PLAN(&v1, "model=one");
	FX_PLAN(&v2, "model=two");
	publish(&v1);
	snprintf(path, sizeof(path), ".fetcher/versions/%s", v1.version);
	fx_wipe(fx_path(path));
	fx_wipe(fx_path(".fetcher/meta"));
	publish(&v2);
	assert_ready(&v2);
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

static void also_occupy_by_directory(const char *path)
{
	(void)path;
	assert_int_equal(unlink(fx_path("current")), 0);
	assert_int_equal(mkdir(fx_path("current"), 0755), 0);
	fx_put("current/theirs", "theirs");
}

static void also_occupy_by_file(const char *path)
{
	(void)path;
	assert_int_equal(unlink(fx_path("current")), 0);
	fx_put("current", "theirs");
}

static void also_occupy_by_link(const char *path)
{
	(void)path;
	assert_int_equal(unlink(fx_path("current")), 0);
	assert_int_equal(symlink("/nonexistent", fx_path("current")), 0);
}

/* `current` is replaced while the version is being filled; what took its place stays as it is. */
static void case_6_current_is_replaced_meanwhile(void **state)
{
	void (*how[])(const char *path) = { also_occupy_by_directory, also_occupy_by_file,
					    also_occupy_by_link };
	struct fx_plan v1, v2;

	(void)state;
	FX_PLAN(&v1, "model=one");
	FX_PLAN(&v2, "model=two");
	for (size_t i = 0; i < ARRAY_SIZE(how); i++) {
		char target[16] = "";

		publish(&v1);
		ask(&v2, false);
		who.also = how[i];
		refused(&v2, CODE_UNSAFE, "current is in the way");
		who.also = NULL;
		refused(&v2, CODE_UNSAFE, "current is in the way");
		if (i == 0)
			fx_assert_text("current/theirs", "theirs");
		else if (i == 1)
			fx_assert_text("current", "theirs");
		else
			assert_int_equal(readlink(fx_path("current"), target, sizeof(target)), 12);
		unlink(fx_path("current/theirs"));
		rmdir(fx_path("current"));
		unlink(fx_path("current"));
		publish(&v2);
		assert_int_equal(v2.fetched, 0);
		assert_ready(&v2);
		fx_wipe(fx_dest);
	}
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fx_setup, fx_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(case_21_veto_keeps_the_version_back), T(veto_of_the_first_version),
		T(veto_of_a_roll_back), T(veto_of_a_roll_back_to_a_damaged_version),
		T(nobody_is_asked_about_the_published_version), T(who_is_asked_must_not_write),
		T(killed_while_it_was_asked), T(relative_dest_absolute_path),
		T(last_line_of_the_ledger_counts), T(case_4_killed_between_link_and_rename),
		T(case_4_temporary_of_somebody_else), T(case_5_marker_of_another_digest),
		T(case_5_current_version_deleted_then_a_new_one),
		T(case_6_current_is_replaced_meanwhile),
	};
	int failed = cmocka_run_group_tests_name("veto with openat2", tests, NULL, NULL);

	sys_no_openat2 = true;
	return failed + cmocka_run_group_tests_name("veto with the walk", tests, NULL, NULL);
}
