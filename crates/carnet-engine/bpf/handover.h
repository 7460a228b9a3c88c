/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* The hand-over's entries, and the share of it that each uid may have. */
#ifndef CARNET_HANDOVER_H
#define CARNET_HANDOVER_H

#include "maps.h"

static __always_inline __u32 *handover_share(__u32 uid)
{
	__u32 place = (uid * 0x9e3779b1U) >> 16 & (CARNET_SHARES - 1);

	return bpf_map_lookup_elem(&carnet_shares, &place);
}

/* Whether the uid has as many as it may have. */
static __always_inline bool handover_share_used(__u32 uid, const struct carnet_config *config)
{
	__u32 *share = handover_share(uid);

	return !share || *share >= config->handover_share;
}

/* The uid has one more entry, or with -1 one less. */
static __always_inline void handover_count(__u32 uid, int by)
{
	__u32 *share = handover_share(uid);

	if (share)
		__sync_fetch_and_add(share, by);
}

/* False: it was not there. */
static __always_inline bool handover_delete(const struct carnet_tuple *tuple)
{
	struct carnet_handover *entry = bpf_map_lookup_elem(&carnet_handovers, tuple);
	__u32 uid;

	if (!entry)
		return false;
	uid = entry->uid;
	if (bpf_map_delete_elem(&carnet_handovers, tuple))
		return false;
	handover_count(uid, -1);
	return true;
}

/* False: there is no room, or none for this uid. */
static __always_inline bool handover_insert(const struct carnet_tuple *tuple, const struct carnet_handover *entry)
{
	const struct carnet_config *config = carnet_config_now();
	int err;

	if (!config || handover_share_used(entry->uid, config))
		return false;
	/* Counted before the entry is there: it may be taken, and given back, before this function ends. */
	handover_count(entry->uid, 1);
	err = map_insert(&carnet_handovers, tuple, entry);
	if (err == -EEXIST && handover_delete(tuple))
		err = map_insert(&carnet_handovers, tuple, entry);
	if (err)
		handover_count(entry->uid, -1);
	return !err;
}

#endif /* CARNET_HANDOVER_H */
