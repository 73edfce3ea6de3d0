// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "regions.h"

#define PIECE_BITS	32768u
#define PIECE_WORDS	(PIECE_BITS / 64)

struct regions_piece {
	unsigned int count;
	uint64_t words[PIECE_WORDS];
};

int regions_init(struct regions *set, uint64_t nr)
{
	*set = (struct regions) {
		.nr = nr, .nr_pieces = nr / PIECE_BITS + !!(nr % PIECE_BITS),
	};
	set->pieces = calloc(set->nr_pieces, sizeof(*set->pieces));
	return set->pieces ? 0 : -ENOMEM;
}

void regions_empty(struct regions *set)
{
	uint64_t i;

	for (i = 0; i < set->nr_pieces && set->count; i++) {
		if (!set->pieces[i])
			continue;
		set->count -= set->pieces[i]->count;
		free(set->pieces[i]);
		set->pieces[i] = NULL;
	}
}

void regions_free(struct regions *set)
{
	uint64_t i;

	/* Pieces that have become empty are there still. */
	for (i = 0; set->pieces && i < set->nr_pieces; i++)
		free(set->pieces[i]);
	free(set->pieces);
	memset(set, 0, sizeof(*set));
}

/* Bits [@begin, @end) of a piece. */
static void piece_change(struct regions_piece *piece, unsigned int begin,
			 unsigned int end, bool in)
{
	while (begin < end) {
		unsigned int shift = begin % 64;
		unsigned int nr = end - begin < 64 - shift ? end - begin : 64 - shift;
		uint64_t mask = (nr == 64 ? UINT64_MAX : (1ULL << nr) - 1) << shift;
		uint64_t *word = &piece->words[begin / 64];
		uint64_t to = in ? *word | mask : *word & ~mask;

		piece->count += __builtin_popcountll(to);
		piece->count -= __builtin_popcountll(*word);
		*word = to;
		begin += nr;
	}
}

int regions_change(struct regions *set, uint64_t begin, uint64_t end, bool in)
{
	while (begin < end) {
		struct regions_piece **piece = &set->pieces[begin / PIECE_BITS];
		unsigned int from = begin % PIECE_BITS;
		unsigned int to = end - begin < PIECE_BITS - from ? from + (end - begin) :
								    PIECE_BITS;

		begin += to - from;
		if (!*piece) {
			if (!in)
				continue;
			*piece = calloc(1, sizeof(**piece));
			if (!*piece)
				return -ENOMEM;
		}
		if ((*piece)->count == (in ? PIECE_BITS : 0))
			continue;
		set->count -= (*piece)->count;
		piece_change(*piece, from, to, in);
		set->count += (*piece)->count;
	}
	return 0;
}

/* The first region from @at on that is in the set, or is not; nr if there is none. */
static uint64_t look(const struct regions *set, uint64_t at, bool in)
{
	while (at < set->nr) {
		const struct regions_piece *piece = set->pieces[at / PIECE_BITS];
		unsigned int count = piece ? piece->count : 0;
		uint64_t word;

		if (count == (in ? 0 : PIECE_BITS)) {
			at = (at / PIECE_BITS + 1) * PIECE_BITS;
			continue;
		}
		word = piece ? piece->words[at % PIECE_BITS / 64] : 0;
		word = (in ? word : ~word) >> at % 64;
		if (word) {
			at += __builtin_ctzll(word);
			break;
		}
		at = (at / 64 + 1) * 64;
	}
	return at < set->nr ? at : set->nr;
}

bool regions_next(const struct regions *set, uint64_t *begin, uint64_t *end)
{
	*begin = look(set, *begin, true);
	if (*begin == set->nr)
		return false;
	*end = look(set, *begin, false);
	return true;
}
