/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The Linux side of the shim: Carnet's engine, asked from inside a Wine process by system calls on the Unix descriptor
 * that is behind a SOCKET. No header of Linux' own is included, for its names mean other numbers in Windows' headers.
 */
#ifndef CARNET_WINE_ENGINE_H
#define CARNET_WINE_ENGINE_H

#include <winsock2.h>

#include "carnet_abi.h"

#if !defined(__x86_64__)
#error "the system calls are those of x86-64"
#endif

/* Errors, as the kernel returns them: negative. */
enum linux_error {
	LINUX_ENOENT = -2,
	LINUX_ENOMEM = -12,
	LINUX_EACCES = -13,
	LINUX_EINVAL = -22,
	LINUX_EIDRM = -43,
	LINUX_ENODATA = -61,
	LINUX_ENOTSOCK = -88,
	LINUX_EMSGSIZE = -90,
	LINUX_ENOPROTOOPT = -92,
	LINUX_EOPNOTSUPP = -95,
	LINUX_ENOBUFS = -105,
	LINUX_EISCONN = -106,
};

/* Call it once, before all others. FALSE: this Wine does not tell what descriptor is behind a handle. */
BOOL engine_init(void);

/* The descriptor behind a socket, to be given back to unix_close(). LINUX_ENOTSOCK where there is none. */
int unix_socket(SOCKET socket, BOOL *is_overlapped);
void unix_close(int fd);

/* TCP, be it over several paths. */
BOOL unix_is_tcp(int fd);
BOOL unix_is_connected(int fd);

/* Reads an option of level SOL_CARNET: the answer's size, or an error. */
int engine_get(int fd, int option, void *answer, int size);

/* Puts a records blob on a socket: 0 or an error. */
int engine_set_records(int fd, const void *records, int size);

#endif /* CARNET_WINE_ENGINE_H */
