// SPDX-License-Identifier: GPL-2.0-only
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cmocka.h>

#include "config.h"
#include "units.h"

#define FILE_NAME "/etc/dm-repl/r0.conf"

/* A minimal file: lines 1 to 3, 4 to 7, and 8 to 14. */
#define RESOURCE "[resource]\nprimary = alpha\nkey = /etc/dm-repl/r0.key\n"
#define HOSTS "[host alpha]\naddress = tcp:10.77.0.1:7790\n" \
	"[host beta]\naddress = tcp:10.77.0.2:7790\n"
#define VOLUME "[volume data]\n"
#define ON_ALPHA "[volume data on alpha]\ndisk = /dev/none/data\n"
#define ON_BETA "[volume data on beta]\ndisk = /dev/none/data\n" \
	"hidden = /dev/none/hidden\nactive = /dev/none/active\n"
#define VOLUMES VOLUME ON_ALPHA ON_BETA
#define MINIMAL RESOURCE HOSTS VOLUMES

#define N10 "abcdefghij"
#define N48 N10 N10 N10 N10 "12345678"
#define N180 N48 N48 N48 N10 N10 N10 "123456"

/*
 * The text as the parser gets it is a heap block without a NUL, so that the
 * address sanitizer sees a read past its end.
 */
static struct repl_config *parse(const char *text, size_t len, struct repl_error *error)
{
	struct repl_config *config;
	char *copy = malloc(len ?: 1);

	memcpy(copy, text, len);
	config = config_parse(copy, len, FILE_NAME, error);
	free(copy);
	return config;
}

static struct repl_config *good(const char *text)
{
	struct repl_error error = { };
	struct repl_config *config = parse(text, strlen(text), &error);

	if (!config)
		fail_msg("%s", error.text);
	return config;
}

static void accepts(const char *text)
{
	config_free(good(text));
}

static void refuses_bytes(const char *text, size_t len, const char *words)
{
	struct repl_error error = { };

	assert_null(parse(text, len, &error));
	assert_string_equal(error.text, words);
	assert_int_equal(error.exit, REPL_EXIT_CONFIG);
	assert_null(parse(text, len, NULL));
}

/* @words: after the file's name */
#define refuses(text, words) refuses_bytes(text, strlen(text), FILE_NAME words)

/* One more line in [resource], which is line 4. */
#define refuses_resource(line, words) \
	refuses(RESOURCE line "\n" HOSTS VOLUMES, ":4: " words)

static void minimal(void **state)
{
	struct repl_config *config = good(MINIMAL);
	struct repl_volume *volume = config->volume;

	assert_string_equal(config->name, "r0");
	assert_int_equal(config->primary, 0);
	assert_string_equal(config->key, "/etc/dm-repl/r0.key");
	assert_null(config->old_key);
	assert_false(config->plaintext);
	assert_int_equal(config->interval, 0);
	assert_int_equal(config->heartbeat, 1000);
	assert_int_equal(config->dead_after, 5000);
	assert_int_equal(config->checkpoint_timeout, 30000);
	assert_int_equal(config->data_timeout, 10000);
	assert_false(config->sync || config->congestion_block);
	assert_int_equal(config->window, 8 << 20);
	assert_int_equal(config->peer_timeout, 10000);
	assert_int_equal(config->resync_rate, 0);
	assert_true(config->syncfs);
	assert_int_equal(config->max_state, 1 << 30);
	assert_null(config->save);
	assert_null(config->load);
	assert_null(config->hold);
	assert_null(config->release);
	assert_int_equal(config->peer_loss, REPL_PEER_LOSS_WAIT);
	assert_null(config->peer_loss_hook);
	assert_null(config->fence);
	assert_string_equal(config->host[0].name, "alpha");
	assert_int_equal(config->host[0].address.type, REPL_TCP);
	assert_string_equal(config->host[0].address.host, "10.77.0.1");
	assert_int_equal(config->host[0].address.port, 7790);
	assert_string_equal(config->host[0].data_address, "10.77.0.1");
	assert_string_equal(config->host[1].name, "beta");
	assert_string_equal(config->host[1].data_address, "10.77.0.2");
	assert_int_equal(config->volumes, 1);
	assert_string_equal(volume->name, "data");
	assert_int_equal(volume->region_size, 65536);
	assert_int_equal(volume->port, 10809);
	assert_string_equal(volume->on[0].disk, "/dev/none/data");
	assert_null(volume->on[0].hidden);
	assert_null(volume->on[0].active);
	assert_null(volume->on[0].metadata);
	assert_null(volume->on[0].import);
	assert_string_equal(volume->on[1].disk, "/dev/none/data");
	assert_string_equal(volume->on[1].hidden, "/dev/none/hidden");
	assert_string_equal(volume->on[1].active, "/dev/none/active");
	assert_null(volume->on[1].metadata);
	config_free(config);
	config_free(NULL);
}

/* Every key, sections in an unusual order, comments, blanks, CR, no last newline. */
static const char maximal_text[] =
	"\xef\xbb\xbf# a comment ; with ; all # signs\r\n"
	"; another\n"
	"\n"
	"[volume logs on beta]\n"
	"disk = /dev/none/logs\nhidden = /dev/none/lh\nactive = /dev/none/la\n"
	"[volume data on gamma.example.org] # comment\n"
	"  disk\t=\t/dev/none/data \t # comment\r\n"
	"\thidden=/dev/none/dh\n"
	"active = /dev/none/da\nmetadata = -\n"
	"[ host  gamma.example.org ]\n"
	"address = tcp:[2001:db8::1]:1\n"
	"data_address = fe80::1%eth0\n"
	"[resource]\n"
	"primary = beta\n"
	"key = /k/new\nold_key = /k/old key\nplaintext = no\n"
	"interval = 500ms\nheartbeat = 2s\ndead_after = 1m\ncheckpoint_timeout = 1h\n"
	"mode = sync\ncongestion = block\nwindow = 1GiB\npeer_timeout = 10m\nresync_rate = 20MiB/s\nsyncfs = no\n"
	"data_timeout = 8760h\nmax_state = 2TiB\n"
	"save = /bin/echo 'a=b:c;d#e' [x] \"$HOME\"\nload = /bin/cat -\n"
	"hold = /h\nrelease = /r;true\n"
	"peer_loss = failover\npeer_loss_hook = /p\nfence = /f\n"
	"[volume logs]\nport = 65535\nregion_size = 4MiB\n"
	"[volume data]\nregion_size = 4096\nport = 1\n"
	"[host beta]\naddress = exec:ssh gamma nc -U /run/x\ndata_address = beta\n"
	"[volume logs on gamma.example.org]\n"
	"disk = /dev/none/logs\nhidden = /dev/none/lh\nactive = /dev/none/la\n"
	"[volume data on beta]\n"
	"import = /dev/none/nvme\n"
	"disk = /dev/none/data";

static void maximal(void **state)
{
	struct repl_config *config = good(maximal_text);
	struct repl_volume *volume = config->volume;

	assert_string_equal(config->name, "r0");
	assert_int_equal(config->primary, 1);
	assert_string_equal(config->key, "/k/new");
	assert_string_equal(config->old_key, "/k/old key");
	assert_false(config->plaintext);
	assert_int_equal(config->interval, 500);
	assert_int_equal(config->heartbeat, 2000);
	assert_int_equal(config->dead_after, 60000);
	assert_int_equal(config->checkpoint_timeout, 3600000);
	assert_int_equal(config->data_timeout, DURATION_MAX_MS);
	assert_true(config->sync && config->congestion_block);
	assert_int_equal(config->window, 1 << 30);
	assert_int_equal(config->peer_timeout, 600000);
	assert_int_equal(config->resync_rate, 20 << 20);
	assert_false(config->syncfs);
	assert_int_equal(config->max_state, 2ULL << 40);
	assert_string_equal(config->save, "/bin/echo 'a=b:c;d#e' [x] \"$HOME\"");
	assert_string_equal(config->load, "/bin/cat -");
	assert_string_equal(config->hold, "/h");
	assert_string_equal(config->release, "/r;true");
	assert_int_equal(config->peer_loss, REPL_PEER_LOSS_FAILOVER);
	assert_string_equal(config->peer_loss_hook, "/p");
	assert_string_equal(config->fence, "/f");

	assert_string_equal(config->host[0].name, "gamma.example.org");
	assert_int_equal(config->host[0].address.type, REPL_TCP);
	assert_string_equal(config->host[0].address.host, "2001:db8::1");
	assert_int_equal(config->host[0].address.port, 1);
	assert_string_equal(config->host[0].data_address, "fe80::1%eth0");
	assert_string_equal(config->host[1].name, "beta");
	assert_int_equal(config->host[1].address.type, REPL_EXEC);
	assert_string_equal(config->host[1].address.command, "ssh gamma nc -U /run/x");
	assert_string_equal(config->host[1].data_address, "beta");

	assert_int_equal(config->volumes, 2);
	assert_string_equal(volume[0].name, "logs");
	assert_int_equal(volume[0].region_size, 4 << 20);
	assert_int_equal(volume[0].port, 65535);
	assert_string_equal(volume[0].on[0].disk, "/dev/none/logs");
	assert_string_equal(volume[0].on[0].hidden, "/dev/none/lh");
	assert_string_equal(volume[0].on[0].active, "/dev/none/la");
	assert_string_equal(volume[0].on[1].disk, "/dev/none/logs");
	assert_string_equal(volume[0].on[1].hidden, "/dev/none/lh");
	assert_string_equal(volume[0].on[1].active, "/dev/none/la");
	assert_string_equal(volume[1].name, "data");
	assert_int_equal(volume[1].region_size, 4096);
	assert_int_equal(volume[1].port, 1);
	assert_string_equal(volume[1].on[0].disk, "/dev/none/data");
	assert_string_equal(volume[1].on[0].hidden, "/dev/none/dh");
	assert_string_equal(volume[1].on[0].active, "/dev/none/da");
	assert_null(volume[1].on[0].metadata);
	assert_string_equal(volume[1].on[1].disk, "/dev/none/data");
	assert_null(volume[1].on[1].hidden);
	assert_null(volume[1].on[1].active);
	assert_string_equal(volume[1].on[1].import, "/dev/none/nvme");
	assert_null(volume[1].on[0].import);
	config_free(config);
}

static void plaintext_file(void **state)
{
	static const char text[] =
		"[resource]\nprimary = alpha\nplaintext = yes\npeer_loss = hook\n"
		"peer_loss_hook = /p\n"
		"[host alpha]\naddress = unix:/run/a\n[host beta]\naddress = tcp:127.1.2.3:7790\n"
		VOLUMES;
	struct repl_config *config = good(text);

	assert_true(config->plaintext);
	assert_null(config->key);
	assert_int_equal(config->peer_loss, REPL_PEER_LOSS_HOOK);
	assert_string_equal(config->peer_loss_hook, "/p");
	assert_int_equal(config->host[0].address.type, REPL_UNIX);
	assert_string_equal(config->host[0].address.path, "/run/a");
	assert_string_equal(config->host[0].data_address, "127.0.0.1");
	assert_string_equal(config->host[1].data_address, "127.1.2.3");
	config_free(config);

	/* a key may be there, for the day when plaintext goes */
	accepts("[resource]\nprimary = alpha\nplaintext = yes\nkey = /k\n"
		"[host alpha]\naddress = unix:/run/a\n[host beta]\naddress = unix:/run/b\n"
		VOLUMES);
}

static void lines(void **state)
{
	static const char nul[] = "[resource]\nprimary = al\0pha\n";
	struct repl_config *config;
	char value[300], text[2000];
	int len;

	refuses("", ": needs two sections [host NAME], has 0");
	refuses("primary = alpha\n", ":1: a key before the first section");
	refuses("\n[resource]\nprimary\n", ":3: neither KEY = VALUE nor a section");
	refuses("[resource]\nkey: /k=x\n", ":2: neither KEY = VALUE nor a section");
	refuses("[resource]\nprimary =\n", ":2: primary has no value");
	refuses("[resource]\nprimary = # alpha\n", ":2: primary has no value");
	refuses("[resource]\n= alpha\n", ":2: [resource] has no key \"\"");
	refuses("[resource]\nprimary = a\n\nprimary = a\n",
		":4: primary again (it is in line 2)");
	refuses("[resource]\nPrimary = a\n", ":2: [resource] has no key \"Primary\"");
	refuses("[host alpha]\ndisk = /d\n", ":2: [host alpha] has no key \"disk\"");
	refuses("[volume data]\ndisk = /d\n", ":2: [volume data] has no key \"disk\"");
	refuses("[volume data on alpha]\nport = 1\n",
		":2: [volume data on alpha] has no key \"port\"");
#define WORDS ":2: a ';' after a blank: begin a comment with '#'; put commands with ';' into a script"
	refuses("[resource]\nsave = /a ; /b\n", WORDS);
	refuses("[resource]\nsave = /a\t;/b\n", WORDS);
#undef WORDS
	refuses_bytes(nul, sizeof(nul) - 1, FILE_NAME ":2: a control character (0x00)");
	refuses("[resource]\nsave = /a\x1b[0m\n", ":2: a control character (0x1b)");
	refuses("[resource]\rprimary = alpha\n", ":1: a control character (0x0d)");
	refuses("[resource]\nsave = /a\x7f\n", ":2: a control character (0x7f)");

	/* inih's limit: the longest line that is good comes through whole */
	for (len = 150; len < 230; len++) {
		memset(value, 'x', len);
		value[0] = '/';
		value[len - strlen("save = ")] = '\0';
		snprintf(text, sizeof(text), RESOURCE "save = %s\n" HOSTS VOLUMES, value);
		if (len > 198) {
			refuses(text, ":4: longer than 198 bytes");
			continue;
		}
		config = good(text);
		assert_string_equal(config->save, value);
		config_free(config);
	}

	/* comments and blanks do not count */
	snprintf(text, sizeof(text), RESOURCE "%300s save = /x # %300s\n# %300s\n" HOSTS VOLUMES,
		 "", "y", "z");
	config = good(text);
	assert_string_equal(config->save, "/x");
	config_free(config);
}

static void sections(void **state)
{
#define WORDS ":1: a section is [resource], [host NAME], [volume NAME] or [volume NAME on HOST]"
	refuses("[]\n", WORDS);
	refuses("[hosts]\n", WORDS);
	refuses("[host]\n", WORDS);
	refuses("[resource r0]\n", WORDS);
	refuses("[host a b]\n", WORDS);
	refuses("[volume data at alpha]\n", WORDS);
	refuses("[volume data on]\n", WORDS);
	refuses("[volume data on alpha beta]\n", WORDS);
	refuses("[volume data on a b c d e]\n", WORDS);
#undef WORDS
	refuses("[\n", ":1: a section begins with [ and ends with ]");
	refuses("[host alpha\n", ":1: a section begins with [ and ends with ]");
	refuses("[host alpha] x\n", ":1: a section begins with [ and ends with ]");
	refuses("[host .alpha]\n", ":1: \".alpha\" is not a name");
	refuses("[host -alpha]\n", ":1: \"-alpha\" is not a name");
	refuses("[volume a/b]\n", ":1: \"a/b\" is not a name");
	refuses("[volume data on \xc3\xa4]\n", ":1: \"\xc3\xa4\" is not a name");
	refuses("[host " N48 "9]\n", ":1: \"" N48 "9\" is not a name");
	refuses(MINIMAL "[resource]\n", ":15: [resource] again (it is in line 1)");
	refuses(MINIMAL "[host alpha]\n", ":15: [host alpha] again (it is in line 4)");
	refuses(MINIMAL "[volume data]\n", ":15: [volume data] again (it is in line 8)");
	refuses(MINIMAL "[volume data on beta]\n",
		":15: [volume data on beta] again (it is in line 11)");
	refuses(MINIMAL "[host gamma]\n", ":15: more than two hosts");
	refuses(HOSTS VOLUMES, ": no section [resource]");
	refuses(RESOURCE HOSTS, ": no section [volume NAME]");
	refuses(RESOURCE "[host alpha]\naddress = fd:1\n" VOLUMES,
		": needs two sections [host NAME], has 1");
	refuses(RESOURCE HOSTS VOLUME ON_ALPHA, ":8: no section [volume data on beta]");
	refuses(RESOURCE HOSTS VOLUME ON_BETA, ":8: no section [volume data on alpha]");
	refuses(MINIMAL "[volume data on gamma]\n", ":15: there is no [host gamma]");
	refuses(MINIMAL "[volume logs on alpha]\n", ":15: there is no [volume logs]");
	refuses(MINIMAL "[volume logs]\n", ":15: no section [volume logs on alpha]");
}

/* inih alone would cut the names of these sections. */
static void long_names(void **state)
{
	struct repl_config *config = good(
		"[resource]\nprimary = " N48 "\nkey = /k\n"
		"[host " N48 "]\naddress = tcp:10.0.0.1:1\n[host " N10 "]\naddress = tcp:10.0.0.2:1\n"
		"[volume " N48 "]\n"
		"[volume " N48 " on " N48 "]\ndisk = /none/a\n"
		"[volume " N48 " on " N10 "]\ndisk = /none/b\n"
		"hidden = /none/h\nactive = /none/a\n");

	assert_string_equal(config->host[0].name, N48);
	assert_string_equal(config->host[1].name, N10);
	assert_string_equal(config->volume[0].name, N48);
	assert_string_equal(config->volume[0].on[0].disk, "/none/a");
	assert_string_equal(config->volume[0].on[1].disk, "/none/b");
	config_free(config);
}

/* @count [volume]s, and [volume on]s for the first @on and more volumes */
static char *many_volumes(int count, int on)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	int i;

	fputs(RESOURCE HOSTS, out);
	for (i = 0; i < count; i++)
		fprintf(out, "[volume v%d]\n", i);
	for (i = 0; i < on; i++)
		fprintf(out,
			"[volume v%d on alpha]\ndisk = /none/d%d\n"
			"[volume v%d on beta]\ndisk = /none/d%d\nhidden = /none/h%d\nactive = /none/a%d\n",
			i, i, i, i, i, i);
	fclose(out);
	return text;
}

static void volumes(void **state)
{
	struct repl_config *config;
	char *text = many_volumes(64, 64);

	config = good(text);
	assert_int_equal(config->volumes, 64);
	assert_string_equal(config->volume[63].name, "v63");
	assert_int_equal(config->volume[63].port, 10809 + 63);
	assert_string_equal(config->volume[63].on[1].active, "/none/a63");
	config_free(config);
	free(text);

	text = many_volumes(65, 65);
	refuses(text, ":72: more than 64 volumes");
	free(text);
	text = many_volumes(64, 65);
	refuses(text, ":456: more than 64 volumes on two hosts");
	free(text);
}

static void resource_values(void **state)
{
	refuses("[resource]\nkey = /k\n" HOSTS VOLUMES, ":1: [resource] needs primary");
	refuses("[resource]\nkey = /k\nprimary = gamma\n" HOSTS VOLUMES,
		":3: primary: there is no [host gamma]");
	refuses("[resource]\nprimary = alpha\n" HOSTS VOLUMES, ":1: [resource] needs key");
	refuses("[resource]\nprimary = alpha\nkey = r0.key\n" HOSTS VOLUMES,
		":3: key: \"r0.key\" is not an absolute path");
	refuses("[resource]\nprimary = alpha\nplaintext = yes\nold_key = /k\n" HOSTS VOLUMES,
		":4: old_key without key");
	refuses_resource("old_key = old", "old_key: \"old\" is not an absolute path");
	refuses_resource("plaintext = true", "plaintext: \"true\" is neither yes nor no");
	refuses_resource("interval = 10",
			 "interval: \"10\" is not a duration, like 500ms, 10s, 5m or 1h");
	refuses_resource("heartbeat = 0", "heartbeat: must not be 0");
	refuses_resource("heartbeat = 0ms", "heartbeat: must not be 0");
	refuses_resource("heartbeat = 5s", "dead_after must be longer than heartbeat");
	refuses_resource("dead_after = 1s", "dead_after must be longer than heartbeat");
	refuses_resource("dead_after = 0", "dead_after: must not be 0");
	refuses_resource("checkpoint_timeout = -1s",
			 "checkpoint_timeout: \"-1s\" is not a duration, like 500ms, 10s, 5m or 1h");
	refuses_resource("checkpoint_timeout = 0", "checkpoint_timeout: must not be 0");
	refuses_resource("data_timeout = 1500ms",
			 "data_timeout: \"1500ms\" is not in whole seconds");
	refuses_resource("data_timeout = 0", "data_timeout: must not be 0");
	refuses_resource("mode = fast", "mode: \"fast\" is neither async nor sync");
	refuses_resource("congestion = wait", "congestion: \"wait\" is neither dirty nor block");
	refuses_resource("window = 255KiB",
			 "window: \"255KiB\" is not from 256KiB to 1GiB, in whole KiB");
	refuses_resource("window = 2GiB",
			 "window: \"2GiB\" is not from 256KiB to 1GiB, in whole KiB");
	refuses_resource("peer_timeout = 99ms",
			 "peer_timeout: \"99ms\" is not from 100ms to 10m");
	refuses_resource("peer_timeout = 11m",
			 "peer_timeout: \"11m\" is not from 100ms to 10m");
	refuses_resource("resync_rate = 10M",
			 "resync_rate: \"10M\" is not a rate, like 512KiB/s, 10MiB/s or unlimited");
	refuses_resource("syncfs = maybe", "syncfs: \"maybe\" is neither yes nor no");
	refuses_resource("max_state = 1GB",
			 "max_state: \"1GB\" is not a size, like 65536, 64KiB, 16MiB, 1GiB or 1TiB");
	refuses_resource("max_state = 0", "max_state: must not be 0");
	refuses_resource("save = cat", "save: \"cat\" is not an absolute path");
	refuses_resource("load = ./cat", "load: \"./cat\" is not an absolute path");
	refuses_resource("hold = cat", "hold: \"cat\" is not an absolute path");
	refuses_resource("release = cat", "release: \"cat\" is not an absolute path");
	refuses_resource("hold = /h", "[resource] needs both hold and release, or none");
	refuses_resource("release = /r", "[resource] needs both hold and release, or none");
	refuses_resource("peer_loss = panic",
			 "peer_loss: \"panic\" is none of wait, hook, failover");
	refuses_resource("peer_loss = hook", "peer_loss = hook needs peer_loss_hook");
	refuses_resource("peer_loss = failover", "peer_loss = failover needs fence");
	refuses_resource("peer_loss_hook = p", "peer_loss_hook: \"p\" is not an absolute path");
	refuses_resource("fence = f", "fence: \"f\" is not an absolute path");
}

/* @alpha, @beta: lines of the hosts; plaintext is line 3 */
static void refuses_plaintext(const char *alpha, const char *beta, const char *words)
{
	char text[1000], expected[300];

	snprintf(text, sizeof(text),
		 "[resource]\nprimary = alpha\nplaintext = yes\n"
		 "[host alpha]\n%s\n[host beta]\n%s\n" VOLUMES, alpha, beta);
	snprintf(expected, sizeof(expected), FILE_NAME ":3: plaintext: %s", words);
	refuses_bytes(text, strlen(text), expected);
}

static void plaintext(void **state)
{
	refuses_plaintext("address = tcp:10.0.0.1:1", "address = unix:/b",
			  "the address of host alpha is neither loopback nor unix:");
	refuses_plaintext("address = unix:/a", "address = tcp:10.0.0.1:1",
			  "the address of host beta is neither loopback nor unix:");
	refuses_plaintext("address = exec:cat\ndata_address = ::1", "address = unix:/b",
			  "the address of host alpha is neither loopback nor unix:");
	refuses_plaintext("address = unix:/a", "address = fd:3\ndata_address = ::1",
			  "the address of host beta is neither loopback nor unix:");
	refuses_plaintext("address = unix:/a\ndata_address = 10.0.0.1", "address = unix:/b",
			  "the data_address of host alpha is not loopback");
}

static void host_values(void **state)
{
	refuses(RESOURCE "[host alpha]\n[host beta]\naddress = tcp:10.0.0.2:1\n" VOLUMES,
		":4: [host alpha] needs address");
	refuses(RESOURCE "[host alpha]\naddress = a:1\n[host beta]\naddress = tcp:10.0.0.2:1\n" VOLUMES,
		":5: address: \"a:1\" begins with none of tcp:, unix:, exec:, fd:");
	refuses(RESOURCE "[host alpha]\naddress = tcp:10.0.0.1:1\ndata_address = [::1]\n"
		"[host beta]\naddress = tcp:10.0.0.2:1\n" VOLUMES,
		":6: data_address: \"[::1]\" is not a host's name or number");
	refuses(RESOURCE "[host alpha]\naddress = exec:cat\n[host beta]\naddress = tcp:10.0.0.2:1\n"
		VOLUMES, ":4: [host alpha] needs data_address, as its address has no host");
	refuses(RESOURCE "[host alpha]\naddress = tcp:10.0.0.2:1\n[host beta]\naddress = fd:4\n" VOLUMES,
		":6: [host beta] needs data_address, as its address has no host");
	refuses(RESOURCE "[host alpha]\naddress = tcp:10.0.0.2:1\n[host beta]\naddress = tcp:10.0.0.2:1\n"
		VOLUMES, ":6: hosts alpha and beta have the same address");
	refuses(RESOURCE "[host alpha]\naddress = unix:/b\n[host beta]\naddress = unix:/b\n"
		VOLUMES, ":6: hosts alpha and beta have the same address");
	accepts(RESOURCE "[host alpha]\naddress = tcp:10.0.0.2:1\n[host beta]\naddress = tcp:10.0.0.2:2\n"
		VOLUMES);
	refuses(RESOURCE "[host alpha]\naddress = tcp:alpha.example.org:1\n"
		"[host beta]\naddress = tcp:10.0.0.2:2\n" VOLUMES,
		":4: [host alpha]: address: \"alpha.example.org\" is not a number: names are not looked up");
	refuses(RESOURCE "[host alpha]\naddress = tcp:10.0.0.1:1\n"
		"[host beta]\naddress = tcp:localhost:2\n" VOLUMES,
		":6: [host beta]: address: \"localhost\" is not a number: names are not looked up");
	accepts(RESOURCE "[host alpha]\naddress = tcp:[fe80::1%eth0]:1\n"
		"[host beta]\naddress = tcp:[2001:db8::1]:2\n" VOLUMES);
}

static void volume_values(void **state)
{
#define SIZE(s) refuses(RESOURCE HOSTS VOLUME "region_size = " s "\n" ON_ALPHA ON_BETA, \
	":9: region_size: \"" s "\" is not a power of two from 4KiB to 4MiB")
	SIZE("0");
	SIZE("2KiB");
	SIZE("4095");
	SIZE("96KiB");
	SIZE("8MiB");
#undef SIZE
#define PORT(s, words) refuses(RESOURCE HOSTS VOLUME "port = " s "\n" ON_ALPHA ON_BETA, \
	":9: " words)
	PORT("0", "port: \"0\" is not from 1 to 65535");
	PORT("65536", "port: \"65536\" is not from 1 to 65535");
	PORT("99999999999999999999999",
	     "port: \"99999999999999999999999\" is not from 1 to 65535");
	PORT("+1", "port: \"+1\" is not a number");
	PORT("7790", "port 7790 of volume data is in the address of host alpha too");
#undef PORT
	refuses(RESOURCE HOSTS "[volume data]\nport = 10810\n" ON_ALPHA ON_BETA
		"[volume logs]\n[volume logs on alpha]\ndisk = /none/1\n"
		"[volume logs on beta]\ndisk = /none/1\nhidden = /none/2\nactive = /none/3\n",
		":16: volumes data and logs have the same port, 10810");
	refuses(RESOURCE HOSTS VOLUME "[volume data on alpha]\n" ON_BETA,
		":9: [volume data on alpha] needs disk");
	refuses(RESOURCE HOSTS VOLUME "[volume data on alpha]\ndisk = sda\n" ON_BETA,
		":10: disk: \"sda\" is not an absolute path");
	refuses(RESOURCE HOSTS VOLUME ON_ALPHA "hidden = -\n" ON_BETA,
		":11: hidden: \"-\" is not an absolute path");
	refuses(RESOURCE HOSTS VOLUME ON_ALPHA "active = x\n" ON_BETA,
		":11: active: \"x\" is not an absolute path");
	refuses(RESOURCE HOSTS VOLUME ON_ALPHA "metadata = meta\n" ON_BETA,
		":11: metadata: \"meta\" is not an absolute path");
	refuses(RESOURCE HOSTS VOLUME ON_ALPHA "metadata = /none/meta\n" ON_BETA,
		":9: [volume data on alpha] has metadata, but no hidden and active");
	refuses(RESOURCE HOSTS VOLUME ON_ALPHA
		"hidden = /none/h\nactive = /none/a\nmetadata = /none/h\n" ON_BETA,
		":13: metadata: /none/h is hidden of volume data already (line 11)");
	refuses(RESOURCE HOSTS VOLUME ON_ALPHA "import = none\n" ON_BETA,
		":11: import: \"none\" is not an absolute path");
	refuses(RESOURCE HOSTS VOLUME ON_ALPHA "hidden = /none/h\n" ON_BETA,
		":9: [volume data on alpha] needs both hidden and active, or none");
	refuses(RESOURCE HOSTS VOLUME ON_ALPHA "active = /none/h\n" ON_BETA,
		":9: [volume data on alpha] needs both hidden and active, or none");
	refuses(RESOURCE HOSTS VOLUME ON_ALPHA "[volume data on beta]\ndisk = /none/d\n",
		":11: [volume data on beta] needs hidden and active, as beta is secondary at first");
}

static void devices(void **state)
{
	char dir[] = "/tmp/test-config-XXXXXX", disk[64], alias[64], text[1000], words[300];

	refuses(RESOURCE HOSTS VOLUME ON_ALPHA
		"[volume data on beta]\ndisk = /none/d\nhidden = /none/h\nactive = /none/d\n",
		":14: active: /none/d is disk of volume data already (line 12)");
	refuses(MINIMAL "[volume logs]\n"
		"[volume logs on beta]\ndisk = /none/2\nhidden = /none/3\nactive = /none/4\n"
		"[volume logs on alpha]\ndisk = /dev/none/data\n",
		":21: disk: /dev/none/data is disk of volume data already (line 10)");
	refuses(RESOURCE HOSTS VOLUME ON_ALPHA "import = /dev/none/data\n" ON_BETA,
		":11: import: /dev/none/data is disk of volume data already (line 10)");

	/* one device under two names */
	assert_non_null(mkdtemp(dir));
	snprintf(disk, sizeof(disk), "%s/disk", dir);
	snprintf(alias, sizeof(alias), "%s/alias", dir);
	fclose(fopen(disk, "w"));
	assert_int_equal(symlink(disk, alias), 0);
	snprintf(text, sizeof(text), RESOURCE HOSTS VOLUME ON_ALPHA
		 "[volume data on beta]\ndisk = %s\nhidden = /none/h\nactive = %s\n", disk, alias);
	snprintf(words, sizeof(words),
		 FILE_NAME ":14: active: %s is disk of volume data already (line 12)", alias);
	refuses_bytes(text, strlen(text), words);
	unlink(alias);
	accepts(text);
	unlink(disk);
	rmdir(dir);
}

static void file_names(void **state)
{
	static const char * const bad[] = {
		"", "/", "r0", ".conf", "/etc/.conf", "r0.cfg", "/etc/r0.conf/", "-r.conf",
		"a b.conf", N48 "9.conf", "r0.conf.bak",
	};
	struct repl_error error = { };
	struct repl_config *config;
	char words[200];
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_null(config_parse(MINIMAL, strlen(MINIMAL), bad[i], &error));
		snprintf(words, sizeof(words), "%s: the file's name is not NAME.conf", bad[i]);
		assert_string_equal(error.text, words);
		assert_int_equal(error.exit, REPL_EXIT_CONFIG);
	}
	config = config_parse(MINIMAL, strlen(MINIMAL), "a.b-c_0.conf", &error);
	assert_non_null(config);
	assert_string_equal(config->name, "a.b-c_0");
	config_free(config);
}

static void load(void **state)
{
	char dir[] = "/tmp/test-config-XXXXXX", path[64], words[200];
	struct repl_error error = { };
	struct repl_config *config;
	char *big = malloc(CONFIG_FILE_MAX + 1);
	FILE *file;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/r1.conf", dir);
	assert_null(config_load(path, &error));
	snprintf(words, sizeof(words), "%s: No such file or directory", path);
	assert_string_equal(error.text, words);
	assert_int_equal(error.exit, REPL_EXIT_CONFIG);

	assert_int_equal(mkfifo(path, 0600), 0);
	assert_null(config_load(path, &error));
	snprintf(words, sizeof(words), "%s: not a regular file", path);
	assert_string_equal(error.text, words);
	assert_int_equal(error.exit, REPL_EXIT_CONFIG);
	assert_null(config_load(path, NULL));
	unlink(path);

	/* as large as may be, and a byte more */
	memset(big, '#', CONFIG_FILE_MAX + 1);
	memcpy(big, MINIMAL, strlen(MINIMAL));
	file = fopen(path, "w");
	fwrite(big, 1, CONFIG_FILE_MAX, file);
	fclose(file);
	config = config_load(path, &error);
	assert_non_null(config);
	assert_string_equal(config->name, "r1");
	config_free(config);
	file = fopen(path, "a");
	fputc('#', file);
	fclose(file);
	assert_null(config_load(path, &error));
	snprintf(words, sizeof(words), "%s: larger than 1 MiB", path);
	assert_string_equal(error.text, words);
	assert_int_equal(error.exit, REPL_EXIT_CONFIG);
	refuses_bytes(big, CONFIG_FILE_MAX + 1, FILE_NAME ": larger than 1 MiB");
	free(big);
	unlink(path);
	rmdir(dir);
}

static void this_host(void **state)
{
	struct repl_config *config = good(MINIMAL);
	struct repl_error error = { };
	struct utsname uts;
	char words[300];

	unsetenv("REPLCTL_HOST");
	assert_int_equal(config_this_host(config, "alpha", &error), 0);
	assert_int_equal(config_this_host(config, "beta", &error), 1);
	assert_int_equal(config_this_host(config, "gamma", &error), -1);
	assert_string_equal(error.text,
			    "resource r0 is for hosts alpha and beta, and this is gamma (REPLCTL_HOST can name it)");
	assert_int_equal(error.exit, REPL_EXIT_CONFIG);
	assert_int_equal(config_this_host(config, "alpha.example.org", NULL), -1);

	/* the test does not run on a host alpha or beta */
	uname(&uts);
	assert_int_equal(config_this_host(config, NULL, &error), -1);
	snprintf(words, sizeof(words),
		 "resource r0 is for hosts alpha and beta, and this is %s (REPLCTL_HOST can name it)",
		 uts.nodename);
	assert_string_equal(error.text, words);
	setenv("REPLCTL_HOST", "beta", 1);
	assert_int_equal(config_this_host(config, NULL, &error), 1);
	assert_int_equal(config_this_host(config, "alpha", &error), 0);
	unsetenv("REPLCTL_HOST");
	config_free(config);
}

static void paths(void **state)
{
	struct repl_error error = { };
	char path[22];

	unsetenv("REPLCTL_CONFIG_DIR");
	assert_int_equal(config_path("r0", path, sizeof(path), &error), 0);
	assert_string_equal(path, "/etc/dm-repl/r0.conf");
	assert_int_equal(config_path("./r0", path, sizeof(path), &error), 0);
	assert_string_equal(path, "./r0");
	assert_int_equal(config_path("r01", path, sizeof(path), &error), 0);
	assert_int_equal(config_path("r012", path, sizeof(path), &error), -1);
	assert_string_equal(error.text, "r012: the path is too long");
	assert_int_equal(error.exit, REPL_EXIT_CONFIG);
	assert_int_equal(config_path("/234567890123456789012", path, sizeof(path), NULL), -1);
	assert_int_equal(config_path("", path, sizeof(path), &error), -1);
	assert_string_equal(error.text, "\"\" is not the name of a resource");
	assert_int_equal(error.exit, REPL_EXIT_USAGE);
	assert_int_equal(config_path("..", path, sizeof(path), &error), -1);
	assert_string_equal(error.text, "\"..\" is not the name of a resource");
	setenv("REPLCTL_CONFIG_DIR", "/tmp/x", 1);
	assert_int_equal(config_path("r0", path, sizeof(path), &error), 0);
	assert_string_equal(path, "/tmp/x/r0.conf");
	unsetenv("REPLCTL_CONFIG_DIR");
}

static void bad_address(const char *text, const char *words)
{
	struct repl_address address;
	struct repl_error error = { };

	assert_int_equal(address_parse(text, &address, &error), -1);
	assert_string_equal(error.text, words);
	assert_int_equal(error.exit, REPL_EXIT_CONFIG);
	assert_int_equal(address_parse(text, &address, NULL), -1);
}

static void good_address(const char *text, enum repl_address_type type, const char *what,
			 int number, bool local)
{
	struct repl_address address, zero = { };
	struct repl_error error = { };

	if (address_parse(text, &address, &error) < 0)
		fail_msg("%s", error.text);
	assert_int_equal(address.type, type);
	assert_int_equal(address.port, type == REPL_TCP ? number : 0);
	assert_int_equal(address.fd, type == REPL_FD ? number : -1);
	if (what)
		assert_string_equal(address.host ?: address.path ?: address.command, what);
	assert_int_equal(!!address.host, type == REPL_TCP);
	assert_int_equal(!!address.path, type == REPL_UNIX);
	assert_int_equal(!!address.command, type == REPL_EXEC);
	assert_int_equal(address_is_local(&address), local);
	address_free(&address);
	assert_memory_equal(&address, &zero, sizeof(zero));
}

static void good_addresses(void **state)
{
	char path[120] = "unix:/";

	good_address("tcp:h-1.example.org:65535", REPL_TCP, "h-1.example.org", 65535, false);
	good_address("tcp:10.0.0.1:1", REPL_TCP, "10.0.0.1", 1, false);
	good_address("tcp:[2001:db8::1]:7790", REPL_TCP, "2001:db8::1", 7790, false);
	good_address("tcp:[fe80::1%eth0.5]:7790", REPL_TCP, "fe80::1%eth0.5", 7790, false);
	good_address("tcp:127.0.0.1:1", REPL_TCP, "127.0.0.1", 1, true);
	good_address("tcp:127.255.0.9:1", REPL_TCP, "127.255.0.9", 1, true);
	good_address("tcp:128.0.0.1:1", REPL_TCP, "128.0.0.1", 1, false);
	good_address("tcp:127.0.0.1.example.org:1", REPL_TCP, "127.0.0.1.example.org", 1, false);
	good_address("tcp:[::1]:1", REPL_TCP, "::1", 1, true);
	good_address("tcp:[::]:1", REPL_TCP, "::", 1, false);
	good_address("tcp:[::ffff:127.0.0.1]:1", REPL_TCP, "::ffff:127.0.0.1", 1, true);
	good_address("tcp:[::ffff:10.0.0.1]:1", REPL_TCP, "::ffff:10.0.0.1", 1, false);
	good_address("tcp:Localhost:1", REPL_TCP, "Localhost", 1, true);
	good_address("tcp:localhost.example.org:1", REPL_TCP, "localhost.example.org", 1, false);
	good_address("unix:/run/a b", REPL_UNIX, "/run/a b", 0, true);
	good_address("exec: nc -U /x", REPL_EXEC, "nc -U /x", 0, true);
	good_address("fd:0", REPL_FD, NULL, 0, true);
	good_address("fd:2147483647", REPL_FD, NULL, 2147483647, true);

	memset(path + 6, 'x', 106);
	good_address(path, REPL_UNIX, path + 5, 0, true);
	path[6 + 106] = 'x';
	bad_address(path, "the path of a socket has at most 107 bytes");
}

static void bad_addresses(void **state)
{
#define TYPE "begins with none of tcp:, unix:, exec:, fd:"
#define FORM "is not tcp:HOST:PORT or tcp:[IPV6]:PORT"
	bad_address("", "\"\" " TYPE);
	bad_address("TCP:a:1", "\"TCP:a:1\" " TYPE);
	bad_address("tcp:", "\"tcp:\" " FORM);
	bad_address("tcp:a", "\"tcp:a\" " FORM);
	bad_address("tcp::1", "\"tcp::1\" " FORM);
	bad_address("tcp:[::1]", "\"tcp:[::1]\" " FORM);
	bad_address("tcp:[:1", "\"tcp:[:1\" " FORM);
	bad_address("tcp:[]:1", "\"[]\" is not an IPv6 number");
	bad_address("tcp:[a]:1", "\"[a]\" is not an IPv6 number");
	bad_address("tcp:[10.0.0.1]:1", "\"[10.0.0.1]\" is not an IPv6 number");
	bad_address("tcp:[::1%]:1", "\"[::1%]\" is not an IPv6 number");
	bad_address("tcp:[::1%e/h]:1", "\"[::1%e/h]\" is not an IPv6 number");
	bad_address("tcp:[::1%" N10 "123456]:1", "\"[::1%" N10 "123456]\" is not an IPv6 number");
	bad_address("tcp:[" N48 "]:1", "\"[" N48 "]\" is not an IPv6 number");
	bad_address("tcp:::1:1", "\"::1\" needs brackets: tcp:[IPV6]:PORT");
	bad_address("tcp:a:0", "port: \"0\" is not from 1 to 65535");
	bad_address("tcp:a:65536", "port: \"65536\" is not from 1 to 65535");
	bad_address("tcp:a:", "port: \"\" is not a number");
	bad_address("tcp:a:1x", "port: \"1x\" is not a number");
	bad_address("tcp:a: 1", "port: \" 1\" is not a number");
	bad_address("tcp:-a:1", "\"-a\" is not a host's name or number");
	bad_address("tcp:.a:1", "\".a\" is not a host's name or number");
	bad_address("tcp:a b:1", "\"a b\" is not a host's name or number");
	bad_address("tcp:a]:1", "\"a]\" is not a host's name or number");
	bad_address("tcp:" N180 N48 N10 N10 "123456:1",
		    "\"" N180 N48 N10 N10 "123456\" is not a host's name or number");
	bad_address("unix:run", "\"unix:run\" is not an absolute path");
	bad_address("unix:", "\"unix:\" is not an absolute path");
	bad_address("exec:", "exec: needs a command");
	bad_address("exec: \t", "exec: needs a command");
	bad_address("fd:", "fd: \"\" is not a number");
	bad_address("fd:-1", "fd: \"-1\" is not a number");
	bad_address("fd:2147483648", "fd: \"2147483648\" is not from 0 to 2147483647");
}

typedef int unit_fn(const char *text, uint64_t *value, struct repl_error *error);

static void good_unit(unit_fn *parse, const char *text, uint64_t expected)
{
	uint64_t value = ~expected;

	assert_int_equal(parse(text, &value, NULL), 0);
	assert_int_equal(value, expected);
}

/* @words: after the text in quotes */
static void bad_unit(unit_fn *parse, const char *text, const char *words)
{
	struct repl_error error = { };
	char expected[200];
	uint64_t value;

	assert_int_equal(parse(text, &value, &error), -1);
	snprintf(expected, sizeof(expected), "\"%s\" %s", text, words);
	assert_string_equal(error.text, expected);
	assert_int_equal(error.exit, REPL_EXIT_CONFIG);
}

static void durations(void **state)
{
	static const char * const bad[] = {
		"", "s", "1", "1 s", "1S", "1.5s", "0x1s", "1s1ms", "00x", "-1s",
		"18446744073709551616",
	};
	static const char * const long_ones[] = {
		"31536000001ms", "8761h", "18446744073709551616ms", "18446744073709551615h",
		"5124095576031h",	/* 2^64 ms and some minutes */
	};
	size_t i;

	good_unit(duration_parse, "0", 0);
	good_unit(duration_parse, "0h", 0);
	good_unit(duration_parse, "1ms", 1);
	good_unit(duration_parse, "007s", 7000);
	good_unit(duration_parse, "90m", 5400000);
	good_unit(duration_parse, "8760h", DURATION_MAX_MS);
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		bad_unit(duration_parse, bad[i], "is not a duration, like 500ms, 10s, 5m or 1h");
	for (i = 0; i < sizeof(long_ones) / sizeof(*long_ones); i++)
		bad_unit(duration_parse, long_ones[i], "is more than a year");
}

static void sizes(void **state)
{
	static const char * const bad[] = { "", "KiB", "1K", "1kib", "1 KiB", "-1", "1B" };
	static const char * const large[] = {
		"9223372036854775808", "8388608TiB", "16777216TiB", "18446744073709551617",
	};
	size_t i;

	good_unit(size_parse, "0", 0);
	good_unit(size_parse, "1", 1);
	good_unit(size_parse, "64KiB", 65536);
	good_unit(size_parse, "3MiB", 3 << 20);
	good_unit(size_parse, "1GiB", 1 << 30);
	good_unit(size_parse, "8388607TiB", 8388607ULL << 40);
	good_unit(size_parse, "9223372036854775807", INT64_MAX);
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		bad_unit(size_parse, bad[i],
			 "is not a size, like 65536, 64KiB, 16MiB, 1GiB or 1TiB");
	for (i = 0; i < sizeof(large) / sizeof(*large); i++)
		bad_unit(size_parse, large[i], "is too large");
}

static void rates(void **state)
{
	static const char * const bad[] = {
		"", "/s", "1K", "KiB/s", "1MiB/m", "1MiB /s", "-1", "dynamic", "1KiB/s/s",
		"00000000000000000000000000000000001",
	};

	good_unit(rate_parse, "unlimited", 0);
	good_unit(rate_parse, "0", 0);
	good_unit(rate_parse, "1", 1024);
	good_unit(rate_parse, "1025/s", 2048);
	good_unit(rate_parse, "10MiB", 10 << 20);
	good_unit(rate_parse, "10MiB/s", 10 << 20);
	good_unit(rate_parse, "4398046510080", RATE_MAX);
	bad_unit(rate_parse, "4TiB/s", "is too large");
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		bad_unit(rate_parse, bad[i],
			 "is not a rate, like 512KiB/s, 10MiB/s or unlimited");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(minimal),
		cmocka_unit_test(maximal),
		cmocka_unit_test(plaintext_file),
		cmocka_unit_test(lines),
		cmocka_unit_test(sections),
		cmocka_unit_test(long_names),
		cmocka_unit_test(volumes),
		cmocka_unit_test(resource_values),
		cmocka_unit_test(plaintext),
		cmocka_unit_test(host_values),
		cmocka_unit_test(volume_values),
		cmocka_unit_test(devices),
		cmocka_unit_test(file_names),
		cmocka_unit_test(load),
		cmocka_unit_test(this_host),
		cmocka_unit_test(paths),
		cmocka_unit_test(good_addresses),
		cmocka_unit_test(bad_addresses),
		cmocka_unit_test(durations),
		cmocka_unit_test(sizes),
		cmocka_unit_test(rates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
