// SPDX-License-Identifier: Apache-2.0
#include "help.h"

#include <string.h>

#include "options.h"

#define WIDTH 80
#define FLAG_COLUMN 32		/* where the explanations of flags start */
#define SUMMARY_COLUMN 37	/* and those of commands */

/* --- plain text --- */

static void pad(struct buf *b, size_t n)
{
	while (n--)
		buf_addc(b, ' ');
}

/* Adds text in lines of at most WIDTH columns; the first starts at column `at`, the others at `indent`. */
static void wrap(struct buf *b, const char *text, size_t at, size_t indent)
{
	bool line_start = true;

	while (*text) {
		if (*text == ' ') {
			text++;
			continue;
		}
		if (*text == '\n') {
			buf_addc(b, '\n');
			pad(b, indent);
			at = indent;
			line_start = true;
			text++;
			continue;
		}
		size_t n = strcspn(text, " \n");
		if (!line_start && at + 1 + n > WIDTH) {
			buf_addc(b, '\n');
			pad(b, indent);
			at = indent;
			line_start = true;
		}
		if (!line_start) {
			buf_addc(b, ' ');
			at++;
		}
		buf_add(b, text, n);
		at += n;
		text += n;
		line_start = false;
	}
	buf_addc(b, '\n');
}

static void flag_lines(struct buf *b, const struct option_info *o, enum config_command topic)
{
	_cleanup_buf_ struct buf text = BUF_INIT(4096);
	size_t start = b->len;

	if (o->letter)
		buf_addf(b, "  -%c, --%s", o->letter, o->name);
	else
		buf_addf(b, "      --%s", o->name);
	if (o->arg)
		buf_addf(b, " %s", o->arg);
	size_t column = b->len - start;
	if (column + 2 > FLAG_COLUMN) {
		buf_addc(b, '\n');
		column = 0;
	}
	pad(b, FLAG_COLUMN - column);
	buf_adds(&text, o->help);
	if (o->type == OPT_ENUM) {
		buf_adds(&text, " [");
		for (size_t i = 0; o->choices[i]; i++)
			buf_addf(&text, "%s%s", i ? "|" : "", o->choices[i]);
		buf_adds(&text, "]");
	}
	if (option_default(o, topic))
		buf_addf(&text, " (default %s)", option_default(o, topic));
	wrap(b, buf_cstr(&text), FLAG_COLUMN, FLAG_COLUMN);
}

static void flag_groups(struct buf *b, enum config_command topic)
{
	const char *group = NULL;

	for (size_t i = 0; i < option_count; i++) {
		const struct option_info *o = &option_table[i];
		if (!o->group || !(o->commands & 1u << topic))
			continue;
		if (!group || strcmp(group, o->group) != 0)
			buf_addf(b, "\n%s:\n", o->group);
		group = o->group;
		flag_lines(b, o, topic);
	}
}

static void overview(struct buf *b)
{
	buf_adds(b, "fetcher " FETCHER_VERSION ": pulls AI model weights from OCI registries onto a "
		    "volume.\n\n"
		    "Usage: fetcher COMMAND [OPTIONS] OPERANDS\n"
		    "       fetcher REF DEST [REF DEST ...]\n\nCommands:\n");
	for (size_t i = 0; i < CMD_COUNT; i++) {
		const struct command_info *c = &command_table[i];
		buf_addf(b, "  %-8s %-24s  ", c->name, c->operands);
		wrap(b, c->summary, SUMMARY_COLUMN, SUMMARY_COLUMN);
	}
	buf_adds(b, "\n\"fetcher help COMMAND\" lists its options and gives examples.\n"
		    "\"fetcher help auth\" says how credentials are found.\n"
		    "Each flag has a variable: --max-bytes is FETCHER_MAX_BYTES; the flag wins.\n"
		    "\nExit codes:\n");
	for (size_t i = 0; i < exit_count; i++) {
		buf_addf(b, "  %3d  ", (int)exit_table[i].code);
		wrap(b, exit_table[i].meaning, 7, 7);
	}
}

/* One screen: 80 columns, 24 lines. */
static const char auth_text[] =
	"Used only when a registry wants some. The first found wins; files are read again\n"
	"at each use, so that a rotated Secret is picked up:\n"
	"  1. --username NAME --password-file FILE, or --token-file FILE\n"
	"  2. --registry-config PATH ..., in order; only these, then 4: a config.json, or\n"
	"     a directory with config.json, .dockerconfigjson or .dockercfg in it: the\n"
	"     mounted Secret of type kubernetes.io/dockerconfigjson or .../dockercfg\n"
	"  3. $DOCKER_CONFIG/config.json (a mounted Secret as well), $REGISTRY_AUTH_FILE,\n"
	"     $HOME/.docker/config.json where DOCKER_CONFIG is not set\n"
	"  4. unless --cloud-login off: the cloud's, by the Pod's identity: ECR (AWS_*\n"
	"     variables, IRSA, Pod Identity, instance), GAR and GCR (metadata server),\n"
	"     ACR (AZURE_* variables of workload identity, managed identity)\n"
	"  5. none: the registry may give an anonymous token\n"
	"\n"
	"Keys under \"auths\": HOST/team/model wins over HOST/team, that over HOST[:PORT],\n"
	"that over https://HOST/v1/, that over *.HOST. Docker Hub is docker.io or\n"
	"https://index.docker.io/v1/. An entry has auth, username and password,\n"
	"identitytoken or registrytoken. Helpers are not run; ecr-login, gcloud, gcr and\n"
	"acr-env mean step 4.\n"
	"Robot names ($, +) are taken as they are. A mirror never sees the registry's\n"
	"credentials: it has keys of its own under \"auths\".\n"
	"Which were used: the error says \"credentials: FILE, key KEY\"; -v shows more.\n"
	"kubectl create secret docker-registry NAME --docker-server=HOST ... makes one.\n";

void help_text(enum config_command topic, struct buf *ret)
{
	if (topic == HELP_AUTH) {
		buf_adds(ret, "fetcher help auth: how credentials are found\n\n");
		buf_adds(ret, auth_text);
		return;
	}
	if (topic >= CMD_COUNT) {
		overview(ret);
		return;
	}
	const struct command_info *c = &command_table[topic];
	buf_addf(ret, "fetcher %s: %s\n\nUsage: fetcher %s [OPTIONS]%s%s\n\n", c->name, c->summary,
		 c->name, *c->operands ? " " : "", c->operands);
	wrap(ret, c->text, 0, 0);
	flag_groups(ret, topic);
	buf_adds(ret, "\nEach flag has a variable: --log-format is FETCHER_LOG_FORMAT; the flag wins.\n"
		      "\nExamples:\n");
	for (size_t i = 0; c->examples[i]; i += 2)
		buf_addf(ret, "  # %s\n  %s\n", c->examples[i + 1], c->examples[i]);
}

/* --- man page --- */

static void roff(struct buf *b, const char *s)
{
	bool line_start = true;

	for (; *s; s++) {
		if (line_start && (*s == '.' || *s == '\''))
			buf_adds(b, "\\&");
		if (*s == '-')
			buf_adds(b, "\\-");
		else if (*s == '\\')
			buf_adds(b, "\\e");
		else if (*s == '\n')
			buf_adds(b, "\n.PP\n");
		else
			buf_addc(b, *s);
		line_start = *s == '\n';
	}
}

/* Between .nf and .fi: lines stay lines. */
static void roff_verbatim(struct buf *b, const char *s)
{
	while (*s) {
		size_t n = strcspn(s, "\n");
		_cleanup_buf_ struct buf line = BUF_INIT(256);

		buf_add(&line, s, n);
		roff(b, buf_cstr(&line));
		buf_addc(b, '\n');
		s += n + (s[n] == '\n');
	}
}

static void roff_line(struct buf *b, const char *before, const char *s, const char *after)
{
	buf_adds(b, before);
	roff(b, s);
	buf_adds(b, after);
}

static void man_commands(struct buf *b)
{
	buf_adds(b, ".SH COMMANDS\n");
	for (size_t i = 0; i < CMD_COUNT; i++) {
		const struct command_info *c = &command_table[i];
		buf_adds(b, ".SS \"");
		buf_addf(b, "%s%s", c->name, *c->operands ? " " : "");
		roff_line(b, "", c->operands, "\"\n");
		roff_line(b, "", c->text, "\n");
	}
}

static void man_option(struct buf *b, const struct option_info *o)
{
	char variable[OPTION_VARIABLE_MAX];

	buf_adds(b, ".TP\n");
	if (o->letter)
		buf_addf(b, "\\fB\\-%c\\fR, ", o->letter);
	roff_line(b, "\\fB\\-\\-", o->name, "\\fR");
	if (o->arg)
		roff_line(b, " \\fI", o->arg, "\\fR");
	buf_addf(b, ", \\fB%s\\fR\n", option_variable(o, variable));
	roff(b, o->help);
	for (size_t i = 0; o->choices && o->choices[i]; i++)
		roff_line(b, i ? ", \\fB" : ". One of \\fB", o->choices[i], "\\fR");
	if (o->def)
		roff_line(b, ". Default \\fB", o->def, "\\fR");
	if (o->def_watch)
		roff_line(b, ", of watch \\fB", o->def_watch, "\\fR");
	buf_adds(b, ".\nFor:");
	for (size_t i = 0; i < CMD_COUNT; i++)
		if (o->commands & 1u << i)
			buf_addf(b, " %s", command_table[i].name);
	buf_adds(b, ".\n");
}

static void man_options(struct buf *b)
{
	const char *group = "";

	buf_adds(b, ".SH OPTIONS\nEach option has a variable; a flag beats its variable. Variables of all "
		    "options are accepted by every command. A variable that holds a list has commas or "
		    "newlines between the entries. Unknown flags and unknown variables that start with "
		    "FETCHER_ are errors; the variables that Kubernetes sets for a Service named fetcher "
		    "are ignored.\n");
	for (size_t i = 0; i < option_count; i++) {
		const struct option_info *o = &option_table[i];
		if (!o->group)
			continue;
		if (strcmp(group, o->group) != 0)
			buf_addf(b, ".SS %s\n", o->group);
		group = o->group;
		man_option(b, o);
	}
}

static void man_examples(struct buf *b)
{
	buf_adds(b, ".SH EXAMPLES\n");
	for (size_t i = 0; i < CMD_COUNT; i++) {
		const struct command_info *c = &command_table[i];
		for (size_t j = 0; c->examples[j]; j += 2) {
			roff_line(b, ".PP\n", c->examples[j + 1], ":\n.PP\n.nf\n");
			roff_line(b, ".RS 4\n", c->examples[j], "\n.RE\n.fi\n");
		}
	}
}

void help_man(struct buf *ret)
{
	buf_adds(ret, ".TH FETCHER 1 \"\" \"fetcher " FETCHER_VERSION "\" \"User Commands\"\n"
		      ".SH NAME\nfetcher \\- pull AI model weights from OCI registries onto a volume\n"
		      ".SH SYNOPSIS\n.B fetcher\n\\fICOMMAND\\fR [\\fIOPTIONS\\fR] \\fIOPERANDS\\fR\n.br\n"
		      ".B fetcher\n\\fIREF DEST\\fR [\\fIREF DEST\\fR ...]\n"
		      ".SH DESCRIPTION\nResolves a reference, pulls its layers with concurrent ranged "
		      "requests, verifies SHA\\-256 and publishes the files with a ready marker.\n");
	man_commands(ret);
	man_options(ret);
	buf_adds(ret, ".SH FILES\n"
		      ".TP\n\\fIDEST\\fR/.fetcher/ready.json\nthe ready marker, written last\n"
		      ".TP\n\\fIDEST\\fR/.fetcher/partial/\nunfinished blobs and their journals\n"
		      ".TP\n\\fIDEST\\fR/current\nlink to the published version (layout versions)\n"
		      ".SH EXIT STATUS\n");
	for (size_t i = 0; i < exit_count; i++) {
		buf_addf(ret, ".TP\n%d\n", (int)exit_table[i].code);
		roff(ret, exit_table[i].meaning);
		buf_addf(ret, "%s\n", strcmp(exit_table[i].retry, "yes") == 0 ?
			 "; running it again may help" : "");
	}
	buf_adds(ret, ".SH CREDENTIALS\n.nf\n");
	roff_verbatim(ret, auth_text);
	buf_adds(ret, ".fi\n");
	man_examples(ret);
}

/* --- README --- */

/* A "|" would end the cell. */
static void cell(struct buf *b, const char *s)
{
	for (; *s; s++) {
		if (*s == '|' || *s == '*')
			buf_addc(b, '\\');
		buf_addc(b, *s);
	}
}

static void markdown_option(struct buf *b, const struct option_info *o)
{
	char variable[OPTION_VARIABLE_MAX];

	buf_adds(b, "| `");
	if (o->letter)
		buf_addf(b, "-%c`, `", o->letter);
	buf_addf(b, "--%s", o->name);
	if (o->arg)
		buf_addf(b, " %s", o->arg);
	buf_addf(b, "` | `%s` | ", option_variable(o, variable));
	if (o->def)
		buf_addf(b, "`%s`", o->def);
	if (o->def_watch)
		buf_addf(b, ", watch: `%s`", o->def_watch);
	buf_adds(b, " | ");
	cell(b, o->help);
	buf_adds(b, " |\n");
}

void help_markdown(struct buf *ret)
{
	buf_adds(ret, "<!-- options -->\n| flag | variable | default | meaning |\n|---|---|---|---|\n");
	for (size_t i = 0; i < option_count; i++)
		if (option_table[i].group)
			markdown_option(ret, &option_table[i]);
	buf_adds(ret, "<!-- /options -->\n\n<!-- exit codes -->\n| exit | meaning | does a retry help |\n"
		      "|---|---|---|\n");
	for (size_t i = 0; i < exit_count; i++)
		buf_addf(ret, "| %d | %s | %s |\n", (int)exit_table[i].code, exit_table[i].meaning,
			 exit_table[i].retry);
	buf_adds(ret, "<!-- /exit codes -->\n");
}
