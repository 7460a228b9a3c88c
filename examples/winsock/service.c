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
#include <errno.h>
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
	int   told; /* of an overlapped one: that it has ended. Until then the buffers are its own, and this is, too */
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
			reset_when_closed(client);
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

static void CALLBACK tell(DWORD error, DWORD bytes, LPWSAOVERLAPPED overlapped, DWORD flags)
{
	struct outcome *outcome = overlapped->hEvent; /* ours to use, where there is a routine */

	(void)flags;
	outcome->error = (int)error;
	outcome->bytes = bytes;
	outcome->told = 1;
}

/* Waits for the end of an operation that has begun, in the way that was asked for. */
static void wait_for(const struct flow *flow, SOCKET socket, WSAOVERLAPPED *overlapped, struct outcome *outcome,
		     DWORD milliseconds)
{
	LPOVERLAPPED ended = NULL;
	ULONG_PTR key = 0;
	DWORD flags;
	int done;

	switch (delivery) {
	case EVENT:
		if (WSAWaitForMultipleEvents(1, &overlapped->hEvent, TRUE, milliseconds, FALSE) != WSA_WAIT_EVENT_0)
			return;
		done = WSAGetOverlappedResult(socket, overlapped, &outcome->bytes, FALSE, &flags);
		break;
	case ROUTINE:
		SleepEx(milliseconds, TRUE);
		return;
	default:
		done = GetQueuedCompletionStatus(flow->port, &outcome->bytes, &key, &ended, milliseconds);
		if (ended != overlapped)
			return;
	}
	outcome->error = done ? 0 : WSAGetLastError();
	if (delivery == PORT && key != (ULONG_PTR)socket)
		outcome->error = WSASYSCALLFAILURE; /* the packet is not of this socket */
	outcome->told = 1;
}

/* One ioctl, from its beginning to its end. */
static struct outcome control(const struct flow *flow, SOCKET socket, DWORD code, void *in, DWORD in_size, void *out,
			      DWORD out_size)
{
	struct outcome outcome = { 0, 0, 0 };
	WSAOVERLAPPED overlapped;

	memset(&overlapped, 0, sizeof(overlapped));
	if (delivery == EVENT)
		overlapped.hEvent = WSACreateEvent();
	if (delivery == ROUTINE)
		overlapped.hEvent = &outcome;
	if ((delivery == EVENT && overlapped.hEvent == WSA_INVALID_EVENT) ||
	    WSAIoctl(socket, code, in, in_size, out, out_size, &outcome.bytes, delivery == PLAIN ? NULL : &overlapped,
		     delivery == ROUTINE ? tell : NULL) == SOCKET_ERROR)
		outcome.error = WSAGetLastError();
	/* The end is told in the same way where the operation was over at once. */
	if (delivery != PLAIN && (outcome.error == 0 || outcome.error == WSA_IO_PENDING)) {
		wait_for(flow, socket, &overlapped, &outcome, PATIENCE);
		if (!outcome.told)
			CancelIoEx((HANDLE)socket, &overlapped);
		/* What is cancelled is told, too. To return before would leave it memory which is no more. */
		while (!outcome.told)
			wait_for(flow, socket, &overlapped, &outcome, INFINITE);
	}
	if (delivery == EVENT && overlapped.hEvent != WSA_INVALID_EVENT)
		WSACloseEvent(overlapped.hEvent);
	return outcome;
}

static SOCKET fail_with(const char *what, const char *why, SOCKET server)
{
	fprintf(stderr, "service: connection closed: %s: %s\n", what, why);
	if (server != INVALID_SOCKET)
		closesocket(server);
	return INVALID_SOCKET;
}

static SOCKET fail(const char *what, int error, SOCKET server)
{
	char why[32];

	snprintf(why, sizeof(why), "error %d", error);
	return fail_with(what, why, server);
}

static SOCKET fail_query(const char *what, int error)
{
	return error == WSAEINVAL ?
		       fail_with(what, "error 10022: it has no record, so it has no destination", INVALID_SOCKET) :
		       fail(what, error, INVALID_SOCKET);
}

/* Of a call which both systems have: Linux' own reports in errno. */
static SOCKET fail_of_system(const char *what, SOCKET server)
{
#ifdef _WIN32
	return fail(what, WSAGetLastError(), server);
#else
	return fail_with(what, strerror(errno), server);
#endif
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

/* A new socket with the record on it, before anything else is done with it. */
static SOCKET connect_with(void *records, DWORD size, const struct flow *flow, const SOCKADDR_STORAGE *to)
{
	int length = to->ss_family == AF_INET ? (int)sizeof(SOCKADDR_IN) : (int)sizeof(SOCKADDR_IN6);
	SOCKET server = socket(to->ss_family, SOCK_STREAM, IPPROTO_TCP);
	SOCKADDR_STORAGE any;
	struct outcome set;

	if (server == INVALID_SOCKET)
		return fail_of_system("socket", server);
	if (flow->port && !CreateIoCompletionPort((HANDLE)server, flow->port, (ULONG_PTR)server, 0))
		return fail("the completion port", WSAGetLastError(), server);
	set = control(flow, server, SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS, records, size, NULL, 0);
	if (set.error)
		return fail("setting the records", set.error, server);
	memset(&any, 0, sizeof(any));
	any.ss_family = to->ss_family;
	if (bind(server, (const SOCKADDR *)&any, length))
		return fail_of_system("bind", server);
	if (connect(server, (const SOCKADDR *)to, length))
		return fail_of_system("connect", server);
	return server;
}

/*
 * As WFPSampler, Microsoft's sample: records into 8192 bytes; context into 256, where "there is none" is tolerated; the
 * records are set before the socket is bound; connect.
 */
static SOCKET go_on_as_sampler(const struct flow *flow)
{
	static const DWORD records_size = 8192, context_size = 256;
	struct outcome records, context;
	SOCKADDR_STORAGE to;
	SOCKET server;
	char *buffer = malloc(records_size + context_size);

	if (!buffer)
		return fail("malloc", WSAENOBUFS, INVALID_SOCKET);
	records = control(flow, flow->client, SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, NULL, 0, buffer, records_size);
	if (records.error) {
		free(buffer);
		return fail_query("the records", records.error);
	}
	context = control(flow, flow->client, SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT, NULL, 0, buffer + records_size,
			  context_size);
	if (context.error && context.error != (int)FWP_E_NOT_FOUND) {
		free(buffer);
		return fail_query("the context", context.error);
	}
	if (context.error)
		context.bytes = 0;
	if (carnet_winsock_destination(flow->client, &to)) {
		free(buffer);
		return fail_of_system("the destination", INVALID_SOCKET);
	}
	say(&to, records.bytes, context.bytes);
	server = connect_with(buffer, records.bytes, flow, &to);
	free(buffer);
	return server;
}

/*
 * As Envoy: records into 2048 bytes as soon as the connection is accepted, which is closed if that fails; no context;
 * the records are set before the socket is bound; connect.
 */
static SOCKET go_on_as_envoy(const struct flow *flow)
{
	static const DWORD query = SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS;
	struct outcome records;
	SOCKADDR_STORAGE to;
	char buffer[2048];

	records = control(flow, flow->client, query, NULL, 0, buffer, sizeof(buffer));
	if (records.error)
		return fail_query("the records", records.error);
	if (carnet_winsock_destination(flow->client, &to))
		return fail_of_system("the destination", INVALID_SOCKET);
	say(&to, records.bytes, 0);
	return connect_with(buffer, records.bytes, flow, &to);
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
	server = delivery == PORT && !flow.port ? fail("the completion port", WSAGetLastError(), INVALID_SOCKET) :
						  go_on(&flow);
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
