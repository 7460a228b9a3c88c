/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The three system calls which Node does not have, for examples/node/service.js: see there for how to build it.
 *
 *	socket(family)                         a new TCP socket, which has not connected
 *	getsockopt(fd, level, option, size)    the answer, as a Buffer of at most size bytes
 *	setsockopt(fd, level, option, value)   value: a Buffer
 *
 * A failed call throws an Error with the property errno. Node-API is stable: what is built once runs in later versions.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define NAPI_VERSION 8
#include <node_api.h>

#define MOST 4096 /* bytes of an option; the kernel program sees one page at most */

static napi_value new_socket(napi_env env, napi_callback_info info);
static napi_value get_option(napi_env env, napi_callback_info info);
static napi_value set_option(napi_env env, napi_callback_info info);

NAPI_MODULE_INIT(/* env, exports */)
{
	const napi_property_descriptor functions[] = {
		{ .utf8name = "socket", .method = new_socket, .attributes = napi_enumerable },
		{ .utf8name = "getsockopt", .method = get_option, .attributes = napi_enumerable },
		{ .utf8name = "setsockopt", .method = set_option, .attributes = napi_enumerable },
	};

	napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions);
	return exports;
}

/* Throws what the system call says. JavaScript goes on when the function has returned. */
static napi_value fails(napi_env env, const char *call, int err)
{
	char text[128];
	napi_value message, error, number;

	snprintf(text, sizeof(text), "%s: %s", call, strerror(err));
	if (napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message) == napi_ok &&
	    napi_create_error(env, NULL, message, &error) == napi_ok &&
	    napi_create_int32(env, err, &number) == napi_ok &&
	    napi_set_named_property(env, error, "errno", number) == napi_ok)
		napi_throw(env, error);
	return NULL;
}

/* The first arguments of a call, all of them numbers. The rest is left in `last`, where one more is wanted. */
static int numbers(napi_env env, napi_callback_info info, size_t count, int32_t *into, napi_value *last)
{
	size_t wanted = count + (last != NULL), given = wanted;
	napi_value arguments[4];

	if (napi_get_cb_info(env, info, &given, arguments, NULL, NULL) != napi_ok || given < wanted)
		goto wrong;
	for (size_t i = 0; i < count; i++)
		if (napi_get_value_int32(env, arguments[i], &into[i]) != napi_ok)
			goto wrong;
	if (last)
		*last = arguments[count];
	return 1;
wrong:
	napi_throw_type_error(env, NULL, "numbers are wanted, and for setsockopt() a Buffer after them");
	return 0;
}

static napi_value new_socket(napi_env env, napi_callback_info info)
{
	napi_value result;
	int32_t family;
	int fd;

	if (!numbers(env, info, 1, &family, NULL))
		return NULL;
	fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fails(env, "socket", errno);
	return napi_create_int32(env, fd, &result) == napi_ok ? result : NULL;
}

static napi_value get_option(napi_env env, napi_callback_info info)
{
	int32_t argument[4]; /* fd, level, option, size */
	unsigned char value[MOST];
	napi_value result;
	socklen_t size;

	if (!numbers(env, info, 4, argument, NULL))
		return NULL;
	size = argument[3] < 0 || argument[3] > MOST ? MOST : argument[3];
	if (getsockopt(argument[0], argument[1], argument[2], value, &size))
		return fails(env, "getsockopt", errno);
	return napi_create_buffer_copy(env, size, value, NULL, &result) == napi_ok ? result : NULL;
}

static napi_value set_option(napi_env env, napi_callback_info info)
{
	int32_t argument[3]; /* fd, level, option */
	napi_value buffer;
	size_t size;
	void *value;

	if (!numbers(env, info, 3, argument, &buffer))
		return NULL;
	if (napi_get_buffer_info(env, buffer, &value, &size) != napi_ok) {
		napi_throw_type_error(env, NULL, "the value of an option is a Buffer");
		return NULL;
	}
	if (setsockopt(argument[0], argument[1], argument[2], value, size))
		return fails(env, "setsockopt", errno);
	return NULL;
}
