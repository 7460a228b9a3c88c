/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* Whose socket is this, whose process is this: providers own cgroups or uids, and what was made there is theirs. */
#ifndef CARNET_OWNER_H
#define CARNET_OWNER_H

#include "maps.h"

#define LINEAGE_LEVELS 12 /* owners' cgroups are at most this deep; the engine refuses others */

/*
 * Whose something is: the index + 1 of the provider that owns it, of several the highest rank's, since a floor must not
 * be too low; 0: nobody's. And what else is known.
 */
#define OWNED_INDEX    0x0000ffffU
#define OWNED_WANTED   0x40000000U /* the provider that was asked for is an owner */
#define OWNED_GOVERNED 0x80000000U /* it is below the governed cgroup */
#define OWNED_MARKED   0x10000000U /* it is a marked listener, or was accepted by one */

/* Which count: OWNED_ANY, a provider by its index, which the answer then tells, or those with a listener on a port. */
#define OWNED_ANY      CARNET_NONE
#define OWNED_ON(port) (0x10000U | (port))

/* The kernel's own structure behind a socket pointer of the BPF interface; NULL where it is not TCP. */
static __always_inline struct sock *kernel_sock(void *sk)
{
	return (struct sock *)bpf_skc_to_tcp_sock(sk);
}

/* What is said of something that this provider owns. */
static __always_inline __u32 owned_as(__u32 provider, __u32 wanted, __u32 slot)
{
	const struct carnet_providers *on_port;

	if (wanted != OWNED_ANY && wanted & OWNED_ON(0)) {
		on_port = providers_on(wanted, slot);
		return on_port && is_among(on_port, provider) ? provider + 1 : 0;
	}
	return (provider + 1) | (provider == wanted ? OWNED_WANTED : 0);
}

static __always_inline const __u32 *owner(__u32 kind, __u64 id, __u32 slot)
{
	struct carnet_owner_key key = { .id = id, .kind = kind, .slot = slot };

	return bpf_map_lookup_elem(&carnet_owners, &key);
}

static __always_inline __u32 owned_by(__u32 kind, __u64 id, __u32 wanted, __u32 slot)
{
	const __u32 *provider = owner(kind, id, slot);

	return provider ? owned_as(*provider, wanted, slot) : 0;
}

static __always_inline __u32 owned_both(__u32 a, __u32 b)
{
	__u32 x = a & OWNED_INDEX, y = b & OWNED_INDEX;

	return ((a | b) & ~OWNED_INDEX) | (x > y ? x : y);
}

static __always_inline __u32 owned_cgroup(__u32 owned, __u64 id, __u32 wanted, __u32 slot,
					  const struct carnet_config *config)
{
	owned = owned_both(owned, owned_by(CARNET_OWNER_CGROUP, id, wanted, slot));
	return id == config->governed_cgroup ? owned | OWNED_GOVERNED : owned;
}

/* Of a cgroup (a kernel address) and every one above it, and of a uid. Global, so that it is verified once. */
__noinline int carnet_owned_by_cgroup(__u64 address, __u32 uid, __u32 wanted, __u32 slot)
{
	const struct carnet_config *config = carnet_config_now();
	struct cgroup *cgroup = (struct cgroup *)address;
	int level = BPF_CORE_READ(cgroup, level);
	__u32 owned = owned_by(CARNET_OWNER_UID, uid, wanted, slot);

	if (!config)
		return 0;
	for (int i = 0; i < LINEAGE_LEVELS; i++) {
		struct cgroup *ancestor = NULL;

		if (i > level)
			break;
		bpf_core_read(&ancestor, sizeof(ancestor), &cgroup->ancestors[i]);
		owned = owned_cgroup(owned, BPF_CORE_READ(ancestor, kn, id), wanted, slot, config);
	}
	return owned;
}

/* Of the calling process. */
__noinline int carnet_owned_by_caller(__u32 wanted, __u32 slot)
{
	const struct carnet_config *config = carnet_config_now();
	__u32 owned = owned_by(CARNET_OWNER_UID, (__u32)bpf_get_current_uid_gid(), wanted, slot);

	if (!config)
		return 0;
	for (int i = 0; i < LINEAGE_LEVELS; i++) {
		__u64 id = bpf_get_current_ancestor_cgroup_id(i);

		if (!id)
			break;
		owned = owned_cgroup(owned, id, wanted, slot, config);
	}
	return owned;
}

/* Of a socket: by the cgroup in which it was made (an accepted socket: its listener's), and its maker's uid. */
static __always_inline __u32 owned_sock(void *sk, __u32 wanted, __u32 slot)
{
	struct sock *sock = kernel_sock(sk);

	if (!sock)
		return 0;
	return carnet_owned_by_cgroup((__u64)BPF_CORE_READ(sock, sk_cgrp_data.cgroup), BPF_CORE_READ(sock, sk_uid.val),
				      wanted, slot);
}

/*
 * Whose mark the socket has: a handle, or 0. User space marks an MPTCP listener as what processes hold, and connections
 * come to its subflow: one by plain TCP is a copy of that. So a listener's mark is put there too, whenever it is asked.
 */
static __always_inline __u32 sock_mark(struct bpf_sock *sk)
{
	struct mptcp_sock *connection = mptcp_connection(sk);
	__u32 *mark, *copy, handle;

	if (!connection) {
		mark = bpf_sk_storage_get(&carnet_marks, sk, NULL, 0);
		if (!mark)
			mark = bpf_sk_storage_get(&carnet_subflow_marks, sk, NULL, 0);
		return mark ? *mark : 0;
	}
	mark = bpf_sk_storage_get(&carnet_marks, connection, NULL, 0);
	handle = mark ? *mark : 0;
	copy = bpf_sk_storage_get(&carnet_subflow_marks, sk, NULL, handle ? BPF_SK_STORAGE_GET_F_CREATE : 0);
	if (copy)
		*copy = handle;
	return handle;
}

/* By its mark. 0: it has none, or no provider of this policy's. A frame of its own, see carnet_connect(). */
static __noinline __u32 owned_mark(struct bpf_sock *sk, __u32 wanted, __u32 slot)
{
	__u32 mark = sock_mark(sk);
	const __u32 *provider = mark ? owner(OWNER_HANDLE, mark, slot) : NULL;

	return provider ? owned_as(*provider, wanted, slot) | OWNED_MARKED : 0;
}

/*
 * Of a listener, or of a socket that it has accepted: by its mark, and where it has none, by who made the listener. A
 * mark says whose the connections are that arrive, not whose process has the socket: what is dialled with it, or asked
 * of it and set on it, is not judged by the mark.
 */
static __always_inline __u32 owned_arrivals(struct bpf_sock *sk, __u32 wanted, __u32 slot)
{
	__u32 owned = owned_mark(sk, wanted, slot);

	return owned ? owned : owned_sock(sk, wanted, slot);
}

static __always_inline __u32 sock_uid(void *sk)
{
	struct sock *sock = kernel_sock(sk);

	return sock ? BPF_CORE_READ(sock, sk_uid.val) : 0;
}

/* The provider in such an answer, or CARNET_NONE. */
static __always_inline __u32 owning_provider(__u32 owned)
{
	return (owned & OWNED_INDEX) ? (owned & OWNED_INDEX) - 1 : CARNET_NONE;
}

#define GROUP_MEMBERS 128 /* a larger group counts as a stranger's, since not all of it is looked at */

/*
 * Of all listeners that share a port with SO_REUSEPORT (a kernel address): does this provider own every one of them?
 * Their marks cannot be seen, so a marked one that others have made has to be the only one.
 */
__noinline int carnet_owns_group(__u64 address, __u32 first, __u32 provider, __u32 slot)
{
	struct sock_reuseport *group = (struct sock_reuseport *)address;
	__u32 members = BPF_CORE_READ(group, num_socks), owned;

	if (members == 1 && first & OWNED_MARKED)
		return 1;
	if (members > GROUP_MEMBERS)
		return 0;
	for (__u32 i = 0; i < GROUP_MEMBERS && i < members; i++) {
		struct sock *sock = NULL;

		bpf_core_read(&sock, sizeof(sock), &group->socks[i]);
		owned = carnet_owned_by_cgroup((__u64)BPF_CORE_READ(sock, sk_cgrp_data.cgroup),
					       BPF_CORE_READ(sock, sk_uid.val), provider, slot);
		if (!(owned & OWNED_WANTED))
			return 0;
	}
	return 1;
}

/*
 * Of a listener: the kernel may give a connection to any that shares its port, so all must be the provider's. Of what
 * owns this one, only the provider that was asked for or the highest on the port is looked for among the others.
 */
static __always_inline __u32 owned_listener(struct bpf_sock *sk, __u32 wanted, __u32 slot)
{
	__u32 owned = owned_arrivals(sk, wanted, slot);
	struct sock *sock = kernel_sock(sk);
	__u64 group = sock ? (__u64)BPF_CORE_READ(sock, sk_reuseport_cb) : 0;
	__u32 provider = wanted & OWNED_ON(0) ? owning_provider(owned) : wanted;

	if (group && provider < CARNET_MAX_PROVIDERS && !carnet_owns_group(group, owned, provider, slot))
		return 0;
	return owned;
}

/* Is the socket's cgroup another than the caller's? */
static __always_inline bool made_elsewhere(void *sk)
{
	struct sock *sock = kernel_sock(sk);

	return sock && BPF_CORE_READ(sock, sk_cgrp_data.cgroup, kn, id) != bpf_get_current_cgroup_id();
}

/* Whether the calling process is governed, and the index of the provider it belongs to, CARNET_NONE: an application. */
static __always_inline bool caller_is_governed(__u32 slot, __u32 *provider)
{
	__u32 owned = carnet_owned_by_caller(OWNED_ANY, slot);

	*provider = owning_provider(owned);
	return owned & OWNED_GOVERNED;
}

/* Index of the provider with this handle, or CARNET_NONE. */
static __always_inline __u32 provider_with_handle(__u32 handle, __u32 slot)
{
	return owning_provider(owned_by(OWNER_HANDLE, handle, OWNED_ANY, slot));
}

/*
 * Policies are exchanged while flows are on their way. What the one before has decided counts until its image is
 * written over, which is with the policy after the one in force.
 */
static __always_inline __u32 slot_before(__u32 slot)
{
	return !slot;
}

#endif /* CARNET_OWNER_H */
