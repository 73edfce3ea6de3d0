// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every cell of the table in identity.h, as a table of its own: two sides, and what may
 * be done with them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "identity.h"

/* Lineages by letter; 0 is none. */
static struct repl_side side(char lineage, char parent, uint64_t fork, uint64_t checkpoint,
				 uint64_t pending, uint64_t dirty)
{
	struct repl_side id = { .fork = fork, .checkpoint = checkpoint,
				    .pending = pending, .dirty = dirty };

	memset(id.lineage, lineage, LINEAGE_SIZE);
	memset(id.parent, parent, LINEAGE_SIZE);
	return id;
}

struct cell {
	const char *what;
	char lp, pp;			/* primary */
	uint64_t fork, cp, pending, dp;
	char ls, ps;			/* secondary */
	uint64_t fork_s, cs, pending_s, ds;
	enum repl_kinship kin;
	enum repl_position at;
	enum repl_decision decision;
	bool needs_discard;
	enum { OURS, RESTORED, FOREIGN } running;	/* what it is in stage running */
};

static const struct cell cells[] = {
	{ "a new disk", 'a', 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0,
	  KIN_NONE, POSITION_BEHIND, DECIDE_FULL, false, OURS },
	{ "two new disks", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	  KIN_NONE, POSITION_EQUAL, DECIDE_FULL, false, OURS },
	{ "a new disk, and a first checkpoint without an answer", 'a', 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0,
	  KIN_NONE, POSITION_PENDING, DECIDE_FULL, false, OURS },
	{ "a new disk that has a checkpoint", 'a', 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0,
	  KIN_NONE, POSITION_AHEAD, DECIDE_FULL, false, OURS },
	{ "the same, nothing written", 'a', 0, 0, 7, 0, 0, 'a', 0, 0, 7, 0, 0,
	  KIN_SAME, POSITION_EQUAL, DECIDE_IN_SYNC, false, OURS },
	{ "the same, something written", 'a', 0, 0, 7, 0, 5, 'a', 0, 0, 7, 0, 0,
	  KIN_SAME, POSITION_EQUAL, DECIDE_INCREMENTAL, false, OURS },
	{ "the same, a lost acknowledgement", 'a', 0, 0, 7, 8, 0, 'a', 0, 0, 8, 0, 0,
	  KIN_SAME, POSITION_PENDING, DECIDE_IN_SYNC, false, OURS },
	{ "the same, a lost acknowledgement, and something written",
	  'a', 0, 0, 7, 8, 2, 'a', 0, 0, 8, 0, 0,
	  KIN_SAME, POSITION_PENDING, DECIDE_INCREMENTAL, false, OURS },
	{ "asked for, and not committed", 'a', 0, 0, 7, 8, 2, 'a', 0, 0, 7, 0, 0,
	  KIN_SAME, POSITION_EQUAL, DECIDE_INCREMENTAL, false, OURS },
	{ "the secondary is a restored image", 'a', 0, 0, 7, 0, 1, 'a', 0, 0, 6, 0, 0,
	  KIN_SAME, POSITION_BEHIND, DECIDE_FULL, true, RESTORED },
	{ "the primary is a restored image", 'a', 0, 0, 7, 0, 0, 'a', 0, 0, 8, 0, 0,
	  KIN_SAME, POSITION_AHEAD, DECIDE_REFUSE, false, RESTORED },
	{ "the primary is a restored image, with something asked for",
	  'a', 0, 0, 7, 8, 0, 'a', 0, 0, 9, 0, 0,
	  KIN_SAME, POSITION_AHEAD, DECIDE_REFUSE, false, RESTORED },
	{ "the old primary returns, with nothing of its own",
	  'b', 'a', 7, 7, 0, 4, 'a', 0, 0, 7, 0, 0,
	  KIN_PRIMARY_LEFT, POSITION_EQUAL, DECIDE_INCREMENTAL, false, OURS },
	{ "the old primary returns, to one that has had checkpoints with somebody",
	  'b', 'a', 7, 9, 0, 4, 'a', 0, 0, 7, 0, 0,
	  KIN_PRIMARY_LEFT, POSITION_BEHIND, DECIDE_FULL, true, RESTORED },
	{ "and with nothing written since",
	  'b', 'a', 7, 8, 0, 0, 'a', 0, 0, 7, 0, 0,
	  KIN_PRIMARY_LEFT, POSITION_BEHIND, DECIDE_FULL, true, RESTORED },
	{ "the old primary returns, with writes that nobody else has",
	  'b', 'a', 7, 7, 0, 4, 'a', 0, 0, 7, 0, 3,
	  KIN_PRIMARY_LEFT, POSITION_EQUAL, DECIDE_INCREMENTAL, true, OURS },
	{ "the old primary returns, without an answer to the last checkpoint",
	  'b', 'a', 8, 8, 9, 4, 'a', 0, 0, 7, 8, 0,
	  KIN_PRIMARY_LEFT, POSITION_PENDING, DECIDE_INCREMENTAL, false, OURS },
	{ "the old primary returns as an older image",
	  'b', 'a', 8, 8, 0, 4, 'a', 0, 0, 7, 0, 0,
	  KIN_PRIMARY_LEFT, POSITION_BEHIND, DECIDE_FULL, true, RESTORED },
	{ "the old primary has a checkpoint that the failover has not",
	  'b', 'a', 6, 6, 0, 4, 'a', 0, 0, 7, 0, 0,
	  KIN_PRIMARY_LEFT, POSITION_AHEAD, DECIDE_FULL, true, RESTORED },
	{ "the secondary has failed over", 'a', 0, 0, 7, 0, 0, 'b', 'a', 7, 7, 0, 2,
	  KIN_SECONDARY_LEFT, POSITION_EQUAL, DECIDE_REFUSE, false, FOREIGN },
	{ "and has gone on", 'a', 0, 0, 7, 0, 0, 'b', 'a', 7, 9, 0, 2,
	  KIN_SECONDARY_LEFT, POSITION_AHEAD, DECIDE_REFUSE, false, FOREIGN },
	{ "to a checkpoint before", 'a', 0, 0, 7, 0, 0, 'b', 'a', 6, 6, 0, 2,
	  KIN_SECONDARY_LEFT, POSITION_BEHIND, DECIDE_REFUSE, false, FOREIGN },
	{ "to the one without an answer", 'a', 0, 0, 7, 8, 0, 'b', 'a', 8, 8, 0, 2,
	  KIN_SECONDARY_LEFT, POSITION_PENDING, DECIDE_REFUSE, false, FOREIGN },
	{ "two promotions", 'b', 'a', 7, 7, 0, 2, 'c', 'a', 7, 7, 0, 2,
	  KIN_BOTH_LEFT, POSITION_EQUAL, DECIDE_REFUSE, false, FOREIGN },
	{ "two promotions, one has gone on", 'b', 'a', 7, 7, 0, 2, 'c', 'a', 7, 9, 0, 2,
	  KIN_BOTH_LEFT, POSITION_AHEAD, DECIDE_REFUSE, false, FOREIGN },
	{ "two promotions, the other has", 'b', 'a', 7, 9, 0, 2, 'c', 'a', 7, 7, 0, 2,
	  KIN_BOTH_LEFT, POSITION_BEHIND, DECIDE_REFUSE, false, FOREIGN },
	{ "two promotions, and a question", 'b', 'a', 7, 7, 8, 2, 'c', 'a', 7, 8, 0, 2,
	  KIN_BOTH_LEFT, POSITION_PENDING, DECIDE_REFUSE, false, FOREIGN },
	{ "a third host", 'a', 'x', 3, 7, 0, 0, 'd', 'y', 3, 7, 0, 0,
	  KIN_STRANGERS, POSITION_EQUAL, DECIDE_REFUSE, false, FOREIGN },
	{ "a third host, older", 'a', 0, 0, 7, 0, 0, 'd', 0, 0, 1, 0, 0,
	  KIN_STRANGERS, POSITION_BEHIND, DECIDE_REFUSE, false, FOREIGN },
	{ "a third host, newer", 'a', 0, 0, 7, 0, 0, 'd', 0, 0, 8, 0, 0,
	  KIN_STRANGERS, POSITION_AHEAD, DECIDE_REFUSE, false, FOREIGN },
	{ "a third host, by chance", 'a', 0, 0, 7, 8, 0, 'd', 0, 0, 8, 0, 0,
	  KIN_STRANGERS, POSITION_PENDING, DECIDE_REFUSE, false, FOREIGN },
	{ "a new primary disk", 0, 0, 0, 0, 0, 0, 'a', 0, 0, 7, 0, 0,
	  KIN_STRANGERS, POSITION_AHEAD, DECIDE_REFUSE, false, OURS },
};

#define NR_CELLS (sizeof(cells) / sizeof(cells[0]))

static void two(const struct cell *cell, struct repl_side *primary,
		struct repl_side *secondary)
{
	*primary = side(cell->lp, cell->pp, cell->fork, cell->cp, cell->pending, cell->dp);
	*secondary = side(cell->ls, cell->ps, cell->fork_s, cell->cs, cell->pending_s,
			  cell->ds);
}

static void each_cell(void **state)
{
	struct repl_side primary, secondary;
	struct repl_verdict verdict;

	for (unsigned int i = 0; i < NR_CELLS; i++) {
		two(&cells[i], &primary, &secondary);
		identity_decide(&primary, &secondary, &verdict);
		if (verdict.kinship != cells[i].kin || verdict.position != cells[i].at ||
		    verdict.decision != cells[i].decision ||
		    verdict.needs_discard != cells[i].needs_discard || !verdict.why)
			fail_msg("%s: %s, position %d, %s, discard %d", cells[i].what,
				 identity_kinship_name(verdict.kinship), verdict.position,
				 identity_decision_name(verdict.decision),
				 verdict.needs_discard);
	}
}

static void all_of_the_table(void **state)
{
	bool seen[KIN_NR][POSITION_NR] = { };

	for (unsigned int i = 0; i < NR_CELLS; i++)
		seen[cells[i].kin][cells[i].at] = true;
	for (unsigned int kin = 0; kin < KIN_NR; kin++)
		for (unsigned int at = 0; at < POSITION_NR; at++)
			if (!seen[kin][at])
				fail_msg("no case for %s, position %u",
					 identity_kinship_name(kin), at);
}

/* With a secondary that runs, checkpoints go on only if it is ours. */
static void each_running(void **state)
{
	struct repl_side primary, secondary;
	struct repl_verdict verdict;

	for (unsigned int i = 0; i < NR_CELLS; i++) {
		two(&cells[i], &primary, &secondary);
		identity_decide(&primary, &secondary, &verdict);
		if (identity_restored(&verdict) != (cells[i].running == RESTORED) ||
		    identity_foreign(&primary, &verdict) != (cells[i].running == FOREIGN))
			fail_msg("%s: restored %d, foreign %d", cells[i].what,
				 identity_restored(&verdict),
				 identity_foreign(&primary, &verdict));
	}
}

/* Nothing is copied in full, and nothing discarded, unless it was asked for. */
static void nothing_unasked(void **state)
{
	struct repl_side primary, secondary;
	struct repl_verdict verdict;

	for (unsigned int i = 0; i < NR_CELLS; i++) {
		const struct cell *cell = &cells[i];
		bool easy = cell->decision == DECIDE_IN_SYNC ||
			    cell->decision == DECIDE_INCREMENTAL;
		bool blank = cell->kin == KIN_NONE;

		two(cell, &primary, &secondary);
		identity_decide(&primary, &secondary, &verdict);
		assert_int_equal(identity_may(&verdict, false, false),
				 easy && !cell->needs_discard ? cell->decision : DECIDE_REFUSE);
		assert_int_equal(identity_may(&verdict, false, true),
				 easy ? cell->decision : DECIDE_REFUSE);
		assert_int_equal(identity_may(&verdict, true, false),
				 blank || (easy && !cell->needs_discard) ? DECIDE_FULL :
				 DECIDE_REFUSE);
		assert_int_equal(identity_may(&verdict, true, true), DECIDE_FULL);
		/* Given beforehand it is the same. */
		secondary.discard = true;
		identity_decide(&primary, &secondary, &verdict);
		assert_false(verdict.needs_discard);
	}
}

static const char *explained(bool running, bool over, const struct repl_side *primary,
			     const struct repl_side *secondary)
{
	const struct repl_meeting meeting = {
		.resource = "r0", .primary_host = "alpha", .secondary_host = "beta",
		.primary_changed = 196608, .secondary_changed = 131072,
		.running = running, .over = over,
	};
	struct repl_verdict verdict;
	static char text[1024];

	identity_decide(primary, secondary, &verdict);
	identity_explain(&meeting, primary, secondary, &verdict, text, sizeof(text));
	return text;
}

#define ALPHA_HAS	"alpha: history 61616161, checkpoint 7, 196608 bytes changed since\n"
#define BETA_HAS	"beta: history 62626262, checkpoint 7, which left 61616161 at checkpoint 7, 131072 bytes changed since\n"
#define KEEP_ALPHA	"to keep what alpha has: on "
#define BETA_DEMOTES	"beta 'replctl demote --discard-local r0', then on "
#define ALPHA_SYNCS	"alpha 'replctl sync --full r0'"
#define KEEP_BETA	"\nto keep what beta has: on alpha 'replctl demote --discard-local r0', then on beta 'replctl failover r0', 'replctl wait r0 merged' and 'replctl promote r0'"

static void words(void **state)
{
	struct repl_side primary = side('a', 0, 0, 7, 0, 3);
	struct repl_side secondary = side('b', 'a', 7, 7, 0, 2);
	struct repl_verdict verdict;
	struct repl_meeting meeting = { .resource = "r0", .primary_host = "alpha",
					.secondary_host = "beta" };
	char small[20];

	assert_string_equal(explained(false, false, &primary, &secondary),
		"the secondary has failed over\n" ALPHA_HAS BETA_HAS
		KEEP_ALPHA BETA_DEMOTES ALPHA_SYNCS KEEP_BETA);
	identity_decide(&primary, &secondary, &verdict);
	identity_explain(&meeting, &primary, &secondary, &verdict, small, sizeof(small));
	assert_string_equal(small, "the secondary has f");
	/* It has agreed. */
	secondary.discard = true;
	assert_string_equal(explained(false, false, &primary, &secondary),
		"the secondary has failed over\n" ALPHA_HAS BETA_HAS
		KEEP_ALPHA ALPHA_SYNCS KEEP_BETA);

	secondary = side(0, 0, 0, 0, 0, 0);
	assert_string_equal(explained(false, false, &primary, &secondary),
		"the secondary's disk is new\n" ALPHA_HAS "beta: no history\n"
		KEEP_ALPHA ALPHA_SYNCS);

	secondary = side('a', 0, 0, 7, 0, 0);
	assert_null(strstr(explained(false, false, &primary, &secondary), "to keep"));
}

/* A secondary that runs: full over an older image of ours takes nobody's word. */
static void words_running(void **state)
{
	const struct repl_meeting other_volume = {
		.resource = "r0", .primary_host = "alpha", .secondary_host = "beta",
		.running = true, .must_agree = true,
	};
	struct repl_side primary = side('a', 0, 0, 7, 0, 3);
	struct repl_side secondary = side('a', 0, 0, 6, 0, 0);
	struct repl_verdict verdict;
	char text[1024];

	assert_non_null(strstr(explained(true, false, &primary, &secondary),
			       "\n" KEEP_ALPHA ALPHA_SYNCS "\n"));
	/* But another volume of it has something of its own. */
	identity_decide(&primary, &secondary, &verdict);
	identity_explain(&other_volume, &primary, &secondary, &verdict, text, sizeof(text));
	assert_non_null(strstr(text, "\n" KEEP_ALPHA BETA_DEMOTES ALPHA_SYNCS "\n"));
	secondary.checkpoint = 8;
	assert_non_null(strstr(explained(true, false, &primary, &secondary),
			       "\n" KEEP_ALPHA BETA_DEMOTES ALPHA_SYNCS
			       KEEP_BETA ", then on beta 'replctl sync --full r0'"));
	secondary.discard = true;
	assert_non_null(strstr(explained(true, false, &primary, &secondary),
			       "\n" KEEP_ALPHA ALPHA_SYNCS "\n"));
	secondary = side('x', 0, 0, 7, 0, 0);
	assert_non_null(strstr(explained(true, false, &primary, &secondary),
			       "\n" KEEP_ALPHA BETA_DEMOTES ALPHA_SYNCS "\n"));
}

/* Failed over, whatever is known of its history: it may be in the middle of the merge. */
static void words_over(void **state)
{
	struct repl_side primary = side('a', 0, 0, 7, 0, 3);
	struct repl_side secondary = side('b', 'a', 7, 7, 0, 2);

	assert_string_equal(explained(false, true, &primary, &secondary),
		"the secondary has failed over\n" ALPHA_HAS BETA_HAS KEEP_ALPHA
		"beta 'replctl wait r0 merged' and 'replctl demote --discard-local r0', then on "
		ALPHA_SYNCS KEEP_BETA);
	secondary = side(0, 0, 0, 0, 0, 0);
	assert_string_equal(explained(false, true, &primary, &secondary),
		"the secondary has failed over\n" ALPHA_HAS "beta: no history\n" KEEP_ALPHA
		"beta 'replctl wait r0 merged' and 'replctl demote --discard-local r0', then on "
		ALPHA_SYNCS KEEP_BETA ", then on beta 'replctl sync --full r0'");
}

/*
 * Full over a secondary that runs: without its host's word only where it has nothing that
 * the primary has not had. A primary without a history cannot know.
 */
static void full_over_running(void **state)
{
	struct repl_side primary, secondary;
	struct repl_verdict verdict;

	for (unsigned int i = 0; i < NR_CELLS; i++) {
		const struct cell *cell = &cells[i];
		bool own = cell->running == FOREIGN ||
			   (cell->kin == KIN_SAME && cell->at == POSITION_AHEAD) ||
			   (cell->kin == KIN_PRIMARY_LEFT && (cell->cs > cell->fork || cell->ds));

		two(cell, &primary, &secondary);
		identity_decide(&primary, &secondary, &verdict);
		if (identity_diverged(&primary, &secondary, &verdict) != own ||
		    identity_may_full(&primary, &secondary, &verdict, true) == own)
			fail_msg("%s: diverged %d", cell->what,
				 identity_diverged(&primary, &secondary, &verdict));
		assert_int_equal(identity_may_full(&primary, &secondary, &verdict, false),
				 identity_may(&verdict, true, false) != DECIDE_REFUSE);
		secondary.discard = true;
		assert_true(identity_may_full(&primary, &secondary, &verdict, true));
		assert_true(identity_may_full(&primary, &secondary, &verdict, false));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_cell),
		cmocka_unit_test(each_running),
		cmocka_unit_test(all_of_the_table),
		cmocka_unit_test(nothing_unasked),
		cmocka_unit_test(words),
		cmocka_unit_test(words_running),
		cmocka_unit_test(words_over),
		cmocka_unit_test(full_over_running),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
