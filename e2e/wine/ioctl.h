/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef CARNET_WINE_IOCTL_H
#define CARNET_WINE_IOCTL_H

#include <winsock2.h>

/* WSAIoctl() with the three codes of connection redirection. All others are Wine's. */
int WSAAPI redirect_ioctl(SOCKET socket, DWORD code, void *in, DWORD in_size, void *out, DWORD out_size,
			  DWORD *returned, WSAOVERLAPPED *overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine);

#endif /* CARNET_WINE_IOCTL_H */
