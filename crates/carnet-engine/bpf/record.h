/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/*
 * Records: made at an application's connect(), lengthened at each redirect, tagged when they leave, checked when they
 * return.
 */
#ifndef CARNET_RECORD_H
#define CARNET_RECORD_H

#include "address.h"
#include "maps.h"
#include "siphash.h"

#define ORIGIN_UNCERTAIN (CARNET_ORIGIN_AMBIGUOUS | CARNET_ORIGIN_STRAYED)

#define RECORD_TAG_WORDS (__builtin_offsetof(struct carnet_records, tag) / 8)

__u64 carnet_flows_made; /* low half of the next flow id */

/*
 * The calling process as the origin of a new flow. The process, not the thread: its first thread's name and start. But
 * the executable is the calling thread's, which is the same one: a first thread that has ended has none any more.
 */
static __always_inline void record_begin(struct carnet_records *record, const struct carnet_config *config,
					 void *ctx, const struct carnet_addr *remote, __u8 family, __u8 protocol,
					 __u32 ifindex, __u64 now)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);
	struct inode *exe = BPF_CORE_READ(task, mm, exe_file, f_inode);
	struct carnet_origin *origin = &record->origin;
	__u64 ids = bpf_get_current_uid_gid();

	__builtin_memset(record, 0, sizeof(*record));
	record->version = CARNET_ABI_VERSION;
	record->size = sizeof(*record);
	record->engine = config->engine;
	record->flow[0] = __sync_fetch_and_add(&carnet_flows_made, 1);
	record->flow[1] = config->flow_seed;
	origin->remote = *remote;
	origin->time = now;
	origin->start_time = BPF_CORE_READ(leader, start_boottime);
	origin->cgroup_id = bpf_get_current_cgroup_id();
	origin->netns_cookie = bpf_get_netns_cookie(ctx);
	origin->exe_ino = BPF_CORE_READ(exe, i_ino);
	origin->exe_dev = BPF_CORE_READ(exe, i_sb, s_dev);
	origin->pid = bpf_get_current_pid_tgid() >> 32;
	origin->uid = ids;
	origin->gid = ids >> 32;
	origin->ifindex = ifindex;
	origin->family = family;
	origin->protocol = protocol;
	BPF_CORE_READ_INTO(&origin->comm, leader, comm);
	for (int i = 0; i < CARNET_LINE; i++) {
		record->line[i] = bpf_get_current_ancestor_cgroup_id(i + 1);
		if (!record->line[i])
			break;
	}
}

/* Also as far as it is certain. */
static __always_inline bool record_same_identity(const struct carnet_records *a, const struct carnet_records *b)
{
	const struct carnet_origin *x = &a->origin, *y = &b->origin;

	return x->uid == y->uid && x->gid == y->gid && x->exe_ino == y->exe_ino && x->exe_dev == y->exe_dev &&
	       x->cgroup_id == y->cgroup_id && x->netns_cookie == y->netns_cookie &&
	       !((x->flags ^ y->flags) & ORIGIN_UNCERTAIN);
}

static __always_inline __s32 record_floor(const struct carnet_records *record)
{
	return record->depth ? (__s32)record->floor : -1;
}

/* The caller has checked that there is room. */
static __always_inline void record_add_hop(struct carnet_records *record, const struct carnet_provider *provider,
					   __u32 filter, __u64 now)
{
	__u32 depth = record->depth;
	struct carnet_hop *hop;

	if (depth >= CARNET_MAX_HOPS)
		return;
	hop = &record->chain[depth & (CARNET_MAX_HOPS - 1)];
	hop->time = now;
	hop->handle = provider->handle;
	hop->filter = filter;
	if (!depth || provider->rank > record->floor)
		record->floor = provider->rank;
	record->depth = depth + 1;
}

/* Takes the record back to what it was before this connection's own redirect: a socket may connect more than once. */
static __always_inline void record_rewind(struct carnet_records *record, __u32 base, __s32 base_floor,
					  __u32 base_flags)
{
	for (__u32 i = 0; i < CARNET_MAX_HOPS; i++)
		if (i >= base)
			__builtin_memset(&record->chain[i], 0, sizeof(record->chain[i]));
	record->depth = base;
	record->floor = base_floor < 0 ? 0 : base_floor;
	record->origin.flags = base_flags;
}

/* Handle of the newest hop, or 0. Constant offsets only, because the record may lie in an option's value. */
static __always_inline __u32 record_newest(const struct carnet_records *record)
{
	__u32 newest = 0;

	for (__u32 i = 0; i < CARNET_MAX_HOPS; i++)
		if (i + 1 == record->depth)
			newest = record->chain[i].handle;
	return newest;
}

/* Has this provider had the flow? A frame of its own, since the connect hooks have none to spare. */
static __noinline bool record_has(const struct carnet_records *record, __u32 handle)
{
	for (__u32 i = 0; i < CARNET_MAX_HOPS; i++)
		if (i < record->depth && record->chain[i].handle == handle)
			return true;
	return false;
}

static __always_inline enum carnet_state record_state(const struct carnet_records *record, __u32 handle)
{
	bool before = false;

	if (!record->depth)
		return CARNET_NOT_REDIRECTED;
	if (record_newest(record) == handle)
		return CARNET_REDIRECTED_BY_SELF;
	for (__u32 i = 0; i < CARNET_MAX_HOPS; i++)
		if (i < record->depth && record->chain[i].handle == handle)
			before = true;
	return before ? CARNET_PREVIOUSLY_REDIRECTED_BY_SELF : CARNET_REDIRECTED_BY_OTHER;
}

static __always_inline int record_stamp(struct carnet_records *record, const struct carnet_config *config, __u64 now)
{
	__u32 slot = config->key_slot;
	const struct carnet_key *key = bpf_map_lookup_elem(&carnet_keys, &slot);

	if (!key || !key->id)
		return ENOBUFS;
	record->stamp = now;
	record->key_id = key->id;
	record->tag = carnet_siphash((const __u64 *)record, RECORD_TAG_WORDS, key->k0, key->k1);
	return 0;
}

/* 0, or why the blob is not accepted. It is checked where it lies, before anything is copied from it. */
static __always_inline int record_check(const struct carnet_records *blob, const struct carnet_config *config,
					__u64 now)
{
	const struct carnet_key *key = NULL;
	__u64 tag;

	if (blob->version != CARNET_ABI_VERSION || blob->size != sizeof(*blob))
		return EINVAL;
	/* Not authenticated yet, but it only chooses the error: another engine's blob could not have our tag. */
	if (blob->engine != config->engine)
		return ESTALE;
	for (__u32 slot = 0; slot < 2; slot++) {
		__u32 i = slot;
		const struct carnet_key *candidate = bpf_map_lookup_elem(&carnet_keys, &i);

		if (candidate && candidate->id && candidate->id == blob->key_id)
			key = candidate;
	}
	if (!key)
		return EBADMSG;
	tag = carnet_siphash((const __u64 *)blob, RECORD_TAG_WORDS, key->k0, key->k1);
	if (tag != blob->tag)
		return EBADMSG;
	if (blob->stamp > now || now - blob->stamp > config->stamp_ttl)
		return ESTALE;
	return 0;
}

#endif /* CARNET_RECORD_H */
