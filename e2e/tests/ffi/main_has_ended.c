/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The main thread asks for the record and the context of the accepted connection that is the standard input, and ends.
 * Another thread asks again, by a plain call and by overlapped ones: the answers are the same.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <carnet_abi.h>
#include <carnet_winsock.h>

#include "check.h"

#define PATIENCE 20000 /* milliseconds */

#define ROOM 2048

struct answer {
	char  bytes[ROOM];
	DWORD size;
};

static const DWORD codes[] = {
	SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS,
	SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT,
};
static struct answer expected[2];
static const SOCKET connection = 0; /* standard input */
static int told;

static void plain(DWORD code, struct answer *answer)
{
	CHECK(WSAIoctl(connection, code, NULL, 0, answer->bytes, ROOM, &answer->size, NULL, NULL) == 0);
}

/* Begins it, and leaves it to the caller to wait. */
static void begin(DWORD code, struct answer *answer, WSAOVERLAPPED *overlapped,
		  LPWSAOVERLAPPED_COMPLETION_ROUTINE routine)
{
	CHECK(WSAIoctl(connection, code, NULL, 0, answer->bytes, ROOM, NULL, overlapped, routine) == 0 ||
	      WSAGetLastError() == WSA_IO_PENDING);
}

static void with_event(DWORD code, struct answer *answer)
{
	WSAOVERLAPPED overlapped;
	DWORD flags;

	memset(&overlapped, 0, sizeof(overlapped));
	overlapped.hEvent = WSACreateEvent();
	begin(code, answer, &overlapped, NULL);
	CHECK(WSAWaitForMultipleEvents(1, &overlapped.hEvent, TRUE, PATIENCE, FALSE) == WSA_WAIT_EVENT_0);
	CHECK(WSAGetOverlappedResult(connection, &overlapped, &answer->size, TRUE, &flags));
	CHECK(WSACloseEvent(overlapped.hEvent));
}

static void CALLBACK routine(DWORD error, DWORD bytes, LPWSAOVERLAPPED overlapped, DWORD flags)
{
	struct answer *answer = overlapped->hEvent;

	(void)flags;
	CHECK(error == 0);
	answer->size = bytes;
	told = 1;
}

static void with_routine(DWORD code, struct answer *answer)
{
	WSAOVERLAPPED overlapped;

	memset(&overlapped, 0, sizeof(overlapped));
	overlapped.hEvent = answer;
	told = 0;
	begin(code, answer, &overlapped, routine);
	CHECK(SleepEx(PATIENCE, TRUE) == WAIT_IO_COMPLETION && told);
}

static void with_port(DWORD code, struct answer *answer)
{
	static HANDLE port; /* of the connection, once for all */
	WSAOVERLAPPED overlapped;
	LPOVERLAPPED ended = NULL;
	ULONG_PTR key = 0;

	if (!port)
		port = CreateIoCompletionPort((HANDLE)connection, NULL, 5, 0);
	CHECK(port);
	memset(&overlapped, 0, sizeof(overlapped));
	begin(code, answer, &overlapped, NULL);
	CHECK(GetQueuedCompletionStatus(port, &answer->size, &key, &ended, PATIENCE));
	CHECK(key == 5 && ended == &overlapped);
}

/* Each record that is read has its own time and tag. */
static struct answer lasting(DWORD code, struct answer answer)
{
	struct carnet_records record;

	if (code == SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS) {
		memcpy(&record, answer.bytes, sizeof(record));
		CHECK(answer.size == sizeof(record) && record.tag != 0);
		record.stamp = record.tag = 0;
		memcpy(answer.bytes, &record, sizeof(record));
	}
	return answer;
}

static void is_the_same(const char *way, void (*ask)(DWORD code, struct answer *answer))
{
	struct answer answer;
	int i;

	for (i = 0; i < 2; i++) {
		memset(&answer, 0, sizeof(answer));
		ask(codes[i], &answer);
		answer = lasting(codes[i], answer);
		CHECK(answer.size == expected[i].size && memcmp(answer.bytes, expected[i].bytes, ROOM) == 0);
	}
	puts(way);
}

/* A thread that has ended before the others is a zombie until they have. */
static int main_has_ended(void)
{
	char line[256];
	int zombie = 0;
	FILE *status = fopen("/proc/self/status", "r");

	CHECK(status);
	while (fgets(line, sizeof(line), status))
		zombie |= strncmp(line, "State:\tZ", 8) == 0;
	fclose(status);
	return zombie;
}

static void *other(void *argument)
{
	const struct timespec some = { 0, 1000000 };
	struct answer answer;
	int tries;

	(void)argument;
	for (tries = 0; !main_has_ended(); tries++) {
		CHECK(tries < PATIENCE);
		nanosleep(&some, NULL);
	}
	is_the_same("plain", plain);
	is_the_same("event", with_event);
	is_the_same("routine", with_routine);
	is_the_same("port", with_port);

	/* A pointer that leads nowhere is told as ever. */
	CHECK(WSAIoctl(connection, codes[0], NULL, 0, (void *)16, ROOM, &answer.size, NULL, NULL) == SOCKET_ERROR);
	CHECK(WSAGetLastError() == WSAEFAULT);
	puts("wrong");
	exit(0); /* the thread that performs overlapped operations would live on */
}

int main(void)
{
	pthread_t thread;
	int i;

	for (i = 0; i < 2; i++) {
		plain(codes[i], &expected[i]);
		CHECK(expected[i].size > 0);
		expected[i] = lasting(codes[i], expected[i]);
	}
	CHECK(pthread_create(&thread, NULL, other, NULL) == 0);
	pthread_exit(NULL);
}
