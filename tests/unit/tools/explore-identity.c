// SPDX-License-Identifier: GPL-2.0-only
/*
 * Explorer of histories: two disks with their metadata, what the hosts and people do with
 * them, in every order, and identity.c (the source that the daemons run) to decide when
 * they meet. Writes that the peer gets, or not; checkpoints whose answer is lost; failovers
 * without a fence, promotions, also of both; demotions; images of each disk that are put
 * back later; new disks; and everything sent over by somebody's word.
 *
 * What must hold: where replication has begun or goes on, by itself or not, both disks are
 * the same when all that the two sides know of has been sent; so each checkpoint is the
 * primary's disk. And where all is sent over a checkpoint without its host's word, there was
 * nothing in that which the primary has not had.
 *
 * Left out, for no id tells it: a primary's image that is put back between the checkpoint
 * and the next one, when its secondary has got writes since; or one made when a checkpoint
 * was in doubt, which failed, and whose id was used again since.
 *
 *	explore-identity [WRITES EVENTS]
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "identity.h"

#define REGIONS 2
#define HOSTS 2

#define PUT_BACK 2

enum role {
	PRIMARY,
	RUNNING,	/* secondary with a checkpoint */
	OVER,		/* it has failed over */
	BLANK,		/* secondary without */
};

struct disk {
	uint8_t role;
	uint8_t content[REGIONS], checkpoint_is[REGIONS];
	uint8_t lineage, parent, fork, checkpoint, pending;
	uint8_t dirty;		/* since the last checkpoint, or the peer lacks it; own changes */
	uint8_t hidden;		/* RUNNING: written since the checkpoint */
	uint8_t had;		/* which writes it has had, or may be lost for it: a bit each */
};

struct state {
	struct disk disk[HOSTS];
	struct disk image[HOSTS];	/* of that disk, of some time ago */
	uint8_t has_image[HOSTS];	/* PUT_BACK: and it has been put back */
	uint8_t attached;		/* the primary's writes get there */
	uint8_t stale;			/* connected, and no checkpoint may be taken */
	uint8_t lineages, writes, events;
};

static unsigned int max_writes = 3, max_events = 6;

#include "states.h"

static bool same(const struct disk *a, const struct disk *b)
{
	return !memcmp(a->content, b->content, REGIONS);
}

static void check_state(const struct state *s)
{
	rule(!s->attached || same(&s->disk[0], &s->disk[1]),
	     "replication goes on, and the disks differ");
}

static unsigned int writes_in(const uint8_t *content)
{
	unsigned int bits = 0;

	for (unsigned int r = 0; r < REGIONS; r++)
		if (content[r] && content[r] < 8)
			bits |= 1u << content[r];
	return bits;
}

static struct repl_side side_of(const struct disk *disk)
{
	struct repl_side side = {
		.fork = disk->fork, .checkpoint = disk->checkpoint,
		.pending = disk->pending, .dirty = disk->dirty,
		.discard = disk->role == BLANK,
	};

	side.lineage[0] = disk->lineage;
	side.parent[0] = disk->parent;
	return side;
}

/* What either is known to have changed is the primary's now, on both. */
static void send_known(struct disk *p, struct disk *s)
{
	for (unsigned int r = 0; r < REGIONS; r++)
		if ((p->dirty | s->dirty) & 1u << r) {
			s->content[r] = p->content[r];
			s->hidden |= 1u << r;
		}
	s->had |= writes_in(s->content);
}

static void send_all(struct disk *p, struct disk *s)
{
	memcpy(s->content, p->content, REGIONS);
	s->hidden = (1u << REGIONS) - 1;
	s->had |= writes_in(s->content);
}

static void commit(struct disk *s, unsigned int id)
{
	memcpy(s->checkpoint_is, s->content, REGIONS);
	s->role = RUNNING;
	s->checkpoint = id;
	s->hidden = 0;
	s->dirty = 0;
}

/* ---- What happens ---- */

static void part(struct state *s)
{
	s->attached = 0;
	s->stale = 0;
}

/* One that begins has the primary's disk as its first checkpoint; then comes the next. */
static void begin_blank(struct state *s, struct disk *p, struct disk *o)
{
	unsigned int last = p->checkpoint > o->checkpoint ? p->checkpoint : o->checkpoint;

	/* No id that was asked for before, perhaps of somebody else. */
	if (p->pending > last)
		last = p->pending;
	p->dirty |= o->dirty;
	p->pending = last + 2;
	commit(o, last + 1);
	o->lineage = p->lineage;
	o->parent = 0;
	o->fork = 0;
	o->pending = 0;
	s->attached = 1;
}

static void meet(struct state *s, unsigned int h, bool full)
{
	struct disk *p = &s->disk[h], *o = &s->disk[!h];
	struct repl_side one = side_of(p), other = side_of(o);
	struct repl_verdict verdict;
	enum repl_decision may;

	identity_decide(&one, &other, &verdict);
	if (o->role == RUNNING) {
		s->stale = identity_restored(&verdict) || identity_foreign(&one, &verdict);
		if (full) {
			/* (When both went back, one id has had two contents.) */
			rule(!identity_may_full(&one, &other, &verdict, true) ||
			     (s->has_image[0] == PUT_BACK && s->has_image[1] == PUT_BACK) ||
			     !(writes_in(o->checkpoint_is) & ~p->had),
			     "what only the secondary had is lost, without its word");
			p->had |= writes_in(o->checkpoint_is);	/* the word was given */
			send_all(p, o);
			s->stale = 0;
		} else if (s->stale) {
			return;
		} else {
			send_known(p, o);
		}
		s->attached = 1;
		return;
	}
	may = identity_may(&verdict, full, false);
	if (full)
		send_all(p, o);
	else if (may == DECIDE_IN_SYNC || may == DECIDE_INCREMENTAL)
		send_known(p, o);
	else
		return;
	begin_blank(s, p, o);
}

static unsigned int next_id(const struct disk *p, const struct disk *s)
{
	return (p->checkpoint > s->checkpoint ? p->checkpoint : s->checkpoint) + 1;
}

static bool primary_steps(const struct state *now, unsigned int h)
{
	const struct disk *o = &now->disk[!h];

	if (now->disk[h].role != PRIMARY)
		return true;
	if (now->writes < max_writes)
		for (unsigned int r = 0; r < REGIONS; r++)
			TRY("a write", struct disk *p = &s->disk[h], *q = &s->disk[!h];
			    p->content[r] = ++s->writes; p->dirty |= 1u << r;
			    p->had |= 1u << s->writes;
			    if (s->attached) { q->content[r] = s->writes; q->hidden |= 1u << r;
					       q->had |= 1u << s->writes; });
	if (now->events == max_events)
		return true;
	if (now->attached && o->role == RUNNING && !now->stale)
		for (unsigned int lost = 0; lost < 2; lost++)
			TRY(lost ? "a checkpoint, its answer is lost" : "a checkpoint",
			    struct disk *p = &s->disk[h]; struct disk *q = &s->disk[!h];
			    unsigned int id = next_id(p, q); s->events++;
			    p->pending = id; commit(q, id); q->lineage = p->lineage;
			    if (lost) { part(s); } else { p->checkpoint = id; p->pending = 0; p->dirty = 0; });
	if (!now->attached && (o->role == RUNNING || o->role == BLANK)) {
		TRY("they meet", s->events++; meet(s, h, false););
		TRY("all of it is sent over", s->events++; meet(s, h, true););
	}
	if (now->attached && o->role == RUNNING)
		TRY("a checkpoint is asked for, and fails", s->events++;
		    s->disk[h].pending = next_id(&s->disk[h], &s->disk[!h]); part(s););
	TRY("demote --discard-local", s->events++; s->disk[h].role = BLANK; part(s););
	return true;
}

/* What is left out, see above. */
static bool same_moment(const struct disk *p, const struct disk *s)
{
	return p->role == PRIMARY && s->role == RUNNING && p->lineage == s->lineage &&
	       p->checkpoint <= s->checkpoint &&
	       ((s->hidden & ~p->dirty) || s->checkpoint <= p->pending);
}

static bool host_steps(const struct state *now, unsigned int h)
{
	const struct disk *d = &now->disk[h];

	if (d->role == OVER && now->writes < max_writes)
		for (unsigned int r = 0; r < REGIONS; r++)
			TRY("a write to the view", struct disk *q = &s->disk[h];
			    q->content[r] = ++s->writes; q->dirty |= 1u << r;
			    q->had |= 1u << s->writes;);
	if (now->events == max_events)
		return true;
	if (d->role == RUNNING && d->lineage)
		TRY("failover", s->events++; part(s); struct disk *q = &s->disk[h];
		    q->role = OVER; q->dirty = q->hidden; q->hidden = 0;
		    memcpy(q->content, q->checkpoint_is, REGIONS);
		    q->parent = q->lineage; q->fork = q->checkpoint; q->lineage = ++s->lineages;);
	if (d->role == OVER)
		TRY("promote", s->events++; s->disk[h].role = PRIMARY; s->disk[h].pending = 0;);
	if (now->attached)
		TRY("they part", s->events++; part(s););
	if (!now->has_image[h] && !d->pending)
		TRY("an image is made", s->events++; s->image[h] = s->disk[h];
		    s->has_image[h] = 1;);
	if (now->has_image[h] && !same_moment(&now->image[h], &now->disk[!h]) &&
		 !same_moment(&now->disk[!h], &now->image[h]))
		TRY("an image is put back", s->events++; part(s); s->disk[h] = s->image[h];
		    s->has_image[h] = PUT_BACK;);
	TRY("a new disk", s->events++; part(s); memset(&s->disk[h], 0, sizeof(s->disk[h]));
	    s->disk[h].role = BLANK; memset(s->disk[h].content, 99, REGIONS););
	return true;
}

static void print_way(unsigned int i)
{
	static const char * const roles[] = { "primary", "running", "over", "blank" };
	const struct state *s = &nodes[i].state;

	if (i)
		print_way(nodes[i].parent);
	printf("# %-36s", nodes[i].how);
	for (unsigned int h = 0; h < HOSTS; h++) {
		const struct disk *d = &s->disk[h];

		printf(" %s %u/%u@%u cp %u/%u dirty %x hidden %x [%u %u]", roles[d->role],
		       d->lineage, d->parent, d->fork, d->checkpoint, d->pending, d->dirty,
		       d->hidden, d->content[0], d->content[1]);
	}
	printf("%s%s\n", s->attached ? " attached" : "", s->stale ? " stale" : "");
}

int main(int argc, char **argv)
{
	unsigned int begun = 0, switched = 0;
	struct state first;

	if (argc == 3) {
		max_writes = atoi(argv[1]);
		max_events = atoi(argv[2]);
	}
	memset(&first, 0, sizeof(first));
	first.lineages = 1;
	for (unsigned int h = 0; h < HOSTS; h++) {
		first.disk[h].role = h ? RUNNING : PRIMARY;
		first.disk[h].lineage = 1;
		first.disk[h].checkpoint = 1;
	}
	first.attached = 1;
	visit(&first, 0, "start");
	for (from = 0; from < nr_nodes; from++) {
		struct state now = nodes[from].state;
		bool good = true;

		for (unsigned int h = 0; h < HOSTS && good; h++)
			good = primary_steps(&now, h) && host_steps(&now, h);
		if (!good) {
			printf("not ok - explore identity: %s\n", broken);
			print_way(nr_nodes - 1);
			return 1;
		}
		switched += now.disk[1].role == PRIMARY && now.disk[0].role == RUNNING;
		begun += now.attached && now.disk[1].lineage > 1;
	}
	printf("ok - explore identity: %u states with %u writes, %u events; %u have changed places, %u with another history\n",
	       nr_nodes, max_writes, max_events, switched, begun);
	return !(switched && begun);
}
