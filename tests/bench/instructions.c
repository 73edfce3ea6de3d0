// SPDX-License-Identifier: GPL-2.0-only
/*
 * instructions: a plugin of qemu's that counts the guest's instructions by
 * address, between two marks that the guest sets (timing mark). In virtual time
 * an instruction is a nanosecond, so this is an exact profile of what the
 * benchmark measures, and it disturbs nothing.
 *
 *	-plugin instructions.so,out=FILE
 *
 * Mark 1 empties the counts, mark 2 writes them: "ADDRESS COUNT" a line, one for
 * each block of code.
 *
 * Debian has no header for plugins: the few declarations are here, as of version
 * 1 of the interface (qemu 4.2 to 9.0).
 */

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_info;

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
		void (*fn)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb,
		void (*fn)(unsigned int, void *), int flags, void *data);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, int op,
		void *where, uint64_t value);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);

EXPORT int qemu_plugin_version = 1;
EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info,
			       int argc, char **argv);

/* As in timing.c. */
#define MARK_ADDRESS	0x5ead00000000

#define BUCKETS		(1 << 18)

struct block {
	struct block *next;
	uint64_t address;
	uint64_t count;
};

static struct block *buckets[BUCKETS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *out;

static struct block *block_of(uint64_t address)
{
	struct block **where = &buckets[(address * 0x9e3779b97f4a7c15) >> 46];
	struct block *b;

	for (b = *where; b; b = b->next)
		if (b->address == address)
			return b;
	b = calloc(1, sizeof(*b));
	if (!b)
		abort();
	b->address = address;
	b->next = *where;
	*where = b;
	return b;
}

static void begin(unsigned int cpu, void *data)
{
	struct block *b;
	int i;

	(void)cpu;
	(void)data;
	for (i = 0; i < BUCKETS; i++)
		for (b = buckets[i]; b; b = b->next)
			b->count = 0;
}

static void end(unsigned int cpu, void *data)
{
	struct block *b;
	FILE *f = fopen(out, "w");
	int i;

	(void)cpu;
	(void)data;
	if (!f)
		return;
	for (i = 0; i < BUCKETS; i++)
		for (b = buckets[i]; b; b = b->next)
			if (b->count)
				fprintf(f, "%" PRIx64 " %" PRIu64 "\n",
					b->address, b->count);
	fclose(f);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	uint64_t address = qemu_plugin_tb_vaddr(tb);

	(void)id;
	if (address == MARK_ADDRESS + 16)
		qemu_plugin_register_vcpu_tb_exec_cb(tb, begin, 0, NULL);
	else if (address == MARK_ADDRESS + 32)
		qemu_plugin_register_vcpu_tb_exec_cb(tb, end, 0, NULL);

	pthread_mutex_lock(&lock);
	/* All of user space in one. */
	if (address >> 47 == 0)
		address = 0;
	qemu_plugin_register_vcpu_tb_exec_inline(tb, 0, &block_of(address)->count,
						 qemu_plugin_tb_n_insns(tb));
	pthread_mutex_unlock(&lock);
}

int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info,
			int argc, char **argv)
{
	int i;

	(void)info;
	for (i = 0; i < argc; i++)
		if (!strncmp(argv[i], "out=", 4))
			out = strdup(argv[i] + 4);
	if (!out)
		return 1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
