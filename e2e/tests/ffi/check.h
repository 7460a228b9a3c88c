/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* For programs that include carnet_winsock.h: what is not so ends them, with the line and the call's error. */
#ifndef CARNET_TEST_CHECK_H
#define CARNET_TEST_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                 \
	do {                                                                             \
		if (!(condition)) {                                                      \
			fprintf(stderr, "line %d: %s (error %d)\n", __LINE__, #condition, \
				(int)WSAGetLastError());                                 \
			exit(1);                                                         \
		}                                                                        \
	} while (0)

#endif /* CARNET_TEST_CHECK_H */
