"""Another program, which knows nothing of OpenHQM: it publishes orders to Kafka, and reads the answers.

python shop.py SERVER topics
python shop.py SERVER order CUSTOMER ITEM...
python shop.py SERVER answers COUNT
"""

import json
import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

ORDERS, ANSWERS = "example-orders", "example-answers"


def topics(server: str) -> None:
    """Make the topics, as an operator does."""
    admin = AdminClient({"bootstrap.servers": server})
    for name, future in admin.create_topics([NewTopic(ORDERS, 3, 1), NewTopic(ANSWERS, 1, 1)]).items():
        try:
            future.result(30)
            print(f"made {name}")
        except KafkaException as error:
            print(f"{name}: {error.args[0].str()}")


def order(server: str, customer: str, *items: str) -> None:
    """Publish an order for each item, with the customer as the key."""
    producer = Producer({"bootstrap.servers": server})
    for item in items:
        number = f"{customer}-{item}"
        headers = {"kafka_replyTopic": ANSWERS.encode(), "kafka_correlationId": number.encode()}
        producer.produce(ORDERS, json.dumps({"customer": customer, "item": item}), customer, headers=headers)
    if producer.flush(30):
        sys.exit("Kafka did not take all orders")


def answers(server: str, count: str) -> None:
    """Print so many answers."""
    consumer = Consumer({"bootstrap.servers": server, "group.id": "example-shop", "auto.offset.reset": "earliest"})
    consumer.subscribe([ANSWERS])
    left, due = int(count), time.monotonic() + 60
    while left and time.monotonic() < due:
        record = consumer.poll(1)
        if record is not None and record.error() is None:
            headers = dict(record.headers())
            print(headers["kafka_correlationId"].decode(), headers["status"].decode(), record.value().decode())
            left -= 1
    consumer.close()
    if left:
        sys.exit(f"{left} answers did not come")


if __name__ == "__main__":
    {"topics": topics, "order": order, "answers": answers}[sys.argv[2]](sys.argv[1], *sys.argv[3:])
