/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * For tests only: see README.md.
 *
 * Puts redirect_ioctl() in the place of WSAIoctl() in the program that has loaded this library, before the program's
 * first line runs.
 *
 * A program calls other libraries' functions through a table of pointers, which the loader fills. The pointer to
 * WSAIoctl() is exchanged there, so that nothing is changed outside of this one process, and ws2_32.dll stays whole.
 */
#include <winsock2.h>

#include <string.h>

#include "engine.h"
#include "ioctl.h"

static BOOL exchange(unsigned char *program);
static BOOL exchange_in(IMAGE_THUNK_DATA *pointers);
static BOOL fail(const char *why);

BOOL WINAPI DllMain(HINSTANCE library, DWORD reason, void *reserved)
{
	(void)library, (void)reserved;
	if (reason != DLL_PROCESS_ATTACH)
		return TRUE;
	if (!engine_init())
		return fail("shim: this Wine's ntdll.dll does not export wine_server_handle_to_fd\n");
	if (!exchange((unsigned char *)GetModuleHandleA(NULL)))
		return fail("shim: the program does not import WSAIoctl, so its calls cannot be answered\n");
	return TRUE;
}

/* Looks through the tables of all libraries that the program imports from. */
static BOOL exchange(unsigned char *program)
{
	IMAGE_NT_HEADERS *headers = (IMAGE_NT_HEADERS *)(program + ((IMAGE_DOS_HEADER *)program)->e_lfanew);
	IMAGE_DATA_DIRECTORY *directory = &headers->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_IMPORT];
	IMAGE_IMPORT_DESCRIPTOR *from = (IMAGE_IMPORT_DESCRIPTOR *)(program + directory->VirtualAddress);
	BOOL found = FALSE;

	if (!directory->Size)
		return FALSE;
	for (; from->Name; from++)
		found |= exchange_in((IMAGE_THUNK_DATA *)(program + from->FirstThunk));
	return found;
}

/* The table ends with a null. Each function is known by its address, whatever name or number it was imported by. */
static BOOL exchange_in(IMAGE_THUNK_DATA *pointers)
{
	BOOL found = FALSE;

	for (; pointers->u1.Function; pointers++) {
		DWORD protection;

		if (pointers->u1.Function != (ULONG_PTR)WSAIoctl)
			continue;
		if (!VirtualProtect(pointers, sizeof(*pointers), PAGE_READWRITE, &protection))
			continue;
		pointers->u1.Function = (ULONG_PTR)redirect_ioctl;
		VirtualProtect(pointers, sizeof(*pointers), protection, &protection);
		found = TRUE;
	}
	return found;
}

/* The loader only says that a library has failed. */
static BOOL fail(const char *why)
{
	DWORD written;

	WriteFile(GetStdHandle(STD_ERROR_HANDLE), why, strlen(why), &written, NULL);
	return FALSE;
}
