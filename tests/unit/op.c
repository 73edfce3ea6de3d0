// SPDX-License-Identifier: GPL-2.0-only
/* region-op.c against a list of ranges. */
#include "unit.h"

#include "region-op.h"

#define MAX_OPS 64
#define REGIONS 300

static struct repl_region_ops ops;
static struct repl_region_op *held[MAX_OPS];

static struct repl_region_op *naive_find(u64 begin, u64 end)
{
	struct repl_region_op *first = NULL;

	for (unsigned int i = 0; i < MAX_OPS; i++) {
		struct repl_region_op *op = held[i];

		if (op && op->begin < end && begin < op->end && (!first || op->begin < first->begin))
			first = op;
	}
	return first;
}

static void random_ranges(void)
{
	unsigned int nr = 0, most = 0;
	bool found = true, count = true;
	struct bio_list none;
	u64 seed = 1;

	bio_list_init(&none);
	for (unsigned int step = 0; step < 200000; step++) {
		u64 b = rnd(&seed) % REGIONS, e = b + 1 + rnd(&seed) % (step % 3 ? 4 : 40);
		unsigned int i = rnd(&seed) % MAX_OPS;
		struct repl_region_op *op;
		unsigned long flags;

		if (held[i] && rnd(&seed) % 4 == 0) {
			repl_region_op_remove(&ops, held[i], &none);
			repl_region_op_free(&ops, held[i]);
			held[i] = NULL;
			nr--;
		}
		op = held[i] ? NULL : repl_region_op_alloc(&ops, GFP_NOIO);
		spin_lock_irqsave(&ops.lock, flags);
		found &= repl_region_op_find(&ops, b, e) == naive_find(b, e);
		if (op && !naive_find(b, e)) {
			op->begin = b;
			op->end = e;
			repl_region_op_insert(&ops, op);
			held[i] = op;
			op = NULL;
			nr++;
		}
		count &= ops.nr == nr;
		spin_unlock_irqrestore(&ops.lock, flags);
		if (op)
			repl_region_op_free(&ops, op);
		most = max(most, nr);
	}
	ok(found && most > 20, "200000 ranges: the first op that overlaps is found (up to %u ops)",
	   most);
	ok(count, "the ops in flight are counted");
	for (unsigned int i = 0; i < MAX_OPS; i++)
		if (held[i]) {
			repl_region_op_remove(&ops, held[i], &none);
			repl_region_op_free(&ops, held[i]);
			held[i] = NULL;
		}
	ok(!ops.nr && RB_EMPTY_ROOT(&ops.root), "nothing is left");
	ok(bio_list_empty(&none), "nobody waited");
}

static void waiters(void)
{
	struct bio bio[3] = { { .id = 0 }, { .id = 1 }, { .id = 2 } }, *b;
	struct repl_region_op *op = repl_region_op_alloc(&ops, GFP_NOIO);
	struct bio_list out;
	int id = 0;

	shim_fail_alloc = 1;
	ok(!repl_region_op_alloc(&ops, GFP_NOWAIT), "who does not wait may get none");
	ok(bio_list_empty(&op->waiters) && !op->job && op->list.next == &op->list,
	   "a new op has no waiters, is nobody's job and on no list");
	bio_list_init(&out);
	op->begin = 5;
	op->end = 6;
	spin_lock(&ops.lock);
	repl_region_op_insert(&ops, op);
	bio_list_add(&op->waiters, &bio[1]);
	bio_list_add(&op->waiters, &bio[2]);
	spin_unlock(&ops.lock);
	bio_list_add(&out, &bio[0]);
	repl_region_op_remove(&ops, op, &out);
	while ((b = bio_list_pop(&out)))
		if (b->id == id)
			id++;
	ok(id == 3, "the waiters come out in order, after those that were there");
	ok(bio_list_empty(&op->waiters), "and are on one list only");
	repl_region_op_free(&ops, op);
}

int main(void)
{
	section("op");
	shim_fail_alloc = 1;
	ok(repl_region_op_module_init() == -ENOMEM, "no cache, no module");
	ok(!repl_region_op_module_init(), "module init");
	shim_fail_alloc = 1;
	ok(repl_region_ops_init(&ops) == -ENOMEM, "no pool, no ops");
	ok(!repl_region_ops_init(&ops), "ops init");
	random_ranges();
	waiters();
	repl_region_ops_exit(&ops);
	repl_region_op_module_exit();
	return unit_end();
}
