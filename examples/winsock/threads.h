/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Threads: begin() and join(), the one thing here for which Windows and Linux have different calls. */
#ifndef THREADS_H
#define THREADS_H

#include <stdlib.h>

#include <carnet_winsock.h>

#ifdef _WIN32
typedef HANDLE thread;

struct start {
	void *(*run)(void *);
	void *argument;
};

static DWORD WINAPI run_thread(LPVOID argument)
{
	struct start start = *(struct start *)argument;

	free(argument);
	start.run(start.argument);
	return 0;
}

static int begin(thread *thread, void *(*run)(void *), void *argument)
{
	struct start *start = malloc(sizeof(*start));

	if (!start)
		return -1;
	start->run = run;
	start->argument = argument;
	*thread = CreateThread(NULL, 0, run_thread, start, 0, NULL);
	if (!*thread)
		free(start);
	return *thread ? 0 : -1;
}

static void join(thread thread)
{
	WaitForSingleObject(thread, INFINITE);
	CloseHandle(thread);
}

/* Nobody will join it. */
static void leave(thread thread)
{
	CloseHandle(thread);
}
#else /* not Windows */
#include <pthread.h>

typedef pthread_t thread;

static int begin(thread *thread, void *(*run)(void *), void *argument)
{
	return pthread_create(thread, NULL, run, argument);
}

static void join(thread thread)
{
	pthread_join(thread, NULL);
}

static void leave(thread thread)
{
	pthread_detach(thread);
}
#endif

#endif /* THREADS_H */
