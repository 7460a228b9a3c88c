/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * For tests only: see README.md.
 *
 * The three codes of connection redirection, which Wine does not know, answered by Carnet's engine.
 *
 * What is checked comes in this order: where the size is to go, the socket, the parameters, the OVERLAPPED, and last
 * what the engine says. A call is over when it returns, also an overlapped one: its event is signalled, its routine is
 * queued, or it is refused.
 */
#define WIN32_NO_STATUS /* ntstatus.h has all of them */
#include "ioctl.h"
#undef WIN32_NO_STATUS

#include <string.h>

#include <winternl.h>
#include <ntstatus.h>

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
	DWORD          code;
	const void    *in;
	DWORD          in_size;
	void          *out;
	DWORD          out_size;
	DWORD         *returned;
	WSAOVERLAPPED *overlapped; /* NULL also where the socket takes no overlapped operations */

	LPWSAOVERLAPPED_COMPLETION_ROUTINE routine;

	DWORD bytes; /* returned; also where the buffer is too small */
};

/* A completion routine that waits for the thread to be alertable. */
struct completion {
	LPWSAOVERLAPPED_COMPLETION_ROUTINE routine;
	WSAOVERLAPPED                     *overlapped;
	DWORD                              bytes;
};

static int ask(SOCKET socket, struct call *call);
static int check(const struct call *call);
static int begin(const struct call *call);
static int query(int fd, struct call *call);
static int set(int fd, const struct call *call);
static int read_context(int fd, unsigned char *answer);
static int query_error(int fd, int error);
static int set_error(int error);
static int end(const struct call *call, int error);
static NTSTATUS status_of(int error);
static HANDLE event_of(const WSAOVERLAPPED *overlapped);

int WSAAPI redirect_ioctl(SOCKET socket, DWORD code, void *in, DWORD in_size, void *out, DWORD out_size,
			  DWORD *returned, WSAOVERLAPPED *overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine)
{
	struct call call = { .code = code, .in = in, .in_size = in_size, .out = out, .out_size = out_size,
			     .returned = returned, .overlapped = overlapped, .routine = routine };
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
		error = ask(socket, &call);
		if (returned)
			*returned = call.bytes;
	}
	WSASetLastError(error);
	return error ? SOCKET_ERROR : 0;
}

static int ask(SOCKET socket, struct call *call)
{
	BOOL is_overlapped;
	int fd = unix_socket(socket, &is_overlapped), error;

	if (fd < 0)
		return WSAENOTSOCK;
	if (!is_overlapped)
		call->overlapped = NULL;
	error = check(call);
	if (!error && call->overlapped)
		error = begin(call);
	if (!error) {
		error = call->code == SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS ? set(fd, call) : query(fd, call);
		if (call->overlapped)
			error = end(call, error);
	}
	unix_close(fd);
	return error;
}

static int check(const struct call *call)
{
	if (!call->returned && !call->overlapped)
		return WSAEFAULT;
	if (call->code != SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS) {
		if (call->in_size)
			return WSAEINVAL;
		return call->out_size && !call->out ? WSAEFAULT : 0;
	}
	/* No records are larger, and none have no bytes. */
	if (call->out_size || !call->in_size || call->in_size > CARNET_RECORDS_MAX)
		return WSAEINVAL;
	return IsBadReadPtr(call->in, call->in_size) ? WSAEFAULT : 0;
}

/* What does not begin leaves no trace in its OVERLAPPED. */
static int begin(const struct call *call)
{
	HANDLE event;

	if (IsBadWritePtr(call->overlapped, sizeof(*call->overlapped)))
		return WSAEFAULT;
	event = event_of(call->overlapped);
	/* With a routine, the event is the caller's to use. */
	return event && !call->routine && !ResetEvent(event) ? WSA_INVALID_HANDLE : 0;
}

static int query(int fd, struct call *call)
{
	unsigned char answer[ANSWER_MAX];
	int size;

	if (!unix_is_tcp(fd))
		return WSAENOPROTOOPT;

	size = call->code == SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS
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

/* Who is told by the call that it is refused is told by nothing else. */
static int end(const struct call *call, int error)
{
	struct completion *completion;
	HANDLE event = event_of(call->overlapped);

	call->overlapped->InternalHigh = call->bytes;
	call->overlapped->Internal = (ULONG)status_of(error);
	if (error)
		return error;
	if (!call->routine) {
		if (event)
			SetEvent(event);
		return 0;
	}
	completion = HeapAlloc(GetProcessHeap(), 0, sizeof(*completion));
	if (!completion)
		return WSAENOBUFS;
	*completion = (struct completion){ call->routine, call->overlapped, call->bytes };
	if (!QueueUserAPC(call_routine, GetCurrentThread(), (ULONG_PTR)completion)) {
		HeapFree(GetProcessHeap(), 0, completion);
		return WSAENOBUFS;
	}
	return 0;
}

/* The pairs of crates/carnet/src/winsock/linux/status.rs, as far as there are such errors here. */
static NTSTATUS status_of(int error)
{
	switch (error) {
	case 0:
		return STATUS_SUCCESS;
	case WSAEFAULT:
		return STATUS_ACCESS_VIOLATION;
	case WSAEACCES:
		return STATUS_ACCESS_DENIED;
	case ERROR_INSUFFICIENT_BUFFER:
		return STATUS_BUFFER_TOO_SMALL;
	case WSAENOBUFS:
		return STATUS_INSUFFICIENT_RESOURCES;
	case WSAEOPNOTSUPP:
		return STATUS_NOT_SUPPORTED;
	case WSAENOTCONN:
		return STATUS_INVALID_CONNECTION;
	case WSAEISCONN:
		return STATUS_CONNECTION_ACTIVE;
	case WSAEINVAL:
		return STATUS_NOT_FOUND;
	default:
		return (NTSTATUS)(0xC0070000 | error); /* the facility for such numbers */
	}
}

/* The lowest bit of an event says that no completion queue is to hear of it. */
static HANDLE event_of(const WSAOVERLAPPED *overlapped)
{
	return (HANDLE)((ULONG_PTR)overlapped->hEvent & ~(ULONG_PTR)1);
}
