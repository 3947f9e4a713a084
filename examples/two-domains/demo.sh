#!/usr/bin/env bash
# Two domains, two tenants with the same prefixes, one overlay: builds the lab, shows that it forwards and how, leaves it
# up. `make demo` builds weft first.
set -euo pipefail
weft=$(realpath "${WEFT:-$(dirname "$0")/../../target/demo/weft}")
cd "$(dirname "$0")"

lab=two-domains
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' off=$'\e[0m'; else bold='' dim='' red='' green='' off=''; fi
started=$(date +%s%N)

say() { printf '\n%s== %s%s\n' "$bold" "$*" "$off"; }
shown() { printf '%s$ %s%s\n' "$dim" "$*" "$off"; }
fail() { printf '%s%s%s\n' "$red" "$*" "$off" >&2; exit 1; }
in_node() { local node=$1; shift; "$weft" lab exec --lab "$lab" "$node" -- "$@"; }
api() { in_node "$1" curl -fsS --unix-socket /run/weft/api.sock "http://localhost/api/v1/$2"; }

say "The lab: nine nodes in network namespaces, five of them routers"
shown "weft lab up topology.clab.yaml"
"$weft" lab up --reconfigure topology.clab.yaml
cat <<'PICTURE'

     domain A, AS 64601           transit, AS 64999          domain B, AS 64602
  red-a  ┐                                                                ┌ red-b
         ├─ a1 ───────────── ea ──────────── t ──────────── eb ──────── b1 ─┤
  blue-a ┘                                                                └ blue-b
  10.0.1.0/24 (both)    knows no tenant, and no address        10.0.2.0/24 (both)
                        inside a domain but the edges'
PICTURE

say "Waiting until every tenant route is in the kernel"
installed() { # router, prefix: both tenants' kernels hold it
  local tenant
  for tenant in red blue; do
    [ "$(api "$1" "tenants/$tenant/routes?prefix=$2" 2>/dev/null | jq -r '.items[0].kernel.code')" = installed ] || return 1
  done
}
deadline=$((SECONDS + 20))
until installed a1 10.0.2.0/24 && installed b1 10.0.1.0/24 \
  && [ "$(api ea 'routes?prefix=192.0.2.22/32' | jq '.items | length')" = 1 ]; do
  if [ $SECONDS -ge $deadline ]; then
    for node in a1 ea t eb b1; do printf '\n-- %s\n' "$node"; in_node "$node" weft show neighbors || true; "$weft" lab logs --lab "$lab" "$node" | tail -5; done
    fail "not converged within 20 s: the sessions and logs above say why"
  fi
  sleep 0.05
done
printf 'converged %d ms after the start\n' $((($(date +%s%N) - started) / 1000000))

say "Red talks to red, blue to blue, across both domains, from the same addresses to the same addresses"
for tenant in red blue; do
  shown "weft lab exec $tenant-a -- ping -c 5 10.0.2.10"
  in_node "$tenant-a" ping -c 5 -i 0.05 -W 2 10.0.2.10 | tail -3
done

say "And never to each other: 100 packets sent by red, counted where they arrive"
for host in red-b blue-b; do
  in_node "$host" nft 'add table inet count; flush table inet count; add chain inet count in { type filter hook input priority 0; }; add rule inet count in icmp type echo-request counter'
done
in_node red-a ping -c 100 -i 0.002 -W 2 -q 10.0.2.10 >/dev/null
count() { in_node "$1" nft -j list chain inet count in | jq '[.nftables[].rule?.expr[]?.counter.packets? // empty] | add'; }
to_red=$(count red-b) to_blue=$(count blue-b)
printf 'red-b  (10.0.2.10): %3d packets\nblue-b (10.0.2.10): %3d packets\n' "$to_red" "$to_blue"
[ "$to_red" = 100 ] && [ "$to_blue" = 0 ] || fail "red must be 100 and blue 0"

say "The path of one packet: which tunnel is on which link"
for spy in ea:core ea:wan eb:wan b1:core; do
  in_node "${spy%:*}" timeout 5 tcpdump -lnni "${spy#*:}" -c 1 'udp dst port 4789' >"/tmp/weft-demo-${spy/:/-}.$$" 2>/dev/null &
done
# Until something is seen everywhere: the spies need a moment to begin.
for _ in $(seq 50); do in_node red-a ping -c 1 -W 1 -q 10.0.2.10 >/dev/null; [ -n "$(jobs -rp)" ] || break; done
wait
printf 'red-a 10.0.1.10 > 10.0.2.10\n'
for spy in ea:core ea:wan eb:wan b1:core; do
  line=$(grep -m1 VXLAN "/tmp/weft-demo-${spy/:/-}.$$" || true); rm -f "/tmp/weft-demo-${spy/:/-}.$$"
  case $spy in ea:core) link='a1 - ea' ;; ea:wan) link='ea - t ' ;; eb:wan) link='t  - eb' ;; b1:core) link='eb - b1' ;; esac
  outer=$(sed -nE 's/.* IP ([0-9.]+)\.[0-9]+ > ([0-9.]+)\.4789: .*/\1 > \2/p' <<<"$line")
  vni=$(sed -nE 's/.*vni ([0-9]+).*/\1/p' <<<"$line")
  printf '  on %s   outer %-25s VNI %s\n' "$link" "$outer" "$vni"
done

say "Tenant red's table on b1"
shown "weft lab exec b1 -- weft show tenants red"
in_node b1 weft show tenants red

say "How it got there: a large community that plain BGP carried, field by field"
community=$(api b1 'tenants/red/routes?prefix=10.0.1.0/24' | jq -r '.items[0].paths[0].label.community')
shown "weft show labels $community"
"$weft" show labels "$community"

say "The same by REST"
shown "curl --unix-socket /run/weft/api.sock http://localhost/api/v1/tenants/red/routes?prefix=10.0.1.0/24"
api b1 'tenants/red/routes?prefix=10.0.1.0/24' | jq .

say "What the transit has of all this: routes like any other"
shown "weft lab exec t -- weft show routes"
in_node t weft show routes

printf '\n%sAll of it in %d s.%s The lab stays up. Look around:\n' "$green" $(((($(date +%s%N) - started) / 1000000000) + 1)) "$off"
cat <<EOF
  PATH=$(dirname "$weft"):\$PATH
  weft lab ls
  weft lab exec ea -- weft show routes        # an edge: labels, local next hops, why paths lost
  weft lab exec ea -- weft show kernel        # what it holds in the kernel
  weft lab exec red-a -- ping 10.0.2.10       # meanwhile: weft lab kill ea; weft lab start ea
  weft lab exec a1 -- ip link set red0 down   # and the route is gone from b1
  weft lab down                               # or: make demo-down
EOF
