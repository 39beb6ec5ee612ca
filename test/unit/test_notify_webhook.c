// SPDX-License-Identifier: Apache-2.0
/* Webhooks of notify.c against a server on a socket of this program. */
#include "notify_fixture.h"

/* --- webhook --- */

static void post_preset(void **state)
{
	const struct http_options http = { .user_agent = "fetcher/test", .cert_file = "/nonexistent" };
	char url[128];

	(void)state;
	server_start(NULL);
	struct notify *n = begin((struct notify_options){ .webhook_url = server_url("/hook?token=abc", url), .http = &http });
	notify_send(n, &event_b);
	wait_idle(n);
	notify_free(n);
	assert_int_equal(atomic_load(&server.n), 1);
	assert_memory_equal(server.requests[0], "POST /hook?token=abc HTTP/1.1\r\n", 31);
	assert_non_null(strstr(server.requests[0], "\r\nContent-Type: application/json\r\n"));
	assert_non_null(strstr(server.requests[0], "\r\nUser-Agent: fetcher/test\r\n"));
	assert_null(strstr(server.requests[0], "urlencoded"));
	assert_null(strstr(server.requests[0], "Authorization"));
	assert_string_equal(body_of(0), "{\"ref\":\"r.example/m:1\",\"digest\":\"" DIGEST_B "\",\"previous\":\"" DIGEST_A
			    "\",\"path\":\"/models/b\",\"generation\":2}");
	server_stop();
}

static void sglang_preset(void **state)
{
	static const char *const answers[] = {
		ANSWER("400 Bad Request", "{\"success\":false,\"message\":\"no such model\"}"),
		ANSWER("200 OK", "{\"success\":false,\"message\":\"still loading\"}"),
		ANSWER("200 OK", "{\"success\":true,\"message\":\"Ok.\"}"), OK, NULL,
	};
	static const struct {
		const char *given, *asked;
	} paths[] = {
		{ "", "POST /update_weights_from_disk HTTP/1.1\r\n" },
		{ "/", "POST /update_weights_from_disk HTTP/1.1\r\n" },
		{ "/?a=b", "POST /update_weights_from_disk?a=b HTTP/1.1\r\n" },
		{ "/proxy/reload", "POST /proxy/reload HTTP/1.1\r\n" },
	};
	char url[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		server_start(answers);
		struct notify *n = begin((struct notify_options){
			.webhook_url = server_url(paths[i].given, url), .preset = NOTIFY_SGLANG });
		notify_send(n, &event_a);
		wait_idle(n);
		notify_free(n);
		assert_int_equal(atomic_load(&server.n), 3);
		assert_memory_equal(server.requests[0], paths[i].asked, strlen(paths[i].asked));
		assert_string_equal(body_of(0), "{\"model_path\":\"/models/a\"}");
		assert_true(told_says("400: no such model\n"));
		assert_true(told_says("\"success\": false: still loading"));
		server_stop();
	}
}

static void triton_preset(void **state)
{
	char url[128];

	(void)state;
	server_start(NULL);
	struct notify *n = begin((struct notify_options){
		.webhook_url = server_url("/v2/repository/models/llama/load", url), .preset = NOTIFY_TRITON });
	notify_send(n, &event_a);
	wait_idle(n);
	notify_free(n);
	assert_memory_equal(server.requests[0], "POST /v2/repository/models/llama/load HTTP/1.1\r\n", 48);
	assert_string_equal(body_of(0), "{}");
	server_stop();
}

static void other_methods(void **state)
{
	static const struct {
		const char *method, *body, *line, *sent;
	} cases[] = {
		{ "PUT", "x{generation}", "PUT /m HTTP/1.1\r\n", "x1" },
		{ "PATCH", "", "PATCH /m HTTP/1.1\r\n", "" },
		{ "GET", "x", "GET /m HTTP/1.1\r\n", "" },
	};
	char url[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		server_start(NULL);
		struct notify *n = begin((struct notify_options){
			.webhook_url = server_url("/m", url), .webhook_method = cases[i].method, .webhook_body = cases[i].body });
		notify_send(n, &event_a);
		wait_idle(n);
		notify_free(n);
		assert_memory_equal(server.requests[0], cases[i].line, strlen(cases[i].line));
		assert_string_equal(body_of(0), cases[i].sent);
		server_stop();
	}
}

/* Nobody listens, then errors, then it is taken; and never asked again. */
static void retried_until_taken(void **state)
{
	static const char *const answers[] = { STATUS("500 Oh"), STATUS("503 No"), STATUS("404 What"), STATUS("204 Fine"), NULL };
	char url[128], path[128];

	(void)state;
	server_bind();
	struct notify *n = begin((struct notify_options){
		.webhook_url = server_url("/x", url), .touch_file = in_directory("t", path) });
	notify_send(n, &event_a);
	wait_failures(2);
	server_listen(answers);
	wait_idle(n);
	assert_int_equal(atomic_load(&server.n), 4);
	assert_string_equal(told.order, "touch-file\nwebhook\n"); /* who took it is not asked again */
	assert_true(told_says("answered 500"));
	notify_send(n, &event_a);
	sys_sleep_ms(100);
	assert_int_equal(atomic_load(&server.n), 4);
	notify_free(n);
	server_stop();
}

/* An event that waits, or is on its way, is dropped for the newest one. */
static void overtaken(void **state)
{
	static const char *const busy[] = { HOLD, OK, NULL }, *const failing[] = { STATUS("500 Oh"), OK, NULL };
	char url[128];

	(void)state;
	server_start(busy);
	struct notify *n = begin((struct notify_options){ .webhook_url = server_url("/x", url) });
	notify_send(n, &event_a);
	wait_requests(1);
	notify_send(n, &event_b);
	notify_send(n, &event_c);
	assert_false(notify_idle(n));
	atomic_store(&server.release, true);
	wait_idle(n);
	notify_free(n);
	assert_int_equal(atomic_load(&server.n), 2);
	assert_non_null(strstr(body_of(0), DIGEST_A));
	assert_non_null(strstr(body_of(1), "\"digest\":\"" DIGEST_C));
	server_stop();

	/* a backoff of an hour does not hold up what is new */
	server_start(failing);
	n = begin((struct notify_options){ .webhook_url = server_url("/x", url), .hook_backoff_ms = 3600 * 1000 });
	notify_send(n, &event_a);
	wait_failures(1);
	notify_send(n, &event_b);
	wait_idle(n);
	notify_free(n);
	assert_int_equal(atomic_load(&server.n), 2);
	assert_non_null(strstr(body_of(1), "\"digest\":\"" DIGEST_B));
	server_stop();
}

static void hang_and_stop(void **state)
{
	static const char *const answers[] = { HANG, NULL };
	atomic_int stop = 0;
	char url[128];

	(void)state;
	server_start(answers);
	struct notify *n = begin((struct notify_options){
		.webhook_url = server_url("/x", url), .webhook_timeout_ms = 3600 * 1000 });
	notify_send(n, &event_a);
	wait_requests(1);
	end_quickly(n);
	assert_int_equal(told_count(false), 0);
	server_stop();

	/* while it waits for its next try, and when the process is about to end */
	server_bind();
	n = begin((struct notify_options){
		.webhook_url = server_url("/x", url), .hook_backoff_ms = 3600 * 1000, .stop = &stop });
	notify_send(n, &event_a);
	wait_failures(1);
	atomic_store(&stop, CODE_SIGTERM);
	notify_send(n, &event_b);
	sys_sleep_ms(100);
	assert_int_equal(told_count(false), 1);
	assert_false(notify_idle(n));
	end_quickly(n);
	close(server.fd);
}

static void hang_and_timeout(void **state)
{
	static const char *const answers[] = { HANG, DRIP, OK, NULL };
	char url[128];
	uint64_t t = sys_now_ms();

	(void)state;
	server_start(answers);
	struct notify *n = begin((struct notify_options){ .webhook_url = server_url("/x?token=abc", url), .webhook_timeout_ms = 300 });
	notify_send(n, &event_a);
	wait_idle(n);
	assert_true(sys_now_ms() - t < LONG_MS / 2);
	assert_int_equal(told_count(false), 2); /* silent, and slow */
	assert_int_equal(told.last.code, CODE_DEADLINE);
	assert_false(told_says("abc"));
	notify_free(n);
	server_stop();
}

static void redirect_refused(void **state)
{
	static const char *const answers[] = {
		"HTTP/1.1 307 There\r\nLocation: /elsewhere?secret\r\nContent-Length: 0\r\n\r\n", OK, NULL };
	char url[128];

	(void)state;
	server_start(answers);
	struct notify *n = begin((struct notify_options){ .webhook_url = server_url("/x", url) });
	notify_send(n, &event_a);
	wait_idle(n);
	notify_free(n);
	assert_int_equal(atomic_load(&server.n), 2);
	assert_memory_equal(server.requests[1], "POST /x ", 8);
	assert_true(told_says("307, a redirect, which is not followed"));
	assert_false(told_says("secret"));
	server_stop();
}

static void expected_status(void **state)
{
	static const char *const answers[] = { OK, STATUS("202 Later"), NULL };
	char url[128];

	(void)state;
	server_start(answers);
	struct notify *n = begin((struct notify_options){ .webhook_url = server_url("/x", url), .webhook_success_status = 202 });
	notify_send(n, &event_a);
	wait_idle(n);
	notify_free(n);
	assert_int_equal(atomic_load(&server.n), 2);
	assert_true(told_says("answered 200"));
	server_stop();
}

/* Not HTTP, cut off, too large, JSON of another kind. */
static void strange_answers(void **state)
{
	static const char *const answers[] = {
		"SSH-2.0-x\r\n", "", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
		ANSWER("500 Oh", "{\"message\":[\"error\"]}"),
		ANSWER("500 Oh", "{\"error\":\"a\\r\\nb\\u001b[31mc\"}"),
		ANSWER("200 OK", "[1]"), NULL,
	};
	char url[128];

	(void)state;
	server_start(answers);
	struct notify *n = begin((struct notify_options){ .webhook_url = server_url("/x", url), .preset = NOTIFY_SGLANG });
	notify_send(n, &event_a);
	wait_idle(n);
	notify_free(n);
	assert_int_equal(atomic_load(&server.n), 7);
	assert_int_equal(told_count(false), 6);
	assert_true(told_says("500: a\\r\\nb\\u001b[31mc"));
	server_stop();
}

/* --- header files --- */

static void headers_rotated(void **state)
{
	static const char *const answers[] = { STATUS("401 Who"), OK, NULL };
	char url[128], a[128], b[128];
	const char *const files[] = { in_directory("a", a), in_directory("b", b), NULL };

	(void)state;
	write_file(a, "\r\nAuthorization: Bearer old-secret\r\n\r\n");
	server_start(answers);
	struct notify *n = begin((struct notify_options){
		.webhook_url = server_url("/x", url), .webhook_headers = files, .hook_backoff_ms = 300 });
	notify_send(n, &event_a);
	/* the second file is missing: nothing is sent */
	wait_failures(1);
	assert_int_equal(atomic_load(&server.n), 0);
	assert_true(told_says(b));
	write_file(b, "X-One:  1 \nX-Two: \xc3\xa9");
	wait_requests(1);
	write_file(a, "Authorization: Bearer new-secret");
	wait_idle(n);
	notify_free(n);
	assert_non_null(strstr(server.requests[0], "\r\nAuthorization: Bearer old-secret\r\n"));
	assert_non_null(strstr(server.requests[0], "\r\nX-One:  1\r\n"));
	assert_non_null(strstr(server.requests[0], "\r\nX-Two: \xc3\xa9\r\n"));
	assert_non_null(strstr(server.requests[1], "\r\nAuthorization: Bearer new-secret\r\n"));
	assert_null(strstr(server.requests[1], "old-secret"));
	assert_true(told_says("answered 401"));
	assert_false(told_says("secret"));
	server_stop();
}

static void headers_refused(void **state)
{
	static const char *const bad[] = {
		"s3cret", "s3cret value: x", ": s3cret", "X-A s3cret: x", " X-A: s3cret", "X-A: a\rs3cret: b", "X-A: s3\x01" "cret",
		"X-A:", "X-A:  ", "Host: s3cret", "host: s3cret", "CONTENT-LENGTH: 5", "transfer-encoding: chunked",
		"X-A: 1\nX\xc3\xa9: s3cret",
	};
	char url[128], a[128];
	const char *const files[] = { in_directory("a", a), NULL };

	(void)state;
	server_start(NULL);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		write_file(a, bad[i]);
		struct notify *n = begin((struct notify_options){
			.webhook_url = server_url("/x", url), .webhook_headers = files });
		notify_send(n, &event_a);
		wait_failures(1);
		notify_free(n);
		if (atomic_load(&server.n))
			fail_msg("sent: %s", bad[i]);
		assert_true(told_says(a));
		assert_true(told_says("line "));
		if (told_says("s3"))
			fail_msg("told: %s", told.errors);
	}
	server_stop();
}

/* Another type than JSON: values are not escaped. One of ours only. */
static void content_types(void **state)
{
	static const struct {
		const char *line;
		bool escaped;
	} cases[] = {
		{ "content-type: text/plain", false },
		{ "Content-Type: application/json; charset=utf-8", true },
		{ "Content-Type: application/cloudevents+json", true },
		{ "Content-Type: application/x-www-form-urlencoded", false },
		{ "X-Other: text/plain", true },
	};
	const struct notify_event ev = { "r", DIGEST_A, "", "/a\"b", 1 };
	char url[128], a[128];
	const char *const files[] = { in_directory("a", a), NULL };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		server_start(NULL);
		write_file(a, cases[i].line);
		struct notify *n = begin((struct notify_options){
			.webhook_url = server_url("/x", url), .webhook_headers = files, .webhook_body = "{path}" });
		notify_send(n, &ev);
		wait_idle(n);
		notify_free(n);
		assert_string_equal(body_of(0), cases[i].escaped ? "/a\\\"b" : "/a\"b");
		assert_non_null(strstr(server.requests[0], cases[i].line));
		char *type = strcasestr(server.requests[0], "content-type:");
		assert_null(strcasestr(type + 1, "content-type:"));
		server_stop();
	}
}

/* A server that repeats what it was sent. */
static void secrets_repeated(void **state)
{
	static const char *const answers[] = {
		ANSWER("401 Who", "{\"message\":\"/x?sig=q-s3cret: Bearer t-s3cret is wrong, so is t-s3cret alone, and h-s3cret\"}"),
		OK, NULL,
	};
	char url[128], a[128];
	const char *const files[] = { in_directory("a", a), NULL };

	(void)state;
	write_file(a, "Authorization: Bearer t-s3cret\nX-Key: h-s3cret\n");
	server_start(answers);
	struct notify *n = begin((struct notify_options){
		.webhook_url = server_url("/x?sig=q-s3cret", url), .webhook_headers = files });
	notify_send(n, &event_a);
	wait_idle(n);
	notify_free(n);
	assert_true(told_says("is wrong, so is"));
	assert_false(told_says("s3cret"));
	server_stop();
}
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(post_preset),
		TEST(sglang_preset),
		TEST(triton_preset),
		TEST(other_methods),
		TEST(retried_until_taken),
		TEST(overtaken),
		TEST(hang_and_stop),
		TEST(hang_and_timeout),
		TEST(redirect_refused),
		TEST(expected_status),
		TEST(strange_answers),
		TEST(headers_rotated),
		TEST(headers_refused),
		TEST(content_types),
		TEST(secrets_repeated),
	};

	fx_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
