/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* Who listens where a connection is going, or is to go. */
#ifndef CARNET_LISTENER_H
#define CARNET_LISTENER_H

#include "owner.h"

#define LISTENER_ALIVE    0
#define LISTENER_DEAD     1
#define LISTENER_STRANGER 2
#define LISTENER_FAMILY   3 /* no address this socket could reach */
#define LISTENER_DEVICE   4 /* the socket is bound to an interface, and its caller may not unbind it */

#define NOBODY_LISTENS 0x20000000

/* Who listens at an address of the connecting socket's network namespace: see owner.h, or NOBODY_LISTENS. */
__noinline int carnet_listener_at(struct bpf_sock_addr *ctx, const struct carnet_addr *at, __u32 wanted, __u32 slot)
{
	struct bpf_sock_tuple tuple = {};
	struct ip_words words;
	struct bpf_sock *sk;
	int found = NOBODY_LISTENS;

	if (!at)
		return found;
	words = ip_words(at->ip);

	if (ip_is_v4(at->ip)) {
		tuple.ipv4.daddr = words.w[3];
		tuple.ipv4.dport = bpf_htons(at->port);
		sk = bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(tuple.ipv6.daddr, &words, sizeof(words));
		tuple.ipv6.dport = bpf_htons(at->port);
		sk = bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return found;
	if (sk->state == BPF_TCP_LISTEN)
		found = owned_listener(sk, wanted, slot);
	bpf_sk_release(sk);
	return found;
}

/* Can this socket reach such a listener at all? IPv6 sockets reach IPv4 unless v6-only or bound to an IPv6 address. */
static __always_inline bool reaches(struct bpf_sock_addr *ctx, __u32 family, bool v4)
{
	struct bpf_sock *sk = ctx->sk;
	struct sock *sock;
	__u8 source[16] __attribute__((aligned(4)));
	bool bound, bound_v4;

	if (family == AF_INET)
		return v4;
	if (!sk)
		return false;
	ip_from_v6(source, sk->src_ip6[0], sk->src_ip6[1], sk->src_ip6[2], sk->src_ip6[3]);
	bound = !ip_is_unspecified(source);
	bound_v4 = ip_is_v4(source);
	if (!v4)
		return !bound_v4;
	if (bound && !bound_v4)
		return false;
	sock = kernel_sock(sk);
	return sock && !BPF_CORE_READ_BITFIELD_PROBED(sock, __sk_common.skc_ipv6only);
}

/*
 * A search for a provider's listener. Plain data, so that the function below is verified once and not at every call;
 * short fields, because stack is scarce (see carnet_connect()).
 */
struct search {
	__u16              slot;
	__u16              provider;
	__u16              family; /* of the socket */
	__u16              v4;     /* the destination is IPv4 */
	struct carnet_addr found;
};

/* Looks for a listener of the provider which is alive, its owner's, and can be reached. Returns LISTENER_*. */
__noinline int carnet_listener_of(struct bpf_sock_addr *ctx, struct search *search)
{
	const struct carnet_provider *provider;
	const struct carnet_policy *policy;
	int worst = LISTENER_FAMILY;
	__u32 index;

	if (!search)
		return worst;
	index = search->provider;
	policy = carnet_policy_at(search->slot);
	if (!policy || index >= CARNET_MAX_PROVIDERS)
		return worst;
	provider = provider_at(policy, index);
	/* Two rounds: listeners of the destination's own family first, they need no v4-mapped address. */
	for (__u32 i = 0; i < 2 * CARNET_MAX_LISTENERS; i++) {
		__u32 at = i & (CARNET_MAX_LISTENERS - 1);
		__u32 owned, v4;

		if (at >= provider->listeners)
			continue;
		/* SO_ORIGINAL_DST answers in the socket's own family, and an unaware service asks nothing else. */
		if (i >= CARNET_MAX_LISTENERS && provider->flags & CARNET_PROVIDER_UNAWARE)
			break;
		search->found = provider->listener[at];
		v4 = ip_is_v4(search->found.ip);
		if ((v4 == search->v4) != (i < CARNET_MAX_LISTENERS) || !reaches(ctx, search->family, v4))
			continue;
		owned = carnet_listener_at(ctx, &search->found, index, search->slot);
		if (owned == NOBODY_LISTENS) {
			if (worst == LISTENER_FAMILY)
				worst = LISTENER_DEAD;
			continue;
		}
		if (owned & OWNED_WANTED)
			return LISTENER_ALIVE;
		worst = LISTENER_STRANGER;
	}
	return worst;
}

/* Puts in what the kernel takes an unspecified destination for: 0.0.0.0 is the address to which the socket is bound. */
static __always_inline void unspecified_means(struct bpf_sock_addr *ctx, __u8 ip[16])
{
	__be32 loopback = bpf_htonl(0x7f000001), bound = 0;
	struct bpf_sock *sk = ctx->sk;

	if (sk)
		bound = sk->src_ip4;
	if (ip_is_v4(ip))
		ip_from_v4(ip, bound ? bound : loopback);
	else if (sk && !sk->src_ip6[0] && !sk->src_ip6[1] && sk->src_ip6[2] == V4_MAPPED_WORD)
		ip_from_v4(ip, loopback);
	else
		ip_from_v6(ip, 0, 0, 0, bpf_htonl(1));
}

/* Is this address one of this host's, so that a wildcard listener answers there? */
static __always_inline bool is_local(const struct carnet_addr *addr)
{
	return ip_is_loopback(addr->ip) || bpf_map_lookup_elem(&carnet_local, addr->ip);
}

/* Who owns the socket that listens at this address of the host's own, by whatever name it is dialled; 0: nobody. */
__noinline int carnet_local_listener(struct bpf_sock_addr *ctx, const struct carnet_addr *remote, __u32 wanted,
				     __u32 slot)
{
	struct carnet_addr at;
	int owned;

	if (!remote)
		return 0;
	/* A copy, because Linux 6.1 takes no map key out of a global function's argument. */
	at = *remote;
	if (ip_is_unspecified(at.ip))
		unspecified_means(ctx, at.ip);
	if (!is_local(&at))
		return 0;
	owned = carnet_listener_at(ctx, &at, wanted, slot);
	return owned == NOBODY_LISTENS ? 0 : owned;
}

/*
 * Does somebody listen there who is not the owner of the provider to whom the address belongs? In another network
 * namespace it may be anybody's, who is dialled for what it is. But who dials an explicit proxy wants no other.
 */
__noinline int carnet_is_strangers(struct bpf_sock_addr *ctx, const struct carnet_addr *at, __u32 provider, __u32 slot)
{
	const struct carnet_policy *policy = carnet_policy_at(slot);
	int owned;

	if (!at || !policy || provider >= CARNET_MAX_PROVIDERS ||
	    provider_at(policy, provider)->flags & CARNET_PROVIDER_DIRECT)
		return false;
	owned = carnet_listener_at(ctx, at, provider, slot);
	return owned != NOBODY_LISTENS && !(owned & OWNED_WANTED);
}

/* Index of the provider whose listener the application dialled itself, by whatever local address, or CARNET_NONE. */
__noinline int carnet_dialled_listener(struct bpf_sock_addr *ctx, const struct carnet_addr *remote, __u32 slot)
{
	struct carnet_listener_key key = { .slot = slot };
	__u32 *exact;

	if (!remote || !providers_on(remote->port, slot))
		return CARNET_NONE;
	key.at = *remote;
	if (ip_is_unspecified(key.at.ip))
		unspecified_means(ctx, key.at.ip);
	exact = bpf_map_lookup_elem(&carnet_listeners, &key);
	if (exact && !carnet_is_strangers(ctx, &key.at, *exact, slot))
		return *exact;
	return owning_provider(carnet_local_listener(ctx, remote, OWNED_ON(remote->port), slot));
}

#endif /* CARNET_LISTENER_H */
