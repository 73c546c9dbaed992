#!/bin/sh
# The least that a handshake and a call take: every request is answered with one result. For tests of many sessions.
while IFS= read -r line; do
    case $line in
    *'"id":'*)
        id=${line#*'"id":'}
        id=${id%%[,\}]*}
        printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"minimal","version":"0"}}}\n' "$id"
        ;;
    esac
done
