"""What is sold."""

from django.db import models

__all__ = ["Product"]


class Product(models.Model):
    """One thing in the shop."""

    name = models.CharField(max_length=80)
    facts = models.TextField()
    price = models.DecimalField(max_digits=8, decimal_places=2)

    def __str__(self) -> str:
        return f"{self.name} ({self.price} EUR): {self.facts}"
