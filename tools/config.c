// SPDX-License-Identifier: GPL-2.0-only
/*
 * A file becomes a configuration in three steps:
 *
 * 1. read: lines become sections, and their keys' text is kept with its line.
 *    Sections may come in any order, so nothing is looked at more closely.
 * 2. build: each section's keys are parsed, or their defaults, by a table.
 * 3. check: what one key says is held against what the others say.
 *
 * inih splits the lines, but it gets them one by one from next_line(): it cuts
 * section names at 49 bytes, takes an indented line for more of the value
 * before, and which comments it knows depends on how it was built. Here, every
 * inih reads the same file in the same way, and what it would cut is refused.
 */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "config.h"
#include "units.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof(*(a)))

/* --------------------------------------------------------------------------
 * Keys: the table of what may stand where
 */

enum section_kind {
	SECTION_RESOURCE,	/* [resource] */
	SECTION_HOST,		/* [host NAME] */
	SECTION_VOLUME,		/* [volume NAME] */
	SECTION_ON,		/* [volume NAME on HOST] */
	SECTION_KINDS,
};

/* How a value is taken: 0, or -1 with words that know of no file and line. */
typedef int parse_fn(const char *text, void *field, struct repl_error *error);

struct key {
	const char *name;
	parse_fn *parse;
	size_t offset;		/* of the field in the section's struct */
	bool needed;
	const char *fallback;	/* NULL: the field stays zero */
};

static int no_memory(struct repl_error *error)
{
	return error_set(error, REPL_EXIT_FAILED, "out of memory");
}

static int parse_text(const char *text, void *field, struct repl_error *error)
{
	char **copy = field;

	*copy = strdup(text);
	return *copy ? 0 : no_memory(error);
}

/* A file or device; for a hook, a program and its arguments. */
static int parse_path(const char *text, void *field, struct repl_error *error)
{
	if (*text != '/')
		return error_set(error, REPL_EXIT_CONFIG, "\"%s\" is not an absolute path", text);
	return parse_text(text, field, error);
}

static int parse_metadata(const char *text, void *field, struct repl_error *error)
{
	return strcmp(text, "-") ? parse_path(text, field, error) : 0;
}

static int parse_yes_no(const char *text, void *field, struct repl_error *error)
{
	bool yes = !strcmp(text, "yes");

	if (!yes && strcmp(text, "no"))
		return error_set(error, REPL_EXIT_CONFIG, "\"%s\" is neither yes nor no", text);
	*(bool *)field = yes;
	return 0;
}

static int parse_peer_loss(const char *text, void *field, struct repl_error *error)
{
	static const char * const names[] = {
		[REPL_PEER_LOSS_WAIT] = "wait",
		[REPL_PEER_LOSS_HOOK] = "hook",
		[REPL_PEER_LOSS_FAILOVER] = "failover",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(text, names[i])) {
			*(enum repl_peer_loss *)field = i;
			return 0;
		}
	return error_set(error, REPL_EXIT_CONFIG, "\"%s\" is none of wait, hook, failover", text);
}

/* One of two words: the second is true. */
static int parse_either(const char *text, const char *no, const char *yes, void *field,
			struct repl_error *error)
{
	*(bool *)field = !strcmp(text, yes);
	if (*(bool *)field || !strcmp(text, no))
		return 0;
	return error_set(error, REPL_EXIT_CONFIG, "\"%s\" is neither %s nor %s", text, no, yes);
}

static int parse_mode(const char *text, void *field, struct repl_error *error)
{
	return parse_either(text, "async", "sync", field, error);
}

static int parse_congestion(const char *text, void *field, struct repl_error *error)
{
	return parse_either(text, "dirty", "block", field, error);
}

static int parse_interval(const char *text, void *field, struct repl_error *error)
{
	return duration_parse(text, field, error);
}

static int parse_time(const char *text, void *field, struct repl_error *error)
{
	uint64_t *ms = field;

	if (duration_parse(text, ms, error) < 0)
		return -1;
	return *ms ? 0 : error_set(error, REPL_EXIT_CONFIG, "must not be 0");
}

/* The kernel's nbd client counts seconds. */
static int parse_seconds(const char *text, void *field, struct repl_error *error)
{
	uint64_t *ms = field;

	if (parse_time(text, ms, error) < 0)
		return -1;
	return *ms % 1000 ? error_set(error, REPL_EXIT_CONFIG,
				      "\"%s\" is not in whole seconds", text) : 0;
}

static int parse_size(const char *text, void *field, struct repl_error *error)
{
	uint64_t *bytes = field;

	if (size_parse(text, bytes, error) < 0)
		return -1;
	return *bytes ? 0 : error_set(error, REPL_EXIT_CONFIG, "must not be 0");
}

static int parse_window(const char *text, void *field, struct repl_error *error)
{
	uint64_t *bytes = field;

	if (size_parse(text, bytes, error) < 0)
		return -1;
	if (*bytes < 256 * 1024 || *bytes > 1024ull * 1024 * 1024 || *bytes % 1024)
		return error_set(error, REPL_EXIT_CONFIG,
				 "\"%s\" is not from 256KiB to 1GiB, in whole KiB", text);
	return 0;
}

static int parse_peer_timeout(const char *text, void *field, struct repl_error *error)
{
	uint64_t *ms = field;

	if (duration_parse(text, ms, error) < 0)
		return -1;
	if (*ms < 100 || *ms > 600000)
		return error_set(error, REPL_EXIT_CONFIG, "\"%s\" is not from 100ms to 10m",
				 text);
	return 0;
}

static int parse_region_size(const char *text, void *field, struct repl_error *error)
{
	uint64_t *bytes = field;

	if (size_parse(text, bytes, error) < 0)
		return -1;
	if (*bytes < 4096 || *bytes > 4 * 1024 * 1024 || *bytes & (*bytes - 1))
		return error_set(error, REPL_EXIT_CONFIG,
				 "\"%s\" is not a power of two from 4KiB to 4MiB", text);
	return 0;
}

static int parse_rate(const char *text, void *field, struct repl_error *error)
{
	return rate_parse(text, field, error);
}

static int parse_port(const char *text, void *field, struct repl_error *error)
{
	uint64_t number;

	if (number_parse(text, 1, UINT16_MAX, &number, error) < 0)
		return -1;
	*(uint16_t *)field = number;
	return 0;
}

static int parse_address(const char *text, void *field, struct repl_error *error)
{
	return address_parse(text, field, error);
}

static int parse_host(const char *text, void *field, struct repl_error *error)
{
	return address_host_check(text, error) < 0 ? -1 : parse_text(text, field, error);
}

/* Resolved when the hosts are known: see build_resource(). */
static int parse_later(const char *text, void *field, struct repl_error *error)
{
	return 0;
}

#define RESOURCE(m) offsetof(struct repl_config, m)
static const struct key resource_keys[] = {
	{ "primary", parse_later, RESOURCE(primary), true, NULL },
	{ "key", parse_path, RESOURCE(key), false, NULL },
	{ "old_key", parse_path, RESOURCE(old_key), false, NULL },
	{ "plaintext", parse_yes_no, RESOURCE(plaintext), false, "no" },
	{ "interval", parse_interval, RESOURCE(interval), false, "0" },
	{ "heartbeat", parse_time, RESOURCE(heartbeat), false, "1s" },
	{ "dead_after", parse_time, RESOURCE(dead_after), false, "5s" },
	{ "checkpoint_timeout", parse_time, RESOURCE(checkpoint_timeout), false, "30s" },
	{ "data_timeout", parse_seconds, RESOURCE(data_timeout), false, "10s" },
	{ "mode", parse_mode, RESOURCE(sync), false, "async" },
	{ "congestion", parse_congestion, RESOURCE(congestion_block), false, "dirty" },
	{ "window", parse_window, RESOURCE(window), false, "8MiB" },
	{ "peer_timeout", parse_peer_timeout, RESOURCE(peer_timeout), false, "10s" },
	{ "resync_rate", parse_rate, RESOURCE(resync_rate), false, "unlimited" },
	{ "syncfs", parse_yes_no, RESOURCE(syncfs), false, "yes" },
	{ "max_state", parse_size, RESOURCE(max_state), false, "1GiB" },
	{ "save", parse_path, RESOURCE(save), false, NULL },
	{ "load", parse_path, RESOURCE(load), false, NULL },
	{ "hold", parse_path, RESOURCE(hold), false, NULL },
	{ "release", parse_path, RESOURCE(release), false, NULL },
	{ "peer_loss", parse_peer_loss, RESOURCE(peer_loss), false, "wait" },
	{ "peer_loss_hook", parse_path, RESOURCE(peer_loss_hook), false, NULL },
	{ "fence", parse_path, RESOURCE(fence), false, NULL },
	{ }
};

static const struct key host_keys[] = {
	{ "address", parse_address, offsetof(struct repl_host, address), true, NULL },
	{ "data_address", parse_host, offsetof(struct repl_host, data_address), false, NULL },
	{ }
};

static const struct key volume_keys[] = {
	{ "region_size", parse_region_size, offsetof(struct repl_volume, region_size), false,
	  "64KiB" },
	{ "port", parse_port, offsetof(struct repl_volume, port), false, NULL },
	{ }
};

static const struct key on_keys[] = {
	{ "disk", parse_path, offsetof(struct repl_volume_on, disk), true, NULL },
	{ "hidden", parse_path, offsetof(struct repl_volume_on, hidden), false, NULL },
	{ "active", parse_path, offsetof(struct repl_volume_on, active), false, NULL },
	{ "metadata", parse_metadata, offsetof(struct repl_volume_on, metadata), false, "-" },
	{ "import", parse_path, offsetof(struct repl_volume_on, import), false, NULL },
	{ }
};

static const struct key *const keys[SECTION_KINDS] = {
	[SECTION_RESOURCE] = resource_keys,
	[SECTION_HOST] = host_keys,
	[SECTION_VOLUME] = volume_keys,
	[SECTION_ON] = on_keys,
};

#define KEYS_MAX (ARRAY_SIZE(resource_keys) - 1)	/* no section has more */

/* Index of a key; -1 if the section has none of that name. */
static int find_key(enum section_kind kind, const char *name)
{
	int i;

	for (i = 0; keys[kind][i].name; i++)
		if (!strcmp(keys[kind][i].name, name))
			return i;
	return -1;
}

/* --------------------------------------------------------------------------
 * Reading: lines to sections
 */

#define SECTIONS_MAX (1 + CONFIG_HOSTS + CONFIG_VOLUMES_MAX * (1 + CONFIG_HOSTS))

struct section {
	enum section_kind kind;
	unsigned int line;
	char *name;			/* of the host or volume */
	char *on;			/* SECTION_ON: of the host */
	char *value[KEYS_MAX];		/* by index in the table; NULL: not given */
	unsigned int value_line[KEYS_MAX];
};

struct reader {
	const char *path;
	struct repl_error *error;
	bool failed;			/* then error is set, if there is one */
	const char *text, *end;		/* what is not read yet */
	unsigned int line;		/* number of the line read last */
	struct section *section;	/* the one we are in; NULL at first */
	unsigned int sections;
	struct section all[SECTIONS_MAX];
};

/* Words for a line of the file, or for all of it (@line 0). */
static int fail(struct reader *reader, unsigned int line, const char *fmt, ...)
	printf_like(3, 4);

static int fail(struct reader *reader, unsigned int line, const char *fmt, ...)
{
	char words[sizeof(reader->error->text)];
	va_list args;

	reader->failed = true;
	va_start(args, fmt);
	vsnprintf(words, sizeof(words), fmt, args);
	va_end(args);
	if (line)
		return error_set(reader->error, REPL_EXIT_CONFIG, "%s:%u: %s", reader->path, line,
				 words);
	return error_set(reader->error, REPL_EXIT_CONFIG, "%s: %s", reader->path, words);
}

static int fail_memory(struct reader *reader)
{
	reader->failed = true;
	return no_memory(reader->error);
}

/* The section as it stands in the file, for errors. */
static const char *title(const struct section *section)
{
	static char text[3 * CONFIG_NAME_MAX];

	switch (section->kind) {
	case SECTION_HOST:
		snprintf(text, sizeof(text), "[host %s]", section->name);
		break;
	case SECTION_VOLUME:
		snprintf(text, sizeof(text), "[volume %s]", section->name);
		break;
	case SECTION_ON:
		snprintf(text, sizeof(text), "[volume %s on %s]", section->name, section->on);
		break;
	default:
		return "[resource]";
	}
	return text;
}

bool config_name_good(const char *name)
{
	size_t len = strlen(name);

	if (!len || len > CONFIG_NAME_MAX || *name == '-' || *name == '.')
		return false;
	for (; *name; name++)
		if (!isalnum((unsigned char)*name) && !strchr("_-.", *name))
			return false;
	return true;
}

static struct section *find_section(struct reader *reader, enum section_kind kind,
				    const char *name, const char *on)
{
	struct section *section;

	for (section = reader->all; section < reader->all + reader->sections; section++)
		if (section->kind == kind && !strcmp(section->name ?: "", name ?: "") &&
		    !strcmp(section->on ?: "", on ?: ""))
			return section;
	return NULL;
}

static unsigned int count_sections(const struct reader *reader, enum section_kind kind)
{
	unsigned int i, count = 0;

	for (i = 0; i < reader->sections; i++)
		count += reader->all[i].kind == kind;
	return count;
}

static int check_section(struct reader *reader, enum section_kind kind, const char *name,
			 const char *on)
{
	static const unsigned int most[SECTION_KINDS] = {
		[SECTION_RESOURCE] = 1,
		[SECTION_HOST] = CONFIG_HOSTS,
		[SECTION_VOLUME] = CONFIG_VOLUMES_MAX,
		[SECTION_ON] = CONFIG_VOLUMES_MAX * CONFIG_HOSTS,
	};
	static const char * const words[SECTION_KINDS] = {
		[SECTION_HOST] = "more than two hosts",
		[SECTION_VOLUME] = "more than 64 volumes",
		[SECTION_ON] = "more than 64 volumes on two hosts",
	};
	const struct section *twin;

	static_assert(CONFIG_HOSTS == 2 && CONFIG_VOLUMES_MAX == 64, "the words above");
	if (name && !config_name_good(name))
		return fail(reader, reader->line, "\"%s\" is not a name", name);
	if (on && !config_name_good(on))
		return fail(reader, reader->line, "\"%s\" is not a name", on);
	twin = find_section(reader, kind, name, on);
	if (twin)
		return fail(reader, reader->line, "%s again (it is in line %u)", title(twin),
			    twin->line);
	if (count_sections(reader, kind) >= most[kind])
		return fail(reader, reader->line, "%s", words[kind]);
	return 0;
}

static int add_section(struct reader *reader, enum section_kind kind, const char *name,
		       const char *on)
{
	struct section *section;

	if (check_section(reader, kind, name, on) < 0)
		return -1;
	section = &reader->all[reader->sections++];
	section->kind = kind;
	section->line = reader->line;
	section->name = name ? strdup(name) : NULL;
	section->on = on ? strdup(on) : NULL;
	if ((name && !section->name) || (on && !section->on))
		return fail_memory(reader);
	reader->section = section;
	return 0;
}

/* @line: "[...]" without blanks around it; it is cut into words */
static int read_section(struct reader *reader, char *line)
{
	char *end = line + strlen(line) - 1, *word[5] = { }, *save;
	unsigned int words;

	if (*end != ']')
		return fail(reader, reader->line, "a section begins with [ and ends with ]");
	*end = '\0';
	word[0] = strtok_r(line + 1, " \t", &save);
	for (words = word[0] ? 1 : 0; words && words < ARRAY_SIZE(word); words++) {
		word[words] = strtok_r(NULL, " \t", &save);
		if (!word[words])
			break;
	}
	if (words == 1 && !strcmp(word[0], "resource"))
		return add_section(reader, SECTION_RESOURCE, NULL, NULL);
	if (words == 2 && !strcmp(word[0], "host"))
		return add_section(reader, SECTION_HOST, word[1], NULL);
	if (words == 2 && !strcmp(word[0], "volume"))
		return add_section(reader, SECTION_VOLUME, word[1], NULL);
	if (words == 4 && !strcmp(word[0], "volume") && !strcmp(word[2], "on"))
		return add_section(reader, SECTION_ON, word[1], word[3]);
	return fail(reader, reader->line,
		    "a section is [resource], [host NAME], [volume NAME] or [volume NAME on HOST]");
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/*
 * Take blanks at both ends and the comment off a line. A comment begins with
 * '#' or ';' at the start of a line, or with '#' after a blank. ';' after a
 * blank is a comment for inih and more of the command for a shell: refused.
 */
static int trim(struct reader *reader, char **line)
{
	char *p = *line + strspn(*line, " \t"), *end;

	*line = p;
	if (*p == ';' || *p == '#')
		*p = '\0';
	for (end = p; *end; end++) {
		if (end == p || !is_blank(end[-1]))
			continue;
		if (*end == ';')
			return fail(reader, reader->line,
				    "a ';' after a blank: begin a comment with '#'; put commands with ';' into a script");
		if (*end == '#')
			break;
	}
	while (end > p && is_blank(end[-1]))
		end--;
	*end = '\0';
	return 0;
}

/* Bytes that no name, path or command needs, and that a terminal might obey. */
static int check_bytes(struct reader *reader, const char *line, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (((unsigned char)line[i] < ' ' && line[i] != '\t') || line[i] == 127)
			return fail(reader, reader->line, "a control character (0x%02x)",
				    (unsigned char)line[i]);
	return 0;
}

static int take_line(struct reader *reader, char *line, char *buffer, size_t size)
{
	char *p = line;

	if (trim(reader, &p) < 0)
		return -1;
	*buffer = '\0';
	if (*p == '[')
		return read_section(reader, p);
	if (!*p)
		return 0;
	if (p[strcspn(p, "=:")] != '=')
		return fail(reader, reader->line, "neither KEY = VALUE nor a section");
	if (!reader->section)
		return fail(reader, reader->line, "a key before the first section");
	if (strlen(p) >= size)
		return fail(reader, reader->line, "longer than %zu bytes", size - 1);
	memcpy(buffer, p, strlen(p) + 1);
	return 0;
}

/* inih's source of lines: it sees keys and empty lines, but no sections. */
static char *next_line(char *buffer, int size, void *stream)
{
	struct reader *reader = stream;
	const char *newline;
	size_t len;
	char *line;

	if (reader->failed || reader->text == reader->end)
		return NULL;
	newline = memchr(reader->text, '\n', reader->end - reader->text);
	len = (newline ?: reader->end) - reader->text;
	line = malloc(len + 1);
	if (!line) {
		fail_memory(reader);
		return NULL;
	}
	memcpy(line, reader->text, len);
	reader->text += len + (newline ? 1 : 0);
	reader->line++;
	if (len && line[len - 1] == '\r')
		len--;
	line[len] = '\0';
	/* inih may have been built to join lines that fill its buffer: one spare. */
	if (check_bytes(reader, line, len) == 0)
		take_line(reader, line, buffer, size - 1);
	free(line);
	return reader->failed ? NULL : buffer;
}

/* inih's sink of keys. */
static int take_key(void *user, const char *section_name, const char *name, const char *value)
{
	struct reader *reader = user;
	struct section *section = reader->section;
	int i;

	if (reader->failed)
		return 0;
	i = find_key(section->kind, name);
	if (i < 0)
		fail(reader, reader->line, "%s has no key \"%s\"", title(section), name);
	else if (section->value[i])
		fail(reader, reader->line, "%s again (it is in line %u)", name,
		     section->value_line[i]);
	else if (!value || !*value)
		fail(reader, reader->line, "%s has no value", name);
	if (reader->failed)
		return 0;
	section->value_line[i] = reader->line;
	section->value[i] = strdup(value);
	if (!section->value[i])
		fail_memory(reader);
	return !reader->failed;
}

static int read_sections(struct reader *reader)
{
	if (reader->end - reader->text > CONFIG_FILE_MAX)
		return fail(reader, 0, "larger than 1 MiB");
	/* a byte order mark */
	if (reader->end - reader->text >= 3 && !memcmp(reader->text, "\xef\xbb\xbf", 3))
		reader->text += 3;
	if (ini_parse_stream(next_line, reader, take_key, reader) && !reader->failed)
		return fail(reader, reader->line, "inih cannot parse it");
	return reader->failed ? -1 : 0;
}

/* --------------------------------------------------------------------------
 * Building: sections to structs
 */

/* Line of a key, or of its section if the key is not there. */
static unsigned int key_line(const struct section *section, const char *name)
{
	return section->value_line[find_key(section->kind, name)] ?: section->line;
}

/* Parse all keys of a section, or their defaults, into its struct. */
static int build(struct reader *reader, const struct section *section, void *to)
{
	const struct key *key;
	struct repl_error error;
	const char *text;
	int i;

	for (i = 0; (key = &keys[section->kind][i])->name; i++) {
		text = section->value[i] ?: key->fallback;
		if (!text && key->needed)
			return fail(reader, section->line, "%s needs %s", title(section),
				    key->name);
		if (text && key->parse(text, (char *)to + key->offset, &error) < 0)
			return fail(reader, section->value_line[i], "%s: %s", key->name,
				    error.text);
	}
	return 0;
}

static int host_index(const struct repl_config *config, const char *name)
{
	int i;

	for (i = 0; i < CONFIG_HOSTS; i++)
		if (!strcmp(config->host[i].name, name))
			return i;
	return -1;
}

static struct section *build_resource(struct reader *reader, struct repl_config *config)
{
	struct section *section = find_section(reader, SECTION_RESOURCE, NULL, NULL);
	const char *primary;

	if (!section) {
		fail(reader, 0, "no section [resource]");
		return NULL;
	}
	if (build(reader, section, config) < 0)
		return NULL;
	primary = section->value[find_key(SECTION_RESOURCE, "primary")];
	config->primary = host_index(config, primary);
	if (config->primary < 0) {
		fail(reader, key_line(section, "primary"), "primary: there is no [host %s]",
		     primary);
		return NULL;
	}
	return section;
}

/*
 * The nbd export is beside the other port, unless that one has no host. Both
 * ends of a UNIX socket are on this machine, and so is the data.
 */
static int default_data_address(struct reader *reader, const struct section *section,
				struct repl_host *host)
{
	if (host->data_address)
		return 0;
	if (host->address.type == REPL_TCP)
		host->data_address = strdup(host->address.host);
	else if (host->address.type == REPL_UNIX)
		host->data_address = strdup("127.0.0.1");
	else
		return fail(reader, section->line,
			    "%s needs data_address, as its address has no host", title(section));
	return host->data_address ? 0 : fail_memory(reader);
}

static int build_hosts(struct reader *reader, struct repl_config *config)
{
	struct section *section;
	struct repl_host *host;
	int i = 0;

	if (count_sections(reader, SECTION_HOST) != CONFIG_HOSTS)
		return fail(reader, 0, "needs two sections [host NAME], has %u",
			    count_sections(reader, SECTION_HOST));
	for (section = reader->all; section < reader->all + reader->sections; section++) {
		if (section->kind != SECTION_HOST)
			continue;
		host = &config->host[i++];
		host->name = strdup(section->name);
		if (!host->name)
			return fail_memory(reader);
		if (build(reader, section, host) < 0)
			return -1;
		/* The daemon asks nobody, who might not answer in the worst of all nights. */
		if (host->address.type == REPL_TCP && !address_host_is_number(host->address.host))
			return fail(reader, section->line,
				    "%s: address: \"%s\" is not a number: names are not looked up",
				    title(section), host->address.host);
		if (default_data_address(reader, section, host) < 0)
			return -1;
	}
	return 0;
}

/* A volume on one host: secondary devices where it may be secondary. */
static int build_volume_on(struct reader *reader, const struct repl_config *config,
			   struct repl_volume *volume, int i)
{
	struct repl_volume_on *on = &volume->on[i];
	const struct section *section;

	section = find_section(reader, SECTION_ON, volume->name, config->host[i].name);
	if (!section)
		return fail(reader, find_section(reader, SECTION_VOLUME, volume->name, NULL)->line,
			    "no section [volume %s on %s]", volume->name, config->host[i].name);
	if (build(reader, section, on) < 0)
		return -1;
	if (!on->hidden != !on->active)
		return fail(reader, section->line, "%s needs both hidden and active, or none",
			    title(section));
	if (on->metadata && !on->hidden)
		return fail(reader, section->line, "%s has metadata, but no hidden and active",
			    title(section));
	if (!on->hidden && i != config->primary)
		return fail(reader, section->line,
			    "%s needs hidden and active, as %s is secondary at first",
			    title(section), config->host[i].name);
	return 0;
}

static int build_volume(struct reader *reader, const struct repl_config *config,
			const struct section *section, struct repl_volume *volume)
{
	int i;

	volume->port = CONFIG_PORT + (volume - config->volume);
	volume->name = strdup(section->name);
	if (!volume->name)
		return fail_memory(reader);
	if (build(reader, section, volume) < 0)
		return -1;
	for (i = 0; i < CONFIG_HOSTS; i++)
		if (build_volume_on(reader, config, volume, i) < 0)
			return -1;
	return 0;
}

static int build_volumes(struct reader *reader, struct repl_config *config)
{
	unsigned int count = count_sections(reader, SECTION_VOLUME);
	struct section *section;

	if (!count)
		return fail(reader, 0, "no section [volume NAME]");
	config->volume = calloc(count, sizeof(*config->volume));
	if (!config->volume)
		return fail_memory(reader);
	for (section = reader->all; section < reader->all + reader->sections; section++) {
		if (section->kind == SECTION_ON) {
			if (!find_section(reader, SECTION_VOLUME, section->name, NULL))
				return fail(reader, section->line, "there is no [volume %s]",
					    section->name);
			if (host_index(config, section->on) < 0)
				return fail(reader, section->line, "there is no [host %s]",
					    section->on);
		}
		if (section->kind == SECTION_VOLUME &&
		    build_volume(reader, config, section, &config->volume[config->volumes++]) < 0)
			return -1;
	}
	return 0;
}

/* --------------------------------------------------------------------------
 * Checking: what must fit together
 */

static int check_keys(struct reader *reader, const struct section *section,
		      const struct repl_config *config)
{
	const struct repl_host *host;

	if (!config->key && !config->plaintext)
		return fail(reader, section->line, "[resource] needs key");
	if (!config->key && config->old_key)
		return fail(reader, key_line(section, "old_key"), "old_key without key");
	for (host = config->host; host < config->host + CONFIG_HOSTS && config->plaintext; host++) {
		/* exec: and fd: may lead anywhere, so a promise is not enough */
		if (host->address.type == REPL_EXEC || host->address.type == REPL_FD ||
		    !address_is_local(&host->address))
			return fail(reader, key_line(section, "plaintext"),
				    "plaintext: the address of host %s is neither loopback nor unix:",
				    host->name);
		if (!address_host_is_loopback(host->data_address))
			return fail(reader, key_line(section, "plaintext"),
				    "plaintext: the data_address of host %s is not loopback",
				    host->name);
	}
	return 0;
}

static int check_resource(struct reader *reader, const struct section *section,
			  const struct repl_config *config)
{
	/* one of the two is given, as the defaults are good */
	if (config->dead_after <= config->heartbeat)
		return fail(reader, section->value_line[find_key(SECTION_RESOURCE, "dead_after")] ?:
			    key_line(section, "heartbeat"),
			    "dead_after must be longer than heartbeat");
	if (!config->hold != !config->release)
		return fail(reader, key_line(section, config->hold ? "hold" : "release"),
			    "[resource] needs both hold and release, or none");
	if (config->peer_loss == REPL_PEER_LOSS_HOOK && !config->peer_loss_hook)
		return fail(reader, key_line(section, "peer_loss"),
			    "peer_loss = hook needs peer_loss_hook");
	if (config->peer_loss == REPL_PEER_LOSS_FAILOVER && !config->fence)
		return fail(reader, key_line(section, "peer_loss"),
			    "peer_loss = failover needs fence");
	return check_keys(reader, section, config);
}

static int check_addresses(struct reader *reader, const struct repl_config *config)
{
	const struct repl_address *a = &config->host[0].address, *b = &config->host[1].address;
	bool same = false;

	if (a->type == b->type && a->type == REPL_TCP)
		same = a->port == b->port && !strcmp(a->host, b->host);
	else if (a->type == b->type && a->type == REPL_UNIX)
		same = !strcmp(a->path, b->path);
	if (same)
		return fail(reader, find_section(reader, SECTION_HOST, config->host[1].name,
						 NULL)->line,
			    "hosts %s and %s have the same address", config->host[0].name,
			    config->host[1].name);
	return 0;
}

static int check_port(struct reader *reader, const struct repl_config *config,
		      const struct repl_volume *volume)
{
	const struct section *section = find_section(reader, SECTION_VOLUME, volume->name, NULL);
	const struct repl_volume *other;
	const struct repl_host *host;

	for (other = config->volume; other < volume; other++)
		if (other->port == volume->port)
			return fail(reader, key_line(section, "port"),
				    "volumes %s and %s have the same port, %u", other->name,
				    volume->name, volume->port);
	for (host = config->host; host < config->host + CONFIG_HOSTS; host++)
		if (host->address.type == REPL_TCP && host->address.port == volume->port &&
		    !strcmp(host->address.host, host->data_address))
			return fail(reader, key_line(section, "port"),
				    "port %u of volume %s is in the address of host %s too",
				    volume->port, volume->name, host->name);
	return 0;
}

/* A device of one host, under the name that all its names lead to. */
struct device {
	char *real;
	const char *given;
	const struct section *section;
	const char *key;
};

static int add_device(struct reader *reader, const struct device *all, struct device *device,
		      const struct section *section, const char *key)
{
	const struct device *other;

	device->section = section;
	device->key = key;
	device->given = section->value[find_key(SECTION_ON, key)];
	device->real = realpath(device->given, NULL) ?: strdup(device->given);
	if (!device->real)
		return fail_memory(reader);
	for (other = all; other < device; other++)
		if (!strcmp(other->real, device->real))
			return fail(reader, key_line(section, key),
				    "%s: %s is %s of volume %s already (line %u)", key,
				    device->given, other->key, other->section->name,
				    key_line(other->section, other->key));
	return 0;
}

/* Metadata may be "-", which is none. */
static bool names_device(const struct section *section, const char *key)
{
	const char *value = section->value[find_key(SECTION_ON, key)];

	return value && strcmp(value, "-");
}

static int check_devices(struct reader *reader, const struct repl_config *config,
			 const struct repl_host *host)
{
	static const char * const names[] = { "disk", "hidden", "active", "metadata", "import" };
	struct device *all = calloc(config->volumes * ARRAY_SIZE(names), sizeof(*all));
	const struct section *section;
	struct device *device = all;
	unsigned int v, n;
	int ret = 0;

	if (!all)
		return fail_memory(reader);
	for (v = 0; v < config->volumes && !ret; v++) {
		section = find_section(reader, SECTION_ON, config->volume[v].name, host->name);
		for (n = 0; n < ARRAY_SIZE(names) && !ret; n++)
			if (names_device(section, names[n]))
				ret = add_device(reader, all, device++, section, names[n]);
	}
	while (device-- > all)
		free(device->real);
	free(all);
	return ret;
}

static int check(struct reader *reader, const struct section *resource,
		 const struct repl_config *config)
{
	unsigned int i;

	if (check_resource(reader, resource, config) < 0 || check_addresses(reader, config) < 0)
		return -1;
	for (i = 0; i < config->volumes; i++)
		if (check_port(reader, config, &config->volume[i]) < 0)
			return -1;
	for (i = 0; i < CONFIG_HOSTS; i++)
		if (check_devices(reader, config, &config->host[i]) < 0)
			return -1;
	return 0;
}

/* --------------------------------------------------------------------------
 * What other files call
 */

/* "/etc/dm-repl/r0.conf" is the resource r0. */
static char *resource_name(struct reader *reader)
{
	const char *slash = strrchr(reader->path, '/');
	char *name = strdup(slash ? slash + 1 : reader->path), *dot;

	if (!name) {
		fail_memory(reader);
		return NULL;
	}
	dot = strrchr(name, '.');
	if (dot && !strcmp(dot, ".conf")) {
		*dot = '\0';
		if (config_name_good(name))
			return name;
	}
	fail(reader, 0, "the file's name is not NAME.conf");
	free(name);
	return NULL;
}

static int fill(struct reader *reader, struct repl_config *config)
{
	const struct section *resource;

	config->name = resource_name(reader);
	if (!config->name || read_sections(reader) < 0 || build_hosts(reader, config) < 0)
		return -1;
	resource = build_resource(reader, config);
	if (!resource || build_volumes(reader, config) < 0)
		return -1;
	return check(reader, resource, config);
}

static void free_reader(struct reader *reader)
{
	struct section *section;
	size_t i;

	for (section = reader->all; section < reader->all + reader->sections; section++) {
		free(section->name);
		free(section->on);
		for (i = 0; i < KEYS_MAX; i++)
			free(section->value[i]);
	}
	free(reader);
}

struct repl_config *config_parse(const char *text, size_t len, const char *path,
				 struct repl_error *error)
{
	struct reader *reader = calloc(1, sizeof(*reader));
	struct repl_config *config = calloc(1, sizeof(*config));

	if (!reader || !config) {
		no_memory(error);
		free(reader);
		free(config);
		return NULL;
	}
	reader->path = path;
	reader->error = error;
	reader->text = text;
	reader->end = text + len;
	if (fill(reader, config) < 0) {
		config_free(config);
		config = NULL;
	}
	free_reader(reader);
	return config;
}

/* All of a file, at most a byte more than is good; NULL with words. */
static char *read_file(int fd, const char *path, size_t *len, struct repl_error *error)
{
	char *text = malloc(CONFIG_FILE_MAX + 1);
	ssize_t got;

	*len = 0;
	if (!text) {
		no_memory(error);
		return NULL;
	}
	do {
		got = read(fd, text + *len, CONFIG_FILE_MAX + 1 - *len);
		if (got > 0)
			*len += got;
	} while ((got > 0 && *len <= CONFIG_FILE_MAX) || (got < 0 && errno == EINTR));
	if (got < 0) {
		error_set(error, REPL_EXIT_CONFIG, "%s: %s", path, strerror(errno));
		free(text);
		return NULL;
	}
	return text;
}

struct repl_config *config_load(const char *path, struct repl_error *error)
{
	struct repl_config *config = NULL;
	struct stat st;
	char *text;
	size_t len;
	int fd;

	/* A FIFO must not stop us before it is refused. */
	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0) {
		error_set(error, REPL_EXIT_CONFIG, "%s: %s", path, strerror(errno));
	} else if (!S_ISREG(st.st_mode)) {
		error_set(error, REPL_EXIT_CONFIG, "%s: not a regular file", path);
	} else {
		text = read_file(fd, path, &len, error);
		if (text)
			config = config_parse(text, len, path, error);
		free(text);
	}
	if (fd >= 0)
		close(fd);
	return config;
}

static void free_volume(struct repl_volume *volume)
{
	int i;

	free(volume->name);
	for (i = 0; i < CONFIG_HOSTS; i++) {
		free(volume->on[i].disk);
		free(volume->on[i].hidden);
		free(volume->on[i].active);
		free(volume->on[i].metadata);
		free(volume->on[i].import);
	}
}

void config_free(struct repl_config *config)
{
	unsigned int i;

	if (!config)
		return;
	for (i = 0; i < config->volumes; i++)
		free_volume(&config->volume[i]);
	for (i = 0; i < CONFIG_HOSTS; i++) {
		free(config->host[i].name);
		free(config->host[i].data_address);
		address_free(&config->host[i].address);
	}
	free(config->volume);
	free(config->name);
	free(config->key);
	free(config->old_key);
	free(config->save);
	free(config->load);
	free(config->hold);
	free(config->release);
	free(config->peer_loss_hook);
	free(config->fence);
	free(config);
}

int config_this_host(const struct repl_config *config, const char *nodename,
		     struct repl_error *error)
{
	struct utsname uts;
	int i;

	if (!nodename)
		nodename = getenv("REPLCTL_HOST");
	if (!nodename) {
		if (uname(&uts) < 0)
			return error_set(error, REPL_EXIT_CONFIG, "uname: %s", strerror(errno));
		nodename = uts.nodename;
	}
	i = host_index(config, nodename);
	if (i < 0)
		error_set(error, REPL_EXIT_CONFIG,
			  "resource %s is for hosts %s and %s, and this is %s (REPLCTL_HOST can name it)",
			  config->name, config->host[0].name, config->host[1].name, nodename);
	return i;
}

int config_path(const char *name_or_path, char *path, size_t size, struct repl_error *error)
{
	const char *dir = getenv("REPLCTL_CONFIG_DIR") ?: CONFIG_DIR;
	int len;

	if (strchr(name_or_path, '/')) {
		len = snprintf(path, size, "%s", name_or_path);
	} else {
		if (!config_name_good(name_or_path))
			return error_set(error, REPL_EXIT_USAGE,
					 "\"%s\" is not the name of a resource", name_or_path);
		len = snprintf(path, size, "%s/%s.conf", dir, name_or_path);
	}
	if (len < 0 || (size_t)len >= size)
		return error_set(error, REPL_EXIT_CONFIG, "%s: the path is too long",
				 name_or_path);
	return 0;
}
