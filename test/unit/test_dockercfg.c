// SPDX-License-Identifier: Apache-2.0
/* docker configuration files: keys, entries, helpers, the search. */
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

#include "dockercfg.h"

static struct credential cred;
static struct err err;
static char notes[1024];
static char dir[64];

static int lookup_n(const char *text, size_t len, const char *registry, const char *repo)
{
	struct buf b = BUF_INIT(sizeof(notes) - 1);
	int rc;

	credential_release(&cred);
	memset(&err, 0, sizeof(err));
	/* exactly as large as the text: one byte too far shows */
	char *copy = malloc(len ? len : 1);
	memcpy(copy, text, len);
	rc = dockercfg_lookup(copy, len, "/cfg", registry, repo, &cred, &b, &err);
	free(copy);
	snprintf(notes, sizeof(notes), "%s", buf_cstr(&b));
	buf_release(&b);
	return rc;
}

static int lookup(const char *text, const char *registry, const char *repo)
{
	return lookup_n(text, strlen(text), registry, repo);
}

static void finds(const char *text, const char *registry, const char *repo, const char *user,
		  const char *password)
{
	int rc = lookup(text, registry, repo);

	if (rc != 1)
		fail_msg("%s in %s: %d %s", registry, text, rc, err.msg);
	assert_string_equal(cred.username, user);
	assert_string_equal(cred.password, password);
}

static void lacks(const char *text, const char *registry, const char *repo)
{
	int rc = lookup(text, registry, repo);

	if (rc != 0)
		fail_msg("%s in %s: %d %s", registry, text, rc, err.msg);
}

static void malformed(const char *text, const char *says)
{
	if (lookup(text, "r.io", "a") != -1)
		fail_msg("accepted: %s", text);
	assert_int_equal(err.code, CODE_USAGE);
	assert_non_null(strstr(err.msg, "/cfg"));
	if (!strstr(err.msg, says))
		fail_msg("'%s' lacks '%s'", err.msg, says);
}

/* {"auths": {KEY: user/password}} */
static const char *one(const char *key)
{
	static char text[512];

	snprintf(text, sizeof(text), "{\"auths\":{\"%s\":{\"username\":\"u\",\"password\":\"p\"}}}", key);
	return text;
}

static int drop(void **state)
{
	(void)state;
	credential_release(&cred);
	return 0;
}

static void test_entry_forms(void **state)
{
	(void)state;
	finds(one("r.io"), "r.io", "a", "u", "p");
	assert_string_equal(cred.source, "/cfg, key auths.r.io");
	/* auth wins over username and password; only the first colon splits */
	finds("{\"auths\":{\"r.io\":{\"auth\":\"dTpwOnE=\",\"username\":\"x\",\"password\":\"y\"}}}", "r.io",
	      "a", "u", "p:q");
	/* padding missing, doubled, or followed by NULs inside */
	finds("{\"auths\":{\"r.io\":{\"auth\":\"dTpwOnE\"}}}", "r.io", "a", "u", "p:q");
	finds("{\"auths\":{\"r.io\":{\"auth\":\"dTpwOnE===\"}}}", "r.io", "a", "u", "p:q");
	finds("{\"auths\":{\"r.io\":{\"auth\":\"dTpwAAA=\"}}}", "r.io", "a", "u", "p");
	finds("{\"auths\":{\"r.io\":{\"auth\":\"dTpw\\n\"}}}", "r.io", "a", "u", "p");
	/* an empty auth beside user and password */
	finds("{\"auths\":{\"r.io\":{\"auth\":\"\",\"username\":\"u\",\"password\":\"p\"}}}", "r.io", "a", "u",
	      "p");
	assert_int_equal(lookup("{\"auths\":{\"r.io\":{\"auth\":\"dTo=\",\"identitytoken\":\"it\"}}}", "r.io",
				"a"), 1);
	assert_string_equal(cred.identity_token, "it");
	assert_string_equal(cred.username, "u");
	assert_int_equal(lookup("{\"auths\":{\"r.io\":{\"registrytoken\":\"rt\"}}}", "r.io", "a"), 1);
	assert_string_equal(cred.registry_token, "rt");
	assert_null(cred.username);
	/* the marker of credential helpers */
	assert_int_equal(lookup("{\"auths\":{\"r.io\":{\"username\":\"<token>\",\"password\":\"it\"}}}", "r.io",
				"a"), 1);
	assert_string_equal(cred.identity_token, "it");
	assert_null(cred.password);
}

static void test_keys(void **state)
{
	(void)state;
	finds(one("https://r.io/v1/"), "r.io", "a", "u", "p");
	finds(one("http://r.io"), "r.io", "a", "u", "p");
	finds(one("https://r.io/some/where"), "r.io", "a", "u", "p");
	finds(one("r.io/v1/"), "r.io", "a", "u", "p");
	finds(one("r.io/v2"), "r.io", "a", "u", "p");
	finds(one("R.IO:5000"), "r.io:5000", "a", "u", "p");
	finds(one("[::1]:5000"), "[::1]:5000", "a", "u", "p");
	lacks(one("r.io"), "r.io:5000", "a");
	lacks(one("r.io:5000"), "r.io", "a");
	lacks(one("xr.io"), "r.io", "a");
	lacks(one("r.io.evil"), "r.io", "a");
	lacks(one("https://evil/r.io"), "r.io", "a");
	lacks(one(""), "r.io", "a");
	lacks(one("https://"), "r.io", "a");
	lacks(one("/"), "r.io", "a");
}

static void test_repository_keys(void **state)
{
	static const char text[] =
		"{\"auths\":{\"r.io\":{\"username\":\"host\",\"password\":\"p\"},"
		"\"r.io/team\":{\"username\":\"team\",\"password\":\"p\"},"
		"\"r.io/team/big/\":{\"username\":\"big\",\"password\":\"p\"},"
		"\"https://r.io/v1/\":{\"username\":\"url\",\"password\":\"p\"}}}";

	(void)state;
	finds(text, "r.io", "team/big/model", "big", "p");
	finds(text, "r.io", "team/big", "big", "p");
	finds(text, "r.io", "team/bigger", "team", "p");
	finds(text, "r.io", "teams/big", "host", "p");
	lacks(one("r.io/team"), "r.io", "other");
	lacks(one("r.io/team"), "r.io", "tea");
}

static void test_hub(void **state)
{
	static const char both[] =
		"{\"auths\":{\"docker.io\":{\"username\":\"short\",\"password\":\"p\"},"
		"\"https://index.docker.io/v1/\":{\"username\":\"canonical\",\"password\":\"p\"}}}";

	(void)state;
	finds(one("https://index.docker.io/v1/"), "docker.io", "library/x", "u", "p");
	finds(one("index.docker.io"), "docker.io", "library/x", "u", "p");
	finds(one("docker.io"), "docker.io", "library/x", "u", "p");
	finds(one("registry-1.docker.io"), "docker.io", "library/x", "u", "p");
	finds(one("docker.io/library"), "docker.io", "library/x", "u", "p");
	finds(both, "docker.io", "library/x", "canonical", "p");
	lacks(one("https://index.docker.io/v1/access-token"), "docker.io", "library/x");
	lacks(one("https://index.docker.io/v1/refresh-token"), "docker.io", "library/x");
	lacks(one("docker.io"), "r.io", "library/x");
	lacks(one("notdocker.io"), "docker.io", "library/x");
}

static void test_globs(void **state)
{
	(void)state;
	finds(one("*.r.io"), "a.r.io", "x", "u", "p");
	finds(one("eu-*.r.i?"), "eu-west.r.io", "x", "u", "p");
	finds(one("*.r.io:5000"), "a.r.io:5000", "x", "u", "p");
	finds(one("*.r.io/team"), "a.r.io", "team/x", "u", "p");
	finds(one("*.dkr.ecr.*.amazonaws.com"), "1.dkr.ecr.eu.amazonaws.com", "x", "u", "p");
	lacks(one("*.r.io"), "r.io", "x");
	lacks(one("*.r.io"), "a.b.r.io", "x");
	lacks(one("*.r.io"), "a.r.io:5000", "x");
	lacks(one("*.r.io:5001"), "a.r.io:5000", "x");
	lacks(one("*"), "[::1]", "x");
	finds("{\"auths\":{\"*.r.io\":{\"username\":\"g\",\"password\":\"p\"},"
	      "\"a.r.io\":{\"username\":\"e\",\"password\":\"p\"}}}", "a.r.io", "x", "e", "p");
}

static void test_bare_map(void **state)
{
	(void)state;
	finds("{\"https://r.io/v1/\":{\"auth\":\"dTpw\",\"email\":\"e\"}}", "r.io", "a", "u", "p");
	lacks("{\"HttpHeaders\":{\"X\":\"y\"},\"credsStore\":\"\"}", "r.io", "a");
}

static void test_nothing(void **state)
{
	(void)state;
	lacks("", "r.io", "a");
	lacks(" \r\n\t", "r.io", "a");
	lacks("\xef\xbb\xbf", "r.io", "a");
	lacks("{}", "r.io", "a");
	lacks("{\"auths\":{}}", "r.io", "a");
	lacks("{\"auths\":null}", "r.io", "a");
	lacks("{\"auths\":{\"r.io\":{}}}", "r.io", "a");
	lacks("{\"auths\":{\"r.io\":{\"auth\":\"\",\"username\":\"\"}}}", "r.io", "a");
	lacks("{\"auths\":{\"r.io\":null}}", "r.io", "a");
	/* trouble of another registry is not ours */
	lacks("{\"auths\":{\"other\":{\"auth\":\"%%%\"}}}", "r.io", "a");
	/* a key with nothing in it does not hide the one that has */
	finds("{\"auths\":{\"r.io/a\":{},\"r.io\":{\"username\":\"u\",\"password\":\"p\"}}}", "r.io", "a",
	      "u", "p");
	assert_int_equal(lookup_n("\0\0", 2, "r.io", "a"), -1);
	assert_int_equal(err.code, CODE_USAGE);
}

static void test_malformed(void **state)
{
	(void)state;
	malformed("{", "");
	malformed("[]", "not a JSON object");
	malformed("\"x\"", "not a JSON object");
	malformed("{\"auths\":[]}", "auths");
	malformed("{\"auths\":{\"r.io\":\"dTpw\"}}", "key auths.r.io: is not an object");
	malformed("{\"auths\":{\"r.io\":{\"auth\":5}}}", "key auths.r.io.auth: must be a string");
	malformed("{\"auths\":{\"r.io\":{\"auth\":\"***\"}}}", "key auths.r.io.auth: is not base64");
	malformed("{\"r.io\":{\"auth\":\"***\"}}", "key r.io.auth: is not base64");
	malformed("{\"auths\":{\"r.io\":{\"auth\":\"dTpwd\"}}}", "base64");
	malformed("{\"auths\":{\"r.io\":{\"auth\":\"dT=pw\"}}}", "base64");
	malformed("{\"auths\":{\"r.io\":{\"auth\":\"dXA=\"}}}", "user:password");
	malformed("{\"auths\":{\"r.io\":{\"auth\":\"dTpwAHE=\"}}}", "NUL");
	malformed("{\"auths\":{\"r.io\":{\"username\":[],\"password\":\"hunter2\"}}}", "key auths.r.io.username");
	assert_null(strstr(err.msg, "hunter2"));
}

static void test_helpers(void **state)
{
	(void)state;
	malformed("{\"credHelpers\":{\"r.io\":\"pass\"}}", "docker-credential-pass");
	malformed("{\"auths\":{\"r.io\":{}},\"credHelpers\":{\"r.io\":\"desktop\"}}", "credHelpers.r.io");
	malformed("{\"credHelpers\":[]}", "credHelpers");
	lacks("{\"credHelpers\":{\"other\":\"gcloud\"}}", "r.io", "a");
	lacks("{\"credHelpers\":{\"r.io\":\"\"}}", "r.io", "a");
	lacks("{\"credHelpers\":{\"*.io\":\"pass\",\"r.io\":\"\"}}", "r.io", "a"); /* the nearest key counts */
	finds("{\"auths\":{\"r.io\":{\"auth\":\"dTpw\"}},\"credHelpers\":{\"r.io\":\"gcloud\"},"
	      "\"credsStore\":\"desktop\"}", "r.io", "a", "u", "p");
	assert_string_equal(notes, "");
	lacks("{\"auths\":{\"r.io\":{}},\"credsStore\":\"desktop\"}", "r.io", "a");
	assert_non_null(strstr(notes, "/cfg leaves its credentials to the helper docker-credential-desktop"));
}

/* Those whose logins are built in: named for the host, or by the host's own name. */
static void test_built_in_helpers(void **state)
{
	static const char *const names[] = { "ecr-login", "gcloud", "gcr", "acr-env", "acr-login" };
	char text[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(text, sizeof(text), "{\"auths\":{\"r.io\":{}},\"credHelpers\":{\"r.io\":\"%s\"}}", names[i]);
		assert_int_equal(lookup(text, "r.io", "a"), 1);
		assert_string_equal(cred.helper, names[i]);
		assert_string_equal(cred.source, "/cfg, key credHelpers.r.io");
		assert_null(cred.password);
		lacks(text, "other.io", "a");
	}
	finds("{\"auths\":{\"r.io\":{\"auth\":\"dTpw\"}},\"credHelpers\":{\"r.io\":\"ecr-login\"}}", "r.io", "a", "u", "p");
	assert_null(cred.helper);
	lacks("{\"credsStore\":\"ecr-login\"}", "r.io", "a");
	assert_non_null(strstr(notes, "put it under credHelpers"));
	lacks("{\"credsStore\":\"ecr-login\"}", "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "a");
	assert_string_equal(notes, "");
}

/* --- files --- */

static int make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/dockercfg.XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return drop(state) + system(cmd);
}

static const char *in_dir(const char *name)
{
	static char path[4][256];
	static unsigned i;

	i = (i + 1) % 4;
	snprintf(path[i], sizeof(path[i]), "%s/%s", dir, name);
	return path[i];
}

static void put(const char *name, const char *text)
{
	FILE *f = fopen(in_dir(name), "we");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int find(const char *const *files, const char *const *env)
{
	struct buf b = BUF_INIT(DOCKERCFG_NOTES_MAX);
	int rc;

	credential_release(&cred);
	memset(&err, 0, sizeof(err));
	rc = dockercfg_find(files, env, "r.io", "a", &cred, &b, &err);
	snprintf(notes, sizeof(notes), "%s", buf_cstr(&b));
	buf_release(&b);
	return rc;
}
#define LIST(...) (const char *[]){ __VA_ARGS__, NULL }

static const char *env_of(const char *name, const char *path)
{
	static char text[4][320];
	static unsigned i;

	i = (i + 1) % 4;
	snprintf(text[i], sizeof(text[i]), "%s=%s", name, path);
	return text[i];
}

static void user_is(int rc, const char *user)
{
	if (rc != 1)
		fail_msg("%d %s", rc, err.msg);
	assert_string_equal(cred.username, user);
}

static void user(const char *name, const char *who)
{
	char text[256];

	snprintf(text, sizeof(text), "{\"auths\":{\"r.io\":{\"username\":\"%s\",\"password\":\"p\"}}}", who);
	put(name, text);
}

static void test_named_files(void **state)
{
	(void)state;
	put("empty", "");
	user("one", "first");
	user("two", "second");
	user_is(find(LIST(in_dir("empty"), in_dir("two"), in_dir("one")), LIST("HOME=/nonexistent")), "second");
	assert_int_equal(find(LIST(in_dir("empty")), NULL), 0);
	assert_string_equal(notes, in_dir("empty"));
	assert_int_equal(find(LIST(in_dir("missing")), NULL), -1);
	assert_int_equal(err.code, CODE_USAGE);
	assert_non_null(strstr(err.msg, "missing"));
	/* a device is not read: it may never end */
	assert_int_equal(find(LIST("/dev/zero"), NULL), -1);
	assert_int_equal(err.code, CODE_USAGE);
}

/* A mounted secret: a directory with links, whose name depends on the type of the secret. */
static void test_directories(void **state)
{
	(void)state;
	assert_int_equal(find(LIST(dir), NULL), -1);
	assert_non_null(strstr(err.msg, ".dockerconfigjson"));
	put(".dockercfg", "{\"r.io\":{\"username\":\"old\",\"password\":\"p\"}}");
	user_is(find(LIST(dir), NULL), "old");
	assert_int_equal(mkdir(in_dir("..data"), 0700), 0);
	user("..data/.dockerconfigjson", "mounted");
	assert_int_equal(symlink("..data/.dockerconfigjson", in_dir(".dockerconfigjson")), 0);
	user_is(find(LIST(dir), NULL), "mounted");
	user("config.json", "plain");
	user_is(find(LIST(dir), NULL), "plain");
	put("config.json", "{\"auths\":{}}");
	user_is(find(LIST(dir), NULL), "mounted");
}

static void test_search(void **state)
{
	(void)state;
	assert_int_equal(mkdir(in_dir(".docker"), 0700), 0);
	assert_int_equal(mkdir(in_dir("cfg"), 0700), 0);
	user(".docker/config.json", "home");
	user("auth.json", "authfile");
	user_is(find(NULL, LIST(env_of("HOME", dir))), "home");
	user_is(find(NULL, LIST(env_of("HOME", dir), env_of("REGISTRY_AUTH_FILE", in_dir("auth.json")))),
		"authfile");
	/* DOCKER_CONFIG replaces the home directory, also when nothing is in it */
	assert_int_equal(find(NULL, LIST(env_of("HOME", dir), env_of("DOCKER_CONFIG", in_dir("cfg")))), 0);
	assert_non_null(strstr(notes, "no config.json there"));
	user("cfg/.dockerconfigjson", "secret");
	user_is(find(NULL, LIST(env_of("HOME", dir), env_of("DOCKER_CONFIG", in_dir("cfg")))), "secret");
	user_is(find(NULL, LIST(env_of("DOCKER_CONFIG", in_dir("auth.json")))), "authfile");
	/* what nobody named may be missing; the message will tell */
	assert_int_equal(find(NULL, LIST("HOME=/nonexistent", "REGISTRY_AUTH_FILE=/nonexistent/a")), 0);
	assert_string_equal(notes, "/nonexistent/a (not there), /nonexistent/.docker (not there)");
	assert_int_equal(find(NULL, LIST("HOME=")), 0);
	assert_string_equal(notes, "");
	/* but not broken */
	put(".docker/config.json", "{\"auths\":");
	assert_int_equal(find(NULL, LIST(env_of("HOME", dir))), -1);
	assert_int_equal(err.code, CODE_USAGE);
	assert_non_null(strstr(err.msg, "/.docker/config.json"));
}

static void test_base64(void **state)
{
	static const char *const plain[] = { "", "f", "fo", "foo", "foob", "fooba", "foobar" };
	static const char *const coded[] = { "", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
		struct buf b = BUF_INIT(64), c = BUF_INIT(64);

		assert_int_equal(base64_encode(plain[i], strlen(plain[i]), &b), 0);
		assert_string_equal(buf_cstr(&b), coded[i]);
		assert_int_equal(base64_decode(coded[i], strlen(coded[i]), &c), 0);
		assert_string_equal(buf_cstr(&c), plain[i]);
		buf_release(&b);
		buf_release(&c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_entry_forms, drop),
		cmocka_unit_test_teardown(test_keys, drop),
		cmocka_unit_test_teardown(test_repository_keys, drop),
		cmocka_unit_test_teardown(test_hub, drop),
		cmocka_unit_test_teardown(test_globs, drop),
		cmocka_unit_test_teardown(test_bare_map, drop),
		cmocka_unit_test_teardown(test_nothing, drop),
		cmocka_unit_test_teardown(test_malformed, drop),
		cmocka_unit_test_teardown(test_helpers, drop),
		cmocka_unit_test_teardown(test_built_in_helpers, drop),
		cmocka_unit_test_setup_teardown(test_named_files, make_dir, drop_dir),
		cmocka_unit_test_setup_teardown(test_directories, make_dir, drop_dir),
		cmocka_unit_test_setup_teardown(test_search, make_dir, drop_dir),
		cmocka_unit_test(test_base64),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
