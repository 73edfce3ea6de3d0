// SPDX-License-Identifier: GPL-2.0-only
/*
 * Any bytes as a configuration file: a whole configuration, or words. What is
 * promised of one that is accepted is asserted.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define require(x) do { if (!(x)) abort(); } while (0)

static void check_volume(const struct repl_config *config, const struct repl_volume *volume)
{
	int i;

	require(config_name_good(volume->name));
	require(volume->region_size >= 4096 && volume->region_size <= 4 << 20);
	require(!(volume->region_size & (volume->region_size - 1)));
	require(volume->port);
	for (i = 0; i < CONFIG_HOSTS; i++) {
		require(volume->on[i].disk && *volume->on[i].disk == '/');
		require(!volume->on[i].hidden == !volume->on[i].active);
		require(volume->on[i].hidden || i == config->primary);
	}
}

static void check(const struct repl_config *config)
{
	unsigned int i;

	require(!strcmp(config->name, "fuzz"));
	require(config->primary == 0 || config->primary == 1);
	require(config->key || config->plaintext);
	require(config->heartbeat && config->dead_after > config->heartbeat);
	require(config->max_state && config->max_state <= INT64_MAX);
	require(!config->hold == !config->release);
	require(config->peer_loss != REPL_PEER_LOSS_HOOK || config->peer_loss_hook);
	require(config->peer_loss != REPL_PEER_LOSS_FAILOVER || config->fence);
	for (i = 0; i < CONFIG_HOSTS; i++) {
		require(config_name_good(config->host[i].name));
		require(config->host[i].data_address);
		require(!config->plaintext || address_is_local(&config->host[i].address));
		require(config_this_host(config, config->host[i].name, NULL) == (int)i);
	}
	require(config->volumes >= 1 && config->volumes <= CONFIG_VOLUMES_MAX);
	for (i = 0; i < config->volumes; i++)
		check_volume(config, &config->volume[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct repl_error error = { };
	struct repl_config *config;

	config = config_parse((const char *)data, size, "/etc/dm-repl/fuzz.conf", &error);
	if (config) {
		require(!error.text[0]);
		check(config);
	} else {
		require(error.exit == REPL_EXIT_CONFIG);
		require(error.text[0] && !strchr(error.text, '\n'));
	}
	config_free(config);
	return 0;
}
