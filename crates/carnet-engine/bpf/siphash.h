/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* SipHash-2-4 (Aumasson, Bernstein 2012) over a fixed number of 64-bit words. */
#ifndef CARNET_SIPHASH_H
#define CARNET_SIPHASH_H

#include "kernel.h"

#define SIP_ROTATE(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define SIP_ROUND(v0, v1, v2, v3)            \
	do {                                 \
		v0 += v1;                    \
		v2 += v3;                    \
		v1 = SIP_ROTATE(v1, 13) ^ v0; \
		v3 = SIP_ROTATE(v3, 16) ^ v2; \
		v0 = SIP_ROTATE(v0, 32);     \
		v2 += v1;                    \
		v0 += v3;                    \
		v1 = SIP_ROTATE(v1, 17) ^ v2; \
		v3 = SIP_ROTATE(v3, 21) ^ v0; \
		v2 = SIP_ROTATE(v2, 32);     \
	} while (0)

/* `words` must be a constant and `data` have that many readable words. */
static __always_inline __u64 carnet_siphash(const __u64 *data, __u32 words, __u64 k0, __u64 k1)
{
	__u64 v0 = k0 ^ 0x736f6d6570736575ULL;
	__u64 v1 = k1 ^ 0x646f72616e646f6dULL;
	__u64 v2 = k0 ^ 0x6c7967656e657261ULL;
	__u64 v3 = k1 ^ 0x7465646279746573ULL;
	__u64 last = (__u64)(words * 8) << 56;

	for (__u32 i = 0; i < words; i++) {
		__u64 word = data[i];

		v3 ^= word;
		SIP_ROUND(v0, v1, v2, v3);
		SIP_ROUND(v0, v1, v2, v3);
		v0 ^= word;
	}
	v3 ^= last;
	SIP_ROUND(v0, v1, v2, v3);
	SIP_ROUND(v0, v1, v2, v3);
	v0 ^= last;
	v2 ^= 0xff;
	for (int i = 0; i < 4; i++)
		SIP_ROUND(v0, v1, v2, v3);
	return v0 ^ v1 ^ v2 ^ v3;
}

#endif /* CARNET_SIPHASH_H */
