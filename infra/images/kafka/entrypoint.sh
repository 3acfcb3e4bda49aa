#!/bin/sh
# Starts the broker. KAFKA_LISTEN_PORT: where clients come in (9092); KAFKA_ADVERTISED: the host:port they are told to come to.
# Options go to kafka.Kafka, as in `--override log.retention.ms=1000`.
set -eu

port=${KAFKA_LISTEN_PORT:-9092}
advertised=${KAFKA_ADVERTISED:-localhost:$port}
home=/srv/kafka
config=$home/server.properties

# What is told to clients need not be reachable from in here: the broker has a listener of its own for itself.
{
    cat /opt/kafka/server.properties
    cat <<END
listener.security.protocol.map=APP:PLAINTEXT,INNER:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=INNER
controller.quorum.voters=1@127.0.0.1:29093
listeners=APP://0.0.0.0:$port,INNER://127.0.0.1:29092,CONTROLLER://127.0.0.1:29093
advertised.listeners=APP://$advertised,INNER://127.0.0.1:29092
log.dirs=$home/data
END
} >$config

# Each container is a cluster of its own: should two ever reach each other, they refuse.
if [ ! -e $home/named ] && [ -z "${KAFKA_TRAINING:-}" ]; then
    cluster=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_')
    directory=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_')
    sed -i "s/^cluster.id=.*/cluster.id=${cluster%==}/; s/^directory.id=.*/directory.id=${directory%==}/" $home/data/meta.properties
    : >$home/named
fi

cache=-XX:AOTCache=/opt/kafka/kafka.aot
[ -z "${KAFKA_TRAINING:-}" ] || cache=-XX:AOTCacheOutput=/opt/kafka/kafka.aot
exec /opt/kafka/jdk/bin/java @/opt/kafka/java-options $cache kafka.Kafka $config "$@"
