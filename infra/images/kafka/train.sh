#!/bin/sh
# While the image is made: formats the data folder, then starts a broker, has it used, and ends it; the JVM then writes the AOT cache (JEP 514).
set -eu

home=/srv/kafka
mkdir -p $home
{
    cat /opt/kafka/server.properties
    echo "listeners=APP://127.0.0.1:9092,CONTROLLER://127.0.0.1:29093"
    echo "controller.quorum.voters=1@127.0.0.1:29093"
    echo "log.dirs=$home/data"
} >$home/format.properties
# The id is replaced when a container starts.
/opt/kafka/jdk/bin/java @/opt/kafka/java-options kafka.tools.StorageTool format --cluster-id MkU3OEVBNTcwNTJENDM2Qk --config $home/format.properties
cp -a $home/data $home/template

KAFKA_TRAINING=1 sh /opt/kafka/entrypoint.sh &
broker=$!
python /opt/kafka/train.py || { kill $broker; exit 1; }
kill $broker
wait $broker || true # 143: it ended as it was told to
test -s /opt/kafka/kafka.aot

rm -rf $home/data $home/*.properties
mv $home/template $home/data
rm /opt/kafka/train.sh /opt/kafka/train.py
chmod -R a+rX /opt/kafka
