/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A Windows program that a client is sent to, and that asks about the connection in every way there is. It prints
 * where it listens, then for each connection one line a question, `WHAT: ERROR BYTES`. A test knows what they have
 * to be.
 *
 * usage: answers PORT, which is 0 for any
 */
#include <winsock2.h>
#include <ws2tcpip.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "carnet_abi.h"

#define RECORDS     0x980000DC /* SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS */
#define CONTEXT     0x980000DD /* SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT */
#define SET_RECORDS 0x980000DE /* SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS */
#define NO_CODE     0x980003FF

/* Of the library that the program is linked with, as programs in Rust are. */
BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T size);

static SOCKET listen_on(unsigned short port);
static void questions(SOCKET client, SOCKET listener);
static void overlapped_questions(SOCKET client);
static void refused_operations(SOCKET client);
static void sets(SOCKET client, char *records);
static void set_where_nothing_is_overlapped(char *records);
static void other_sockets(SOCKET listener, char *records);
static void query(const char *what, SOCKET socket, DWORD code, char *in, DWORD in_size, char *out, DWORD out_size);
static void set(const char *what, SOCKET socket, char *records, DWORD size, char *out, DWORD out_size);

int main(int argc, char **argv)
{
	unsigned char random;
	SOCKET listener;
	WSADATA data;

	setvbuf(stdout, NULL, _IONBF, 0);
	ProcessPrng(&random, sizeof(random));
	if (argc != 2 || WSAStartup(MAKEWORD(2, 2), &data))
		return 2;
	listener = listen_on((unsigned short)atoi(argv[1]));
	for (;;) {
		SOCKET client = accept(listener, NULL, NULL);

		questions(client, listener);
		closesocket(client);
	}
}

static SOCKET listen_on(unsigned short port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
	SOCKET listener = socket(AF_INET, SOCK_STREAM, 0);
	int size = sizeof(at);

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(listener, (struct sockaddr *)&at, sizeof(at)) || listen(listener, SOMAXCONN) ||
	    getsockname(listener, (struct sockaddr *)&at, &size)) {
		fprintf(stderr, "answers: cannot listen: %d\n", WSAGetLastError());
		exit(1);
	}
	/* As the tests' other services say it. Nothing is sent to the second one. */
	printf("127.0.0.1:%u [::1]:%u\n", ntohs(at.sin_port), ntohs(at.sin_port));
	return listener;
}

static void questions(SOCKET client, SOCKET listener)
{
	char records[8192], context[4096] = "";
	DWORD bytes = 1;

	if (WSAIoctl(client, RECORDS, NULL, 0, records, sizeof(records), &bytes, NULL, NULL)) {
		printf("no record: %d %lu\n", WSAGetLastError(), bytes);
		return;
	}
	query("records into nothing", client, RECORDS, NULL, 0, NULL, 0);
	query("records, one byte too few", client, RECORDS, NULL, 0, records, sizeof(struct carnet_records) - 1);
	query("records", client, RECORDS, NULL, 0, records, sizeof(struct carnet_records));
	query("records into more", client, RECORDS, NULL, 0, records, sizeof(records));
	query("records without a buffer", client, RECORDS, NULL, 0, NULL, sizeof(records));
	query("records into memory that is not there", client, RECORDS, NULL, 0, (char *)16, sizeof(records));
	query("records with an input", client, RECORDS, records, 4, records, sizeof(records));
	query("context into too little", client, CONTEXT, NULL, 0, context, 256);
	query("context", client, CONTEXT, NULL, 0, context, sizeof(context));
	printf("its beginning: %.8s\n", context);
	printf("the filter's bytes: %s\n", context + 8 + sizeof(struct carnet_flow));
	query("a code nobody has", client, NO_CODE, NULL, 0, context, sizeof(context));

	WSASetLastError(0);
	WSAIoctl(client, RECORDS, NULL, 0, records, sizeof(records), NULL, NULL, NULL);
	printf("records, and nowhere to say how many: %d\n", WSAGetLastError());
	overlapped_questions(client);
	refused_operations(client);
	query("records, the last time", client, RECORDS, NULL, 0, records, sizeof(records));
	sets(client, records);
	other_sockets(listener, records);
	printf("over\n");
}

static int is_signalled(WSAEVENT event)
{
	return WaitForSingleObject(event, 0) == WAIT_OBJECT_0;
}

static DWORD routine_error, routine_bytes;
static int routine_runs;

static void CALLBACK routine(DWORD error, DWORD bytes, WSAOVERLAPPED *overlapped, DWORD flags)
{
	(void)overlapped, (void)flags;
	routine_error = error;
	routine_bytes = bytes;
	routine_runs++;
}

static void overlapped_questions(SOCKET client)
{
	WSAOVERLAPPED overlapped = { .hEvent = WSACreateEvent() };
	DWORD bytes = 0, flags = 0, alerted;
	char records[8192];
	int error;

	error = WSAIoctl(client, RECORDS, NULL, 0, records, sizeof(records), NULL, &overlapped, NULL);
	printf("with an event: %d, signalled %d\n", error, is_signalled(overlapped.hEvent));
	error = WSAGetOverlappedResult(client, &overlapped, &bytes, FALSE, &flags) ? 0 : WSAGetLastError();
	printf("its result: %d %lu\n", error, bytes);
	WSACloseEvent(overlapped.hEvent);

	memset(&overlapped, 0, sizeof(overlapped));
	error = WSAIoctl(client, RECORDS, NULL, 0, records, sizeof(records), NULL, &overlapped, routine);
	printf("with a routine: %d, run %d times\n", error, routine_runs);
	alerted = SleepEx(0, TRUE);
	printf("in an alertable wait: %d, run %d times: %lu %lu\n", alerted == WAIT_IO_COMPLETION, routine_runs,
	       routine_error, routine_bytes);
}

/* Those that end with an error leave it where the result is looked for. */
static void refused_operations(SOCKET client)
{
	WSAOVERLAPPED overlapped = { .hEvent = WSACreateEvent() };
	char records[8192];
	DWORD bytes = 4711;

	WSAIoctl(client, RECORDS, NULL, 0, records, sizeof(records), &bytes, (WSAOVERLAPPED *)16, NULL);
	printf("an OVERLAPPED that is not there: %d %lu\n", WSAGetLastError(), bytes);

	WSASetEvent(overlapped.hEvent);
	WSAIoctl(client, RECORDS, NULL, 0, records, 4, &bytes, &overlapped, NULL);
	printf("overlapped, into too little: %d %lu, signalled %d, Internal %lx\n", WSAGetLastError(), bytes,
	       is_signalled(overlapped.hEvent), (DWORD)overlapped.Internal);

	WSACloseEvent(overlapped.hEvent);
	overlapped.Internal = 4711;
	WSAIoctl(client, RECORDS, NULL, 0, records, sizeof(records), &bytes, &overlapped, NULL);
	printf("with an event that is closed: %d %lu, Internal %lu\n", WSAGetLastError(), bytes,
	       (DWORD)overlapped.Internal);
}

static void sets(SOCKET client, char *records)
{
	DWORD size = sizeof(struct carnet_records);
	SOCKET out = socket(AF_INET, SOCK_STREAM, 0);

	set("set of nothing", out, NULL, 0, NULL, 0);
	set("set of nothing, and a size", out, NULL, size, NULL, 0);
	set("set of memory that is not there", out, (char *)16, size, NULL, 0);
	set("set of a byte too few", out, records, size - 1, NULL, 0);
	set("set with an output", out, records, size, records, 4);
	records[100] ^= 1;
	set("set of a changed record", out, records, size, NULL, 0);
	records[100] ^= 1;
	set("set on the accepted socket", client, records, size, NULL, 0);
	set("set", out, records, size, NULL, 0);
	set("set once more", out, records, size, NULL, 0);
	query("records of the socket with a record", out, RECORDS, NULL, 0, records, 0);
	closesocket(out);
	set("set on a closed socket", out, records, size, NULL, 0);
	set_where_nothing_is_overlapped(records);
}

/* The OVERLAPPED is left alone, and with it its event. */
static void set_where_nothing_is_overlapped(char *records)
{
	SOCKET out = WSASocketW(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0, 0);
	WSAOVERLAPPED overlapped = { .hEvent = WSACreateEvent() };
	DWORD size = sizeof(struct carnet_records), bytes = 4711;
	int error = WSAIoctl(out, SET_RECORDS, records, size, NULL, 0, &bytes, &overlapped, NULL);

	printf("set where nothing is overlapped: %d %lu, signalled %d\n", error, bytes,
	       is_signalled(overlapped.hEvent));
	WSAIoctl(out, SET_RECORDS, records, size, NULL, 0, NULL, &overlapped, NULL);
	printf("and nowhere to say how many: %d\n", WSAGetLastError());
	WSACloseEvent(overlapped.hEvent);
	closesocket(out);
}

static void other_sockets(SOCKET listener, char *records)
{
	DWORD size = sizeof(struct carnet_records);
	SOCKET fresh = socket(AF_INET6, SOCK_STREAM, 0), datagrams = socket(AF_INET, SOCK_DGRAM, 0);

	query("records of the listener", listener, RECORDS, NULL, 0, NULL, 0);
	set("set on the listener", listener, records, size, NULL, 0);
	query("records of a new socket", fresh, RECORDS, NULL, 0, NULL, 0);
	query("records of a datagram socket", datagrams, RECORDS, NULL, 0, NULL, 0);
	set("set on a datagram socket", datagrams, records, size, NULL, 0);
	query("records of standard output", (SOCKET)GetStdHandle(STD_OUTPUT_HANDLE), RECORDS, NULL, 0, NULL, 0);
	query("context of no socket", INVALID_SOCKET, CONTEXT, NULL, 0, NULL, 0);
	closesocket(fresh);
	closesocket(datagrams);
}

static void query(const char *what, SOCKET socket, DWORD code, char *in, DWORD in_size, char *out, DWORD out_size)
{
	DWORD bytes = 4711;
	int error;

	WSASetLastError(4711);
	error = WSAIoctl(socket, code, in, in_size, out, out_size, &bytes, NULL, NULL) ? WSAGetLastError() : 0;
	printf("%s: %d %lu\n", what, error, bytes);
}

static void set(const char *what, SOCKET socket, char *records, DWORD size, char *out, DWORD out_size)
{
	DWORD bytes = 4711;
	int error;

	WSASetLastError(4711);
	error = WSAIoctl(socket, SET_RECORDS, records, size, out, out_size, &bytes, NULL, NULL) ? WSAGetLastError() : 0;
	printf("%s: %d %lu\n", what, error, bytes);
}
