/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Every call of carnet_winsock.h by Windows' name, with arguments that need no engine. Built for Windows, too. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <carnet_winsock.h>

#include "check.h"

static void CALLBACK routine(DWORD error, DWORD bytes, LPWSAOVERLAPPED overlapped, DWORD flags)
{
	(void)bytes;
	(void)flags;
	*(DWORD *)overlapped->hEvent = error;
}

static void ioctls(SOCKET socket)
{
	static const DWORD codes[] = {
		SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS,
		SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT,
	};
	char buffer[2048];
	DWORD bytes = 7;
	int i;

	for (i = 0; i < 2; i++) {
		CHECK(WSAIoctl(socket, codes[i], NULL, 0, buffer, sizeof(buffer), &bytes, NULL, NULL) == SOCKET_ERROR);
		CHECK(WSAGetLastError() == WSAEOPNOTSUPP);
		CHECK(WSAIoctl(socket, codes[i], NULL, 0, buffer, sizeof(buffer), NULL, NULL, NULL) == SOCKET_ERROR);
		CHECK(WSAGetLastError() == WSAEFAULT);
		CHECK(WSAIoctl((SOCKET)2147483647, codes[i], NULL, 0, buffer, sizeof(buffer), &bytes, NULL, NULL) ==
		      SOCKET_ERROR);
		CHECK(WSAGetLastError() == WSAENOTSOCK);
	}
	CHECK(WSAIoctl(socket, SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS, NULL, 0, NULL, 0, &bytes, NULL, NULL) ==
	      SOCKET_ERROR);
	CHECK(WSAGetLastError() == WSAEINVAL);
	CHECK(WSAIoctl(socket, 0x98000000u + 999, NULL, 0, NULL, 0, &bytes, NULL, NULL) == SOCKET_ERROR);
	CHECK(WSAGetLastError() == WSAEOPNOTSUPP);
	WSASetLastError(WSAEINTR);
	CHECK(WSAGetLastError() == WSAEINTR && GetLastError() == WSAEINTR);
}

static void waits(void)
{
	WSAEVENT events[2];

	events[0] = WSACreateEvent();
	events[1] = WSACreateEvent();
	CHECK(events[0] != WSA_INVALID_EVENT && events[1] != WSA_INVALID_EVENT);
	CHECK(WSAWaitForMultipleEvents(2, events, FALSE, 0, FALSE) == WSA_WAIT_TIMEOUT);
	CHECK(WSASetEvent(events[1]));
	CHECK(WSAWaitForMultipleEvents(2, events, FALSE, WSA_INFINITE, FALSE) == WSA_WAIT_EVENT_0 + 1);
	CHECK(WSAWaitForMultipleEvents(2, events, TRUE, 0, TRUE) == WSA_WAIT_TIMEOUT);
	CHECK(WSAResetEvent(events[1]));
	CHECK(WSAWaitForMultipleEvents(1, &events[1], TRUE, 0, FALSE) == WSA_WAIT_TIMEOUT);
	CHECK(WSACloseEvent(events[0]) && CloseHandle(events[1]));
	CHECK(!WSACloseEvent(events[0]) && WSAGetLastError() == WSA_INVALID_HANDLE);
	CHECK(WSAWaitForMultipleEvents(0, events, FALSE, 0, FALSE) == WSA_WAIT_FAILED);
	CHECK(SleepEx(0, TRUE) == 0);
	Sleep(0);
}

/* An operation's end by the provider's call: the routine is run by the thread that was named, this one. */
static void overlapped(SOCKET socket)
{
#ifndef _WIN32
	WSATHREADID thread;
	char buffer[2048];
	int error = 0;
#endif
	WSAOVERLAPPED operation;
	LPOVERLAPPED ended = &operation;
	DWORD told = 4711, bytes;
	ULONG_PTR key;
	HANDLE port;

	memset(&operation, 0, sizeof(operation));
	operation.hEvent = &told;
#ifndef _WIN32
	CHECK(WPUOpenCurrentThread(&thread, &error) == 0);
	CHECK(WSPIoctl(socket, SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, NULL, 0, buffer, sizeof(buffer), &bytes,
		       &operation, routine, &thread, &error) == SOCKET_ERROR);
	if (error == WSA_IO_PENDING) {
		CHECK(SleepEx(20000, TRUE) == WAIT_IO_COMPLETION);
		CHECK(told == WSAEOPNOTSUPP);
	} else {
		CHECK(error == WSAEOPNOTSUPP && told == 4711);
	}
	CHECK(WPUCloseThread(&thread, &error) == 0);
#else
	(void)routine;
#endif
	CHECK(!CancelIoEx((HANDLE)socket, NULL) && WSAGetLastError() == ERROR_NOT_FOUND);

	port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, 0);
	CHECK(port && CreateIoCompletionPort((HANDLE)socket, port, 5, 0) == port);
	CHECK(!GetQueuedCompletionStatus(port, &bytes, &key, &ended, 0));
	CHECK(WSAGetLastError() == (int)WSA_WAIT_TIMEOUT && ended == NULL);
	CHECK(CloseHandle(port));
}

int main(void)
{
	SOCKADDR_STORAGE destination;
	WSADATA data;
	SOCKET socket;

	CHECK(WSAStartup(MAKEWORD(2, 2), &data) == 0 && data.wHighVersion == MAKEWORD(2, 2));
	socket = WSASocket(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED);
	CHECK(socket != INVALID_SOCKET);
	CHECK(WSASocket(AF_INET, SOCK_STREAM, 9999, NULL, 0, 0) == INVALID_SOCKET);
	ioctls(socket);
	waits();
	overlapped(socket);
	CHECK(carnet_winsock_destination(socket, &destination) == SOCKET_ERROR);
	CHECK(closesocket(socket) == 0);
	CHECK(closesocket(socket) == SOCKET_ERROR && WSAGetLastError() == WSAENOTSOCK);
	CHECK(WSACleanup() == 0);
	puts("all of them");
	return 0;
}
