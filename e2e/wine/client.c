/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A Windows program that connects to a port of 127.0.0.1, says that this was all, and prints what it got.
 *
 * usage: client PORT
 */
#include <winsock2.h>
#include <ws2tcpip.h>

#include <stdio.h>
#include <stdlib.h>

/* Of the library that the program is linked with, as programs in Rust are. */
BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T size);

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	unsigned char random;
	SOCKET server;
	WSADATA data;
	char byte;
	int got = 0;

	ProcessPrng(&random, sizeof(random));
	if (argc != 2 || WSAStartup(MAKEWORD(2, 2), &data))
		return 2;
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	to.sin_port = htons((unsigned short)atoi(argv[1]));
	server = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(server, (struct sockaddr *)&to, sizeof(to))) {
		fprintf(stderr, "client: connect: %d\n", WSAGetLastError());
		return 1;
	}
	send(server, "bytes", 5, 0);
	shutdown(server, SD_SEND);
	while (recv(server, &byte, 1, 0) == 1)
		got++;
	printf("%d\n", got);
	closesocket(server);
	return 0;
}
