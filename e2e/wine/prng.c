/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * bcryptprimitives.dll as far as Rust's standard library needs it, for versions of Wine that have none. For tests only.
 */
#include <windows.h>

/* What advapi32 exports under this name is known as RtlGenRandom. */
BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG size);

/* For who finds a file of this name and wonders. */
static const char what[] __attribute__((used)) = "This library is for Carnet's tests. It is not a part of Windows.";

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T size)
{
	while (size) {
		ULONG part = size > MAXLONG ? MAXLONG : (ULONG)size;

		if (!SystemFunction036(buffer, part))
			return FALSE;
		buffer += part;
		size -= part;
	}
	return TRUE;
}
