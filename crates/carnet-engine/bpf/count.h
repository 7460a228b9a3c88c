/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/*
 * Counts the sockets of which anything is known. User space can look into carnet_socks only with a socket's descriptor
 * in hand, which says nothing about the ones it has not thought of; an iterator walks them all. Loaded for tests only.
 */
#ifndef CARNET_COUNT_H
#define CARNET_COUNT_H

#include "maps.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct bpf_map       *map;
	struct sock          *sk;
	void                 *value;
};

#pragma clang attribute pop

/* Writes one byte for each socket. */
SEC("iter/bpf_sk_storage_map")
int carnet_count_socks(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	char one = '.';

	/* The last call, after all elements, has none. */
	if (ctx->sk && ctx->value)
		bpf_seq_write(seq, &one, sizeof(one));
	return 0;
}

#endif /* CARNET_COUNT_H */
