#!/bin/sh
# The first service of docker-compose.yml: the others start when every file that they need is there. With profile
# `demo` the service demo-files makes them meanwhile; otherwise an administrator has put them there (docs/compose.md).
cd "${1:?the folder with the files}" || exit 1
needed="broker/ca.pem broker/broker.pem broker/broker.key broker/definitions.json
    consumer/consumer.toml consumer/broker-ca.pem consumer/consumer.pem consumer/consumer.key consumer/keys
    consumer/idm.password watch/ops.toml watch/broker-ca.pem watch/watch.pem watch/watch.key watch/keys"
seconds=0
while :; do
    missing=""
    for file in $needed; do [ -e "$file" ] || missing="$missing $file"; done
    [ -n "$missing" ] || exit 0
    [ "$seconds" != 5 ] || echo "not yet in PASSRELAY_FILES (docs/compose.md says how to make them):$missing" >&2
    if [ "$seconds" = 300 ]; then
        echo "given up waiting for:$missing" >&2
        exit 1
    fi
    sleep 1
    seconds=$((seconds + 1))
done
