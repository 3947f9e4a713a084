#!/usr/bin/env bash
# Two domains with a controller each, and routers that know their name, their controller and a token: everything else they learn.
# `make demo-managed` builds weft first.
set -euo pipefail
weft=$(realpath "${WEFT:-$(dirname "$0")/../../target/demo/weft}")
cd "$(dirname "$0")"

lab=managed
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' off=$'\e[0m'; else bold='' dim='' red='' green='' off=''; fi
say() { printf '\n%s== %s%s\n' "$bold" "$*" "$off"; }
shown() { printf '%s$ %s%s\n' "$dim" "$*" "$off"; }
fail() { printf '%s%s%s\n' "$red" "$*" "$off" >&2; exit 1; }
in_node() { local node=$1; shift; "$weft" lab exec --lab "$lab" "$node" -- "$@"; }
wait_for() { # what, seconds, command
  local what=$1 deadline=$((SECONDS + $2)); shift 2
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $deadline ]; then
      for node in ctl-a ctl-b a1 ea eb b1; do printf '\n-- %s\n' "$node"; "$weft" lab logs --lab "$lab" "$node" | tail -8; done
      fail "waited in vain: $what"
    fi
    sleep 0.1
  done
}

"$weft" lab down "$lab" >/dev/null 2>&1 || true
rm -rf run
mkdir -p run/{a1,ea,eb,b1}

say "Two domains: a certificate authority, a datastore and an operator's token each"
shown "weft controller init --name a --asn 64601 --administrator 64512 --vnis 10000-19999 --address 10.9.1.1"
"$weft" controller init --folder run/ctl-a --name a --asn 64601 --administrator 64512 --vnis 10000-19999 --address 10.9.1.1
"$weft" controller init --folder run/ctl-b --name b --asn 64602 --administrator 64512 --vnis 20000-29999 --address 10.9.2.1 >/dev/null

say "A token for each router; its whole configuration is three lines"
provision() { # router, domain's controller, its address, role
  local token
  token=$("$weft" token create --folder "run/$2" --role "$4" --name "$1")
  printf 'router: { name: %s }\ncontroller:\n  address: %s\n  token: %s\n' "$1" "$3" "$token" >"run/$1.yaml"
}
provision a1 ctl-a 10.9.1.1 router
provision ea ctl-a 10.9.1.1 edge
provision eb ctl-b 10.9.2.1 edge
provision b1 ctl-b 10.9.2.1 router
shown "weft token create --role router --name a1; cat a1.yaml"
cut -c1-90 run/a1.yaml

say "The lab: two controllers, four routers, two hosts in network namespaces"
started=$(date +%s%N)
"$weft" lab up topology.clab.yaml
established() { [ "$(in_node "$1" curl -fsS --unix-socket /run/weft/api.sock http://localhost/api/v1/status | jq -r '.neighbors_established')" = "$2" ]; }
wait_for "the session of a1 and ea" 20 established a1 1
wait_for "the session of b1 and eb" 20 established b1 1
printf 'joined, registered, and every session inside the domains is up %d ms after the start\n' $((($(date +%s%N) - started) / 1000000))
shown "weft controller status"
in_node ctl-a weft controller status

rest() { # domain, method, path, body: as an operator with curl would
  local domain=$1 method=$2 path=$3
  in_node "ctl-$domain" sh -c 'curl -fsS --cacert /var/lib/weft-controller/authority.pem -H "Authorization: Bearer $(cat /var/lib/weft-controller/operator.token)" -H "Content-Type: application/json" -X "$1" ${3:+-d "$3"} "https://$4:8443/api/v1/$2"' sh "$method" "$path" "${4:-}" "$( [ "$domain" = a ] && echo 10.9.1.1 || echo 10.9.2.1 )"
}

say "The domains learn of each other: two operators give each other an introduction, and both decide"
for domain in a b; do "$weft" lab exec --lab "$lab" "ctl-$domain" -- weft domain introduction >"run/$domain.introduction"; done
shown "weft domain introduction                     # at b's controller"
cat run/b.introduction
shown "weft domain add weft://b@...                 # at a's, and the other way round"
trusted=$(date +%s%N)
in_node ctl-a weft domain add "$(cat run/b.introduction)"
in_node ctl-b weft domain add "$(cat run/a.introduction)" >/dev/null
wait_for "the sessions of ea" 20 established ea 2
printf 'the edges found each other, and their session is up %d ms after the first decision\n' $((($(date +%s%N) - trusted) / 1000000))
shown "weft domain list"
in_node ctl-a weft domain list

say "A tenant, by REST: its VNI is domain a's to give, and a tells b which it is once it shares the tenant"
shown "curl -X POST .../api/v1/tenants -d '{\"name\": \"red\"}'; weft domain share b red"
rest a POST tenants '{"name": "red"}' | jq -c .
in_node ctl-a weft domain share b red
offered() { rest b GET domains/a/tenants | jq -e '.items[] | select(.name == "red")'; }
wait_for "the tenant that a shares" 20 offered
shown "curl -X POST .../api/v1/tenants -d '{\"name\": \"red\", \"home\": \"a\"}'    # at b's"
rest b POST tenants '{"name": "red", "home": "a"}' | jq -c .
shown "curl -X PUT .../api/v1/tenants/red/attachments/a1 -d '{\"interfaces\": [\"red0\"], \"prefixes\": [\"10.0.1.0/24\"]}'"
created=$(date +%s%N)
rest a PUT tenants/red/attachments/a1 '{"interfaces": ["red0"], "prefixes": ["10.0.1.0/24"]}' | jq -c .
rest b PUT tenants/red/attachments/b1 '{"interfaces": ["red0"], "prefixes": ["10.0.2.0/24"]}' | jq -c .

say "And the ping follows"
wait_for "a ping from red-a to red-b" 20 in_node red-a ping -c 1 -W 1 10.0.2.10
printf 'the first ping arrived %d ms after the tenant was attached\n' $((($(date +%s%N) - created) / 1000000))
in_node red-a ping -c 5 -i 0.05 -W 2 10.0.2.10 | tail -3

say "Both controllers are killed, and the ping goes on"
in_node red-a ping -c 300 -i 0.01 -W 2 -q 10.0.2.10 >run/ping.txt &
ping=$!
for controller in ctl-a ctl-b; do "$weft" lab kill --lab "$lab" "$controller"; done
wait $ping
tail -2 run/ping.txt
grep -q '300 received' run/ping.txt || fail "packets were lost"

say "A router restarts without its controller: it begins with what it knew last"
"$weft" lab kill --lab "$lab" b1
"$weft" lab start --lab "$lab" b1
wait_for "the session of b1 and eb" 20 established b1 1
in_node red-a ping -c 3 -i 0.05 -W 2 10.0.2.10 | tail -2

say "The controllers come back: nobody flaps"
for controller in ctl-a ctl-b; do "$weft" lab start --lab "$lab" "$controller"; done
attached() { in_node "$1" weft controller status --json | jq -e '[.routers[].attached] | all'; }
wait_for "the routers of domain a" 40 attached ctl-a
wait_for "the routers of domain b" 40 attached ctl-b
in_node ctl-a weft controller status
in_node a1 weft show neighbors

printf '\n%sDone.%s The lab stays up. Look around:\n' "$green" "$off"
cat <<EOF
  PATH=$(dirname "$weft"):\$PATH
  weft lab exec ctl-a -- weft controller status
  weft lab exec ctl-a -- weft domain list
  weft lab exec a1 -- weft show tenants red
  weft lab down $lab                          # or: make demo-managed-down
EOF
