"""Django's name for the application."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """So that its tables begin with shop_."""

    name = "tests.drivers.shop"
    label = "shop"
    default_auto_field = "django.db.models.BigAutoField"
