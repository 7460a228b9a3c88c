#!/usr/bin/env bash
# A client's connections through two independent services to an HTTP and a TLS server, everything on this machine.
# `make demo` installs what is missing, builds, and runs this as root.
set -euo pipefail
cd "$(dirname "$0")/.."

carnet=${CARNET:-target/release/carnet}
work=$(mktemp -d)
chmod 755 "$work" # under sudo the client is the user's
started=()

finish() {
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap finish EXIT

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

wait_for() {
    for _ in $(seq 200); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
        sleep 0.05
    done
    echo "demo: nothing listens on port $1 after 10 s; what the servers printed:" >&2
    cat "$work"/*.log >&2
    exit 1
}

say() {
    if [ -t 1 ]; then printf '\n\033[1m%s\033[0m\n' "$*"; else printf '\n%s\n' "$*"; fi
}

show() {
    local word line="# carnet"
    for word in "$@"; do
        if [[ $word == *" "* ]]; then word="'$word'"; fi
        line+=" $word"
    done
    echo "$line"
    "$carnet" "$@"
}

http=$(free_port)
tls=$(free_port)
mkdir "$work/site"
echo 'Hello from the HTTP server.' >"$work/site/index.html"
python3 -m http.server --bind 127.0.0.1 --directory "$work/site" "$http" >"$work/http.log" 2>&1 &
started+=($!)
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=demo.example \
    -addext subjectAltName=DNS:demo.example -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
openssl s_server -quiet -accept "127.0.0.1:$tls" -cert "$work/cert.pem" -key "$work/key.pem" -WWW \
    >"$work/tls.log" 2>&1 < /dev/null &
started+=($!)
wait_for "$http"
wait_for "$tls"

cat >"$work/client.sh" <<CLIENT
set -e
echo "client: asking http://127.0.0.1:$http/"
curl --silent --show-error --max-time 10 "http://127.0.0.1:$http/"
echo "client: asking https://demo.example:$tls/, TLS from here to the server"
curl --silent --show-error --max-time 10 --cacert "$work/cert.pem" --resolve "demo.example:$tls:127.0.0.1" \
    --output /dev/null --write-out 'client: the peer is %{remote_ip}:%{remote_port}, as far as curl can tell\n' \
    "https://demo.example:$tls/Makefile"
CLIENT

say "1. Through the built-in service and one in Python, which says who goes where; then what each connection did:"
show run --verbose --through inspect --through 'python3 examples/python/service.py {port}' -- bash "$work/client.sh"

say "2. The same in the other order, as JSON; the chain says who has had each flow:"
show run --json --through 'python3 examples/python/service.py {port}' --through inspect -- bash "$work/client.sh"

say "3. No rule of a firewall was touched. What is left in the kernel:"
if PATH="$PATH:/usr/sbin:/sbin" bpftool version >/dev/null 2>&1; then
    scripts/check-leftovers.sh
else
    echo "nobody knows: bpftool does not run here (on Ubuntu it needs the package linux-tools-$(uname -r))"
fi
