/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Prints what every function of carnet.h answers about the accepted connection that is its standard input. */
#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <carnet.h>

static carnet_error_t *error;

static void check(const char *what, int32_t kind)
{
	if (kind == CARNET_OK && !error)
		return;
	printf("%s failed: %s: %s\n", what, carnet_error_kind_name(kind), carnet_error_message(error));
	carnet_error_free(error);
	exit(1);
}

static void print_address(const char *what, const struct sockaddr_storage *address, size_t size)
{
	char ip[INET6_ADDRSTRLEN] = "none";
	unsigned port = 0;

	if (size == sizeof(struct sockaddr_in) && address->ss_family == AF_INET) {
		inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, ip, sizeof(ip));
		port = ntohs(((const struct sockaddr_in *)address)->sin_port);
	} else if (size == sizeof(struct sockaddr_in6) && address->ss_family == AF_INET6) {
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, ip, sizeof(ip));
		port = ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
	}
	printf("%s %s %u\n", what, ip, port);
}

static void print_flow(const carnet_flow_t *flow)
{
	struct sockaddr_storage address;
	size_t size = sizeof(address);
	char path[4096];
	uint32_t i;

	printf("id %016" PRIx64 "%016" PRIx64 "\n", carnet_flow_id_high(flow), carnet_flow_id_low(flow));
	check("destination", carnet_flow_destination(flow, &address, &size, &error));
	print_address("destination", &address, size);
	printf("destination_text %s\n", carnet_flow_destination_text(flow));
	size = sizeof(address);
	check("origin_destination", carnet_flow_origin_destination(flow, &address, &size, &error));
	print_address("origin_destination", &address, size);
	size = sizeof(address);
	check("origin_source", carnet_flow_origin_source(flow, &address, &size, &error));
	print_address("origin_source", &address, size);
	printf("process %u %" PRIu64 " %u %u %s\n", carnet_flow_pid(flow), carnet_flow_start_time(flow),
	       carnet_flow_uid(flow), carnet_flow_gid(flow), carnet_flow_comm(flow));
	size = sizeof(path);
	check("executable_path", carnet_flow_executable_path(flow, path, &size, &error));
	printf("executable %u %" PRIu64 " %s\n", carnet_flow_executable_device(flow),
	       carnet_flow_executable_inode(flow), size ? path : "none");
	printf("socket %" PRIu64 " %" PRIu64 " %u %u %" PRIu64 " %d %d\n", carnet_flow_cgroup_id(flow),
	       carnet_flow_netns_cookie(flow), carnet_flow_family(flow), carnet_flow_bound_interface(flow),
	       carnet_flow_time(flow), carnet_flow_is_inferred(flow), carnet_flow_is_ambiguous(flow));
	for (i = 0; i < carnet_flow_depth(flow); i++)
		printf("hop %u %u %" PRIu64 "\n", carnet_flow_hop_handle(flow, i), carnet_flow_hop_filter(flow, i),
		       carnet_flow_hop_time(flow, i));
}

int main(void)
{
	unsigned char bytes[CARNET_CONTEXT_MAX];
	struct sockaddr_storage address;
	carnet_flow_t *flow;
	uint32_t state;
	size_t size, needed = 0, i;
	int dialled;

	check("flow_query", carnet_flow_query(STDIN_FILENO, &flow, &error));
	print_flow(flow);
	carnet_flow_free(flow);

	check("state_query", carnet_state_query(STDIN_FILENO, &state, &error));
	printf("state %u\n", state);
	size = sizeof(bytes);
	check("context_query", carnet_context_query(STDIN_FILENO, bytes, &size, &error));
	printf("context ");
	for (i = 0; i < size; i++)
		printf("%02x", bytes[i]);
	printf("\n");
	size = sizeof(address);
	check("original_destination", carnet_original_destination(STDIN_FILENO, &address, &size, &error));
	print_address("original_destination", &address, size);

	/* How large a buffer must be is answered without one. */
	if (carnet_records_query(STDIN_FILENO, NULL, &needed, NULL) == CARNET_ERROR_BUFFER_TOO_SMALL)
		printf("needed %zu\n", needed);
	size = sizeof(bytes);
	check("records_query", carnet_records_query(STDIN_FILENO, bytes, &size, &error));
	printf("records %zu\n", size);

	/* Not on this one: it is connected. */
	printf("set %s\n", carnet_error_kind_name(carnet_records_set(STDIN_FILENO, bytes, size, NULL)));
	/* A bit is another. */
	dialled = socket(AF_INET, SOCK_STREAM, 0);
	bytes[100] ^= 1;
	printf("changed %s\n", carnet_error_kind_name(carnet_records_set(dialled, bytes, size, NULL)));
	printf("short %s\n", carnet_error_kind_name(carnet_records_set(dialled, bytes, size - 1, NULL)));
	close(dialled);

	dialled = carnet_dial(STDIN_FILENO, &error);
	check("dial", carnet_error_kind(error));
	size = write(dialled, "from C", 6);
	printf("dialled %zu\n", size);
	close(dialled);
	return 0;
}
