#!/usr/bin/env bash
# A tenant's traffic passes a firewall and a meter, on two routers, before it reaches its destination; then the firewall dies.
# `make demo-chain` builds weft first.
set -euo pipefail
weft=$(realpath "${WEFT:-$(dirname "$0")/../../target/demo/weft}")
cd "$(dirname "$0")"

lab=service-chain
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' off=$'\e[0m'; else bold='' dim='' red='' green='' off=''; fi
say() { printf '\n%s== %s%s\n' "$bold" "$*" "$off"; }
shown() { printf '%s$ %s%s\n' "$dim" "$*" "$off"; }
fail() { printf '%s%s%s\n' "$red" "$*" "$off" >&2; exit 1; }
in_node() { local node=$1; shift; "$weft" lab exec --lab "$lab" "$node" -- "$@"; }
api() { in_node "$1" curl -fsS --unix-socket /run/weft/api.sock "http://localhost/api/v1/$2"; }
wait_for() { # what, seconds, command
  local what=$1 deadline=$((SECONDS + $2)); shift 2
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $deadline ]; then
      for node in r1 r2 r3; do printf '\n-- %s\n' "$node"; in_node "$node" weft show chains || true; in_node "$node" weft show services || true; "$weft" lab logs --lab "$lab" "$node" | tail -8; done
      fail "waited in vain: $what"
    fi
    sleep 0.05
  done
}

say "The lab: three routers, two firewalls, a meter, a client and a server"
started=$(date +%s%N)
shown "weft lab up topology.clab.yaml"
"$weft" lab up --reconfigure topology.clab.yaml
cat <<'PICTURE'

          firewall-1        firewall-2   meter
              |                  \        /
client ──── r1 ──────────────────── r2 ──────────────── r3 ──── server
PICTURE
in_node server sh -c 'mkdir -p /tmp/www-chain && echo "hello from the server" >/tmp/www-chain/index.html && busybox httpd -p 80 -h /tmp/www-chain && busybox nc -ll -p 23 -e cat >/dev/null 2>&1 &'
whole() { api "$1" chains | jq -e '[.[].state.code] == ["whole", "whole"]'; }
for router in r1 r2 r3; do wait_for "the chain on $router" 20 whole "$router"; done
printf 'every router knows the way through the chain %d ms after the start\n' $((($(date +%s%N) - started) / 1000000))

say "The chain, in the configuration of every router that takes part"
shown "cat r1.yaml"
sed -n '/services:/,/symmetric/p' r1.yaml

say "HTTP goes through it"
shown "weft lab exec client -- curl http://10.0.2.10/"
wait_for "an answer of the server" 10 in_node client curl -fsS -m 2 http://10.0.2.10/
in_node client curl -fsS -m 5 http://10.0.2.10/

say "Telnet the firewall refuses"
shown "weft lab exec client -- curl telnet://10.0.2.10:23"
if in_node client curl -sS -m 5 telnet://10.0.2.10:23 </dev/null; then fail "port 23 is open"; fi
in_node firewall-1 nft list chain inet firewall forward | grep 'dport 23'

say "100 packets there and back, counted at each step"
meter() { in_node meter nft -j list counter inet metering "$1" | jq '[.nftables[].counter? // empty] | .[0].packets'; }
there=$(meter there) back=$(meter back)
in_node client ping -c 100 -i 0.002 -W 2 -q 10.0.2.10 | sed -n '/packets/p'
there=$(($(meter there) - there)) back=$(($(meter back) - back))
printf 'the meter saw %d packets there and %d back\n' "$there" "$back"
[ "$there" = 100 ] && [ "$back" = 100 ] || fail "a packet missed the meter"
for router in r1 r2; do
  shown "weft lab exec $router -- weft show chains"
  in_node "$router" weft show chains
done

say "What the client's router does with one packet"
shown "weft trace red 10.0.2.10 --from 10.0.1.10"
in_node r1 weft trace red 10.0.2.10 --from 10.0.1.10 || fail "the packet does not get on"

say "The label of a service is a large community, as a tenant's is"
community=$(api r1 services | jq -r '.[] | select(.name == "meter").offers[0].label.community')
shown "weft show labels $community"
"$weft" show labels "$community"

say "The firewall dies under traffic"
in_node client ping -i 0.01 -w 4 -q 10.0.2.10 >/tmp/weft-chain-ping.$$ &
ping=$!
sleep 1
killed=$(date +%s%N)
in_node firewall-1 ip link set eth1 down
moved() { api r1 chains | jq -e '.[0].steps[0].way.code == "remote"'; }
wait_for "the other firewall" 10 moved
printf 'its packets go to firewall-2 at r2 %d ms later\n' $((($(date +%s%N) - killed) / 1000000))
wait $ping || true
tail -2 /tmp/weft-chain-ping.$$ | head -1; rm -f /tmp/weft-chain-ping.$$
shown "weft lab exec r1 -- weft show services"
in_node r1 weft show services
shown "weft lab exec r1 -- weft show chains"
in_node r1 weft show chains
in_node client curl -fsS -m 5 http://10.0.2.10/
if in_node client curl -sS -m 5 telnet://10.0.2.10:23 </dev/null 2>/dev/null; then fail "port 23 is open"; fi
printf 'and the second firewall refuses telnet as the first did\n'

say "The meter dies too: it fails closed, and nobody gets past it"
in_node meter ip link set inside down
broken() { api r1 chains | jq -e '.[0].state.code == "broken"'; }
wait_for "the label of the meter to be withdrawn" 10 broken
if in_node client curl -fsS -m 1 http://10.0.2.10/ 2>/dev/null; then fail "a packet got past the meter"; fi
in_node r1 weft show chains

say "Both come back"
in_node firewall-1 sh -c 'ip link set eth1 up && ip route replace default via 169.254.1.1'
in_node meter sh -c 'ip link set inside up && ip route replace 10.0.1.0/24 via 169.254.2.1'
for router in r1 r2 r3; do wait_for "the chain on $router" 10 whole "$router"; done
wait_for "an answer of the server" 10 in_node client curl -fsS -m 2 http://10.0.2.10/
in_node client curl -fsS -m 5 http://10.0.2.10/

printf '\n%sAll of it in %d s.%s The lab stays up. Look around:\n' "$green" $(((($(date +%s%N) - started) / 1000000000) + 1)) "$off"
cat <<EOF
  PATH=$(dirname "$weft"):\$PATH
  weft lab exec r2 -- weft show services
  weft lab exec r2 -- weft show chains
  weft lab exec r3 -- weft trace red 10.0.1.10 --from 10.0.2.10
  weft lab down $lab                          # or: make demo-chain-down
EOF
