/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One direction of a flow, carried on as it is. */
#ifndef RELAY_H
#define RELAY_H

#include <carnet_winsock.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* Windows sends no signals */
#endif

struct way {
	SOCKET from, to;
};

/* Ends the reads of the other direction, without a word to the peer; closing then sends a reset. */
static void reset_when_closed(SOCKET socket)
{
	struct linger reset;

	reset.l_onoff = 1;
	reset.l_linger = 0;
	setsockopt(socket, SOL_SOCKET, SO_LINGER, (const char *)&reset, sizeof(reset));
	shutdown(socket, SD_RECEIVE);
}

static int send_all(SOCKET socket, const char *data, int size)
{
	while (size > 0) {
		int sent = (int)send(socket, data, (size_t)size, MSG_NOSIGNAL);

		if (sent < 0)
			return -1;
		data += sent;
		size -= sent;
	}
	return 0;
}

/* One direction, to its end; the other goes on, for a client may close its half and still wait for the answer. */
static void *copy(void *argument)
{
	const struct way *way = argument;
	char data[16384];
	int size;

	while ((size = (int)recv(way->from, data, sizeof(data), 0)) > 0) {
		if (send_all(way->to, data, size)) {
			size = -1;
			break;
		}
	}
	if (size == 0) {
		shutdown(way->to, SD_SEND);
	} else {
		reset_when_closed(way->from);
		reset_when_closed(way->to);
	}
	return NULL;
}

#endif /* RELAY_H */
