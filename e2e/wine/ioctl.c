/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The three codes of connection redirection, which Wine does not know, answered by Carnet's engine.
 *
 * What is checked comes in this order: where the size is to go, the socket, the parameters, and last what the engine
 * says. A call is over when it returns, also an overlapped one: its event is signalled, its routine is queued.
 */
#include "ioctl.h"

#include <string.h>

#include "engine.h"

/* The numbers of mstcpip.h. The headers of mingw-w64 have none of them. */
#define SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS 0x980000DC
#define SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT 0x980000DD
#define SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS   0x980000DE

/* Stands before the context, so that a service knows it for Carnet's own: then come the flow and the filter's bytes. */
#define CONTEXT_MAGIC "CARNETF1"
#define MAGIC_SIZE    8

/* The largest answer there is. */
#define ANSWER_MAX (MAGIC_SIZE + sizeof(struct carnet_flow) + CARNET_CONTEXT_MAX)

/* One call. */
struct call {
	const void *in;
	DWORD       in_size;
	void       *out;
	DWORD       out_size;
	DWORD       bytes; /* returned; also where the buffer is too small */
};

/* A completion routine that waits for the thread to be alertable. */
struct completion {
	LPWSAOVERLAPPED_COMPLETION_ROUTINE routine;
	WSAOVERLAPPED                     *overlapped;
	DWORD                              bytes;
};

static int ask(SOCKET socket, DWORD code, struct call *call);
static int query(int fd, DWORD code, struct call *call);
static int set(int fd, const struct call *call);
static int read_context(int fd, unsigned char *answer);
static int query_error(int fd, int error);
static int set_error(int error);
static int complete(WSAOVERLAPPED *overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine, DWORD bytes);

int WSAAPI redirect_ioctl(SOCKET socket, DWORD code, void *in, DWORD in_size, void *out, DWORD out_size,
			  DWORD *returned, WSAOVERLAPPED *overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine)
{
	struct call call = { .in = in, .in_size = in_size, .out = out, .out_size = out_size };
	int error = WSAEFAULT;

	switch (code) {
	case SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS:
	case SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT:
	case SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS:
		break;
	default:
		return WSAIoctl(socket, code, in, in_size, out, out_size, returned, overlapped, routine);
	}
	if (returned ? !IsBadWritePtr(returned, sizeof(*returned)) : overlapped != NULL) {
		error = ask(socket, code, &call);
		if (returned)
			*returned = call.bytes;
	}
	if (!error && overlapped)
		error = complete(overlapped, routine, call.bytes);
	WSASetLastError(error);
	return error ? SOCKET_ERROR : 0;
}

static int ask(SOCKET socket, DWORD code, struct call *call)
{
	int fd = unix_socket(socket), error;

	if (fd < 0)
		return WSAENOTSOCK;
	error = code == SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS ? set(fd, call) : query(fd, code, call);
	unix_close(fd);
	return error;
}

static int query(int fd, DWORD code, struct call *call)
{
	unsigned char answer[ANSWER_MAX];
	int size;

	if (call->in_size)
		return WSAEINVAL;
	if (call->out_size && !call->out)
		return WSAEFAULT;
	if (!unix_is_tcp(fd))
		return WSAENOPROTOOPT;

	size = code == SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS
		       ? engine_get(fd, CARNET_RECORDS, answer, sizeof(answer))
		       : read_context(fd, answer);
	if (size < 0)
		return query_error(fd, size);
	call->bytes = size;
	if (call->out_size < call->bytes)
		return ERROR_INSUFFICIENT_BUFFER;
	if (IsBadWritePtr(call->out, size)) {
		call->bytes = 0;
		return WSAEFAULT;
	}
	memcpy(call->out, answer, size);
	return 0;
}

/* The magic, the flow, and the filter's own bytes where it gives some. */
static int read_context(int fd, unsigned char *answer)
{
	unsigned char *flow = answer + MAGIC_SIZE, *context;
	int size = engine_get(fd, CARNET_FLOW, flow, sizeof(struct carnet_flow)), more;

	if (size < 0)
		return size;
	memcpy(answer, CONTEXT_MAGIC, MAGIC_SIZE);
	context = flow + size;
	more = engine_get(fd, CARNET_CONTEXT, context, CARNET_CONTEXT_MAX);
	if (more < 0 && more != LINUX_ENOENT)
		return more;
	return MAGIC_SIZE + size + (more < 0 ? 0 : more);
}

static int set(int fd, const struct call *call)
{
	int error;

	/* No records are larger, and none have no bytes. */
	if (call->out_size || !call->in_size || call->in_size > CARNET_RECORDS_MAX)
		return WSAEINVAL;
	if (IsBadReadPtr(call->in, call->in_size))
		return WSAEFAULT;
	if (!unix_is_tcp(fd))
		return WSAEINVAL;
	error = engine_set_records(fd, call->in, call->in_size);
	return error ? set_error(error) : 0;
}

/* Windows has one error for a connection that was not redirected and one whose record is lost, and so has this. */
static int query_error(int fd, int error)
{
	switch (error) {
	case LINUX_ENODATA:
		return unix_is_connected(fd) ? WSAEINVAL : WSAENOTCONN;
	case LINUX_EIDRM:
	case LINUX_EINVAL:
	case LINUX_EMSGSIZE:
		return WSAEINVAL;
	case LINUX_EOPNOTSUPP:
	case LINUX_ENOPROTOOPT:
		return WSAEOPNOTSUPP; /* no engine */
	default:
		return WSAENOBUFS;
	}
}

static int set_error(int error)
{
	switch (error) {
	case LINUX_EACCES:
		return WSAEACCES;
	case LINUX_EISCONN:
		return WSAEISCONN;
	case LINUX_EOPNOTSUPP:
	case LINUX_ENOPROTOOPT:
		return WSAEOPNOTSUPP; /* no engine */
	case LINUX_ENOBUFS:
	case LINUX_ENOMEM:
		return WSAENOBUFS;
	default:
		return WSAEINVAL; /* of a wrong size or tag, too old, another engine's; or the socket listens */
	}
}

static void CALLBACK call_routine(ULONG_PTR argument)
{
	struct completion completion = *(struct completion *)argument;

	HeapFree(GetProcessHeap(), 0, (void *)argument);
	completion.routine(0, completion.bytes, completion.overlapped, 0);
}

/* As Windows leaves an operation that was over at once: with a routine, nobody looks at the event. */
static int complete(WSAOVERLAPPED *overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine, DWORD bytes)
{
	struct completion *completion;

	overlapped->Internal = 0; /* STATUS_SUCCESS */
	overlapped->InternalHigh = bytes;
	if (!routine) {
		/* The lowest bit of an event says that no completion queue is to hear of it. */
		if (overlapped->hEvent)
			SetEvent((HANDLE)((ULONG_PTR)overlapped->hEvent & ~(ULONG_PTR)1));
		return 0;
	}
	completion = HeapAlloc(GetProcessHeap(), 0, sizeof(*completion));
	if (!completion)
		return WSAENOBUFS;
	*completion = (struct completion){ .routine = routine, .overlapped = overlapped, .bytes = bytes };
	if (!QueueUserAPC(call_routine, GetCurrentThread(), (ULONG_PTR)completion)) {
		HeapFree(GetProcessHeap(), 0, completion);
		return WSAENOBUFS;
	}
	return 0;
}
