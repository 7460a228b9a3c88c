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

/* After an entry of the uid's was deleted. */
static __always_inline void handover_give_back(__u32 uid)
{
	__u32 *share = handover_share(uid);

	if (share)
		__sync_fetch_and_add(share, -1);
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
	handover_give_back(uid);
	return true;
}

/* False: there is no room, or none for this uid. */
static __always_inline bool handover_insert(const struct carnet_tuple *tuple, const struct carnet_handover *entry)
{
	const struct carnet_config *config = carnet_config_now();
	__u32 *share = handover_share(entry->uid);
	int err; /* not a long: until Linux 6.4 the upper half of what the helper returns is not the sign's */

	if (!config || !share || *share >= config->handover_share)
		return false;
	/* Counted before the entry is there: it may be taken, and given back, before this function ends. */
	__sync_fetch_and_add(share, 1);
	err = bpf_map_update_elem(&carnet_handovers, tuple, entry, BPF_NOEXIST);
	if (err == -EEXIST && handover_delete(tuple))
		err = bpf_map_update_elem(&carnet_handovers, tuple, entry, BPF_NOEXIST);
	if (err)
		__sync_fetch_and_add(share, -1);
	return !err;
}

#endif /* CARNET_HANDOVER_H */
