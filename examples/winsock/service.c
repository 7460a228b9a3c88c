/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A redirect service written to Winsock's contract, for Windows and for Linux: WSAIoctl() asks for the record of each
 * accepted connection and sets it on the socket with which the service goes on.
 *
 *	Linux:   cc -pthread -o service examples/winsock/service.c $(pkg-config --cflags --libs carnet)
 *	Windows: x86_64-w64-mingw32-gcc -o service.exe examples/winsock/service.c -I crates/carnet-ffi/include -lws2_32
 *
 *	usage: service PORT [sampler|envoy] [plain|event|routine|port] [COUNT]
 *
 * "sampler" and "envoy" are the orders of calls in two well-known users of these ioctls. The third word says how the
 * end of each ioctl is learned: from the call itself, or, where it is overlapped, from an event, a completion routine,
 * or a completion port. With a COUNT it ends after so many connections. docs/c-api.md says what differs between the
 * systems.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <carnet_winsock.h>

#include "relay.h"
#include "threads.h"

#define PATIENCE 20000 /* milliseconds for an operation to end */

enum delivery { PLAIN, EVENT, ROUTINE, PORT };

/* How one ioctl ended. */
struct outcome {
	int   error; /* 0, or a Winsock error number */
	DWORD bytes;
};

/* One connection. */
struct flow {
	SOCKET client;
	HANDLE port; /* where its operations' ends are told, if it is to be a completion port */
};

static SOCKET (*go_on)(const struct flow *flow);
static enum delivery delivery = PLAIN;

static SOCKET go_on_as_sampler(const struct flow *flow);
static SOCKET go_on_as_envoy(const struct flow *flow);
static SOCKET listen_on(int family, int port);
static void *accept_all(void *listener);
static void *serve(void *client);

/* ---- Accepting ---- */

static long remaining = -1; /* connections to serve on each listener; -1: without end */

int main(int argc, char **argv)
{
	int port = argc >= 2 ? atoi(argv[1]) : 0;
	const char *order = argc >= 3 ? argv[2] : "sampler", *end = argc >= 4 ? argv[3] : "plain";
	static const char *const ends[] = { "plain", "event", "routine", "port" };
	SOCKET listeners[2];
	thread second;
	WSADATA data;
	int i;

	go_on = strcmp(order, "sampler") == 0 ? go_on_as_sampler : strcmp(order, "envoy") == 0 ? go_on_as_envoy : NULL;
	for (i = 0; i < 4 && strcmp(end, ends[i]); i++)
		;
	if (port < 1 || port > 65535 || !go_on || i == 4) {
		fprintf(stderr, "usage: service PORT [sampler|envoy] [plain|event|routine|port] [COUNT]\n");
		return 2;
	}
	delivery = (enum delivery)i;
	remaining = argc >= 5 ? atol(argv[4]) : -1;
	setvbuf(stdout, NULL, _IONBF, 0);
	if (WSAStartup(MAKEWORD(2, 2), &data)) {
		fprintf(stderr, "service: there is no Winsock 2.2\n");
		return 1;
	}

	/* Both families, for an IPv6-only socket cannot be sent to an IPv4 listener. */
	listeners[0] = listen_on(AF_INET, port);
	listeners[1] = listen_on(AF_INET6, port);
	if (listeners[0] == INVALID_SOCKET) {
		fprintf(stderr, "service: cannot listen on port %d\n", port);
		return 1;
	}
	if (listeners[1] == INVALID_SOCKET || begin(&second, accept_all, &listeners[1])) {
		accept_all(&listeners[0]); /* a host without IPv6 */
	} else {
		accept_all(&listeners[0]);
		join(second);
	}
	WSACleanup();
	return 0;
}

static SOCKET listen_on(int family, int port)
{
	SOCKET listener = socket(family, SOCK_STREAM, IPPROTO_TCP);
	SOCKADDR_IN v4;
	SOCKADDR_IN6 v6;
	int failed;

	if (listener == INVALID_SOCKET)
		return INVALID_SOCKET;
	memset(&v4, 0, sizeof(v4));
	v4.sin_family = AF_INET;
	v4.sin_port = htons((unsigned short)port);
	v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	memset(&v6, 0, sizeof(v6));
	v6.sin6_family = AF_INET6;
	v6.sin6_port = v4.sin_port;
	v6.sin6_addr = in6addr_loopback;
	failed = family == AF_INET ? bind(listener, (SOCKADDR *)&v4, sizeof(v4)) :
				     bind(listener, (SOCKADDR *)&v6, sizeof(v6));
	if (!failed && listen(listener, SOMAXCONN) == 0)
		return listener;
	closesocket(listener);
	return INVALID_SOCKET;
}

/* All connections of one listener, each in a thread; or as many as there is a COUNT for, and then waits for them. */
static void *accept_all(void *argument)
{
	SOCKET listener = *(SOCKET *)argument;
	long left = remaining, begun = 0, i;
	thread *threads = left > 0 ? calloc((size_t)left, sizeof(*threads)) : NULL;

	while (left != 0) {
		SOCKET client = accept(listener, NULL, NULL);
		thread thread;

		if (client == INVALID_SOCKET) {
			Sleep(100); /* out of sockets until other flows end */
			continue;
		}
		if (begin(&thread, serve, (void *)client)) {
			closesocket(client);
			continue;
		}
		if (threads)
			threads[begun++] = thread;
		else
			leave(thread);
		if (left > 0)
			left--;
	}
	for (i = 0; i < begun; i++)
		join(threads[i]);
	free(threads);
	closesocket(listener);
	return NULL;
}

/* ---- The ioctls ---- */

static void CALLBACK told(DWORD error, DWORD bytes, LPWSAOVERLAPPED overlapped, DWORD flags)
{
	struct outcome *outcome = overlapped->hEvent; /* ours to use, where there is a routine */

	(void)flags;
	outcome->error = (int)error;
	outcome->bytes = bytes;
}

/* Waits for the end of an operation that has begun, in the way that was asked for. */
static struct outcome end_of(const struct flow *flow, SOCKET socket, WSAOVERLAPPED *overlapped)
{
	struct outcome outcome = { 0, 0 };
	LPOVERLAPPED ended = NULL;
	ULONG_PTR key;
	DWORD flags;
	int over = 0;

	switch (delivery) {
	case EVENT:
		over = WSAWaitForMultipleEvents(1, &overlapped->hEvent, TRUE, PATIENCE, FALSE) == WSA_WAIT_EVENT_0;
		if (over && !WSAGetOverlappedResult(socket, overlapped, &outcome.bytes, FALSE, &flags))
			outcome.error = WSAGetLastError();
		break;
	case ROUTINE:
		overlapped->hEvent = &outcome;
		over = SleepEx(PATIENCE, TRUE) == WAIT_IO_COMPLETION;
		break;
	default:
		if (!GetQueuedCompletionStatus(flow->port, &outcome.bytes, &key, &ended, PATIENCE))
			outcome.error = WSAGetLastError();
		else if (key != (ULONG_PTR)socket)
			outcome.error = WSAEINVAL;
		over = ended == overlapped;
	}
	if (!over) {
		/* The buffers are the operation's until it has ended. */
		CancelIoEx((HANDLE)socket, overlapped);
		WSAGetOverlappedResult(socket, overlapped, &outcome.bytes, TRUE, &flags);
		outcome.error = WSA_OPERATION_ABORTED;
	}
	return outcome;
}

/* One ioctl, from its beginning to its end. */
static struct outcome control(const struct flow *flow, SOCKET socket, DWORD code, void *in, DWORD in_size, void *out,
			      DWORD out_size)
{
	struct outcome outcome = { 0, 0 };
	WSAOVERLAPPED overlapped;

	if (delivery == PLAIN) {
		if (WSAIoctl(socket, code, in, in_size, out, out_size, &outcome.bytes, NULL, NULL) == SOCKET_ERROR)
			outcome.error = WSAGetLastError();
		return outcome;
	}

	memset(&overlapped, 0, sizeof(overlapped));
	if (delivery == EVENT)
		overlapped.hEvent = WSACreateEvent();
	if (delivery == ROUTINE)
		overlapped.hEvent = &outcome;
	if (WSAIoctl(socket, code, in, in_size, out, out_size, &outcome.bytes, &overlapped,
		     delivery == ROUTINE ? told : NULL) == SOCKET_ERROR)
		outcome.error = WSAGetLastError();
	/* The end is told in the same way where the operation was over at once. */
	if (outcome.error == 0 || outcome.error == WSA_IO_PENDING)
		outcome = end_of(flow, socket, &overlapped);
	if (delivery == EVENT)
		WSACloseEvent(overlapped.hEvent);
	return outcome;
}

static SOCKET new_socket(const struct flow *flow, int family)
{
	SOCKET made = socket(family, SOCK_STREAM, IPPROTO_TCP);

	if (made != INVALID_SOCKET && flow->port)
		CreateIoCompletionPort((HANDLE)made, flow->port, (ULONG_PTR)made, 0);
	return made;
}

static SOCKET fail(const char *what, int error, SOCKET server)
{
	fprintf(stderr, "service: connection closed: %s: error %d%s\n", what, error,
		error == WSAEINVAL ? ": it has no record, so it has no destination" : "");
	if (server != INVALID_SOCKET)
		closesocket(server);
	return INVALID_SOCKET;
}

static void say(const SOCKADDR_STORAGE *to, DWORD records, DWORD context)
{
	char ip[64] = "";
	const SOCKADDR_IN *v4 = (const SOCKADDR_IN *)to;
	const SOCKADDR_IN6 *v6 = (const SOCKADDR_IN6 *)to;

	if (to->ss_family == AF_INET)
		inet_ntop(AF_INET, (void *)&v4->sin_addr, ip, sizeof(ip));
	else
		inet_ntop(AF_INET6, (void *)&v6->sin6_addr, ip, sizeof(ip));
	printf(to->ss_family == AF_INET ? "%s:%u records %u context %u\n" : "[%s]:%u records %u context %u\n", ip,
	       ntohs(v4->sin_port), (unsigned)records, (unsigned)context);
}

/* Of either family. */
static int connect_to(SOCKET socket, const SOCKADDR_STORAGE *to)
{
	return connect(socket, (const SOCKADDR *)to,
		       to->ss_family == AF_INET ? (int)sizeof(SOCKADDR_IN) : (int)sizeof(SOCKADDR_IN6));
}

/*
 * As WFPSampler, Microsoft's sample: records into 8192 bytes; context into 256, where "there is none" is tolerated; the
 * records are set before the socket is bound; connect.
 */
static SOCKET go_on_as_sampler(const struct flow *flow)
{
	static const DWORD records_size = 8192, context_size = 256;
	SOCKET server = INVALID_SOCKET;
	SOCKADDR_STORAGE to, any;
	struct outcome records, context, set;
	char *buffer = malloc(records_size + context_size);

	if (!buffer)
		return fail("malloc", WSAENOBUFS, server);
	records = control(flow, flow->client, SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, NULL, 0, buffer, records_size);
	if (records.error) {
		free(buffer);
		return fail("the records", records.error, server);
	}
	context = control(flow, flow->client, SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT, NULL, 0, buffer + records_size,
			  context_size);
	if (context.error && context.error != (int)FWP_E_NOT_FOUND) {
		free(buffer);
		return fail("the context", context.error, server);
	}
	if (context.error)
		context.bytes = 0;
	if (carnet_winsock_destination(flow->client, &to)) {
		free(buffer);
		return fail("the destination", 0, server);
	}
	say(&to, records.bytes, context.bytes);

	server = new_socket(flow, to.ss_family);
	set = control(flow, server, SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS, buffer, records.bytes, NULL, 0);
	free(buffer);
	if (set.error)
		return fail("setting the records", set.error, server);
	memset(&any, 0, sizeof(any));
	any.ss_family = to.ss_family;
	if (bind(server, (SOCKADDR *)&any, to.ss_family == AF_INET ? sizeof(SOCKADDR_IN) : sizeof(SOCKADDR_IN6)))
		return fail("bind", WSAGetLastError(), server);
	if (connect_to(server, &to)) {
#ifndef _WIN32
		perror("service: connect"); /* WSAGetLastError() knows nothing of it there */
#endif
		return fail("connect", WSAGetLastError(), server);
	}
	return server;
}

/*
 * As Envoy: records into 2048 bytes as soon as the connection is accepted, which is closed if that fails; no context;
 * the records are set before the socket is bound; connect.
 */
static SOCKET go_on_as_envoy(const struct flow *flow)
{
	static const DWORD query = SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS;
	SOCKET server = INVALID_SOCKET;
	SOCKADDR_STORAGE to;
	struct outcome records, set;
	char buffer[2048];

	records = control(flow, flow->client, query, NULL, 0, buffer, sizeof(buffer));
	if (records.error)
		return fail("the records", records.error, server);
	if (carnet_winsock_destination(flow->client, &to))
		return fail("the destination", 0, server);
	say(&to, records.bytes, 0);

	server = new_socket(flow, to.ss_family);
	set = control(flow, server, SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS, buffer, records.bytes, NULL, 0);
	if (set.error)
		return fail("setting the records", set.error, server);
	if (connect_to(server, &to)) {
#ifndef _WIN32
		perror("service: connect");
#endif
		return fail("connect", WSAGetLastError(), server);
	}
	return server;
}

/* ---- Carrying on ---- */

static void *serve(void *argument)
{
	SOCKET client = (SOCKET)argument;
	struct flow flow;
	struct way out, back;
	thread answers;
	SOCKET server;

	flow.client = client;
	flow.port = delivery == PORT ? CreateIoCompletionPort((HANDLE)client, NULL, (ULONG_PTR)client, 0) : NULL;
	server = go_on(&flow);
	if (flow.port)
		CloseHandle(flow.port);
	out.from = back.to = client;
	out.to = back.from = server;
	if (server != INVALID_SOCKET && begin(&answers, copy, &back) == 0) {
		copy(&out);
		join(answers);
	} else {
		reset_when_closed(client); /* a plain close would look like an empty answer */
	}
	closesocket(client);
	if (server != INVALID_SOCKET)
		closesocket(server);
	return NULL;
}
