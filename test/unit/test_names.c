// SPDX-License-Identifier: Apache-2.0
// ldflags: -Wl,--wrap=getaddrinfo,--wrap=freeaddrinfo,--wrap=sys_now_ms
/* Addresses of hosts: states, order, what is avoided, refresh. The name server is a function of this file. */
#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "names.h"

static _Atomic uint64_t now = 1000;
static atomic_int asked, answered;
static _Atomic(const char *) zone;	/* addresses between blanks; NULL = failure */
static atomic_int failure;
static atomic_bool hang;

uint64_t __wrap_sys_now_ms(void);
int __wrap_getaddrinfo(const char *, const char *, const struct addrinfo *, struct addrinfo **);
void __wrap_freeaddrinfo(struct addrinfo *);

uint64_t __wrap_sys_now_ms(void)
{
	return now;
}

int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **ret)
{
	struct addrinfo **end = ret;
	char text[1024], *rest = text, *word;

	(void)host, (void)service, (void)hints;
	asked++;
	while (hang)
		usleep(1000);
	if (!zone) {
		answered++;
		return failure;
	}
	snprintf(text, sizeof(text), "%s", (const char *)zone);
	while ((word = strsep(&rest, " "))) {
		struct { struct addrinfo info; struct sockaddr_in6 address; } *x = calloc(1, sizeof(*x));
		bool v6 = strchr(word, ':');
		x->info.ai_family = v6 ? AF_INET6 : AF_INET;
		x->info.ai_addr = (struct sockaddr *)&x->address;
		assert_int_equal(inet_pton(x->info.ai_family, word,
					   v6 ? (void *)&x->address.sin6_addr :
						(void *)&((struct sockaddr_in *)&x->address)->sin_addr), 1);
		*end = &x->info;
		end = &x->info.ai_next;
	}
	answered++;
	return 0;
}

void __wrap_freeaddrinfo(struct addrinfo *a)
{
	while (a) {
		struct addrinfo *next = a->ai_next;
		free(a);
		a = next;
	}
}

static struct names *n;
static struct err err;

static int make(void **state)
{
	(void)state;
	asked = answered = 0;
	hang = false;
	zone = "10.0.0.1";
	failure = EAI_NONAME;
	return names_new(&n, NULL, &err);
}

static int drop(void **state)
{
	(void)state;
	names_free(n);
	n = NULL;
	return 0;
}

static enum names_state wait_for(const char *host)
{
	enum names_state s = NAMES_PENDING;

	for (int i = 0; i < 200 && s == NAMES_PENDING; i++)
		s = names_wait(n, host, 443, 50);
	return s;
}

/* The order for a slot, in a static buffer. */
static const char *order(const char *host, unsigned slot)
{
	static char text[1024];
	char first[NAMES_ADDRESS_MAX] = "";
	struct buf b = BUF_INIT(1000);

	assert_int_equal(names_pick(n, host, 443, slot, &b, first), NAMES_READY);
	snprintf(text, sizeof(text), "%s", buf_cstr(&b));
	buf_release(&b);
	size_t len = strlen(first);
	assert_true(strncmp(text + (text[0] == '['), first, len) == 0);
	return text;
}

/* Waits for that many answers of the name server, and a moment for what becomes of the last. */
static void answers(int want)
{
	for (int i = 0; i < 5000 && answered < want; i++)
		usleep(1000);
	assert_true(answered >= want);
	usleep(20000);
}

static void one_lookup_for_all(void **state)
{
	char first[NAMES_ADDRESS_MAX];
	struct buf b = BUF_INIT(100);

	(void)state;
	hang = true;
	for (int i = 0; i < 5; i++)
		assert_int_equal(names_pick(n, "r.example", 443, 0, &b, first), NAMES_PENDING);
	assert_int_equal(names_wait(n, "R.example", 80, 20), NAMES_PENDING);
	hang = false;
	assert_int_equal(wait_for("r.example"), NAMES_READY);
	assert_string_equal(order("r.example", 3), "10.0.0.1");
	assert_int_equal(asked, 1);
	buf_release(&b);
}

static void nothing_to_look_up(void **state)
{
	static const char *const hosts[] = { "127.0.0.1", "::1", "fe80::1%eth0", "localhost", "a.localhost", "", "r.example." };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++)
		if (names_wait(n, hosts[i], 443, 10) != NAMES_NONE)
			fail_msg("%s is looked up", hosts[i]);
	assert_int_equal(asked, 0);
}

static void slots_are_spread_over_the_family(void **state)
{
	unsigned seen[4] = { 0 };

	(void)state;
	zone = "fd00::1 fd00::2 fd00::3 10.0.0.1 10.0.0.2 fd00::1";
	assert_int_equal(wait_for("r.example"), NAMES_READY);
	for (unsigned slot = 0; slot < 30; slot++) {
		const char *text = order("r.example", slot);
		assert_memory_equal(text, "[fd00::", 7);
		assert_non_null(strstr(text, ",10.0.0.1,10.0.0.2"));
		seen[text[7] - '0']++;
	}
	assert_true(seen[1] == 10 && seen[2] == 10 && seen[3] == 10);
}

static void bad_ones_come_last_for_a_while(void **state)
{
	(void)state;
	zone = "fd00::1 10.0.0.1 10.0.0.2";
	assert_int_equal(wait_for("r.example"), NAMES_READY);
	names_avoid(n, "r.example", 443, "fd00::1");
	for (unsigned slot = 0; slot < 4; slot++)
		assert_non_null(strstr(order("r.example", slot), ",[fd00::1]"));
	names_avoid(n, "r.example", 443, "10.0.0.1");
	assert_string_equal(order("r.example", 1), "10.0.0.2,[fd00::1],10.0.0.1");
	names_avoid(n, "r.example", 443, "10.9.9.9"); /* not one of them */
	names_avoid(n, "other.example", 443, "10.0.0.2");
	assert_string_equal(order("r.example", 0), "10.0.0.2,[fd00::1],10.0.0.1");
	now += 61000;
	assert_memory_equal(order("r.example", 0), "[fd00::1]", 9);
	answers(2); /* that of the refresh, which is not the next test's */
}

static void all_bad_is_asked_anew(void **state)
{
	(void)state;
	zone = "10.0.0.1 10.0.0.2";
	assert_int_equal(wait_for("r.example"), NAMES_READY);
	names_avoid(n, "r.example", 443, "10.0.0.1");
	now += 2000;
	order("r.example", 0);
	assert_int_equal(asked, 1);
	zone = "10.0.0.2 10.0.0.3"; /* the Service was made anew */
	names_avoid(n, "r.example", 443, "10.0.0.2");
	order("r.example", 0);	/* goes on with what there is */
	answers(2);
	assert_string_equal(order("r.example", 0), "10.0.0.3,10.0.0.2");
}

static void failures_are_told_and_tried_again(void **state)
{
	char text[100];

	(void)state;
	zone = NULL;
	assert_int_equal(wait_for("r.example"), NAMES_FAILED);
	assert_string_equal(names_failure(n, "r.example", text, sizeof(text)), "no such host");
	assert_int_equal(wait_for("r.example"), NAMES_FAILED);
	assert_int_equal(asked, 1); /* not at once */
	now += 1100;
	failure = EAI_AGAIN;
	assert_int_equal(wait_for("r.example"), NAMES_FAILED);
	assert_non_null(strstr(names_failure(n, "r.example", text, sizeof(text)), "does not answer"));
	now += 1100;
	zone = "10.0.0.1";
	assert_int_equal(wait_for("r.example"), NAMES_READY);
	assert_string_equal(names_failure(n, "r.example", text, sizeof(text)), "");
}

/* After a minute it is asked again; while that fails the old addresses hold. */
static void old_answers_outlive_the_name_server(void **state)
{
	(void)state;
	assert_int_equal(wait_for("r.example"), NAMES_READY);
	now += 61000;
	zone = NULL;
	for (int i = 0; i < 3; i++) {
		assert_string_equal(order("r.example", 0), "10.0.0.1");
		answers(i + 2);
		assert_string_equal(order("r.example", 0), "10.0.0.1");
		now += 1100;
	}
	assert_true(asked >= 3);
}

static void leaving_does_not_wait(void **state)
{
	(void)state;
	hang = true;
	assert_int_equal(names_wait(n, "r.example", 443, 10), NAMES_PENDING);
	assert_int_equal(drop(NULL), 0);
	hang = false;
	for (int k = 0; k < 2000 && !answered; k++)
		usleep(1000);
	usleep(20000); /* ASan would tell what it still touches */
}

static void hosts_are_counted(void **state)
{
	char host[32];

	(void)state;
	for (int i = 0; i < LIMIT_NAMES; i++) {
		snprintf(host, sizeof(host), "h%d.example", i);
		assert_int_equal(wait_for(host), NAMES_READY);
	}
	assert_int_equal(names_wait(n, "more.example", 443, 10), NAMES_NONE);
	assert_int_equal(wait_for("h0.example"), NAMES_READY);
}

/* Also when the host was looked up for another port since. */
static void resolve_comes_first(void **state)
{
	static const char *const said[][2] = { { "r.example:443:192.0.2.1", NULL }, { "*:443:192.0.2.1", NULL } };
	char first[NAMES_ADDRESS_MAX];
	struct err err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(said); i++) {
		struct buf b = BUF_INIT(100);
		struct names *x = NULL;
		enum names_state s = NAMES_PENDING;

		assert_int_equal(names_new(&x, said[i], &err), 0);
		for (int k = 0; k < 200 && s == NAMES_PENDING; k++)
			s = names_wait(x, "r.example", 80, 50);
		assert_int_equal(names_pick(x, "r.example", 80, 0, &b, first), NAMES_READY);
		assert_string_equal(buf_cstr(&b), "10.0.0.1");
		buf_clear(&b);
		assert_int_equal(names_pick(x, "r.example", 443, 0, &b, first), NAMES_READY);
		assert_string_equal(buf_cstr(&b), "192.0.2.1");
		buf_release(&b);
		names_free(x);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_lookup_for_all, make, drop),
		cmocka_unit_test_setup_teardown(nothing_to_look_up, make, drop),
		cmocka_unit_test_setup_teardown(slots_are_spread_over_the_family, make, drop),
		cmocka_unit_test_setup_teardown(bad_ones_come_last_for_a_while, make, drop),
		cmocka_unit_test_setup_teardown(all_bad_is_asked_anew, make, drop),
		cmocka_unit_test_setup_teardown(failures_are_told_and_tried_again, make, drop),
		cmocka_unit_test_setup_teardown(old_answers_outlive_the_name_server, make, drop),
		cmocka_unit_test_setup_teardown(leaving_does_not_wait, make, drop),
		cmocka_unit_test_setup_teardown(hosts_are_counted, make, drop),
		cmocka_unit_test_setup_teardown(resolve_comes_first, make, drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
