// SPDX-License-Identifier: Apache-2.0
#include "tls.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <mbedtls/ssl.h>
#include <mbedtls/ssl_ciphersuites.h>
#include <mbedtls/x509_crt.h>
#include <mbedtls/psa_util.h>
#include <psa/crypto.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "buf.h"
#include "ca_bundle.h"
#include "http.h"
#include "sys.h"

#define CA_FILE_MAX (16 * MIB)

struct tls {
	mbedtls_x509_crt chain;
	mbedtls_x509_crt own;		/* client certificate; own_origin "" = none */
	mbedtls_pk_context own_key;
	char own_origin[512];
	const int *suites;
	bool insecure;
	char source[LIMIT_PATH];
};

#define SUITES_AES \
	MBEDTLS_TLS1_3_AES_128_GCM_SHA256, MBEDTLS_TLS1_3_AES_256_GCM_SHA384, \
	MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, \
	MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, \
	MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, \
	MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
#define SUITES_CHACHA \
	MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256, \
	MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, \
	MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256

static const int aes_first[] = { SUITES_AES, SUITES_CHACHA, 0 };
static const int chacha_first[] = { SUITES_CHACHA, SUITES_AES, 0 };

static bool cpu_has_aes(void)
{
#if defined(__x86_64__)
	unsigned a, b, c, d;

	return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_AES) && (c & bit_PCLMUL);
#elif defined(__aarch64__)
	return (getauxval(AT_HWCAP) & (1 << 3)) != 0; /* HWCAP_AES */
#else
	return false;
#endif
}

static size_t count(const mbedtls_x509_crt *crt)
{
	size_t n = 0;

	for (; crt && crt->raw.len; crt = crt->next)
		n++;
	return n;
}

/* PEM (several) or one DER certificate. Returns how many were added. */
static size_t load_file(struct tls *t, const char *path)
{
	_cleanup_buf_ struct buf b = BUF_INIT(CA_FILE_MAX);
	size_t before = count(&t->chain);

	if (sys_read_file(AT_FDCWD, path, &b) || b.len == 0)
		return 0;
	/* PEM input must include its NUL; single bad certificates in a bundle are skipped */
	mbedtls_x509_crt_parse(&t->chain, (const unsigned char *)b.data, b.len + 1);
	if (count(&t->chain) == before)
		mbedtls_x509_crt_parse_der(&t->chain, (const unsigned char *)b.data, b.len);
	return count(&t->chain) - before;
}

static size_t load_dir(struct tls *t, const char *path)
{
	char name[LIMIT_PATH];
	size_t n = 0;
	struct dirent *d;
	DIR *dir = opendir(path);

	if (!dir)
		return 0;
	while ((d = readdir(dir))) {
		if (d->d_name[0] == '.')
			continue;
		if (snprintf(name, sizeof(name), "%s/%s", path, d->d_name) < (int)sizeof(name))
			n += load_file(t, name);
	}
	closedir(dir);
	return n;
}

/* The generated array is a sequence of (3-byte big-endian length, DER certificate). */
static size_t load_builtin(struct tls *t)
{
	size_t n = 0;

	for (size_t at = 0; at + 3 <= ca_bundle_der_len;) {
		const unsigned char *p = ca_bundle_der + at;
		size_t len = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
		/* nocopy: the array lives as long as the program */
		if (mbedtls_x509_crt_parse_der_nocopy(&t->chain, p + 3, len) == 0)
			n++;
		at += 3 + len;
	}
	return n;
}

static int load(struct tls *t, const char *ca_file, struct err *e)
{
	static const char *const usual[] = {
		"/etc/ssl/certs/ca-certificates.crt",	/* Debian, Ubuntu, Alpine */
		"/etc/pki/tls/certs/ca-bundle.crt",	/* Fedora, RHEL */
		"/etc/ssl/ca-bundle.pem",		/* openSUSE */
		"/etc/ssl/cert.pem",			/* Alpine, BSDs */
	};
	const char *env_file = getenv("SSL_CERT_FILE"), *env_dir = getenv("SSL_CERT_DIR");
	const char *named = ca_file ? ca_file : env_file && *env_file ? env_file : NULL;

	if (named) {
		snprintf(t->source, sizeof(t->source), "%s", named);
		if (load_file(t, named) == 0)
			return err_set(e, CODE_USAGE,
				       "no CA certificate could be read from %s (%s); give a readable PEM file",
				       named, ca_file ? "--ca-file" : "SSL_CERT_FILE");
		return 0;
	}
	if (env_dir && *env_dir && load_dir(t, env_dir)) {
		snprintf(t->source, sizeof(t->source), "%s", env_dir);
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(usual); i++) {
		if (load_file(t, usual[i])) {
			snprintf(t->source, sizeof(t->source), "%s", usual[i]);
			return 0;
		}
	}
	snprintf(t->source, sizeof(t->source), "built-in Mozilla bundle");
	if (load_builtin(t) == 0)
		return err_set(e, CODE_INTERNAL, "the built-in CA bundle is empty");
	return 0;
}

static int load_extra(struct tls *t, const char *const *files, struct err *e)
{
	for (size_t i = 0; files && files[i]; i++)
		if (load_file(t, files[i]) == 0)
			return err_set(e, CODE_USAGE, "no CA certificate could be read from %s; give a readable PEM file", files[i]);
	return 0;
}

int tls_new(struct tls **ret, const char *ca_file, const char *const *extra_ca_files, bool insecure, struct err *e)
{
	struct tls *t = calloc(1, sizeof(*t));

	if (!t)
		return err_oom(e);
	mbedtls_x509_crt_init(&t->chain);
	mbedtls_x509_crt_init(&t->own);
	mbedtls_pk_init(&t->own_key);
	t->insecure = insecure;
	t->suites = cpu_has_aes() ? aes_first : chacha_first;
	/* parsing keys uses PSA, which must be up before threads start */
	if (psa_crypto_init() != PSA_SUCCESS) {
		tls_free(t);
		return err_set(e, CODE_INTERNAL, "the crypto library could not start (no entropy?)");
	}
	if (load(t, ca_file, e) || load_extra(t, extra_ca_files, e)) {
		tls_free(t);
		return -1;
	}
	*ret = t;
	return 0;
}

void tls_free(struct tls *t)
{
	if (!t)
		return;
	mbedtls_x509_crt_free(&t->chain);
	mbedtls_x509_crt_free(&t->own);
	mbedtls_pk_free(&t->own_key);
	free(t);
}

int tls_client_certificate(struct tls *t, const char *cert_file, const char *key_file,
			   const char *origin, struct err *e)
{
	_cleanup_buf_ struct buf cert = BUF_INIT(LIMIT_SECRET_FILE), key = BUF_INIT(LIMIT_SECRET_FILE);

	if (sys_read_file(AT_FDCWD, cert_file, &cert))
		return err_errno(e, CODE_USAGE, errno, "cannot read --cert-file %s", cert_file);
	if (sys_read_file(AT_FDCWD, key_file, &key))
		return err_errno(e, CODE_USAGE, errno, "cannot read --key-file %s", key_file);
	/* PEM input must include its NUL */
	int bad_cert = mbedtls_x509_crt_parse(&t->own, (const unsigned char *)buf_cstr(&cert), cert.len + 1);
	int bad_key = mbedtls_pk_parse_key(&t->own_key, (const unsigned char *)buf_cstr(&key), key.len + 1,
					   NULL, 0, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
	if (key.data)
		explicit_bzero(key.data, key.len);
	if (bad_cert)
		return err_set(e, CODE_USAGE, "--cert-file %s holds no PEM certificate", cert_file);
	if (bad_key)
		return err_set(e, CODE_USAGE, "--key-file %s holds no unencrypted PEM private key", key_file);
	if (mbedtls_pk_check_pair(&t->own.pk, &t->own_key, mbedtls_psa_get_random,
				  MBEDTLS_PSA_RANDOM_STATE))
		return err_set(e, CODE_USAGE, "--key-file %s does not belong to --cert-file %s", key_file,
			       cert_file);
	snprintf(t->own_origin, sizeof(t->own_origin), "%s", origin);
	return 0;
}

const char *tls_source(const struct tls *t)
{
	return t->source;
}

static CURLcode on_ssl_ctx(CURL *c, void *ssl_config, void *arg)
{
	const struct tls *t = arg;
	mbedtls_ssl_config *conf = ssl_config;

	char *url = NULL;

	mbedtls_ssl_conf_ca_chain(conf, (mbedtls_x509_crt *)&t->chain, NULL);
	mbedtls_ssl_conf_ciphersuites(conf, t->suites);
	if (t->insecure)
		mbedtls_ssl_conf_authmode(conf, MBEDTLS_SSL_VERIFY_NONE);
	curl_easy_getinfo(c, CURLINFO_EFFECTIVE_URL, &url);
	if (*t->own_origin && url && http_same_origin(url, t->own_origin) &&
	    mbedtls_ssl_conf_own_cert(conf, (mbedtls_x509_crt *)&t->own,
				      (mbedtls_pk_context *)&t->own_key))
		return CURLE_SSL_CERTPROBLEM;
	return CURLE_OK;
}

void tls_apply(const struct tls *t, CURL *c)
{
	curl_easy_setopt(c, CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
	curl_easy_setopt(c, CURLOPT_SSL_CTX_DATA, (void *)t);
	/* libcurl must not load, and parse, a bundle of its own for each connection */
	curl_easy_setopt(c, CURLOPT_CAINFO, NULL);
	curl_easy_setopt(c, CURLOPT_CAPATH, NULL);
}
