#!/usr/bin/env bash
# Makes a directory from which a Windows program is started as a redirect service: a Wine of its own, and a launcher.
#
# usage: e2e/wine/prepare.sh DIR PROGRAM.exe LIBRARY.dll
#   DIR          new; carnet run --through 'DIR/windows-service {port}' -- CMD
#   PROGRAM.exe  the service; its arguments are the launcher's
#   LIBRARY.dll  the bcryptprimitives.dll that it gets
#
# The Wine prefix takes little space and no time: its libraries are links to Wine's own, and wineboot, which would fill
# it and start Windows' services, does not run. A program that only has sockets and a console misses nothing.
set -euo pipefail
[ $# = 3 ] || { echo "usage: e2e/wine/prepare.sh DIR PROGRAM.exe LIBRARY.dll" >&2; exit 2; }
program=$(realpath "$2")
library=$(realpath "$3")
wine=/usr/lib/wine/wine64
libraries=/usr/lib/x86_64-linux-gnu/wine/x86_64-windows
for needed in "$wine" "$libraries/ntdll.dll" "$program" "$library"; do
    [ -e "$needed" ] || { echo "prepare: no $needed (Wine: scripts/install-deps.sh windows)" >&2; exit 1; }
done

mkdir -p "$1"
cd "$1"
mkdir -p prefix/drive_c/windows/system32 prefix/dosdevices program tmp
ln -s ../drive_c prefix/dosdevices/c:
ln -s / prefix/dosdevices/z:
ln -s "$libraries"/*.dll prefix/drive_c/windows/system32/
echo disable >prefix/.update-timestamp
# Windows looks for libraries beside the program first.
ln -s "$program" "program/$(basename "$program")"
ln -s "$library" program/bcryptprimitives.dll

# The first process of a prefix starts its wineserver: here, in the service's own cgroup.
cat >windows-service <<END
#!/bin/sh
unset LD_LIBRARY_PATH
export WINEPREFIX='$PWD/prefix' TMPDIR='$PWD/tmp' WINEDEBUG=fixme-all,err-environ
export WINEDLLOVERRIDES='wineboot.exe=d;bcryptprimitives=n'
exec $wine '$PWD/program/$(basename "$program")' "\$@"
END
chmod +x windows-service
