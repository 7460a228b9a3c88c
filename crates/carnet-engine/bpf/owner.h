/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* Whose socket is this, whose process is this: providers own cgroups or uids, and what was made there is theirs. */
#ifndef CARNET_OWNER_H
#define CARNET_OWNER_H

#include "maps.h"

#define LINEAGE_LEVELS 12 /* owners' cgroups are at most this deep; the engine refuses others */

/* Bit i: provider i owns it. The highest bit: it is below the governed cgroup. */
#define OWNED_GOVERNED 0x80000000U

/* The kernel's own structure behind a socket pointer of the BPF interface; NULL where it is not TCP. */
static __always_inline struct sock *kernel_sock(void *sk)
{
	return (struct sock *)bpf_skc_to_tcp_sock(sk);
}

static __always_inline __u32 owned_by(__u32 kind, __u64 id, __u32 slot)
{
	struct carnet_owner_key key = { .id = id, .kind = kind, .slot = slot };
	__u32 *providers = bpf_map_lookup_elem(&carnet_owners, &key);

	return providers ? *providers : 0;
}

static __always_inline __u32 owned_cgroup(__u64 id, __u32 slot, const struct carnet_config *config)
{
	__u32 owned = owned_by(CARNET_OWNER_CGROUP, id, slot);

	return id == config->governed_cgroup ? owned | OWNED_GOVERNED : owned;
}

/* Of a cgroup (a kernel address) and every one above it, and of a uid. Global, so that it is verified once. */
__noinline int carnet_owned_by_cgroup(__u64 address, __u32 uid, __u32 slot)
{
	const struct carnet_config *config = carnet_config_now();
	struct cgroup *cgroup = (struct cgroup *)address;
	int level = BPF_CORE_READ(cgroup, level);
	__u32 owned = owned_by(CARNET_OWNER_UID, uid, slot);

	if (!config)
		return 0;
	for (int i = 0; i < LINEAGE_LEVELS; i++) {
		struct cgroup *ancestor = NULL;

		if (i > level)
			break;
		bpf_core_read(&ancestor, sizeof(ancestor), &cgroup->ancestors[i]);
		owned |= owned_cgroup(BPF_CORE_READ(ancestor, kn, id), slot, config);
	}
	return owned;
}

/* Of the calling process. */
__noinline int carnet_owned_by_caller(__u32 slot)
{
	const struct carnet_config *config = carnet_config_now();
	__u32 owned = owned_by(CARNET_OWNER_UID, (__u32)bpf_get_current_uid_gid(), slot);

	if (!config)
		return 0;
	for (int i = 0; i < LINEAGE_LEVELS; i++) {
		__u64 id = bpf_get_current_ancestor_cgroup_id(i);

		if (!id)
			break;
		owned |= owned_cgroup(id, slot, config);
	}
	return owned;
}

/* Of a socket: by the cgroup in which it was made (an accepted socket: its listener's), and its maker's uid. */
static __always_inline __u32 owned_sock(void *sk, __u32 slot)
{
	struct sock *sock = kernel_sock(sk);

	if (!sock)
		return 0;
	return carnet_owned_by_cgroup((__u64)BPF_CORE_READ(sock, sk_cgrp_data.cgroup), BPF_CORE_READ(sock, sk_uid.val),
				      slot);
}

static __always_inline __u32 sock_uid(void *sk)
{
	struct sock *sock = kernel_sock(sk);

	return sock ? BPF_CORE_READ(sock, sk_uid.val) : 0;
}

#define GROUP_MEMBERS 128 /* a larger group counts as a stranger's, since not all of it is looked at */

/* Of all listeners that share a port with SO_REUSEPORT (a kernel address): who owns every one of them. */
__noinline int carnet_owned_by_group(__u64 address, __u32 slot)
{
	struct sock_reuseport *group = (struct sock_reuseport *)address;
	__u32 members = BPF_CORE_READ(group, num_socks), owned = ~0U;

	if (members > GROUP_MEMBERS)
		return 0;
	for (__u32 i = 0; i < GROUP_MEMBERS && i < members; i++) {
		struct sock *sock = NULL;

		bpf_core_read(&sock, sizeof(sock), &group->socks[i]);
		owned &= carnet_owned_by_cgroup((__u64)BPF_CORE_READ(sock, sk_cgrp_data.cgroup),
						BPF_CORE_READ(sock, sk_uid.val), slot);
	}
	return owned;
}

/* Of a listener: the kernel may give a connection to any that shares its port, so all must be somebody's. */
static __always_inline __u32 owned_listener(void *sk, __u32 slot)
{
	__u32 owned = owned_sock(sk, slot);
	struct sock *sock = kernel_sock(sk);
	__u64 group = sock ? (__u64)BPF_CORE_READ(sock, sk_reuseport_cb) : 0;

	return group ? owned & carnet_owned_by_group(group, slot) : owned;
}

/* Is the socket's cgroup another than the caller's? */
static __always_inline bool made_elsewhere(void *sk)
{
	struct sock *sock = kernel_sock(sk);

	return sock && BPF_CORE_READ(sock, sk_cgrp_data.cgroup, kn, id) != bpf_get_current_cgroup_id();
}

/* The provider among the owners, CARNET_NONE where there is none. The highest rank: a floor must not be too low. */
static __always_inline __u32 owning_provider(__u32 owned)
{
	__u32 found = CARNET_NONE;

	for (__u32 i = 0; i < CARNET_MAX_PROVIDERS; i++)
		if (owned & (1U << i))
			found = i;
	return found;
}

/* Whether the calling process is governed, and the index of the provider it belongs to, CARNET_NONE: an application. */
static __always_inline bool caller_is_governed(const struct carnet_config *config, __u32 *provider)
{
	__u32 owned = carnet_owned_by_caller(config->policy_slot);

	*provider = owning_provider(owned);
	return owned & OWNED_GOVERNED;
}

/* Index of the provider with this handle, or CARNET_NONE. */
__noinline int carnet_provider_with_handle(__u32 handle, __u32 slot)
{
	const struct carnet_policy *policy = carnet_policy_at(slot);
	__u32 found = CARNET_NONE;

	for (__u32 i = 0; policy && i < CARNET_MAX_PROVIDERS; i++)
		if (i < policy->providers && policy->provider[i].handle == handle)
			found = i;
	return found;
}

#endif /* CARNET_OWNER_H */
