/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* Addresses in the one normal form: v4-mapped IPv6 + scope id. */
#ifndef CARNET_ADDRESS_H
#define CARNET_ADDRESS_H

#include "carnet_abi.h"
#include "kernel.h"

#define V4_MAPPED_WORD bpf_htonl(0xffff)

/* The 16 bytes as words. Copied, because a cast would break strict aliasing; all of ours are at multiples of four. */
struct ip_words {
	__be32 w[4];
};

static __always_inline struct ip_words ip_words(const __u8 ip[16])
{
	struct ip_words words;

	__builtin_memcpy(&words, __builtin_assume_aligned(ip, 4), sizeof(words));
	return words;
}

static __always_inline void ip_from_v4(__u8 ip[16], __be32 v4)
{
	struct ip_words words = { .w = { 0, 0, V4_MAPPED_WORD, v4 } };

	__builtin_memcpy(__builtin_assume_aligned(ip, 4), &words, sizeof(words));
}

static __always_inline void ip_from_v6(__u8 ip[16], __be32 a, __be32 b, __be32 c, __be32 d)
{
	struct ip_words words = { .w = { a, b, c, d } };

	__builtin_memcpy(__builtin_assume_aligned(ip, 4), &words, sizeof(words));
}

static __always_inline bool ip_is_v4(const __u8 ip[16])
{
	struct ip_words words = ip_words(ip);

	return !words.w[0] && !words.w[1] && words.w[2] == V4_MAPPED_WORD;
}

static __always_inline bool ip_equal(const __u8 a[16], const __u8 b[16])
{
	struct ip_words x = ip_words(a), y = ip_words(b);

	return x.w[0] == y.w[0] && x.w[1] == y.w[1] && x.w[2] == y.w[2] && x.w[3] == y.w[3];
}

static __always_inline bool addr_equal(const struct carnet_addr *a, const struct carnet_addr *b)
{
	return a->port == b->port && a->scope == b->scope && ip_equal(a->ip, b->ip);
}

static __always_inline bool ip_is_unspecified(const __u8 ip[16])
{
	struct ip_words words = ip_words(ip);

	if (words.w[0] || words.w[1] || words.w[3])
		return false;
	return !words.w[2] || words.w[2] == V4_MAPPED_WORD;
}

static __always_inline bool ip_is_loopback(const __u8 ip[16])
{
	struct ip_words words = ip_words(ip);

	if (ip_is_v4(ip))
		return (words.w[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !words.w[0] && !words.w[1] && !words.w[2] && words.w[3] == bpf_htonl(1);
}

/* Destinations that are left alone: broadcast, multicast, link-local. */
static __always_inline bool ip_is_special(const __u8 ip[16])
{
	struct ip_words words = ip_words(ip);
	__u32 v4 = bpf_ntohl(words.w[3]), head = bpf_ntohl(words.w[0]);

	if (ip_is_v4(ip))
		return v4 == 0xffffffff || (v4 >> 28) == 0xe || (v4 >> 16) == 0xa9fe;
	return (head >> 24) == 0xff || (head >> 22) == (0xfe80 >> 6);
}

/* Puts an address in the place of the one that a hook was asked with. Each word by itself, as the verifier wants it. */
static __always_inline void rewrite_v4(struct bpf_sock_addr *ctx, const struct carnet_addr *addr)
{
	ctx->user_ip4 = ip_words(addr->ip).w[3];
	ctx->user_port = bpf_htons(addr->port);
}

static __always_inline void rewrite_v6(struct bpf_sock_addr *ctx, const struct carnet_addr *addr)
{
	struct ip_words words = ip_words(addr->ip);

	ctx->user_ip6[0] = words.w[0];
	ctx->user_ip6[1] = words.w[1];
	ctx->user_ip6[2] = words.w[2];
	ctx->user_ip6[3] = words.w[3];
	ctx->user_port = bpf_htons(addr->port);
}

#endif /* CARNET_ADDRESS_H */
