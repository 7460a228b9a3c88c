/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A redirect service in C: two of Carnet's socket options are all it needs, and one header describes them.
 *
 * It says who goes where (pid, name, destination, how many services have had the flow) and carries every connection on
 * as it is. From the top of the repository:
 *
 *	service: examples/c/service.c crates/carnet-abi/include/carnet_abi.h
 *		gcc -O2 -Wall -Wextra -Werror -pthread -I crates/carnet-abi/include -o $@ examples/c/service.c
 *
 *	carnet run --through './service {port}' -- curl https://example.org/
 *
 * docs/socket-options.md lists every answer and every error.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "carnet_abi.h"

/* One direction of a flow. */
struct way {
	int from, to;
};

/* A socket address of either family, and its text. */
struct endpoint {
	union {
		struct sockaddr_in  v4;
		struct sockaddr_in6 v6;
		struct sockaddr     any;
	};
	socklen_t size;
	char      text[INET6_ADDRSTRLEN + sizeof("[]:65535")];
};

static int listen_on(const char *ip, unsigned short port);
static void reset_when_closed(int socket);
static void *serve(void *client);
static int go_on(int client);
static void *copy(void *way);

int main(int argc, char **argv)
{
	struct pollfd listeners[2];
	pthread_attr_t detached;
	int port = argc == 2 ? atoi(argv[1]) : 0;

	if (port < 1 || port > 65535) {
		fprintf(stderr, "usage: service PORT\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);

	/* Both families, for an IPv6-only socket cannot be sent to an IPv4 listener. */
	listeners[0] = (struct pollfd){ .fd = listen_on("127.0.0.1", port), .events = POLLIN };
	listeners[1] = (struct pollfd){ .fd = listen_on("::1", port), .events = POLLIN };
	for (;;) {
		if (poll(listeners, 2, -1) < 0 && errno != EINTR) {
			perror("service: poll");
			return 1;
		}
		for (int i = 0; i < 2; i++) {
			pthread_t thread;
			int client, err;

			if (!(listeners[i].revents & POLLIN))
				continue;
			client = accept4(listeners[i].fd, NULL, NULL, SOCK_CLOEXEC);
			err = client < 0 ? errno : pthread_create(&thread, &detached, serve, (void *)(long)client);
			if (!err)
				continue;
			fprintf(stderr, "service: accept: %s\n", strerror(err));
			if (client >= 0) {
				reset_when_closed(client);
				close(client);
			}
			poll(NULL, 0, 100); /* out of files or threads until other flows end */
		}
	}
}

static int listen_on(const char *ip, unsigned short port)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	bool is_v4 = inet_pton(AF_INET, ip, &v4.sin_addr) == 1;
	const struct sockaddr *addr = is_v4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6;
	int listener = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1;

	inet_pton(AF_INET6, ip, &v6.sin6_addr);
	if (!is_v4 && listener < 0 && errno == EAFNOSUPPORT)
		return -1; /* a host without IPv6; poll() passes over it */
	if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(listener, addr, is_v4 ? sizeof(v4) : sizeof(v6)) || listen(listener, SOMAXCONN)) {
		if (!is_v4 && errno == EADDRNOTAVAIL)
			return -1; /* the same, switched off */
		fprintf(stderr, "service: cannot listen on %s port %d: %s\n", ip, port, strerror(errno));
		exit(1);
	}
	return listener;
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
	int client = (int)(long)argument;
	int server = go_on(client);
	struct way out = { .from = client, .to = server }, back = { .from = server, .to = client };
	pthread_t answers;

	if (server >= 0 && pthread_create(&answers, NULL, copy, &back) == 0) {
		copy(&out);
		pthread_join(answers, NULL);
	} else {
		reset_when_closed(client); /* a plain close would look like an empty answer */
	}
	close(client);
	if (server >= 0)
		close(server);
	return NULL;
}

/* Why a connection has no record, for its errno. */
static const char *no_record(int err)
{
	switch (err) {
	case ENODATA:
		return "it was not redirected";
	case EIDRM:
		return "context lost: it was redirected, but its record is missing";
	case EOPNOTSUPP:
	case ENOPROTOOPT:
		return "no engine answers here: start the service in a cgroup which the engine covers";
	default:
		return strerror(err);
	}
}

/* IPv4 is stored as ::ffff:a.b.c.d. */
static void endpoint_from(struct endpoint *endpoint, const struct carnet_addr *addr)
{
	char ip[INET6_ADDRSTRLEN];
	struct in6_addr v6;

	memset(endpoint, 0, sizeof(*endpoint));
	memcpy(&v6, addr->ip, sizeof(v6));
	if (IN6_IS_ADDR_V4MAPPED(&v6)) {
		endpoint->size = sizeof(endpoint->v4);
		endpoint->v4.sin_family = AF_INET;
		endpoint->v4.sin_port = htons(addr->port);
		memcpy(&endpoint->v4.sin_addr, addr->ip + 12, 4);
		inet_ntop(AF_INET, &endpoint->v4.sin_addr, ip, sizeof(ip));
		snprintf(endpoint->text, sizeof(endpoint->text), "%s:%u", ip, addr->port);
	} else {
		endpoint->size = sizeof(endpoint->v6);
		endpoint->v6.sin6_family = AF_INET6;
		endpoint->v6.sin6_port = htons(addr->port);
		endpoint->v6.sin6_scope_id = addr->scope;
		endpoint->v6.sin6_addr = v6;
		inet_ntop(AF_INET6, &v6, ip, sizeof(ip));
		snprintf(endpoint->text, sizeof(endpoint->text), "[%s]:%u", ip, addr->port);
	}
}

/* Connects to where the client was going, with its record set; -1 where that cannot be. */
static int go_on(int client)
{
	unsigned char records[CARNET_RECORDS_MAX]; /* opaque: we carry it */
	char comm[sizeof(((struct carnet_origin *)0)->comm) + 1] = "";
	socklen_t records_size = sizeof(records);
	struct endpoint destination;
	struct carnet_flow flow;
	socklen_t flow_size = sizeof(flow);
	int server;

	if (getsockopt(client, SOL_CARNET, CARNET_FLOW, &flow, &flow_size) ||
	    getsockopt(client, SOL_CARNET, CARNET_RECORDS, records, &records_size)) {
		fprintf(stderr, "service: connection closed: %s\n", no_record(errno));
		return -1;
	}
	if (flow_size < sizeof(flow)) {
		fprintf(stderr, "service: connection closed: an answer of %u bytes\n", flow_size);
		return -1;
	}

	endpoint_from(&destination, &flow.remote);
	memcpy(comm, flow.origin.comm, sizeof(flow.origin.comm));
	/* The name is the process's own choice: print nothing of it that a terminal would obey. */
	for (char *c = comm; *c; c++)
		if (*c < '!' || *c > '~')
			*c = '?';
	printf("%u %s %s %u\n", flow.origin.pid, comm, destination.text, flow.depth);

	server = socket(destination.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* The record before connect(), or not at all: without it this would look like a new connection of our own. */
	if (server < 0 || setsockopt(server, SOL_CARNET, CARNET_RECORDS, records, records_size) ||
	    connect(server, &destination.any, destination.size)) {
		fprintf(stderr, "service: connection to %s closed: %s\n", destination.text, strerror(errno));
		if (server >= 0)
			close(server);
		return -1;
	}
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
