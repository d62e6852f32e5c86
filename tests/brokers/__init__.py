"""The transport on Redis Streams beside the stock one and RabbitMQ, under plain Celery and plain Kombu.

What it must show: it loses nothing where the stock transport does (`cuts`), and a worker drains it faster (`drain`).
"""
