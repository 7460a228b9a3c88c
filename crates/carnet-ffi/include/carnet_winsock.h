/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * One source for Windows and Linux: Winsock's ioctls on redirect records, by the names they have on Windows.
 *
 *	Linux:   cc service.c $(pkg-config --cflags --libs carnet)
 *	Windows: x86_64-w64-mingw32-gcc service.c -I include -lws2_32
 *
 * On Windows this is <winsock2.h> and its companions, with what some of them do not define. On Linux it is the part of
 * them that a redirect service needs: the types, the numbers, and Windows' names for the functions of carnet_wsa.h. The
 * rest is what Linux has too: socket(), bind(), listen(), accept(), connect(), send(), recv(), shutdown().
 *
 * What remains different on Linux: those report in errno, and WSAGetLastError() knows nothing of them. A SOCKET is a
 * descriptor, and is closed by closesocket(). DWORD is unsigned int, so it is printed with %u.
 *
 * For new code there is carnet.h. docs/c-api.md has more.
 */
#ifndef CARNET_WINSOCK_H
#define CARNET_WINSOCK_H

#ifdef _WIN32

#include <winsock2.h>
/* In this order: the others need the first. */
#include <ws2tcpip.h>
#include <mstcpip.h>
#include <windows.h>

#else /* not Windows */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "carnet_wsa.h"

#define WSAAPI
#define WINAPI
#define CALLBACK

typedef int BOOL;
typedef uint8_t BYTE;
typedef uint16_t WORD;
typedef uint32_t DWORD;
typedef uint32_t ULONG;
typedef int32_t LONG;
typedef unsigned int UINT;
typedef size_t ULONG_PTR;
typedef size_t DWORD_PTR;
typedef void *PVOID;
typedef void *LPVOID;
typedef DWORD *LPDWORD;
typedef ULONG_PTR *PULONG_PTR;
typedef void *HANDLE;
typedef HANDLE *PHANDLE;
#ifndef TRUE
#define TRUE 1
#endif
#ifndef FALSE
#define FALSE 0
#endif
#define INVALID_HANDLE_VALUE ((HANDLE)(intptr_t)-1)
#define INFINITE             0xFFFFFFFFu
#define MAKEWORD(low, high)  ((WORD)(((low) & 0xff) | (((high) & 0xff) << 8)))

typedef size_t SOCKET;
#define INVALID_SOCKET ((SOCKET)-1)
#define SOCKET_ERROR   (-1)
#define SD_RECEIVE     SHUT_RD
#define SD_SEND        SHUT_WR
#define SD_BOTH        SHUT_RDWR
typedef struct sockaddr SOCKADDR, *PSOCKADDR, *LPSOCKADDR;
typedef struct sockaddr_in SOCKADDR_IN, *PSOCKADDR_IN;
typedef struct sockaddr_in6 SOCKADDR_IN6, *PSOCKADDR_IN6;
typedef struct sockaddr_storage SOCKADDR_STORAGE, *PSOCKADDR_STORAGE;

typedef HANDLE WSAEVENT, *LPWSAEVENT;
typedef carnet_wsa_overlapped_t OVERLAPPED, *LPOVERLAPPED, WSAOVERLAPPED, *LPWSAOVERLAPPED;
typedef carnet_wsa_routine_t LPWSAOVERLAPPED_COMPLETION_ROUTINE;
typedef carnet_wsa_thread_t WSATHREADID, *LPWSATHREADID;
#define WSA_INVALID_EVENT ((WSAEVENT)NULL)

/* There is nothing to start. */
typedef struct WSAData {
	WORD wVersion;
	WORD wHighVersion;
} WSADATA, *LPWSADATA;

static inline int WSAStartup(WORD version, LPWSADATA data)
{
	if (!data)
		return 10014; /* WSAEFAULT */
	data->wVersion = version;
	data->wHighVersion = MAKEWORD(2, 2);
	return 0;
}

static inline int WSACleanup(void)
{
	return 0;
}

#define WSAIoctl                  carnet_wsa_ioctl
#define WSPIoctl                  carnet_wsa_provider_ioctl
#define WPUOpenCurrentThread      carnet_wsa_open_current_thread
#define WPUCloseThread            carnet_wsa_close_thread
#define WSAGetLastError           carnet_wsa_last_error
#define WSASetLastError           carnet_wsa_set_last_error
#define GetLastError()            ((DWORD)carnet_wsa_last_error())
#define WSAGetOverlappedResult    carnet_wsa_overlapped_result
#define WSACreateEvent            carnet_wsa_create_event
#define WSACloseEvent             carnet_wsa_close_event
#define WSASetEvent               carnet_wsa_set_event
#define WSAResetEvent             carnet_wsa_reset_event
#define WSAWaitForMultipleEvents  carnet_wsa_wait_for_events
#define SleepEx                   carnet_wsa_sleep
#define Sleep(milliseconds)       ((void)carnet_wsa_sleep((milliseconds), FALSE))
#define CancelIoEx                carnet_wsa_cancel
#define closesocket               carnet_wsa_close_socket
#define WSASocketW                carnet_wsa_socket
#define WSASocketA                carnet_wsa_socket
#define WSASocket                 carnet_wsa_socket
#define CreateIoCompletionPort    carnet_wsa_completion_port
#define GetQueuedCompletionStatus carnet_wsa_dequeue
#define CloseHandle               carnet_wsa_close_handle

#define WSA_FLAG_OVERLAPPED        0x01
#define WSA_FLAG_NO_HANDLE_INHERIT 0x80
#define WSA_INFINITE               0xFFFFFFFFu
#define WSA_MAXIMUM_WAIT_EVENTS    64
#define WSA_WAIT_EVENT_0           0u
#define WSA_WAIT_IO_COMPLETION     0xC0u
#define WSA_WAIT_TIMEOUT           258u
#define WSA_WAIT_FAILED            0xFFFFFFFFu
#define WAIT_OBJECT_0              0u
#define WAIT_IO_COMPLETION         0xC0u
#define WAIT_TIMEOUT               258u
#define WAIT_FAILED                0xFFFFFFFFu

#define WSA_INVALID_HANDLE        6
#define WSA_NOT_ENOUGH_MEMORY     8
#define WSA_INVALID_PARAMETER     87
#define WSA_OPERATION_ABORTED     995
#define WSA_IO_INCOMPLETE         996
#define WSA_IO_PENDING            997
#define WSAEINTR                  10004
#define WSAEACCES                 10013
#define WSAEFAULT                 10014
#define WSAEINVAL                 10022
#define WSAEMFILE                 10024
#define WSAEINPROGRESS            10036
#define WSAENOTSOCK               10038
#define WSAENOPROTOOPT            10042
#define WSAEOPNOTSUPP             10045
#define WSAENETDOWN               10050
#define WSAENOBUFS                10055
#define WSAEISCONN                10056
#define WSAENOTCONN               10057
#define WSASYSCALLFAILURE         10107
#define ERROR_INVALID_HANDLE      6
#define ERROR_INSUFFICIENT_BUFFER 122
#define ERROR_ABANDONED_WAIT_0    735
#define ERROR_OPERATION_ABORTED   995
#define ERROR_IO_INCOMPLETE       996
#define ERROR_IO_PENDING          997
#define ERROR_NOT_FOUND           1168
#define FWP_E_NOT_FOUND           ((LONG)0x80320008)

#define SIO_FLUSH 0x28000004u

#endif /* not Windows */

/* Some <mstcpip.h> do not have these: those of mingw-w64, and those before Windows 8. */
#ifndef SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS
#define SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS 0x980000DCu /* _WSAIOW(IOC_VENDOR, 220) */
#endif
#ifndef SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT
#define SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT 0x980000DDu /* _WSAIOW(IOC_VENDOR, 221) */
#endif
#ifndef SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS
#define SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS 0x980000DEu /* _WSAIOW(IOC_VENDOR, 222) */
#endif

/*
 * Where an accepted connection was going, by SO_ORIGINAL_DST, which has another number on each system. 0, or
 * SOCKET_ERROR. On Windows that is for proxies which a container's network policy has set up; others have it in the
 * context.
 */
static inline int carnet_winsock_destination(SOCKET accepted, SOCKADDR_STORAGE *destination)
{
#ifdef _WIN32
	int size = (int)sizeof(*destination);

	memset(destination, 0, sizeof(*destination));
	return getsockopt(accepted, SOL_SOCKET, 0x300F, (char *)destination, &size);
#else
	static const int levels[] = { 0 /* SOL_IP */, 41 /* SOL_IPV6 */ };
	static const size_t sizes[] = { sizeof(SOCKADDR_IN), sizeof(SOCKADDR_IN6) };
	int i;

	for (i = 0; i < 2; i++) {
		socklen_t size = (socklen_t)sizes[i];

		memset(destination, 0, sizeof(*destination));
		if (getsockopt((int)accepted, levels[i], 80, destination, &size) == 0)
			return 0;
	}
	return SOCKET_ERROR;
#endif
}

#endif /* CARNET_WINSOCK_H */
