#!/usr/bin/env bash
# Shares one run of bn-spec between two machines, and shows how: a server on each, and their addresses after --tx.
#
#     examples/ci/two-hosts.sh [BACKEND] [OPTION OF bn-spec run]...
#
# The machines are two network namespaces of this one, as root and with iproute2; else two addresses of the loopback
# device. PYTHON names the interpreter in which bn-spec is installed (pip install ., not -e).
set -euo pipefail

python=${PYTHON:-python3}
[ $# -gt 0 ] || set -- reference --profile smoke --requirement 'RUN-0[13]'
port=8888
folder=$(mktemp -d)
namespaces=()
servers=()

clean_up() {
    for server in "${servers[@]}"; do kill "$server" 2>/dev/null || true; done
    for namespace in "${namespaces[@]}"; do ip netns delete "$namespace" || true; done # its devices go with it
    rm -rf "$folder"
}
trap clean_up EXIT

# Makes a namespace with an address of its own, joined to this machine by a pair of devices.
add_machine() {
    local number=$1 name=bn-spec-$$-$1
    ip netns add "$name" 2>/dev/null || return 1
    namespaces+=("$name")
    ip link add "bn$$h$number" type veth peer name "bn$$n$number" netns "$name" &&
        ip address add "10.213.$number.1/30" dev "bn$$h$number" &&
        ip link set "bn$$h$number" up &&
        ip -n "$name" address add "10.213.$number.2/30" dev "bn$$n$number" &&
        ip -n "$name" link set "bn$$n$number" up
}

# Whoever reaches such a server may run anything on its machine: for networks that are trusted alone.
serve() {
    local address=$1
    shift
    mkdir "$folder/$address"
    (cd "$folder/$address" && exec "$@" "$python" -u -m execnet.script.socketserver "$address:$port" >log 2>&1) &
    servers+=($!)
    for _ in $(seq 100); do
        grep -q 'Accept loop' "$folder/$address/log" 2>/dev/null && return
        sleep 0.1
    done
    cat "$folder/$address/log" >&2
    return 1
}

if [ "$(id -u)" = 0 ] && command -v ip >/dev/null && add_machine 1 && add_machine 2; then
    echo "two network namespaces: ${namespaces[*]}"
    addresses=(10.213.1.2 10.213.2.2)
    serve "${addresses[0]}" ip netns exec "${namespaces[0]}"
    serve "${addresses[1]}" ip netns exec "${namespaces[1]}"
else
    echo "two addresses of the loopback device"
    addresses=(127.0.0.2 127.0.0.3)
    for address in "${addresses[@]}"; do serve "$address" env; done
fi

"$python" -m bn_spec.cli run "$@" -- --tx "socket=${addresses[0]}:$port//chdir=." --tx "socket=${addresses[1]}:$port//chdir=."
