"""The shop's tasks as they always were. Nothing here knows of the platform."""

from celery import shared_task
from celery.utils.log import get_task_logger
from django.db import transaction
from django.utils import timezone

from orders.models import Order

logger = get_task_logger(__name__)


class BankBusy(Exception):
    pass


@shared_task(bind=True, autoretry_for=(BankBusy,), max_retries=3, default_retry_delay=0, retry_backoff=False)
def charge(self, order_id):
    """The bank is busy the first time."""
    with transaction.atomic():
        order = Order.objects.select_for_update().get(pk=order_id)
        order.charges_tried += 1
        order.save(update_fields=["charges_tried"])
    if self.request.retries == 0:
        raise BankBusy("call again")
    order.paid_at = timezone.now()
    order.save(update_fields=["paid_at"])
    logger.info("charged %s", order.customer)
    return order.charges_tried


@shared_task
def send_receipt(order_id, greeting="Dear"):
    order = Order.objects.get(pk=order_id)
    order.receipt = f"{greeting} {order.customer}, thank you."
    order.save(update_fields=["receipt"])
    print(order.receipt)
    return {"length": len(order.receipt)}


@shared_task(name="orders.refund")
def refund(order_id):
    raise Order.DoesNotExist(f"order {order_id} was never paid")


@shared_task
def settle(order_id):
    send_receipt.apply_async([order_id], priority=6)
