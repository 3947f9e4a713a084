#!/bin/sh
# A router where it has a configuration, else a host.
[ -f /etc/weft/weft.yaml ] || exec sleep infinity
exec weft router --config /etc/weft/weft.yaml
