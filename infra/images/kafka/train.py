"""What an app does first with a broker, so that the JVM's AOT cache holds it: topics, produce, join a group, consume, commit."""

import time

import kafka

BROKER = "127.0.0.1:9092"
ANSWER_WITHIN_S = 60.0
RECORDS = 100


def connect_admin() -> kafka.KafkaAdminClient:
    """An admin client, as soon as the broker answers. Raises the client's error when it never does."""
    deadline = time.monotonic() + ANSWER_WITHIN_S
    while True:
        try:
            return kafka.KafkaAdminClient(bootstrap_servers=BROKER, bootstrap_timeout_ms=1000)
        except kafka.errors.KafkaError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)  # nobody tells when a broker is ready


with connect_admin() as admin:
    admin.create_topics({"train": {"num_partitions": 6, "replication_factor": 1, "configs": {}}})
    admin.describe_topics(["train"])
with kafka.KafkaProducer(bootstrap_servers=BROKER) as producer:
    for number in range(RECORDS):
        producer.send("train", b"value", key=b"%d" % number).get(timeout=30)
with kafka.KafkaConsumer("train", bootstrap_servers=BROKER, group_id="train", auto_offset_reset="earliest", consumer_timeout_ms=30_000) as consumer:
    for _ in zip(range(RECORDS), consumer, strict=False):
        pass
    consumer.commit()
