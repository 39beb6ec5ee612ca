// SPDX-License-Identifier: Apache-2.0
#include "tls.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
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
#include "tls_internal.h"

#define CA_FILE_MAX (16 * MIB)

struct tls {
	pthread_mutex_t lock;		/* of the reading of what was not named */
	bool loaded;
	mbedtls_x509_crt chain;
	mbedtls_x509_crt proxy_chain;	/* empty = the same */
	mbedtls_x509_crt own;		/* client certificate; own_origin "" = none */
	mbedtls_pk_context own_key;
	char own_origin[512];
	const int *suites;
	bool insecure, tls13;
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
static size_t load_file(mbedtls_x509_crt *chain, const char *path)
{
	_cleanup_buf_ struct buf b = BUF_INIT(CA_FILE_MAX);
	size_t before = count(chain);

	if (sys_read_file(AT_FDCWD, path, &b) || b.len == 0)
		return 0;
	/* PEM input must include its NUL; single bad certificates in a bundle are skipped */
	mbedtls_x509_crt_parse(chain, (const unsigned char *)b.data, b.len + 1);
	if (count(chain) == before)
		mbedtls_x509_crt_parse_der(chain, (const unsigned char *)b.data, b.len);
	return count(chain) - before;
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
			n += load_file(&t->chain, name);
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

static int load_named(mbedtls_x509_crt *chain, const char *path, const char *flag, struct err *e)
{
	if (load_file(chain, path))
		return 0;
	return err_set(e, CODE_USAGE, "no CA certificate could be read from %s%s; give a readable PEM file", path, flag);
}

/* What the user named. Files that are none are better known before anything else is done. */
static int load_user(struct tls *t, const struct tls_options *o, struct err *e)
{
	const char *env_file = getenv("SSL_CERT_FILE");
	const char *named = o->ca_file ? o->ca_file : env_file && *env_file ? env_file : NULL;

	if (named) {
		snprintf(t->source, sizeof(t->source), "%s", named);
		t->loaded = true;
		if (load_named(&t->chain, named, o->ca_file ? " (--ca-file)" : " (SSL_CERT_FILE)", e))
			return -1;
	}
	for (size_t i = 0; o->extra_ca_files && o->extra_ca_files[i]; i++)
		if (load_named(&t->chain, o->extra_ca_files[i], " (an extra CA file)", e))
			return -1;
	return o->proxy_ca_file ? load_named(&t->proxy_chain, o->proxy_ca_file, " (--proxy-ca-file)", e) : 0;
}

/* What nobody named; some 140 certificates, which take milliseconds. */
static void load_default(struct tls *t)
{
	static const char *const usual[] = {
		"/etc/ssl/certs/ca-certificates.crt",	/* Debian, Ubuntu, Alpine */
		"/etc/pki/tls/certs/ca-bundle.crt",	/* Fedora, RHEL */
		"/etc/ssl/ca-bundle.pem",		/* openSUSE */
		"/etc/ssl/cert.pem",			/* Alpine, BSDs */
	};
	const char *env_dir = getenv("SSL_CERT_DIR");

	if (env_dir && *env_dir && load_dir(t, env_dir)) {
		snprintf(t->source, sizeof(t->source), "%s", env_dir);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(usual); i++) {
		if (load_file(&t->chain, usual[i])) {
			snprintf(t->source, sizeof(t->source), "%s", usual[i]);
			return;
		}
	}
	snprintf(t->source, sizeof(t->source), "built-in Mozilla bundle");
	load_builtin(t);
}

static void load_once(struct tls *t)
{
	pthread_mutex_lock(&t->lock);
	if (!t->loaded)
		load_default(t);
	t->loaded = true;
	pthread_mutex_unlock(&t->lock);
}

int tls_new(struct tls **ret, const struct tls_options *o, struct err *e)
{
	struct tls *t = calloc(1, sizeof(*t));

	if (!t)
		return err_oom(e);
	pthread_mutex_init(&t->lock, NULL);
	mbedtls_x509_crt_init(&t->chain);
	mbedtls_x509_crt_init(&t->proxy_chain);
	mbedtls_x509_crt_init(&t->own);
	mbedtls_pk_init(&t->own_key);
	t->insecure = o->insecure;
	t->tls13 = o->tls13;
	t->suites = cpu_has_aes() ? aes_first : chacha_first;
	/* parsing keys uses PSA, which must be up before threads start */
	if (psa_crypto_init() != PSA_SUCCESS) {
		tls_free(t);
		return err_set(e, CODE_INTERNAL, "the crypto library could not start (no entropy?)");
	}
	if (load_user(t, o, e)) {
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
	mbedtls_x509_crt_free(&t->proxy_chain);
	mbedtls_x509_crt_free(&t->own);
	mbedtls_pk_free(&t->own_key);
	pthread_mutex_destroy(&t->lock);
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
	return *t->source ? t->source : "the system";
}

static int on_verify(void *arg, mbedtls_x509_crt *crt, int depth, uint32_t *flags)
{
	((struct tls_peer *)arg)->shown = true;
	if (*flags)
		tls_complain(arg, crt, depth, *flags);
	return 0;
}

/*
 * libcurl asks this for the proxy's handshake as well as for the server's behind it, and does not say which it is. tls_aim gave the
 * proxy's a list of ciphers of its own; a server's has the library's. Were it ever otherwise, no client certificate would be shown.
 */
static bool is_proxy(const mbedtls_ssl_config *conf)
{
	return conf->MBEDTLS_PRIVATE(ciphersuite_list) != mbedtls_ssl_list_ciphersuites();
}

static CURLcode on_ssl_ctx(CURL *c, void *ssl_config, void *arg)
{
	struct tls_peer *peer = arg;
	struct tls *t = peer->tls;
	mbedtls_ssl_config *conf = ssl_config;
	char *url = NULL;

	peer->proxy = is_proxy(conf);
	peer->shown = false;
	peer->flags = 0;
	*peer->words = '\0';
	if (peer->proxy && count(&t->proxy_chain)) {
		mbedtls_ssl_conf_ca_chain(conf, &t->proxy_chain, NULL);
	} else if (!t->insecure || peer->proxy) {
		load_once(t);
		mbedtls_ssl_conf_ca_chain(conf, &t->chain, NULL);
	}
	mbedtls_ssl_conf_ciphersuites(conf, t->suites);
	if (t->insecure && !peer->proxy)
		mbedtls_ssl_conf_authmode(conf, MBEDTLS_SSL_VERIFY_NONE);
	else
		mbedtls_ssl_conf_verify(conf, on_verify, peer);
	if (peer->proxy)
		return CURLE_OK;
	curl_easy_getinfo(c, CURLINFO_EFFECTIVE_URL, &url);
	if (*t->own_origin && url && http_same_origin(url, t->own_origin) &&
	    mbedtls_ssl_conf_own_cert(conf, &t->own, &t->own_key))
		return CURLE_SSL_CERTPROBLEM;
	return CURLE_OK;
}

void tls_apply(struct tls_peer *peer, CURL *c)
{
	long least = peer->tls->tls13 ? CURL_SSLVERSION_TLSv1_3 : CURL_SSLVERSION_TLSv1_2;

	curl_easy_setopt(c, CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
	curl_easy_setopt(c, CURLOPT_SSL_CTX_DATA, peer);
	curl_easy_setopt(c, CURLOPT_SSLVERSION, least);
	curl_easy_setopt(c, CURLOPT_PROXY_SSLVERSION, least);
	/* libcurl must not load, and parse, a bundle of its own for each connection */
	curl_easy_setopt(c, CURLOPT_CAINFO, NULL);
	curl_easy_setopt(c, CURLOPT_CAPATH, NULL);
	curl_easy_setopt(c, CURLOPT_PROXY_CAINFO, NULL);
	curl_easy_setopt(c, CURLOPT_PROXY_CAPATH, NULL);
}

void tls_aim(CURL *c, bool tls_proxy)
{
	curl_easy_setopt(c, CURLOPT_PROXY_TLS13_CIPHERS, tls_proxy ? "TLS_AES_128_GCM_SHA256" : NULL);
}
