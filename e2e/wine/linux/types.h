/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What carnet_abi.h needs of the kernel's header of this name, for a compiler that has none. */
#ifndef CARNET_WINE_LINUX_TYPES_H
#define CARNET_WINE_LINUX_TYPES_H

#include <stdint.h>

typedef uint8_t  __u8;
typedef uint16_t __u16;
typedef uint32_t __u32;
typedef uint64_t __u64;

#endif /* CARNET_WINE_LINUX_TYPES_H */
