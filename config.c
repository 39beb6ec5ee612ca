// SPDX-License-Identifier: Apache-2.0
#include "config.h"

#include <getopt.h>
#include <stddef.h>
#include <string.h>

#include "options.h"
#include "units.h"

#define VARIABLE_PREFIX "FETCHER_"
#define NAME_MAX_BYTES 48	/* of a name in suggestions; longer ones match nothing */

/* A value and where it came from, for messages: "--ca-file" or "FETCHER_CA_FILE". */
struct hit {
	const struct option_info *opt;
	const char *value;	/* NULL: a flag without one */
};

struct parse {
	struct config cfg;
	struct hit *hits;	/* flags in order */
	size_t n_hits;
	bool named;		/* the command word was given */
	const char **operands;	/* borrowed strings */
	size_t n_operands;
	char **rest;		/* what follows "--", NULL-terminated; NULL without "--" */
	struct err *e;
};

/* --- values --- */

static bool parse_bool(const char *s, bool *ret)
{
	static const char *const words[] = { "false", "true", "0", "1", "no", "yes", "off", "on" };

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (str_caseeq(str_of(s), words[i])) {
			*ret = i % 2;
			return true;
		}
	}
	return false;
}

static int list_add(struct config_list *l, const char *s, size_t n, struct err *e)
{
	const char **v = realloc(l->v, (l->n + 2) * sizeof(*v));

	if (!v)
		return err_oom(e);
	l->v = v;
	v[l->n] = strndup(s, n);
	if (!v[l->n])
		return err_oom(e);
	v[++l->n] = NULL;
	return 0;
}

static void list_clear(struct config_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free((char *)l->v[i]);
	free(l->v);
	*l = (struct config_list){ 0 };
}

/* A variable holds several entries: commas or newlines between them. */
static int list_split(struct config_list *l, const char *s, struct err *e)
{
	while (*s) {
		size_t n = strcspn(s, ",\n\r");
		struct str item = str_trim((struct str){ s, n });
		if (item.n && list_add(l, item.p, item.n, e))
			return -1;
		s += n + (s[n] != '\0');
	}
	return 0;
}

static int bad_value(const struct option_info *o, const char *from, const char *value, struct err *e)
{
	_cleanup_buf_ struct buf want = BUF_INIT(1024);

	switch (o->type) {
	case OPT_BOOL:
		buf_adds(&want, "true or false");
		break;
	case OPT_DURATION:
		buf_adds(&want, "a time with a unit such as 500ms, 30s, 5m, 1h30m");
		break;
	case OPT_SIZE:
		buf_adds(&want, "a size such as 1048576, 64MiB, 10GB");
		break;
	case OPT_UINT:
		buf_addf(&want, "a number from %llu to %llu", (unsigned long long)o->min,
			 (unsigned long long)o->max);
		break;
	case OPT_ENUM:
		for (size_t i = 0; o->choices[i]; i++)
			buf_addf(&want, "%s%s", i == 0 ? "" : o->choices[i + 1] ? ", " : " or ",
				 o->choices[i]);
		break;
	default:
		buf_adds(&want, "a value");
		break;
	}
	return err_set(e, CODE_USAGE, "%s: '%.100s' is not valid, expected %s", from, value,
		       buf_cstr(&want));
}

static int set_number(const struct option_info *o, uint64_t *field, const char *from,
		      const char *value, struct err *e)
{
	uint64_t v = 0;
	struct str s = str_of(value);
	bool ok;

	if (o->zero && str_eq(s, o->zero)) {
		*field = 0;
		return 0;
	}
	ok = o->type == OPT_DURATION ? units_duration(s, &v) :
	     o->type == OPT_SIZE     ? units_size(s, &v) : str_u64(s, &v);
	bool none = v == 0 && o->zero;
	if (!ok || (o->type == OPT_UINT && ((v < o->min && !none) || v > o->max)))
		return bad_value(o, from, value, e);
	if ((v < o->min && !none) || v > o->max)
		return err_set(e, CODE_USAGE, "%s: %.100s is too %s", from, value,
			       v < o->min ? "small" : "large");
	*field = v;
	return 0;
}

static int set_enum(const struct option_info *o, unsigned *field, const char *from,
		    const char *value, struct err *e)
{
	for (unsigned i = 0; o->choices[i]; i++) {
		if (strcmp(value, o->choices[i]) == 0) {
			*field = i;
			return 0;
		}
	}
	return bad_value(o, from, value, e);
}

static int set_value(struct config *c, const struct option_info *o, const char *from,
		     const char *value, bool variable, struct err *e)
{
	void *field = (char *)c + o->offset;

	switch (o->type) {
	case OPT_BOOL:
		return parse_bool(value ? value : "true", field) ? 0 : bad_value(o, from, value, e);
	case OPT_STRING:
	case OPT_PATH:
		*(const char **)field = *value ? value : NULL;
		return 0;
	case OPT_LIST:
		return variable ? list_split(field, value, e) : list_add(field, value, strlen(value), e);
	case OPT_DURATION:
	case OPT_SIZE:
	case OPT_UINT:
		return set_number(o, field, from, value, e);
	case OPT_ENUM:
		return set_enum(o, field, from, value, e);
	}
	return err_set(e, CODE_INTERNAL, "option type %d", (int)o->type);
}

/* --- suggestions --- */

/* Levenshtein's distance; SIZE_MAX for names too long to be typed. */
static size_t distance(const char *a, const char *b)
{
	size_t row[NAME_MAX_BYTES + 1], n = strlen(a), m = strlen(b);

	if (n > NAME_MAX_BYTES || m > NAME_MAX_BYTES)
		return SIZE_MAX;
	for (size_t j = 0; j <= m; j++)
		row[j] = j;
	for (size_t i = 1; i <= n; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= m; j++) {
			size_t up = row[j];
			size_t best = diagonal + (a[i - 1] != b[j - 1]);
			best = MIN(best, MIN(up, row[j - 1]) + 1);
			row[j] = best;
			diagonal = up;
		}
	}
	/* "--password" means "--password-file", however far that is */
	if (n >= 3 && strncmp(a, b, n) == 0)
		return 1;
	return row[m];
}

struct nearest {
	const void *what;	/* NULL: nothing is near */
	size_t distance;
};

static void nearest_try(struct nearest *best, const char *typed, const char *name, const void *what)
{
	size_t d = distance(typed, name);

	if (d <= MAX((size_t)2, strlen(typed) / 3) && (!best->what || d < best->distance))
		*best = (struct nearest){ what, d };
}

/* typed may go on with "=VALUE", which may be a secret: it is not repeated. */
static int unknown_flag(const char *typed, struct err *e)
{
	char name[NAME_MAX_BYTES + 1];
	struct nearest best = { 0 };
	size_t n = strcspn(typed, "=");

	if (n >= sizeof(name))
		return err_set(e, CODE_USAGE, "unknown flag --%.40s...", typed);
	memcpy(name, typed, n);
	name[n] = '\0';
	for (size_t i = 0; i < option_count; i++)
		nearest_try(&best, name, option_table[i].name, option_table[i].name);
	if (best.what)
		return err_set(e, CODE_USAGE, "unknown flag --%s; did you mean --%s?", name,
			       (const char *)best.what);
	return err_set(e, CODE_USAGE, "unknown flag --%s; see: fetcher help", name);
}

static int unknown_variable(const char *name, struct err *e)
{
	char variable[OPTION_VARIABLE_MAX];
	struct nearest best = { 0 };

	for (size_t i = 0; i < option_count; i++) {
		if (!option_table[i].group)
			continue;
		option_variable(&option_table[i], variable);
		nearest_try(&best, name + strlen(VARIABLE_PREFIX), variable + strlen(VARIABLE_PREFIX),
			    &option_table[i]);
	}
	if (best.what)
		return err_set(e, CODE_USAGE, "unknown variable %.80s; did you mean %s?", name,
			       option_variable(best.what, variable));
	return err_set(e, CODE_USAGE, "unknown variable %.80s; see: fetcher help", name);
}

static int unknown_command(const char *typed, struct err *e)
{
	struct nearest best = { 0 };

	for (size_t i = 0; i < CMD_COUNT; i++)
		nearest_try(&best, typed, command_table[i].name, command_table[i].name);
	if (best.what)
		return err_set(e, CODE_USAGE, "unknown command '%s'; did you mean '%s'?", typed,
			       (const char *)best.what);
	return err_set(e, CODE_USAGE,
		       "'%s' is neither a command nor a reference (HOST/REPO:TAG); see: fetcher help",
		       typed);
}

/* --- environment --- */

/* Ends s with _TCP, _TCP_PORT, _UDP_ADDR...? s starts behind the digits of PORT_<n>. */
static bool port_tail(const char *s)
{
	static const char *const protocols[] = { "_TCP", "_UDP", "_SCTP" };
	static const char *const tails[] = { "", "_PROTO", "_PORT", "_ADDR" };

	for (size_t i = 0; i < ARRAY_SIZE(protocols); i++) {
		size_t n = strlen(protocols[i]);
		if (strncmp(s, protocols[i], n) != 0)
			continue;
		for (size_t j = 0; j < ARRAY_SIZE(tails); j++)
			if (strcmp(s + n, tails[j]) == 0)
				return true;
	}
	return false;
}

static bool port_url(const char *s)
{
	return strncmp(s, "tcp://", 6) == 0 || strncmp(s, "udp://", 6) == 0 ||
	       strncmp(s, "sctp://", 7) == 0;
}

bool config_service_link(const char *name, const char *value)
{
	static const char host[] = "_SERVICE_HOST", service_port[] = "_SERVICE_PORT", port[] = "_PORT";
	size_t n = strlen(name);
	const char *p;

	if (strncmp(name, "FETCHER_", 8) != 0)
		return false;
	if (n >= sizeof(host) - 1 && strcmp(name + n - (sizeof(host) - 1), host) == 0)
		return true;
	p = strstr(name, service_port);
	if (p && (p[sizeof(service_port) - 1] == '\0' || p[sizeof(service_port) - 1] == '_'))
		return true;
	if (strcmp(name, "FETCHER_PORT") == 0)
		return true;
	if (strcmp(name + n - (sizeof(port) - 1), port) == 0 && port_url(value))
		return true;
	for (p = name; (p = strstr(p, "_PORT_")); p++) {
		size_t digits = strspn(p + 6, "0123456789");
		if (digits && port_tail(p + 6 + digits))
			return true;
	}
	return false;
}

static const struct option_info *option_by_variable(struct str name)
{
	char variable[OPTION_VARIABLE_MAX];

	for (size_t i = 0; i < option_count; i++)
		if (option_table[i].group && str_eq(name, option_variable(&option_table[i], variable)))
			return &option_table[i];
	return NULL;
}

/* A hook that runs fetcher has these in its environment. */
static bool told_to_hooks(const char *name)
{
	static const char *const names[] = { "FETCHER_REF", "FETCHER_DIGEST", "FETCHER_PREVIOUS",
					     "FETCHER_PATH", "FETCHER_GENERATION" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

static int apply_variable(struct parse *p, const char *entry)
{
	char name[128];
	const char *eq = strchr(entry, '=');
	const struct option_info *o;

	if (!eq)
		return 0;
	size_t n = (size_t)(eq - entry);
	o = option_by_variable((struct str){ entry, n });
	memcpy(name, entry, MIN(n, sizeof(name) - 1));
	name[MIN(n, sizeof(name) - 1)] = '\0';
	if (!o)
		return config_service_link(name, eq + 1) || told_to_hooks(name) ? 0 : unknown_variable(name, p->e);
	if (eq[1] == '\0' || !(o->commands & 1u << p->cfg.command))
		return 0;
	return set_value(&p->cfg, o, name, eq + 1, true, p->e);
}

static int apply_environment(struct parse *p, char **environ_)
{
	for (; environ_ && *environ_; environ_++)
		if (strncmp(*environ_, VARIABLE_PREFIX, strlen(VARIABLE_PREFIX)) == 0 &&
		    apply_variable(p, *environ_))
			return -1;
	return 0;
}

/* --- command line --- */

#define LONG_BASE 256

static int hit_flag(struct parse *p, int c, const char *token)
{
	const struct option_info *o = NULL;

	if (c >= LONG_BASE) {
		o = &option_table[c - LONG_BASE];
		/* getopt_long takes unique prefixes; such a flag would break when an option is added */
		if (strcspn(token + 2, "=") != strlen(o->name))
			return unknown_flag(token + 2, p->e);
	} else {
		for (size_t i = 0; i < option_count && !o; i++)
			if (option_table[i].letter == c)
				o = &option_table[i];
	}
	if (!o)
		return err_set(p->e, CODE_USAGE, "unknown flag -%c; see: fetcher help", c);
	/* one argument may hold many letters: the array grows with what is found */
	struct hit *v = realloc(p->hits, (p->n_hits + 1) * sizeof(*v));
	if (!v)
		return err_oom(p->e);
	p->hits = v;
	v[p->n_hits++] = (struct hit){ o, optarg };
	return 0;
}

static int bad_flag(struct parse *p, int c, const char *token)
{
	if (c == ':')
		return err_set(p->e, CODE_USAGE, "%.60s needs a value", token);
	if (strncmp(token, "--", 2) == 0)
		return unknown_flag(token + 2, p->e);
	return err_set(p->e, CODE_USAGE, "unknown flag -%c; see: fetcher help", optopt);
}

/* The table in getopt's own form. Returns the array (caller frees), NULL when out of memory. */
static struct option *getopt_table(struct buf *letters)
{
	struct option *v = calloc(option_count + 1, sizeof(*v));

	/* '-': operands arrive in order, nothing is moved; ':': a missing value is told apart */
	buf_adds(letters, "-:");
	for (size_t i = 0; v && i < option_count; i++) {
		const struct option_info *o = &option_table[i];
		v[i].name = o->name;
		v[i].has_arg = o->type == OPT_BOOL ? optional_argument : required_argument;
		v[i].val = LONG_BASE + (int)i;
		if (o->letter)
			buf_addf(letters, "%c%s", o->letter, o->type == OPT_BOOL ? "" : ":");
	}
	return v;
}

static int read_flags(struct parse *p, int argc, char **argv)
{
	_cleanup_buf_ struct buf letters = BUF_INIT(256);
	_cleanup_free_ struct option *longs = getopt_table(&letters);

	p->operands = calloc((size_t)argc + 1, sizeof(*p->operands));
	if (!longs || !p->operands || letters.failed)
		return err_oom(p->e);
	optind = 0; /* both glibc and musl start afresh */
	opterr = 0;
	for (;;) {
		const char *token = argv[optind ? optind : 1];
		int c = getopt_long(argc, argv, buf_cstr(&letters), longs, NULL);
		if (c == -1)
			break;
		if (c == 1) {
			p->operands[p->n_operands++] = optarg;
			continue;
		}
		if (c == '?' || c == ':')
			return bad_flag(p, c, token);
		if (hit_flag(p, c, token))
			return -1;
	}
	if (optind > 1 && optind <= argc && strcmp(argv[optind - 1], "--") == 0)
		p->rest = argv + optind;
	else
		while (optind < argc)
			p->operands[p->n_operands++] = argv[optind++];
	return 0;
}

static bool flag_given(const struct parse *p, const char *name)
{
	for (size_t i = 0; i < p->n_hits; i++)
		if (strcmp(p->hits[i].opt->name, name) == 0)
			return true;
	return false;
}

static int not_for_command(const struct parse *p, const struct option_info *o)
{
	_cleanup_buf_ struct buf where = BUF_INIT(256);

	for (size_t i = 0; i < CMD_COUNT; i++)
		if (o->commands & 1u << i)
			buf_addf(&where, "%s%s", where.len ? ", " : "", command_table[i].name);
	return err_set(p->e, CODE_USAGE, "--%s has no meaning for '%s' (it belongs to: %s)", o->name,
		       command_table[p->cfg.command].name, buf_cstr(&where));
}

static int apply_flags(struct parse *p)
{
	char from[NAME_MAX_BYTES + 4] = "--";

	for (size_t i = 0; i < p->n_hits; i++) {
		const struct option_info *o = p->hits[i].opt;
		bool first = true;
		if (!(o->commands & 1u << p->cfg.command))
			return not_for_command(p, o);
		for (size_t j = 0; j < i; j++)
			first = first && p->hits[j].opt != o;
		if (o->type == OPT_LIST && first)
			list_clear((struct config_list *)((char *)&p->cfg + o->offset));
		memcpy(from + 2, o->name, strlen(o->name) + 1);
		if (set_value(&p->cfg, o, from, p->hits[i].value, false, p->e))
			return -1;
	}
	return 0;
}

static int apply_defaults(struct parse *p)
{
	for (size_t i = 0; i < option_count; i++) {
		const struct option_info *o = &option_table[i];
		const char *def = option_default(o, p->cfg.command);
		if (def && set_value(&p->cfg, o, o->name, def, true, p->e))
			return -1;
	}
	return 0;
}

static int command_by_name(const char *name)
{
	for (int i = 0; i < CMD_COUNT; i++)
		if (strcmp(command_table[i].name, name) == 0)
			return i;
	return -1;
}

/* Takes the command word off the operands; without one it is the short form of pull. */
static int find_command(struct parse *p)
{
	p->cfg.command = CMD_PULL;
	if (flag_given(p, "version")) {
		p->cfg.command = CMD_VERSION;
		p->n_operands = 0;
		return 0;
	}
	if (p->n_operands == 0) {
		if (!flag_given(p, "help"))
			return err_set(p->e, CODE_USAGE, "no command given; see: fetcher help");
		return 0;
	}
	int cmd = command_by_name(p->operands[0]);
	if (cmd < 0 && !strchr(p->operands[0], '/'))
		return unknown_command(p->operands[0], p->e);
	if (cmd >= 0) {
		p->named = true;
		p->cfg.command = (enum config_command)cmd;
		memmove(p->operands, p->operands + 1, --p->n_operands * sizeof(*p->operands));
	}
	return 0;
}

/* --- operands --- */

static int usage(const struct parse *p, const char *what)
{
	const struct command_info *c = &command_table[p->cfg.command];

	return err_set(p->e, CODE_USAGE, "%s; usage: fetcher %s%s%s", what, c->name,
		       *c->operands ? " " : "", c->operands);
}

static int take_pairs(struct parse *p)
{
	bool flag = flag_given(p, "dest");
	size_t n = p->n_operands;

	if (n == 0)
		return usage(p, "no reference given");
	if (flag && n > 1)
		return usage(p, "DEST is given twice, as operand and with --dest");
	if (n == 1 && !p->cfg.dest)
		return usage(p, "no DEST given");
	if (n > 1 && n % 2)
		return usage(p, "the last REF has no DEST");
	p->cfg.n_pairs = n == 1 ? 1 : n / 2;
	p->cfg.pairs = calloc(p->cfg.n_pairs, sizeof(*p->cfg.pairs));
	if (!p->cfg.pairs)
		return err_oom(p->e);
	for (size_t i = 0; i < p->cfg.n_pairs; i++)
		p->cfg.pairs[i] = (struct config_pair){
			p->operands[2 * i], n == 1 ? p->cfg.dest : p->operands[2 * i + 1],
		};
	return 0;
}

static int take_dest(struct parse *p)
{
	bool flag = flag_given(p, "dest");

	if (p->n_operands > (flag ? 0 : 1))
		return usage(p, flag ? "DEST is given twice" : "too many operands");
	if (p->n_operands == 1)
		p->cfg.dest = p->operands[0];
	if (!p->cfg.dest)
		return usage(p, "no DEST given");
	return 0;
}

/* watch --ref-file: the reference is read later. */
static int take_watch_dest(struct parse *p)
{
	if (take_dest(p))
		return -1;
	p->cfg.pairs = calloc(1, sizeof(*p->cfg.pairs));
	if (!p->cfg.pairs)
		return err_oom(p->e);
	p->cfg.pairs[0].dest = p->cfg.dest;
	p->cfg.n_pairs = 1;
	return 0;
}

static int take_nothing(struct parse *p)
{
	if (p->n_operands || flag_given(p, "dest"))
		return usage(p, "--list takes no REF and no DEST beside it");
	return 0;
}

static int take_one(struct parse *p, const char **field, const char *missing)
{
	if (p->n_operands != 1)
		return usage(p, p->n_operands ? "too many operands" : missing);
	*field = p->operands[0];
	return 0;
}

static int take_topic(struct parse *p)
{
	p->cfg.help_topic = CMD_COUNT;
	if (p->n_operands > 1)
		return usage(p, "too many operands");
	if (p->n_operands == 1 && strcmp(p->operands[0], "auth") == 0) {
		p->cfg.help_topic = HELP_AUTH;
	} else if (p->n_operands == 1) {
		int cmd = command_by_name(p->operands[0]);
		if (cmd < 0)
			return unknown_command(p->operands[0], p->e);
		p->cfg.help_topic = (enum config_command)cmd;
	}
	return 0;
}

static int take_operands(struct parse *p)
{
	for (size_t i = 0; i < p->n_operands; i++)
		if (!*p->operands[i])
			return usage(p, "an operand is empty");
	switch (p->cfg.command) {
	case CMD_PULL:
		return p->cfg.list ? take_nothing(p) : take_pairs(p);
	case CMD_WATCH:
		return p->cfg.ref_file ? take_watch_dest(p) : take_pairs(p);
	case CMD_PROBE:
	case CMD_WAIT:
	case CMD_VERIFY:
	case CMD_GC:
		return take_dest(p);
	case CMD_RESOLVE:
	case CMD_LS:
		return take_one(p, &p->cfg.ref, "no reference given");
	case CMD_INSTALL:
		return take_one(p, &p->cfg.dest, "no PATH given");
	case CMD_HELP:
		return take_topic(p);
	default:
		return p->n_operands ? usage(p, "too many operands") : 0;
	}
}

/* What follows "--": the command of wait, plain operands elsewhere. */
static int take_rest(struct parse *p)
{
	if (!p->rest)
		return 0;
	if (p->cfg.command == CMD_WAIT) {
		if (!*p->rest)
			return usage(p, "no command after --");
		p->cfg.exec_argv = p->rest;
		return 0;
	}
	for (char **v = p->rest; *v; v++)
		p->operands[p->n_operands++] = *v;
	return 0;
}

static int check_list(const struct parse *p)
{
	const struct config *c = &p->cfg;

	if (c->command != CMD_PULL)
		return 0;
	if (!c->list && (c->prune || flag_given(p, "root")))
		return err_set(p->e, CODE_USAGE, "--root and --prune belong to --list");
	if (c->list && c->prune && !c->root)
		return err_set(p->e, CODE_USAGE, "--prune needs --root");
	if (c->list && (c->pre_publish_hook || c->exec_hook || c->webhook_url || c->signal || c->touch_file))
		return err_set(p->e, CODE_USAGE, "hooks and notifications have no meaning with --list");
	return 0;
}

static int check(const struct parse *p)
{
	const struct config *c = &p->cfg;

	if (c->quiet && c->verbose)
		return err_set(p->e, CODE_USAGE, "--quiet and --verbose exclude each other");
	if (!c->cert_file != !c->key_file)
		return err_set(p->e, CODE_USAGE, "--cert-file and --key-file belong together");
	if (!c->username != !c->password_file)
		return err_set(p->e, CODE_USAGE, "--username and --password-file belong together");
	if (c->token_file && c->password_file)
		return err_set(p->e, CODE_USAGE, "--token-file and --password-file exclude each other");
	if (c->command == CMD_WATCH && c->n_pairs > 1)
		return usage(p, "watch follows one REF");
	if (c->command == CMD_WATCH && c->max_failures && c->on_failure == ON_FAILURE_KEEP)
		return err_set(p->e, CODE_USAGE, "--max-failures needs --on-failure exit");
	if ((c->command == CMD_WATCH || c->command == CMD_PULL) && c->pre_publish_hook &&
	    c->layout == CONFIG_FLAT)
		return err_set(p->e, CODE_USAGE, "--pre-publish-hook needs --layout versions: in layout flat "
			       "files appear one by one");
	return check_list(p);
}

static int parse_all(struct parse *p, int argc, char **argv, char **environ_)
{
	if (read_flags(p, argc, argv) || find_command(p) || take_rest(p) || apply_defaults(p))
		return -1;
	if (flag_given(p, "help")) {
		bool overview = !p->named || p->cfg.command == CMD_HELP;
		p->cfg.help_topic = overview ? CMD_COUNT : p->cfg.command;
		p->cfg.command = CMD_HELP;
		return 0;
	}
	/* help must be had in an environment that is wrong */
	if (p->cfg.command != CMD_HELP && p->cfg.command != CMD_VERSION &&
	    apply_environment(p, environ_))
		return -1;
	if (apply_flags(p) || take_operands(p))
		return -1;
	return check(p);
}

/* How and where the usage error is to be told, as far as that can be made out. */
static void salvage(const struct parse *p, char **environ_, struct config *ret)
{
	static const char *const names[] = { "log-format", "termination-log" };

	for (size_t i = 0; i < option_count * ARRAY_SIZE(names); i++) {
		const struct option_info *o = &option_table[i % option_count];
		if (strcmp(o->name, names[i / option_count]) != 0)
			continue;
		set_value(ret, o, o->name, o->def, true, NULL);
		for (char **v = environ_; v && *v; v++) {
			const char *eq = strchr(*v, '=');
			if (eq && eq[1] && option_by_variable((struct str){ *v, (size_t)(eq - *v) }) == o)
				set_value(ret, o, o->name, eq + 1, true, NULL);
		}
		for (size_t j = 0; j < p->n_hits; j++)
			if (p->hits[j].opt == o)
				set_value(ret, o, o->name, p->hits[j].value, false, NULL);
	}
}

int config_parse(int argc, char **argv, char **environ_, struct config *ret, struct err *e)
{
	struct parse p = { .e = e };
	int rc = parse_all(&p, argc, argv, environ_);

	if (rc) {
		config_release(&p.cfg);
		salvage(&p, environ_, ret);
	} else {
		*ret = p.cfg;
	}
	free(p.hits);
	free(p.operands);
	return rc;
}

void config_release(struct config *c)
{
	list_clear(&c->registry_config);
	list_clear(&c->mirror);
	list_clear(&c->extra_ca_file);
	list_clear(&c->resolve);
	list_clear(&c->include);
	list_clear(&c->exclude);
	list_clear(&c->type);
	list_clear(&c->webhook_header_file);
	free(c->pairs);
	*c = (struct config){ 0 };
}
