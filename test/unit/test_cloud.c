// SPDX-License-Identifier: Apache-2.0
/* Logins of the clouds: who is meant, which address is asked with what, what is kept. No network: a table of answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "cloud.h"

#define ECR_HOST "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
#define KEYS "AWS_ACCESS_KEY_ID=AKID", "AWS_SECRET_ACCESS_KEY=key-secret"
#define ECR_ANSWER "{\"authorizationData\":[{\"authorizationToken\":\"QVdTOnB3LXNlY3JldA==\"}]}"

/* --- the world --- */

struct exchange {
	const char *url;	/* what it begins with */
	long status;		/* 0: nobody answers */
	const char *body;
	const char *header;	/* "Name: value" or NULL */
};

static struct exchange world[8];
static char asked[2048];	/* "METHOD url\n" ... */
static char last_body[1024], last_headers[2048];
static bool last_no_proxy, run_is_over;
static struct err err;
static struct credential cred;
static char notes[1024];

static void copy_header(struct http_response *r, const char *line)
{
	const char *colon = strchr(line, ':');

	r->headers = calloc(1, sizeof(*r->headers));
	r->headers[0].name = strndup(line, (size_t)(colon - line));
	r->headers[0].value = strdup(colon + 2);
	r->n_headers = 1;
}

static int fetch(void *ctx, const struct http_request *q, struct http_response *ret, struct err *e)
{
	size_t n = strlen(asked);

	(void)ctx;
	snprintf(asked + n, sizeof(asked) - n, "%s %s\n", q->method, q->url);
	snprintf(last_body, sizeof(last_body), "%s", q->body ? q->body : "");
	snprintf(last_headers, sizeof(last_headers), "Authorization: %s\n", q->authorization ? q->authorization : "");
	for (size_t i = 0; q->headers && q->headers[i]; i++) {
		n = strlen(last_headers);
		snprintf(last_headers + n, sizeof(last_headers) - n, "%s\n", q->headers[i]);
	}
	last_no_proxy = q->no_proxy;
	assert_true(q->timeout_ms > 0);
	assert_true(q->max_body > 0 && q->max_body <= LIMIT_TOKEN);
	for (size_t i = 0; i < ARRAY_SIZE(world) && world[i].url; i++) {
		if (strncmp(q->url, world[i].url, strlen(world[i].url)) != 0)
			continue;
		if (!world[i].status) {
			err_set(e, CODE_DEADLINE, "%s: no answer", q->url);
			e->retryable = !run_is_over;
			return -1;
		}
		*ret = (struct http_response){ .status = world[i].status, .url = strdup(q->url), .body = BUF_INIT(4096) };
		buf_adds(&ret->body, world[i].body);
		if (world[i].header)
			copy_header(ret, world[i].header);
		return 0;
	}
	fail_msg("nobody expected %s", q->url);
	return -1;
}

static struct cloud cloud(const char *registry, const char *const *env)
{
	return (struct cloud){ .fetch = fetch, .env = env, .registry = registry, .origin = "https://reg.example:443" };
}

static int try_login(const char *registry, enum cloud_kind kind, const char *const *env)
{
	struct cloud c = cloud(registry, env);
	struct buf b = BUF_INIT(sizeof(notes) - 1);

	credential_release(&cred);
	memset(&err, 0, sizeof(err));
	asked[0] = '\0';
	int rc = cloud_login(&c, kind, &cred, &b, &err);
	snprintf(notes, sizeof(notes), "%s", buf_cstr(&b));
	buf_release(&b);
	assert_null(strstr(notes, "-secret"));
	assert_null(strstr(err.msg, "-secret"));
	return rc;
}

static void works(const char *registry, enum cloud_kind kind, const char *const *env)
{
	int rc = try_login(registry, kind, env);

	if (rc != 1)
		fail_msg("%d %s %s", rc, err.msg, notes);
}

static void fails(const char *registry, enum cloud_kind kind, const char *const *env, enum code code, const char *says)
{
	assert_int_equal(try_login(registry, kind, env), -1);
	if (err.code != code || !strstr(err.msg, says))
		fail_msg("code %d: %s", err.code, err.msg);
}

static void asks_first(const char *line)
{
	if (strncmp(asked, line, strlen(line)) != 0)
		fail_msg("%s", asked);
}

static int setup(void **state)
{
	(void)state;
	memset(world, 0, sizeof(world));
	run_is_over = false;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	credential_release(&cred);
	cloud_forget();
	return 0;
}

/* --- who is meant --- */

static void test_registries(void **state)
{
	(void)state;
	assert_int_equal(cloud_of_registry(ECR_HOST), CLOUD_ECR);
	assert_int_equal(cloud_of_registry(ECR_HOST ":443"), CLOUD_ECR);
	assert_int_equal(cloud_of_registry("public.ecr.aws"), CLOUD_ECR_PUBLIC);
	assert_int_equal(cloud_of_registry("ecr-public.aws.com"), CLOUD_ECR_PUBLIC);
	assert_int_equal(cloud_of_registry("gcr.io"), CLOUD_GCP);
	assert_int_equal(cloud_of_registry("eu.gcr.io"), CLOUD_GCP);
	assert_int_equal(cloud_of_registry("europe-west4-docker.pkg.dev"), CLOUD_GCP);
	assert_int_equal(cloud_of_registry("contoso.azurecr.io"), CLOUD_ACR);
	assert_int_equal(cloud_of_registry("contoso.azurecr.cn"), CLOUD_ACR);
	assert_int_equal(cloud_of_registry("contoso.azurecr.us:443"), CLOUD_ACR);
	static const char *const nobody[] = { "docker.io", "ghcr.io", "xgcr.io", "gcr.io.example", ".gcr.io", "azurecr.io",
					      "pkg.dev", "localhost:5000", "[::1]:5000", "", "public.ecr.aws.example" };
	for (size_t i = 0; i < ARRAY_SIZE(nobody); i++)
		if (cloud_of_registry(nobody[i]) != CLOUD_NONE)
			fail_msg("%s is of no cloud", nobody[i]);
	assert_int_equal(cloud_of_helper("ecr-login", "r.io"), CLOUD_ECR);
	assert_int_equal(cloud_of_helper("ecr-login", "public.ecr.aws"), CLOUD_ECR_PUBLIC);
	assert_int_equal(cloud_of_helper("gcr", "r.io"), CLOUD_GCP);
	assert_int_equal(cloud_of_helper("acr-env", "r.io"), CLOUD_ACR);
	assert_int_equal(cloud_of_helper("pass", ECR_HOST), CLOUD_NONE);
}

static void test_where_an_identity_may_go(void **state)
{
	(void)state;
	assert_true(cloud_safe("https://reg.example:443"));
	assert_true(cloud_safe("http://127.0.0.1:5000"));
	assert_true(cloud_safe("http://localhost"));
	assert_true(cloud_safe("http://[::1]:80/x"));
	static const char *const unsafe[] = { "http://gcr.io:80", "http://localhost.example:80", "http://127.0.0.1.example", "http://10.0.0.1:80",
					      "http://[::1%25x]:80", "ftp://127.0.0.1", "" };
	for (size_t i = 0; i < ARRAY_SIZE(unsafe); i++)
		if (cloud_safe(unsafe[i]))
			fail_msg("%s", unsafe[i]);
}

/* --- ECR --- */

static void test_ecr_addresses(void **state)
{
	static const char *const env[] = { KEYS, "AWS_REGION=ap-south-1", NULL };
	static const struct {
		const char *registry;
		enum cloud_kind kind;
		const char *url;
	} rows[] = {
		{ ECR_HOST, CLOUD_ECR, "POST https://api.ecr.eu-west-1.amazonaws.com/\n" },
		{ "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", CLOUD_ECR,
		  "POST https://ecr-fips.us-east-1.amazonaws.com/\n" },
		{ "123456789012.dkr-ecr.us-east-1.on.aws", CLOUD_ECR, "POST https://ecr.us-east-1.api.aws/\n" },
		{ "123456789012.dkr-ecr-fips.us-east-1.on.aws", CLOUD_ECR, "POST https://ecr-fips.us-east-1.api.aws/\n" },
		{ "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", CLOUD_ECR,
		  "POST https://api.ecr.cn-north-1.amazonaws.com.cn/\n" },
		{ "models.example.com", CLOUD_ECR, "POST https://api.ecr.ap-south-1.amazonaws.com/\n" },
		{ "public.ecr.aws", CLOUD_ECR_PUBLIC, "POST https://api.ecr-public.us-east-1.amazonaws.com/\n" },
	};

	(void)state;
	world[0] = (struct exchange){ "https://", 200, ECR_ANSWER, NULL };
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		works(rows[i].registry, rows[i].kind, env);
		assert_string_equal(asked, rows[i].url);
		assert_string_equal(cred.username, "AWS");
		assert_string_equal(cred.password, "pw-secret");
		assert_int_equal(cred.life_ms, 12 * 3600 * 1000);
		assert_false(last_no_proxy);
	}
	assert_non_null(strstr(last_headers, "us-east-1/ecr-public/aws4_request"));
	assert_non_null(strstr(last_headers, "X-Amz-Target: SpencerFrontendService.GetAuthorizationToken"));
}

static void test_ecr_endpoint_variables(void **state)
{
	static const char *const both[] = { KEYS, "AWS_ENDPOINT_URL=http://all:1", "AWS_ENDPOINT_URL_ECR=https://vpce.example/",
					    NULL };
	static const char *const all[] = { KEYS, "AWS_ENDPOINT_URL=http://all:1", NULL };
	static const char *const wrong[] = { "file:///etc/passwd", "http://u:p@h", "https://h/?q", "https://h /", "x", "https://h/%2f" };
	char line[128];

	(void)state;
	world[0] = (struct exchange){ "http", 200, ECR_ANSWER, NULL };
	works(ECR_HOST, CLOUD_ECR, both);
	assert_string_equal(asked, "POST https://vpce.example/\n");
	cloud_forget();
	works(ECR_HOST, CLOUD_ECR, all);
	assert_string_equal(asked, "POST http://all:1/\n");
	cloud_forget();
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		snprintf(line, sizeof(line), "AWS_ENDPOINT_URL_ECR=%s", wrong[i]);
		fails(ECR_HOST, CLOUD_ECR, (const char *[]){ KEYS, line, NULL }, CODE_USAGE, "AWS_ENDPOINT_URL_ECR");
		assert_string_equal(asked, "");
	}
}

static void test_metadata_addresses(void **state)
{
	static const char *const none[] = { NULL };
	static const char *const six[] = { "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE=IPv6", NULL };
	static const char *const eks[] = { "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://[fd00:ec2::23]/v1/credentials", NULL };
	static const char *const ecs[] = { "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials/x", NULL };

	(void)state;
	world[0] = (struct exchange){ "http://", 0, NULL, NULL };
	assert_int_equal(try_login(ECR_HOST, CLOUD_ECR, none), 0);
	assert_string_equal(asked, "PUT http://169.254.169.254/latest/api/token\nPUT http://169.254.169.254/latest/api/token\n");
	assert_true(last_no_proxy);
	assert_non_null(strstr(notes, "IMDS at http://169.254.169.254: timed out"));
	cloud_forget();
	assert_int_equal(try_login(ECR_HOST, CLOUD_ECR, six), 0);
	asks_first("PUT http://[fd00:ec2::254]/latest/api/token\n");
	cloud_forget();
	assert_int_equal(try_login(ECR_HOST, CLOUD_ECR, ecs), -1);
	assert_string_equal(asked, "GET http://169.254.170.2/v2/credentials/x\n");
	assert_int_equal(try_login(ECR_HOST, CLOUD_ECR, eks), -1);
	assert_string_equal(asked, "GET http://[fd00:ec2::23]/v1/credentials\n");
	assert_int_equal(try_login("gcr.io", CLOUD_GCP, none), 0);
	assert_string_equal(asked, "GET http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token\n");
	assert_true(last_no_proxy);
	assert_int_equal(try_login("x.azurecr.io", CLOUD_ACR, none), 0);
	asks_first("GET http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource="
		   "https%3A%2F%2Fcontainerregistry.azure.net\n");
	assert_true(last_no_proxy);
	fails("gcr.io:1", CLOUD_GCP, (const char *[]){ "GCE_METADATA_HOST=evil/path?", NULL }, CODE_USAGE, "GCE_METADATA_HOST");
	fails(ECR_HOST, CLOUD_ECR, (const char *[]){ "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=@evil", NULL }, CODE_USAGE,
	      "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
}

/* What has passed through a metadata service is still not put into a URL or a header as it is. */
static void test_imds_that_lies(void **state)
{
	static const char *const env[] = { NULL };
	static const char *const roles[] = { "../../x", "a/b", "a b", "a?b", "", "\nrole" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(roles); i++) {
		world[0] = (struct exchange){ "http://169.254.169.254/latest/api/token", 200, "TOKEN", NULL };
		world[1] = (struct exchange){ "http://169.254.169.254/latest/meta-data", 200, roles[i], NULL };
		assert_int_equal(try_login(ECR_HOST, CLOUD_ECR, env), 0);
		assert_non_null(strstr(notes, "no role here"));
		cloud_forget();
	}
	world[0].body = "TOK\r\nX-Evil: 1";
	fails(ECR_HOST, CLOUD_ECR, env, CODE_AUTH, "IMDS");
}

static void test_variables_with_line_ends(void **state)
{
	(void)state;
	fails(ECR_HOST, CLOUD_ECR, (const char *[]){ "AWS_ACCESS_KEY_ID=a\r\nb", "AWS_SECRET_ACCESS_KEY=x", NULL }, CODE_USAGE,
	      "AWS_ACCESS_KEY_ID");
	fails(ECR_HOST, CLOUD_ECR, (const char *[]){ KEYS, "AWS_SESSION_TOKEN=a\nb", NULL }, CODE_USAGE, "AWS_SESSION_TOKEN");
	fails(ECR_HOST, CLOUD_ECR,
	      (const char *[]){ "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.23/v1/credentials",
				"AWS_CONTAINER_AUTHORIZATION_TOKEN=a\nb-secret", NULL },
	      CODE_USAGE, "AWS_CONTAINER_AUTHORIZATION_TOKEN");
	fails("r.example", CLOUD_ECR, (const char *[]){ KEYS, "AWS_REGION=eu/../x", NULL }, CODE_USAGE, "AWS_REGION");
}

/* AWS documents the form with amz-json's exception names; the message says which credentials were used. */
static void test_ecr_refusals(void **state)
{
	static const char *const env[] = { KEYS, NULL };

	(void)state;
	world[0] = (struct exchange){ "https://api.ecr", 400, "{\"__type\":\"AccessDeniedException\",\"Message\":\"not you\"}", NULL };
	fails(ECR_HOST, CLOUD_ECR, env, CODE_AUTH, "ECR login: AWS credentials of the environment: "
	      "https://api.ecr.eu-west-1.amazonaws.com/: refused with 400 (AccessDeniedException: not you)");
	world[0] = (struct exchange){ "https://api.ecr", 503, "", NULL };
	fails(ECR_HOST, CLOUD_ECR, env, CODE_NETWORK, "503");
	assert_true(err.retryable);
	/* a Date that is near explains nothing, and one that is nonsense neither */
	world[0] = (struct exchange){ "https://api.ecr", 400, "{\"__type\":\"RequestExpired\"}", "Date: soon" };
	fails(ECR_HOST, CLOUD_ECR, env, CODE_AUTH, "RequestExpired");
	assert_string_equal(asked, "POST https://api.ecr.eu-west-1.amazonaws.com/\n");
	world[0].header = "Date: Sat, 01 Jan 2000 00:00:00 GMT";
	fails(ECR_HOST, CLOUD_ECR, env, CODE_AUTH, "RequestExpired");
	assert_string_equal(asked, "POST https://api.ecr.eu-west-1.amazonaws.com/\nPOST https://api.ecr.eu-west-1.amazonaws.com/\n");
	assert_non_null(strstr(last_headers, "X-Amz-Date: 20000101T000000Z"));
	/* what ECR Public refuses is anonymous */
	world[0] = (struct exchange){ "https://api.ecr-public", 400, "{\"__type\":\"AccessDeniedException\"}", NULL };
	assert_int_equal(try_login("public.ecr.aws", CLOUD_ECR_PUBLIC, env), 0);
	assert_non_null(strstr(notes, "ECR Public login"));
}

/* The STS of the Pod's region, else of the registry's. */
static void test_sts_address(void **state)
{
	char file[64], line[128];

	(void)state;
	snprintf(file, sizeof(file), "/tmp/cloud.sts.%d", (int)getpid());
	FILE *f = fopen(file, "w");
	fputs("jwt-secret\n", f);
	fclose(f);
	snprintf(line, sizeof(line), "AWS_WEB_IDENTITY_TOKEN_FILE=%s", file);
	const char *const pod[] = { "AWS_ROLE_ARN=arn:aws:iam::1:role/x y", "AWS_ROLE_SESSION_NAME=s", "AWS_REGION=us-west-2", line, NULL };
	const char *const bare[] = { "AWS_ROLE_ARN=arn:aws:iam::1:role/x y", line, NULL };
	world[0] = (struct exchange){ "https://sts.", 400, "<Error><Code>IDPCommunicationError</Code><Message>later</Message></Error>", NULL };
	fails(ECR_HOST, CLOUD_ECR, pod, CODE_NETWORK, "IDPCommunicationError: later");
	assert_true(err.retryable);
	assert_string_equal(asked, "POST https://sts.us-west-2.amazonaws.com/\n");
	assert_string_equal(last_body, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fx%20y"
			    "&RoleSessionName=s&WebIdentityToken=jwt-secret");
	assert_string_equal(last_headers, "Authorization: \nAccept: application/xml\n"
			    "Content-Type: application/x-www-form-urlencoded\n");
	world[0].body = "<Error><Code>AccessDenied</Code><Message>jwt-secret is not mine</Message></Error>";
	fails("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", CLOUD_ECR, bare, CODE_AUTH, "AccessDenied: ********** is not mine");
	assert_string_equal(asked, "POST https://sts.cn-north-1.amazonaws.com.cn/\n");
	/* nor the beginning of it, where the words are cut */
	char cut[600] = "<Error><Code>AccessDenied</Code><Message>";
	size_t n = strlen(cut);
	memset(cut + n, 'x', 388);
	snprintf(cut + n + 388, sizeof(cut) - n - 388, " jwt-secret is not mine</Message></Error>");
	world[0].body = cut;
	fails(ECR_HOST, CLOUD_ECR, bare, CODE_AUTH, "xxx ***");
	assert_null(strstr(err.msg, "jwt"));
	world[0] = (struct exchange){ "https://sts.", 200, "<Credentials><AccessKeyId>A</AccessKeyId><SecretAccessKey>&#65;</SecretAccessKey>", NULL };
	fails(ECR_HOST, CLOUD_ECR, bare, CODE_AUTH, "STS: the answer has no usable SecretAccessKey");
	unlink(file);
}

/* --- Azure --- */

static void test_azure_authorities(void **state)
{
	static const struct {
		const char *registry, *asked;
	} rows[] = {
		{ "x.azurecr.io", "POST https://login.microsoftonline.com/tenant/oauth2/v2.0/token\n" },
		{ "x.azurecr.cn", "POST https://login.chinacloudapi.cn/tenant/oauth2/v2.0/token\n" },
		{ "x.azurecr.us", "POST https://login.microsoftonline.us/tenant/oauth2/v2.0/token\n" },
	};
	char file[64], line[128];

	(void)state;
	snprintf(file, sizeof(file), "/tmp/cloud.jwt.%d", (int)getpid());
	FILE *f = fopen(file, "w");
	fputs("jwt-secret\n", f);
	fclose(f);
	snprintf(line, sizeof(line), "AZURE_FEDERATED_TOKEN_FILE=%s", file);
	const char *const env[] = { "AZURE_TENANT_ID=tenant", "AZURE_CLIENT_ID=client", line, NULL };
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		world[0] = (struct exchange){ "https://login.", 400, "{\"error\":\"e\",\"error_description\":\"no jwt-secret\"}", NULL };
		assert_int_equal(try_login(rows[i].registry, CLOUD_ACR, env), 0);
		assert_string_equal(asked, rows[i].asked);
		assert_string_equal(last_body, "grant_type=client_credentials&client_id=client&scope="
				    "https%3A%2F%2Fcontainerregistry.azure.net%2F.default&client_assertion_type="
				    "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=jwt-secret");
		assert_non_null(strstr(notes, "no **********"));
	}
	unlink(file);
}

static void test_azure_exchange_goes_home(void **state)
{
	static const char *const env[] = { NULL };

	(void)state;
	world[0] = (struct exchange){ "http://169.254.169.254/", 200, "{\"access_token\":\"aad-secret\"}", NULL };
	world[1] = (struct exchange){ "https://reg.example:443/oauth2/exchange", 200, "{\"refresh_token\":\"acr-secret\"}", NULL };
	works("x.azurecr.io", CLOUD_ACR, env);
	assert_string_equal(cred.identity_token, "acr-secret");
	assert_string_equal(last_body, "grant_type=access_token&service=x.azurecr.io&access_token=aad-secret");
	assert_false(last_no_proxy);
	/* taken once: the next one is new */
	works("x.azurecr.io", CLOUD_ACR, env);
	assert_non_null(strstr(asked, "exchange"));
}

/* --- what is kept --- */

static void test_kept(void **state)
{
	static const char *const env[] = { KEYS, NULL };
	struct cloud c = cloud(ECR_HOST, env);

	(void)state;
	c.fresh = true;
	world[0] = (struct exchange){ "https://", 200, ECR_ANSWER, NULL };
	works(ECR_HOST, CLOUD_ECR, env);
	works(ECR_HOST, CLOUD_ECR, env);
	assert_string_equal(asked, "");
	assert_string_equal(cred.password, "pw-secret");
	assert_in_range(cred.life_ms, 11 * 3600 * 1000, 12 * 3600 * 1000);
	/* not for another registry, not when it was refused */
	works("123456789012.dkr.ecr.eu-west-2.amazonaws.com", CLOUD_ECR, env);
	assert_string_not_equal(asked, "");
	credential_release(&cred);
	asked[0] = '\0';
	assert_int_equal(cloud_login(&c, CLOUD_ECR, &cred, NULL, &err), 1);
	assert_string_not_equal(asked, "");
	cloud_drop(ECR_HOST);
	works(ECR_HOST, CLOUD_ECR, env);
	assert_string_not_equal(asked, "");
	/* more than the table holds */
	for (unsigned i = 0; i < 20; i++) {
		char host[64];
		snprintf(host, sizeof(host), "%012u.dkr.ecr.eu-west-1.amazonaws.com", i);
		works(host, CLOUD_ECR, env);
	}
}

static void test_kept_that_there_is_none(void **state)
{
	static const char *const env[] = { NULL };

	(void)state;
	world[0] = (struct exchange){ "http://metadata.google.internal/", 0, NULL, NULL };
	assert_int_equal(try_login("gcr.io", CLOUD_GCP, env), 0);
	assert_string_not_equal(asked, "");
	assert_int_equal(try_login("gcr.io", CLOUD_GCP, env), 0);
	assert_string_equal(asked, "");
	assert_string_equal(notes, "Google login (metadata server metadata.google.internal: timed out)");
}

/* A metadata server that goes away while it is needed is trouble, not the end of who we are. */
static void test_trouble_after_a_login(void **state)
{
	static const char *const env[] = { NULL };

	(void)state;
	/* Azure's, because it is not kept */
	world[0] = (struct exchange){ "http://169.254.169.254/", 200, "{\"access_token\":\"aad-secret\"}", NULL };
	world[1] = (struct exchange){ "https://reg.example:443/oauth2/exchange", 200, "{\"refresh_token\":\"acr-secret\"}", NULL };
	works("x.azurecr.io", CLOUD_ACR, env);
	world[0].status = 0;
	fails("x.azurecr.io", CLOUD_ACR, env, CODE_NETWORK, "timed out");
	assert_true(err.retryable);
}

/* The deadline of the run is no answer to who we are: it stays what it is, and nothing is kept. */
static void test_over_while_asking(void **state)
{
	static const char *const env[] = { NULL };
	static const struct {
		const char *registry;
		enum cloud_kind kind;
	} rows[] = { { ECR_HOST, CLOUD_ECR }, { "gcr.io", CLOUD_GCP }, { "x.azurecr.io", CLOUD_ACR } };

	(void)state;
	world[0] = (struct exchange){ "http://", 0, NULL, NULL };
	run_is_over = true;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		for (unsigned twice = 0; twice < 2; twice++) {
			fails(rows[i].registry, rows[i].kind, env, CODE_DEADLINE, "no answer");
			assert_false(err.retryable);
			assert_ptr_equal(strchr(asked, '\n'), strrchr(asked, '\n'));
			assert_string_not_equal(asked, "");
		}
	}
}

static void test_life_that_is_over_at_once(void **state)
{
	static const char *const env[] = { KEYS, NULL };
	char answer[200];

	(void)state;
	snprintf(answer, sizeof(answer), "{\"authorizationData\":[{\"authorizationToken\":\"QVdTOnB3LXNlY3JldA==\",\"expiresAt\":%lld.1}]}",
		 (long long)time(NULL) + 1);
	world[0] = (struct exchange){ "https://", 200, answer, NULL };
	works(ECR_HOST, CLOUD_ECR, env);
	/* a second may have passed since */
	assert_in_range(cred.life_ms, 1000, 1100);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_where_an_identity_may_go), CASE(test_registries), CASE(test_ecr_addresses), CASE(test_ecr_endpoint_variables),
		CASE(test_metadata_addresses), CASE(test_imds_that_lies), CASE(test_variables_with_line_ends),
		CASE(test_ecr_refusals), CASE(test_sts_address), CASE(test_azure_authorities), CASE(test_azure_exchange_goes_home), CASE(test_kept),
		CASE(test_kept_that_there_is_none), CASE(test_trouble_after_a_login), CASE(test_over_while_asking),
		CASE(test_life_that_is_over_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
