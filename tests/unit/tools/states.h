/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Breadth first through all states, each once: for an explorer, which has defined struct
 * state before it includes this, without padding that is ever written, so that memcmp()
 * compares. What holds in each of them is in its check_state(); a rule that does not hold
 * sets @broken, and TRY() returns false.
 */
#ifndef REPL_TEST_STATES_H
#define REPL_TEST_STATES_H

struct node {
	struct state state;
	unsigned int parent;
	char how[48];
};

static struct node *nodes;
static unsigned int nr_nodes, room;
static unsigned int *table, table_size;

static uint64_t hash(const struct state *s)
{
	const uint8_t *p = (const uint8_t *)s;
	uint64_t h = 0xcbf29ce484222325ULL;

	for (size_t i = 0; i < sizeof(*s); i++)
		h = (h ^ p[i]) * 0x100000001b3ULL;
	return h ^ h >> 29;
}

static void *need(void *p)
{
	if (!p) {
		printf("not ok - explore: there is memory for %u states\n", nr_nodes);
		exit(2);
	}
	return p;
}

static void grow_table(void)
{
	free(table);
	table_size = table_size ? table_size * 2 : 1u << 20;
	table = need(calloc(table_size, sizeof(*table)));
	for (unsigned int i = 0; i < nr_nodes; i++) {
		uint64_t h = hash(&nodes[i].state);

		while (table[h & (table_size - 1)])
			h++;
		table[h & (table_size - 1)] = i + 1;
	}
}

static void visit(const struct state *s, unsigned int parent, const char *how)
{
	uint64_t h;

	if (nr_nodes * 2 >= table_size)
		grow_table();
	for (h = hash(s); table[h & (table_size - 1)]; h++)
		if (!memcmp(&nodes[table[h & (table_size - 1)] - 1].state, s, sizeof(*s)))
			return;
	if (nr_nodes == room) {
		room = room ? room * 2 : 1u << 16;
		nodes = need(realloc(nodes, room * sizeof(*nodes)));
	}
	nodes[nr_nodes].state = *s;
	nodes[nr_nodes].parent = parent;
	snprintf(nodes[nr_nodes].how, sizeof(nodes[0].how), "%s", how);
	table[h & (table_size - 1)] = ++nr_nodes;
}

static const char *broken;

static void rule(bool holds, const char *what)
{
	if (!holds && !broken)
		broken = what;
}

static unsigned int from;	/* the state whose next ones are found */

#define TRY(name, ...) do {						\
	struct state next = nodes[from].state, *s = &next;		\
	broken = NULL;							\
	__VA_ARGS__							\
	check_state(s);							\
	visit(s, from, name);						\
	if (broken)							\
		return false;						\
} while (0)

#endif
