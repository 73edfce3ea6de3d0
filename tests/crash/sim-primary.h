/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A primary with metadata: track.c, keep.c and dirty.c, as they are, over the simulated
 * local disk and metadata device of sim.c, with crashes.
 *
 * On top are the rules of the primary, in short: what is set before a write is
 * sent, cut, release, abort, missed writes and their push. The model is content:
 * where the track says that the peer lacks nothing, local must be what the
 * peer's last checkpoint is, after each crash. And two maps of the user's have all that
 * was written since they were cleared, or marked.
 */
static struct repl_track *track;
static struct {
	bool lacks[SLOTS];		/* map checkpoint */
	bool frozen[SLOTS];
	bool missed[SLOTS];		/* map peer */
	bool is_cut;
	u64 cut, checkpoint;
} p;
static u32 peer_has[NSEC];		/* its last checkpoint */
static u32 at_cut[NSEC];
static u64 released, pending, last_id;	/* durable: released, pending; of all cuts */
static u8 lineage[REPL_UUID_SIZE];
static bool exact_map[SLOTS], exact_known; /* that a suspend has left */
static bool too_small;			/* the map, and nothing on the device says so */
static bool was_marked;			/* all was dirty, and some may be still */
static bool was_foul;			/* some I/O may have failed in this life */
static bool was_foul_super;		/* that of a superblock */
static u64 nr_released, nr_healed, nr_waits, nr_too_small, nr_marked, nr_cleared;

static void primary_drain(void);

/* The user's maps: the second one has a bit for two slots. */
static struct repl_dirty user;
static struct repl_keep keep;
static const char * const map_names[2] = { "one", "two" };
static struct {
	bool there, frozen;
	bool doubt;			/* the directory may say otherwise */
	bool must[SLOTS], since[SLOTS];	/* since it was frozen */
	bool *begins;			/* one of these is empty when the gate is closed */
} umaps[2];
static bool umaps_exact;		/* an orderly end has left them */
static bool umaps_loose;		/* more was found than was there, for want of reading */
static bool one_dir;			/* the other directory has not been written */
static u64 nr_pauses, nr_umap_checks, nr_umaps_exact;

struct pwrite {
	bool used, waits, sent;
	unsigned int slot, nr;		/* one slot, or two */
	u32 v[2 * SPR];
	struct repl_track_io io;
};

static struct pwrite pwrites[8];

static bool pwrite_has(const struct pwrite *w, unsigned int slot)
{
	return w->used && slot >= w->slot && slot < w->slot + w->nr;
}

static int primary_flush(void *context)
{
	(void)context;
	return disk_flush(SEC);
}

static bool primary_lacks(void *context, u64 region, u64 end, u64 *nr)
{
	unsigned int slot = region - first_region;
	bool missed, now, frozen;

	(void)context;
	*nr = 1;
	if (region < first_region || slot >= SLOTS) {
		if (!was_marked)
			fail("region %llu is dirty", (unsigned long long)region);
		*nr = (region < first_region && end > first_region ? first_region : end) -
		      region;
		return false;
	}
	missed = p.missed[slot];
	sim_yield();
	now = p.lacks[slot];
	sim_yield();
	frozen = p.is_cut && p.frozen[slot];
	return missed || now || frozen;
}

static void primary_merge(void *context, struct repl_bits *to)
{
	(void)context;
	for (unsigned int slot = 0; slot < SLOTS; slot++)
		if (p.lacks[slot] || p.missed[slot] || (p.is_cut && p.frozen[slot]))
			repl_bits_set(to, first_region + slot, first_region + slot + 1);
}

static void primary_failed(void *context, int error)
{
	(void)context;
	(void)error;
	was_marked = true;	/* or will be */
	trace("metadata failed");
}

static int primary_begin(void *context, bool is_ours, u64 next, const char **why)
{
	(void)context;
	return repl_keep_begin(&keep, is_ours, next, why);
}

static int primary_save(void *context, const struct repl_bits *leaving)
{
	(void)context;
	return repl_keep_save(&keep, leaving);
}

static const struct repl_track_ops track_ops = {
	.flush = primary_flush, .lacks = primary_lacks, .merge = primary_merge,
	.failed = primary_failed, .begin = primary_begin, .save = primary_save,
};

static void keep_failed(void *context, int error)
{
	(void)context;
	repl_track_lost(track, error);
}

/* ---- The user's maps ---- */

static struct repl_dirty_map *umap(unsigned int i)
{
	struct repl_dirty_map *map;

	list_for_each_entry(map, &user.maps, list)
		if (!strcmp(map->name, map_names[i]))
			return map;
	return NULL;
}

static bool umap_has(unsigned int i, unsigned int slot)
{
	const struct repl_dirty_map *map = umap(i);
	u64 bit = (first_region + slot) * 8 >> map->shift;

	return repl_bits_test(map->now, bit) || (map->frozen && repl_bits_test(map->frozen, bit));
}

/* A write is sent. */
static void umaps_write(unsigned int slot, unsigned int nr)
{
	for (unsigned int i = 0; i < 2; i++)
		for (unsigned int s = slot; umaps[i].there && s < slot + nr; s++)
			umaps[i].must[s] = umaps[i].since[s] = true;
}

static int umap_message(unsigned int i, const char *word, const char *more)
{
	char *argv[5] = { "dirty", (char *)word, (char *)map_names[i], (char *)more };
	char result[256];
	const char *why;

	trace("dirty %s %s %s", word, map_names[i], more ? more : "");
	return repl_dirty_message(&user, more ? 4 : 3, argv, result, sizeof(result), &why);
}

/* Both slots of a piece of the second one. */
static void umap_marks(unsigned int i, unsigned int slot)
{
	char from[24], *argv[5] = { "dirty", "mark", (char *)map_names[i], from, "8" };
	char result[256];
	const char *why;

	snprintf(from, sizeof(from), "%llu", (unsigned long long)(first_region + slot) * 8);
	trace("slot %u is marked in %s", slot, map_names[i]);
	if (!repl_dirty_message(&user, 5, argv, result, sizeof(result), &why))
		umaps[i].must[slot] = umaps[i].since[slot] = true;
	else if (!repl_track_failed(track))
		fail("mark is refused: %s", why);
}

/* What is forgotten may be so already when we crash in the middle of it. */
static void primary_message(void)
{
	unsigned int i = rnd(2), what = rnd(6);

	if (!keep.stale)
		umaps[0].doubt = umaps[1].doubt = false;
	if (!umaps[i].there) {
		/* It is there before it is acknowledged. */
		umaps[i].doubt = true;
		umaps[i].there = !umap_message(i, "add", i ? "16" : NULL);
		umaps[i].doubt = !umaps[i].there && keep.stale;
		return;
	}
	switch (what) {
	case 0:
		if (umaps[i].frozen)
			break;
		umaps[i].begins = umaps[i].must;
		umap_message(i, "clear", NULL);
		break;
	case 1:
		if (umaps[i].frozen || rnd(3))
			break;
		umaps[i].doubt = true;
		if (!umap_message(i, "remove", NULL))
			memset(&umaps[i], 0, sizeof(umaps[i]));
		else
			umaps[i].doubt = keep.stale;
		break;
	case 2:
		if (umaps[i].frozen)
			break;
		umaps[i].begins = umaps[i].since;
		umaps[i].frozen = !umap_message(i, "freeze", NULL);
		break;
	case 3:
		if (!umaps[i].frozen)
			break;
		umaps[i].frozen = false;
		if (rnd(2)) {
			umap_message(i, "thaw", "merge");
			break;
		}
		memcpy(umaps[i].must, umaps[i].since, sizeof(umaps[i].must));
		umap_message(i, "thaw", "drop");
		break;
	default:
		umap_marks(i, rnd(SLOTS));
	}
}

/* Whether one was added, or removed, it knows by now. */
static void end_doubts(void)
{
	for (unsigned int i = 0; i < 2; i++) {
		umaps[i].doubt |= one_dir && weather.read[META];
		if (umaps[i].doubt && !!umap(i) != umaps[i].there) {
			memset(&umaps[i], 0, sizeof(umaps[i]));
			umaps[i].there = umap(i);
		}
		/* The one that counts may not have been read. */
		umaps[i].doubt = keep.stale;
	}
}

/* After an activation: no bit too few; after an orderly end, none too many either. */
static void check_umaps(bool exact)
{
	for (unsigned int i = 0; i < 2; i++) {
		if (!!umap(i) != umaps[i].there)
			fail("map %s is%s there", map_names[i], umap(i) ? "" : " not");
		if (!umaps[i].there)
			continue;
		nr_umap_checks++;
		nr_umaps_exact += exact;
		for (unsigned int slot = 0; slot < SLOTS; slot++) {
			bool must = umaps[i].must[slot];

			if (must && !umap_has(i, slot))
				fail("map %s has not slot %u", map_names[i], slot);
			/* (What the other half of its piece has, it has, too.) */
			must |= i && umaps[i].must[slot ^ 1];
			if (exact && !must && umap_has(i, slot))
				fail("map %s has slot %u", map_names[i], slot);
		}
	}
}

/* What was found is so from now on; but what could not be read may be found next time. */
static void believe_umaps(void)
{
	umaps_loose = weather.read[META];
	for (unsigned int i = 0; i < 2; i++) {
		umaps[i].frozen = false;
		for (unsigned int slot = 0; umaps[i].there && slot < SLOTS; slot++)
			umaps[i].must[slot] = umap_has(i, slot) &&
					      (!umaps_loose || umaps[i].must[slot]);
	}
}

static bool is_dirty(unsigned int slot)
{
	return repl_bits_test(&track->dirty, first_region + slot);
}

/* Where the peer lacks nothing, both are the same. */
static void check_primary(const char *when)
{
	for (unsigned int s = 0; s < NSEC; s++)
		if (!is_dirty(s / SPR) && disks[SEC].cur[s] != peer_has[s])
			fail("%s: slot %u is clean: sector %u is %u on local and %u on the peer",
			     when, s / SPR, s, disks[SEC].cur[s], peer_has[s]);
}

/* While it lives: what is in the owner's maps is in the track's. */
static void check_covered(void)
{
	for (unsigned int slot = 0; slot < SLOTS; slot++) {
		bool sent = false;

		for (unsigned int i = 0; i < ARRAY_SIZE(pwrites); i++)
			sent |= pwrite_has(&pwrites[i], slot) && !pwrites[i].waits;
		if (sent && !is_dirty(slot))
			fail("slot %u is written, and not dirty", slot);
	}
}

/* The write will be sent: it is recorded, or a superblock says that all is dirty. */
static void primary_goes_on(const struct pwrite *w)
{
	const struct repl_log *log = &store->log;

	umaps_write(w->slot, w->nr);
	if (!repl_track_failed(track) || (log->meta.unrecorded && !log->super_pending) ||
	    repl_bits_all(&track->recent, first_region + w->slot,
			  first_region + w->slot + w->nr))
		return;
	if (!was_foul_super)
		fail("slot %u is written, and neither that nor that all is dirty is recorded",
		     w->slot);
	too_small = true;
}

static void primary_go(struct repl_track_io *io)
{
	struct pwrite *w = container_of(io, struct pwrite, io);

	w->waits = false;
	primary_goes_on(w);
}

static void primary_write(void)
{
	unsigned int slot = rnd(rnd(2) ? SLOTS : 4), nr = slot + 1 < SLOTS ? 1 + !rnd(4) : 1, i;
	struct pwrite *w = NULL;

	for (i = 0; i < ARRAY_SIZE(pwrites); i++) {
		if (pwrite_has(&pwrites[i], slot) || pwrite_has(&pwrites[i], slot + nr - 1))
			return;
		if (!pwrites[i].used)
			w = &pwrites[i];
	}
	if (!w)
		return;
	*w = (struct pwrite) { .used = true, .slot = slot, .nr = nr, .io.done = primary_go };
	for (i = 0; i < nr * SPR; i++)
		w->v[i] = ++next_value;
	for (i = slot; i < slot + nr; i++) {
		p.lacks[i] = true;
		if (chance(30))
			p.missed[i] = true;
	}
	repl_dirty_mark(&user, (first_region + slot) * 8, nr * 8);
	w->waits = repl_track_mark(track, &w->io, first_region + slot, first_region + slot + nr);
	nr_waits += w->waits;
	if (!w->waits)
		primary_goes_on(w);
	trace("write of slot %u %s", slot, w->waits ? "waits" : "goes on");
}

/* Some write goes on. */
static bool primary_io(void)
{
	unsigned int first = rnd(ARRAY_SIZE(pwrites)), i;

	for (i = 0; i < ARRAY_SIZE(pwrites); i++) {
		struct pwrite *w = &pwrites[(first + i) % ARRAY_SIZE(pwrites)];

		if (!w->used || w->waits)
			continue;
		for (unsigned int slot = w->slot; slot < w->slot + w->nr; slot++)
			if (!is_dirty(slot) && !repl_track_failed(track))
				fail("slot %u is written, and not dirty", slot);
		disk_write(SEC, w->slot * SPR, w->nr * SPR, w->v, false);
		w->used = false;
		return true;
	}
	return fibers_step(false);
}

static bool primary_in_flight(void)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(pwrites); i++)
		if (pwrites[i].used)
			return true;
	return false;
}

static void primary_drain(void)
{
	while (primary_in_flight())
		if (!primary_io() && !fibers_step(true))
			fail("nothing goes on, and writes are in flight");
}

/* Of the user's maps: writes that wait for a record, or for who saves, have to go on. */
static int gate_close(void *context)
{
	(void)context;
	primary_drain();
	for (unsigned int i = 0; i < 2; i++) {
		if (umaps[i].begins)
			memset(umaps[i].begins, 0, sizeof(umaps[i].must));
		umaps[i].begins = NULL;
	}
	return 0;
}

static void gate_open(void *context)
{
	(void)context;
}

static void init_user(void)
{
	repl_dirty_init(&user, nr_regions * 8, 3);
	repl_dirty_set_gate(&user, gate_close, gate_open, NULL);
}

static void primary_cut(void)
{
	if (p.is_cut || repl_track_failed(track))
		return;
	for (unsigned int slot = 0; slot < SLOTS; slot++)
		if (p.missed[slot])
			return;
	p.cut = last_id += 1 + rnd(2);
	if (repl_track_pending(track, p.cut))
		return;
	pending = p.cut;
	primary_drain();
	repl_track_moving(track);
	memcpy(p.frozen, p.lacks, sizeof(p.frozen));
	memset(p.lacks, 0, sizeof(p.lacks));
	p.is_cut = true;
	repl_track_moving(track);
	memcpy(at_cut, disks[SEC].cur, sizeof(at_cut));
	trace("cut %llu", (unsigned long long)p.cut);
}

static void primary_release(bool abort)
{
	u64 id = p.cut;

	if (!p.is_cut)
		return;
	if (!abort) {
		/* The peer has committed, whatever becomes of us. */
		memcpy(peer_has, at_cut, sizeof(peer_has));
		if (!repl_track_checkpoint(track, id))
			released = id;
		nr_released++;
	}
	repl_track_moving(track);
	for (unsigned int slot = 0; abort && slot < SLOTS; slot++)
		p.lacks[slot] |= p.frozen[slot];
	p.is_cut = false;
	repl_track_moving(track);
	trace("%s %llu", abort ? "abort" : "release", (unsigned long long)id);
}

/* A missed region is copied: the peer's disk has it, its checkpoint has not. */
static void primary_push(void)
{
	unsigned int slot = rnd(SLOTS);

	for (unsigned int i = 0; i < SLOTS && !p.missed[slot]; i++)
		slot = (slot + 1) % SLOTS;
	if (!p.missed[slot])
		return;
	for (unsigned int i = 0; i < ARRAY_SIZE(pwrites); i++)
		if (pwrite_has(&pwrites[i], slot))
			return;
	p.lacks[slot] = true;
	p.missed[slot] = false;
}

/* Somebody says that the peer lacks a region; writes go on while it is recorded. */
static void primary_marks(struct work_struct *work)
{
	(void)work;
	p.missed[rnd(SLOTS)] = true;
	trace("somebody marks");
	repl_track_cover(track);
}

static struct work_struct marks_work;

static void primary_forget(void)
{
	forget_memory();
	track = NULL;
	memset(pwrites, 0, sizeof(pwrites));
	memset(&p, 0, sizeof(p));
	memset(&keep, 0, sizeof(keep));
	init_user();
}

static bool foul_now(void)
{
	return weather.append || weather.area || weather.super || weather.flush[META] ||
	       weather.flush[SEC];
}

static void primary_suspend(void)
{
	bool failed, exact;

	primary_drain();
	cancel_work_sync(&marks_work);
	failed = repl_track_failed(track);
	repl_track_suspend(track);
	if (!repl_track_failed(track))
		repl_keep_leave(&keep, store->log.next);
	umaps_exact = !was_foul && !foul_now() && !umaps_loose && !repl_track_failed(track);
	nr_healed += failed && !repl_track_failed(track);
	if (!failed)
		check_primary("suspended");
	exact = !was_foul && !foul_now() && !repl_track_failed(track);
	for (unsigned int slot = 0; slot < SLOTS; slot++)
		exact_map[slot] = p.lacks[slot] || p.missed[slot] ||
				  (p.is_cut && p.frozen[slot]);
	exact_known = exact;
	if (!repl_track_failed(track))
		too_small = false;
	repl_keep_exit(&keep);
	repl_dirty_exit(&user);
	repl_track_destroy(track);
	store = NULL;
	primary_forget();
	last_end = END_CLEAN;
	nr_cleans++;
}

/* A suspend, and a resume of the same table. */
static void primary_pause(void)
{
	primary_drain();
	cancel_work_sync(&marks_work);
	repl_track_suspend(track);
	if (!repl_track_failed(track))
		repl_keep_leave(&keep, store->log.next);
	trace("suspended, failed %d", repl_track_failed(track));
	if (rnd(2))
		primary_message();
	if (rnd(4) == 0)
		weather.append = weather.area = 1000;
	if (repl_keep_has_maps(&keep) && repl_track_again(track))
		repl_keep_doubt(&keep);
	was_foul |= foul_now();
	repl_track_resume(track);
	nr_pauses++;
	trace("resumed, failed %d", repl_track_failed(track));
}

static bool primary_activate(void)
{
	const char *why = "?";
	char *error = "?";
	int r;

	if (attempts++ > 2)
		memset(&weather, 0, sizeof(weather));
	track = repl_track_create(NULL, &meta_bdev, nr_regions * 8, 8, &track_ops, NULL, &error);
	if (IS_ERR(track)) {
		r = PTR_ERR(track);
		track = NULL;
		why = error;
		goto bad;
	}
	store = track->store;
	r = repl_keep_init(&keep, &user, store, keep_failed, NULL);
	if (!r)
		r = repl_track_open(track, &why);
	if (!r)
		r = repl_keep_load(&keep, &track->dirty, false, &why);
	if (r)
		goto bad;
	log_start = store->log.meta.layout.log_start;
	if (track->state.checkpoint < released || track->state.checkpoint > last_id)
		fail("activated with checkpoint %llu, not %llu to %llu",
		     (unsigned long long)track->state.checkpoint, (unsigned long long)released,
		     (unsigned long long)last_id);
	if (repl_lineage_is_known(lineage) &&
	    memcmp(lineage, track->state.identity.lineage, REPL_UUID_SIZE))
		fail("activated with another lineage");
	memcpy(lineage, track->state.identity.lineage, REPL_UUID_SIZE);
	nr_marked += store->unrecorded;
	end_doubts();
	if (too_small && !store->unrecorded) {
		/* Somebody compares both, and makes them the same. */
		nr_too_small++;
		disk_flush_all(&disks[SEC]);
		memcpy(peer_has, disks[SEC].cur, sizeof(peer_has));
		believe_umaps();
	}
	too_small = false;
	check_umaps(umaps_exact && !weather.read[META] && !repl_track_failed(track));
	umaps_exact = false;
	believe_umaps();
	check_primary("activated");
	for (unsigned int slot = 0; exact_known && slot < SLOTS; slot++)
		if (is_dirty(slot) != exact_map[slot])
			fail("activated after a suspend: slot %u is%s dirty", slot,
			     is_dirty(slot) ? "" : " not");
	exact_known = false;
	if (pending > track->state.checkpoint && track->state.prepared < pending)
		fail("checkpoint %llu was asked for, and that is forgotten",
		     (unsigned long long)pending);
	released = track->state.checkpoint;
	pending = track->state.prepared;
	for (unsigned int slot = 0; slot < SLOTS; slot++)
		p.lacks[slot] = p.missed[slot] = is_dirty(slot);
	was_foul = false;
	was_foul_super = false;
	repl_track_resume(track);
	alive = true;
	attempts = 0;
	return true;
bad:
	trace("refused: %s, %d", why, r);
	umaps_exact = false;
	repl_keep_exit(&keep);
	repl_dirty_exit(&user);
	init_user();
	if (attempts > 4)
		fail("refused: %s (%d)", why, r);
	nr_refused++;
	if (track)
		repl_track_destroy(track);
	track = NULL;
	store = NULL;
	return true;
}

static void primary_crash(void)
{
	crashed = false;
	current = NULL;
	last_end = END_RESTART;
	if (rnd(5)) {
		unsigned int part = rnd(5) * 250;

		last_end = END_POWER;
		disk_power_loss(&disks[SEC], part);
		meta_power_loss(part);
	}
	nr_crashes += last_end == END_POWER;
	nr_restarts += last_end == END_RESTART;
	umaps_exact = false;
	umaps[0].begins = umaps[1].begins = NULL;
	trace("crash: %s", last_end == END_POWER ? "power" : "restart");
	primary_forget();
}

static void primary_step(void)
{
	unsigned int i = rnd(1000);
	u64 dirty_before = repl_bits_count(&track->dirty);

	world_step++;
	was_foul |= foul_now();
	was_foul_super |= weather.super || weather.flush[META];
	if (crash_due())
		crash_now();
	if (i < 200)
		primary_write();
	else if (i < 220)
		primary_cut();
	else if (i < 250)
		primary_release(!rnd(3));
	else if (i < 450)
		primary_push();
	else if (i < 453)
		primary_suspend();
	else if (i < 456)
		change_weather();
	else if (i < 458)
		primary_pause();
	else if (i < 460)
		queue_work(NULL, &marks_work);
	else if (i < 470)
		primary_message();
	else
		primary_io();
	if (track) {
		one_dir = keep.stale;
		nr_cleared += repl_bits_count(&track->dirty) < dirty_before;
		if (!repl_track_failed(track)) {
			too_small = false;
			check_covered();
		}
	}
}

static void primary_world(u64 seed, u64 steps)
{
	signal(SIGALRM, hangs);
	alarm(30);
	new_world(seed);
	/* Room for the user's maps, or for one of them. */
	meta_blocks += 24;
	meta_bdev.sectors = meta_blocks * 8;
	memset(umaps, 0, sizeof(umaps));
	umaps_exact = false;
	primary_forget();
	INIT_WORK(&marks_work, primary_marks);
	memcpy(peer_has, disks[SEC].cur, sizeof(peer_has));
	released = pending = last_id = 0;
	memset(lineage, 0, sizeof(lineage));
	too_small = false;
	was_marked = false;
	exact_known = false;
	if (setjmp(crash_jmp)) {
		primary_crash();
		crash_in = 1 + rnd(rnd(3) ? 100 : 2000);
	}
	while (world_step < steps) {
		if (alive)
			primary_step();
		else if (!primary_activate())
			break;
		if (!crash_in)
			crash_in = 1 + rnd(2000);
	}
	crash_in = 0;
	total_steps += world_step;
}

/* Two slots are written at a time: do they wait? And what is written to the log? */
static void cost_of(unsigned int slot, bool waits, u64 blocks, const char *what)
{
	u64 before = store->log.next;

	for (unsigned int i = 0; i < 2; i++) {
		struct pwrite *w = &pwrites[i];

		*w = (struct pwrite) {
			.used = true, .slot = slot + i, .nr = 1, .io.done = primary_go,
		};
		p.lacks[slot + i] = true;
		w->waits = repl_track_mark(track, &w->io, first_region + slot + i,
					   first_region + slot + i + 1);
		if (w->waits != waits)
			fail("%s: it waits: %d", what, w->waits);
	}
	primary_drain();
	if (store->log.next - before != blocks)
		fail("%s: %llu blocks", what, (unsigned long long)(store->log.next - before));
}

static void cost_of_round(u64 blocks, const char *what)
{
	u64 before = store->log.next;

	repl_track_round(track);
	if (store->log.next - before != blocks)
		fail("a round, %s: %llu blocks", what, (unsigned long long)(store->log.next - before));
}

static void cost_of_checkpoint(void)
{
	u64 before = store->log.next;

	primary_cut();
	primary_release(false);
	if (store->log.next - before != 2)
		fail("a checkpoint: %llu blocks", (unsigned long long)(store->log.next - before));
}

/* What is written in each round stays recorded, and costs nothing more; the rest goes. */
static void primary_cost(void)
{
	new_world(1);
	memset(umaps, 0, sizeof(umaps));
	INIT_WORK(&marks_work, primary_marks);
	primary_forget();
	memcpy(peer_has, disks[SEC].cur, sizeof(peer_has));
	released = pending = last_id = 0;
	memset(lineage, 0, sizeof(lineage));
	crash_in = 0;
	if (!primary_activate() || !track)
		fail("no world");
	cancel_delayed_work_sync(&track->round);
	cost_of(0, true, 1, "a first write");
	cost_of(4, true, 1, "a first write to others");
	for (unsigned int i = 0; i < 10; i++) {
		cost_of_checkpoint();
		/* The others have not been written since the round before. */
		cost_of_round(i == 1, i == 1 ? "that forgets" : "with writes in each");
		cost_of(0, false, 0, "a write in a round");
	}
	cost_of(4, true, 1, "a write to what was forgotten");
	cost_of_round(0, "without a checkpoint");
	cost_of_round(0, "without a checkpoint, again");
	cost_of(4, false, 0, "a write to what the peer lacks");
	primary_suspend();
}
