/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* For tests only: see README.md. */
#include "engine.h"

#include <winternl.h>

/* Numbers of x86-64's system calls, and of the options that are asked besides Carnet's. */
#define NR_close       3
#define NR_getpeername 52
#define NR_setsockopt  54
#define NR_getsockopt  55

#define LINUX_SOL_SOCKET  1
#define LINUX_SO_PROTOCOL 38
#define LINUX_TCP         6
#define LINUX_MPTCP       262

static INT64 linux_call(INT64 number, INT64 a, INT64 b, INT64 c, INT64 d, INT64 e);

/*
 * Wine's ntdll exports it, and no header declares it: duplicates the Unix descriptor behind a handle into this process.
 * The socket is wineserver's, and stays what it was when wineserver made it; who asks through the duplicate is this
 * process.
 */
static LONG(__cdecl *handle_to_fd)(HANDLE handle, unsigned int access, int *fd, unsigned int *options);

BOOL engine_init(void)
{
	HMODULE ntdll = GetModuleHandleA("ntdll.dll");

	handle_to_fd = (void *)GetProcAddress(ntdll, "wine_server_handle_to_fd");
	return handle_to_fd != NULL;
}

int unix_socket(SOCKET socket, BOOL *is_overlapped)
{
	unsigned int options;
	int fd, protocol, size = sizeof(protocol);

	if (handle_to_fd((HANDLE)socket, 0, &fd, &options))
		return LINUX_ENOTSOCK;
	*is_overlapped = !(options & (FILE_SYNCHRONOUS_IO_ALERT | FILE_SYNCHRONOUS_IO_NONALERT));
	/* Files and consoles have descriptors, too. */
	if (linux_call(NR_getsockopt, fd, LINUX_SOL_SOCKET, LINUX_SO_PROTOCOL, (INT64)&protocol, (INT64)&size)) {
		unix_close(fd);
		return LINUX_ENOTSOCK;
	}
	return fd;
}

void unix_close(int fd)
{
	linux_call(NR_close, fd, 0, 0, 0, 0);
}

BOOL unix_is_tcp(int fd)
{
	int protocol = 0, size = sizeof(protocol);

	linux_call(NR_getsockopt, fd, LINUX_SOL_SOCKET, LINUX_SO_PROTOCOL, (INT64)&protocol, (INT64)&size);
	return protocol == LINUX_TCP || protocol == LINUX_MPTCP;
}

BOOL unix_is_connected(int fd)
{
	char peer[128];
	int size = sizeof(peer);

	return linux_call(NR_getpeername, fd, (INT64)peer, (INT64)&size, 0, 0) == 0;
}

int engine_get(int fd, int option, void *answer, int size)
{
	int error = linux_call(NR_getsockopt, fd, SOL_CARNET, option, (INT64)answer, (INT64)&size);

	return error ? error : size;
}

int engine_set_records(int fd, const void *records, int size)
{
	return linux_call(NR_setsockopt, fd, SOL_CARNET, CARNET_RECORDS, (INT64)records, size);
}

/* None of them blocks, so that the thread is never one that Wine waits for in vain. */
static INT64 linux_call(INT64 number, INT64 a, INT64 b, INT64 c, INT64 d, INT64 e)
{
	register INT64 r10 __asm__("r10") = d;
	register INT64 r8 __asm__("r8") = e;
	INT64 result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
}
