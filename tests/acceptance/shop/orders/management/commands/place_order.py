from django.core.management.base import BaseCommand
from django.db import transaction

from orders.models import Order
from tasks_app import services
from tasks_app.definitions import TaskDefinition
from tasks_app.models import Task


class Command(BaseCommand):
    """Place an order: its runs are submitted if and only if it is saved."""

    def add_arguments(self, parser):
        parser.add_argument("customer")

    def handle(self, customer, **_):
        for function in ("orders.tasks.charge", "orders.tasks.send_receipt", "orders.refund", "shop.celery.ping"):
            if not Task.objects.filter(name=function).exists():
                services.create_task(
                    TaskDefinition(
                        name=function, executor="python", parameters={"function": function},
                        max_retries=2 if function == "orders.tasks.charge" else 0,
                    )
                )  # fmt: skip
        with transaction.atomic():
            order = Order.objects.create(customer=customer)
            for function in ("orders.tasks.charge", "orders.tasks.send_receipt", "orders.refund"):
                services.trigger(services.find_task(function), parameters_over={"args": [order.pk]})
            services.trigger(services.find_task("shop.celery.ping"), parameters_over={"kwargs": {"text": customer}})
        self.stdout.write(str(order.pk))
