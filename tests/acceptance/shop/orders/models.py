from django.db import models


class Order(models.Model):
    customer = models.CharField(max_length=100)
    charges_tried = models.PositiveIntegerField(default=0)
    paid_at = models.DateTimeField(null=True)
    receipt = models.TextField(blank=True, default="")

    def __str__(self):
        return f"{self.pk} {self.customer}"
