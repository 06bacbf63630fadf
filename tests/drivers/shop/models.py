"""Customers and their orders."""

from django.db import models


class Customer(models.Model):
    """Has orders."""

    name = models.CharField(max_length=100, unique=True)
    since = models.DateTimeField(auto_now_add=True)
    data = models.JSONField(default=dict)


class Order(models.Model):
    """Of a customer."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="orders")
    amount = models.IntegerField()
