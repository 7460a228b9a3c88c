/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A redirect service in C on the library, libcarnet: it finds out who goes where and dials on in two calls.
 *
 * It says who goes where (pid, name, destination, how many services have had the flow), carries every connection on as
 * it is, and ends cleanly on SIGTERM. With the library installed (`make install`):
 *
 *	cc -O2 -Wall -Wextra -pthread -o service examples/c/library_service.c $(pkg-config --cflags --libs carnet)
 *	carnet run --through './service {port}' -- curl https://example.org/
 *
 * docs/c-api.md lists every function. service.c beside this file does the same without a library.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <carnet.h>

#define DIAL_MILLISECONDS 20000

/* One connection: its two threads, one for each direction. */
struct flow {
	int          client, server; /* -1: not dialled yet */
	pthread_t    thread;
	bool         over;
	struct flow *next;
};

/* One direction of it. */
struct way {
	int from, to;
};

static volatile sig_atomic_t stopping;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all flows' members */
static struct flow *flows;

static int listen_on(int family, unsigned short port);
static void accept_from(int listener);
static void reset_when_closed(int socket);
static void *serve(void *flow);
static int go_on(int client);
static void *copy(void *way);
static void join_flows(bool all);

static void stop(int signal)
{
	(void)signal;
	stopping = 1;
}

int main(int argc, char **argv)
{
	struct sigaction on_end = { .sa_handler = stop };
	struct pollfd listeners[2];
	sigset_t ends, before;
	int port = argc == 2 ? atoi(argv[1]) : 0;

	if (port < 1 || port > 65535) {
		fprintf(stderr, "usage: service PORT\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);

	/* Signals come while this thread waits, and at no other time. */
	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	pthread_sigmask(SIG_BLOCK, &ends, &before);
	sigaction(SIGTERM, &on_end, NULL);
	sigaction(SIGINT, &on_end, NULL);

	/* Both families, for an IPv6-only socket cannot be sent to an IPv4 listener. */
	listeners[0] = (struct pollfd){ .fd = listen_on(AF_INET, port), .events = POLLIN };
	listeners[1] = (struct pollfd){ .fd = listen_on(AF_INET6, port), .events = POLLIN };
	while (!stopping) {
		if (ppoll(listeners, 2, NULL, &before) < 0)
			continue; /* a signal */
		for (int i = 0; i < 2; i++)
			if (listeners[i].revents & POLLIN)
				accept_from(listeners[i].fd);
		join_flows(false);
	}

	for (int i = 0; i < 2; i++)
		if (listeners[i].fd >= 0)
			close(listeners[i].fd);
	join_flows(true);
	return 0;
}

static int listen_on(int family, unsigned short port)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_loopback };
	bool is_v4 = family == AF_INET;
	int listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1;

	v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (!is_v4 && listener < 0 && errno == EAFNOSUPPORT)
		return -1; /* a host without IPv6; poll() passes over it */
	if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(listener, is_v4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6, is_v4 ? sizeof(v4) : sizeof(v6)) ||
	    listen(listener, SOMAXCONN)) {
		if (!is_v4 && errno == EADDRNOTAVAIL) {
			close(listener);
			return -1; /* the same, switched off */
		}
		fprintf(stderr, "service: cannot listen on port %d: %s\n", port, strerror(errno));
		exit(1);
	}
	return listener;
}

static void accept_from(int listener)
{
	struct flow *flow = calloc(1, sizeof(*flow));
	int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	int err = client < 0 ? errno : flow ? 0 : ENOMEM;

	if (!err) {
		*flow = (struct flow){ .client = client, .server = -1, .next = flows };
		err = pthread_create(&flow->thread, NULL, serve, flow);
	}
	if (!err) {
		flows = flow;
		return;
	}
	fprintf(stderr, "service: accept: %s\n", strerror(err));
	free(flow);
	if (client >= 0) {
		reset_when_closed(client);
		close(client);
	}
	poll(NULL, 0, 100); /* out of files or threads until other flows end */
}

/* Ends the reads of the other direction, without a word to the peer; closing then sends a reset. */
static void reset_when_closed(int socket)
{
	struct linger reset = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(socket, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	shutdown(socket, SHUT_RD);
}

static void *serve(void *argument)
{
	struct flow *flow = argument;
	int server = go_on(flow->client);
	struct way out = { .from = flow->client, .to = server }, back = { .from = server, .to = flow->client };
	pthread_t answers;

	pthread_mutex_lock(&lock);
	flow->server = server;
	if (stopping && server >= 0)
		shutdown(server, SHUT_RDWR);
	pthread_mutex_unlock(&lock);

	if (server >= 0 && pthread_create(&answers, NULL, copy, &back) == 0) {
		copy(&out);
		pthread_join(answers, NULL);
	} else {
		reset_when_closed(flow->client); /* a plain close would look like an empty answer */
	}

	pthread_mutex_lock(&lock);
	flow->over = true;
	close(flow->client);
	if (server >= 0)
		close(server);
	pthread_mutex_unlock(&lock);
	return NULL;
}

/* Connects to where the client was going, with its record set; -1 where that cannot be. */
static int go_on(int client)
{
	carnet_error_t *error = NULL;
	carnet_flow_t *flow = NULL;
	char comm[64];
	int server = -1;

	if (carnet_flow_query(client, &flow, &error) == CARNET_OK) {
		/* The name is the process's own choice: print nothing of it that a terminal would obey. */
		snprintf(comm, sizeof(comm), "%s", carnet_flow_comm(flow));
		for (char *c = comm; *c; c++)
			if (*c < '!' || *c > '~')
				*c = '?';
		printf("%u %s %s %u\n", carnet_flow_pid(flow), comm, carnet_flow_destination_text(flow),
		       carnet_flow_depth(flow));
		server = carnet_dial_timeout(client, DIAL_MILLISECONDS, &error);
	}
	if (server < 0)
		fprintf(stderr, "service: connection closed: %s\n", carnet_error_message(error));
	carnet_flow_free(flow);
	carnet_error_free(error);
	return server;
}

static bool send_all(int socket, const char *data, size_t size)
{
	while (size) {
		ssize_t sent = send(socket, data, size, MSG_NOSIGNAL);

		if (sent < 0)
			return false;
		data += sent;
		size -= sent;
	}
	return true;
}

/* One direction, to its end; the other goes on, for a client may close its half and still wait for the answer. */
static void *copy(void *argument)
{
	const struct way *way = argument;
	char data[32768];
	ssize_t size;

	while ((size = recv(way->from, data, sizeof(data), 0)) > 0) {
		if (!send_all(way->to, data, size)) {
			size = -1;
			break;
		}
	}
	if (size == 0) {
		shutdown(way->to, SHUT_WR);
	} else {
		reset_when_closed(way->from);
		reset_when_closed(way->to);
	}
	return NULL;
}

/* Takes the flows that are over off the list, or ends them all. */
static void join_flows(bool all)
{
	struct flow **at = &flows;

	while (*at) {
		struct flow *flow = *at;
		bool over;

		pthread_mutex_lock(&lock);
		over = flow->over;
		if (all && !over) {
			shutdown(flow->client, SHUT_RDWR);
			if (flow->server >= 0)
				shutdown(flow->server, SHUT_RDWR);
		}
		pthread_mutex_unlock(&lock);
		if (!all && !over) {
			at = &flow->next;
			continue;
		}
		pthread_join(flow->thread, NULL);
		*at = flow->next;
		free(flow);
	}
}
