// SPDX-License-Identifier: Apache-2.0
#include "ref.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "json.h"

#define DNS_NAME_MAX 253  /* RFC 1035 2.3.4 without the root's dot */
#define DNS_LABEL_MAX 63

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
static bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
static bool is_alnum(char c) { return is_digit(c) || is_lower(c) || is_upper(c); }

static struct str str_from(const char *p, const char *end)
{
	return (struct str){ p, (size_t)(end - p) };
}

static const char *find(struct str s, char c)
{
	return s.n ? memchr(s.p, c, s.n) : NULL;
}

static bool contains(struct str s, char c)
{
	return find(s, c) != NULL;
}

/* The message for a refused part: which, what it was, why. */
static int bad(struct err *e, const char *part, struct str what, const char *why)
{
	char shown[160];

	return err_set(e, CODE_USAGE, "bad reference: %s \"%s\" %s", part,
		       json_show(what, shown, sizeof(shown)), why);
}

static const char form[] =
	"write HOST[:PORT]/REPO[:TAG][@DIGEST], for example registry.example.com/team/model:v1";

/* --- host --- */

static int check_port(struct str port, struct err *e)
{
	uint64_t n;

	if (!str_u64(port, &n) || n < 1 || n > 65535)
		return bad(e, "port", port, "is not a number from 1 to 65535");
	return 0;
}

static int check_name(struct str host, struct err *e)
{
	const char *p = host.p, *end = host.p + host.n;

	if (host.n > DNS_NAME_MAX)
		return bad(e, "host", host, "is longer than a DNS name may be");
	for (;;) {
		const char *dot = find(str_from(p, end), '.');
		struct str label = str_from(p, dot ? dot : end);
		if (label.n == 0)
			return bad(e, "host", host,
				   "has an empty label (two dots, or one at an end)");
		if (label.n > DNS_LABEL_MAX)
			return bad(e, "host", host, "has a label of more than 63 characters");
		for (size_t i = 0; i < label.n; i++)
			if (!is_alnum(label.p[i]) && label.p[i] != '-')
				return bad(e, "host", host,
					   "may only contain letters, digits, '-' and '.'");
		if (label.p[0] == '-' || label.p[label.n - 1] == '-')
			return bad(e, "host", host, "has a label that begins or ends with '-'");
		if (!dot)
			return 0;
		p = dot + 1;
	}
}

static int check_ipv6(struct str registry, struct err *e)
{
	const char *close = find(registry, ']'), *end = registry.p + registry.n;
	unsigned char parsed[16];
	char text[64];

	if (!close)
		return bad(e, "host", registry, "lacks the closing bracket");
	struct str inner = str_from(registry.p + 1, close);
	if (inner.n == 0 || inner.n >= sizeof(text))
		return bad(e, "host", registry, "is not an IPv6 address in brackets");
	memcpy(text, inner.p, inner.n);
	text[inner.n] = '\0';
	if (inet_pton(AF_INET6, text, parsed) != 1)
		return bad(e, "host", registry, "is not an IPv6 address in brackets");
	if (close + 1 == end)
		return 0;
	if (close[1] != ':')
		return bad(e, "host", registry,
			   "has something other than :PORT behind the bracket");
	return check_port(str_from(close + 2, end), e);
}

static int check_registry(struct str registry, struct err *e)
{
	if (registry.n == 0)
		return err_set(e, CODE_USAGE,
			       "bad reference: it begins with '/', the registry is missing; %s",
			       form);
	if (registry.n >= REF_HOST_MAX)
		return bad(e, "host", registry, "is too long");
	if (contains(registry, '@'))
		return bad(e, "registry", registry,
			   "carries user info; give credentials with --username and "
			   "--password-file or --registry-config");
	if (registry.p[0] == '[')
		return check_ipv6(registry, e);
	const char *colon = find(registry, ':');
	if (!colon) {
		if (!str_caseeq(registry, "localhost") && !contains(registry, '.'))
			return bad(e, "registry", registry,
				   "is not a registry host (it has no dot and no port, and there "
				   "is no default registry); for Docker Hub write docker.io/REPO");
		return check_name(registry, e);
	}
	if (contains(str_from(colon + 1, registry.p + registry.n), ':'))
		return bad(e, "host", registry,
			   "has more than one ':'; an IPv6 address stands in brackets, as in "
			   "[::1]:5000");
	if (check_name(str_from(registry.p, colon), e))
		return -1;
	return check_port(str_from(colon + 1, registry.p + registry.n), e);
}

static void set_registry(struct ref *r, struct str registry)
{
	/* docker's own other name for it */
	if (str_caseeq(registry, "index.docker.io"))
		registry = str_of("docker.io");
	for (size_t i = 0; i < registry.n; i++)
		r->registry[i] =
			is_upper(registry.p[i]) ? (char)(registry.p[i] + 32) : registry.p[i];
	r->registry[registry.n] = '\0';
	bool hub = strcmp(r->registry, "docker.io") == 0;
	snprintf(r->host, sizeof(r->host), "%s", hub ? "registry-1.docker.io" : r->registry);
}

/* --- repository, tag, digest --- */

/* One path component: [a-z0-9]+ joined by one '.', one or two '_', or any number of '-'. */
static const char *component_fault(struct str c)
{
	if (c.n == 0)
		return "has an empty component (two slashes, or one at the end)";
	for (size_t i = 0; i < c.n;) {
		size_t run = 0;
		char sep = c.p[i];
		if (is_digit(sep) || is_lower(sep)) {
			i++;
			continue;
		}
		if (is_upper(sep))
			return "has an upper-case letter; repositories are lower case";
		if (sep != '.' && sep != '_' && sep != '-')
			return "may only contain a-z, 0-9, '.', '_', '-' and '/'";
		while (i + run < c.n && c.p[i + run] == sep)
			run++;
		if (i == 0 || i + run == c.n)
			return "has a component that begins or ends with '.', '_' or '-'";
		if ((sep == '.' && run > 1) || (sep == '_' && run > 2))
			return "has too many '.' or '_' in a row";
		i += run;
		if (!is_digit(c.p[i]) && !is_lower(c.p[i]) && !is_upper(c.p[i]))
			return "has different separators in a row, or a character that is not "
			       "allowed";
	}
	return NULL;
}

static int set_repo(struct ref *r, struct str repo, struct err *e)
{
	const char *p = repo.p, *end = repo.p + repo.n;
	bool hub = strcmp(r->registry, "docker.io") == 0;

	if (repo.n == 0)
		return err_set(e, CODE_USAGE, "bad reference: no repository after \"%s/\"; %s",
			       r->registry, form);
	for (;;) {
		const char *slash = find(str_from(p, end), '/');
		const char *fault = component_fault(str_from(p, slash ? slash : end));
		if (fault)
			return bad(e, "repository", repo, fault);
		if (!slash)
			break;
		p = slash + 1;
	}
	const char *prefix = hub && !contains(repo, '/') ? "library/" : "";
	if (strlen(prefix) + repo.n >= sizeof(r->repo))
		return bad(e, "repository", repo, "is longer than 255 characters");
	snprintf(r->repo, sizeof(r->repo), "%s%.*s", prefix, (int)repo.n, repo.p);
	return 0;
}

static int set_tag(struct ref *r, struct str tag, struct err *e)
{
	if (tag.n == 0)
		return err_set(
			e, CODE_USAGE,
			"bad reference: nothing stands behind the ':' after \"%s\"; give a tag",
			r->repo);
	if (contains(tag, ':'))
		return bad(e, "tag", tag,
			   "has a ':'; a digest is separated with '@', as in REPO:TAG@sha256:...");
	if (contains(tag, '/'))
		return bad(e, "tag", tag,
			   "has a '/'; the tag stands at the end, as in HOST/REPO:TAG");
	if (tag.n > REF_TAG_MAX)
		return bad(e, "tag", tag, "is longer than 128 characters");
	for (size_t i = 0; i < tag.n; i++)
		if (!is_alnum(tag.p[i]) && tag.p[i] != '_' && tag.p[i] != '.' && tag.p[i] != '-')
			return bad(e, "tag", tag,
				   "may only contain letters, digits, '_', '.' and '-'");
	if (tag.p[0] == '.' || tag.p[0] == '-')
		return bad(e, "tag", tag, "begins with '.' or '-'");
	memcpy(r->tag, tag.p, tag.n);
	r->tag[tag.n] = '\0';
	return 0;
}

static int set_digest(struct ref *r, struct str digest, struct err *e)
{
	const char *colon = find(digest, ':');

	if (digest_parse(digest, &r->digest)) {
		r->has_digest = true;
		return 0;
	}
	if (digest.n == 0)
		return err_set(e, CODE_USAGE,
			       "bad reference: nothing stands behind the '@'; give a digest, as in "
			       "@sha256:...");
	if (contains(digest, '@'))
		return bad(e, "digest", digest, "has a second '@'");
	if (!colon)
		return bad(e, "digest", digest, "has no algorithm, as in sha256:...");
	struct str alg = str_from(digest.p, colon);
	if (!str_eq(alg, "sha256") && !str_eq(alg, "sha512"))
		return bad(e, "digest", digest,
			   "has an algorithm that is not supported; sha256 and sha512 are");
	return bad(e, "digest", digest,
		   str_eq(alg, "sha256")
			   ? "is not 64 lower-case hexadecimal digits after sha256:"
			   : "is not 128 lower-case hexadecimal digits after sha512:");
}

/* --- whole --- */

static int strip_scheme(struct str *s, struct err *e)
{
	const char *sep = s->n ? memmem(s->p, s->n, "://", 3) : NULL;

	if (!sep)
		return 0;
	struct str scheme = str_from(s->p, sep);
	if (!str_caseeq(scheme, "oci"))
		return bad(e, "scheme", scheme,
			   "is not supported; write oci://HOST/REPO:TAG or leave the scheme out "
			   "(--plain-http selects HTTP)");
	*s = str_from(sep + 3, s->p + s->n);
	return 0;
}

int ref_parse(const char *text, struct ref *ret, struct err *e)
{
	struct str s = str_of(text);
	struct ref r = { 0 };

	if (s.n == 0)
		return err_set(e, CODE_USAGE, "bad reference: it is empty; %s", form);
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] <= 0x20 || (unsigned char)s.p[i] >= 0x7f)
			return bad(
				e, "text", s,
				"contains a space, a control character or a non-ASCII character");
	if (strip_scheme(&s, e))
		return -1;
	const char *end = s.p + s.n, *slash = find(s, '/');
	if (!slash)
		return bad(e, "text", s,
			   "has no '/': the registry or the repository is missing; write "
			   "HOST/REPO:TAG");
	if (check_registry(str_from(s.p, slash), e))
		return -1;
	set_registry(&r, str_from(s.p, slash));

	struct str rest = str_from(slash + 1, end);
	const char *at = find(rest, '@');
	struct str name = str_from(rest.p, at ? at : end);
	const char *colon = find(name, ':');
	if (set_repo(&r, str_from(name.p, colon ? colon : name.p + name.n), e))
		return -1;
	/*
	 * "repo:@sha256:..." has an empty tag and is taken for what it means, as other clients do
	 */
	struct str tag = colon ? str_from(colon + 1, name.p + name.n) : (struct str){ 0 };
	if (colon && !(at && tag.n == 0) && set_tag(&r, tag, e))
		return -1;
	if (at && set_digest(&r, str_from(at + 1, end), e))
		return -1;
	if (!at && !colon)
		snprintf(r.tag, sizeof(r.tag), "latest");
	*ret = r;
	return 0;
}

int ref_format(const struct ref *r, struct buf *ret)
{
	char digest[DIGEST_STR_MAX];

	buf_adds(ret, r->registry);
	buf_addc(ret, '/');
	buf_adds(ret, r->repo);
	if (r->tag[0])
		buf_addf(ret, ":%s", r->tag);
	if (r->has_digest)
		buf_addf(ret, "@%s", digest_format(&r->digest, ':', digest));
	return ret->failed ? -1 : 0;
}

const char *ref_target(const struct ref *r, char ret[static DIGEST_STR_MAX])
{
	if (r->has_digest)
		return digest_format(&r->digest, ':', ret);
	snprintf(ret, DIGEST_STR_MAX, "%s", r->tag);
	return ret;
}
