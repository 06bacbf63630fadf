"""What one thread of a Django application does, with a connection of its own."""

from django.db import IntegrityError, connection, transaction
from django.db.models import Count, F, Sum

from tests.drivers.shop.models import Customer, Order

ROUNDS = 8


def work(client: int) -> None:
    """All of it, then the connection is closed."""
    try:
        for number in range(ROUNDS):
            _order(client, number)
        _look(client)
        _lock(client)
        _iterate(client)
    finally:
        connection.close()


def _order(client: int, number: int) -> None:
    name = f"customer {number} of {client}"
    with transaction.atomic():
        customer = Customer.objects.create(name=name, data={"number": number})
        Order.objects.bulk_create(Order(customer=customer, amount=n) for n in range(10))
        try:
            with transaction.atomic():
                Customer.objects.create(name=name)
        except IntegrityError:
            customer.orders.filter(amount=0).update(amount=F("amount") + 100)
        else:
            raise AssertionError("a name twice")
    found, made = Customer.objects.get_or_create(name=name)
    assert not made and found.pk == customer.pk
    try:
        with transaction.atomic():
            customer.delete()
            raise ZeroDivisionError
    except ZeroDivisionError:
        assert Customer.objects.filter(name=name).exists()


def _look(client: int) -> None:
    mine = Customer.objects.filter(name__endswith=f" of {client}")
    assert mine.count() == ROUNDS
    summed = mine.annotate(total=Sum("orders__amount"), orders_count=Count("orders"))
    assert {(each.total, each.orders_count) for each in summed} == {(145, 10)}
    assert mine.get(data__number=3).name == f"customer 3 of {client}"
    for each in mine.prefetch_related("orders"):
        assert len(each.orders.all()) == 10
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('TimeZone'), %s::int", [client])
        assert cursor.fetchone() == ("UTC", client)


def _lock(client: int) -> None:
    first = Customer.objects.filter(name=f"customer 0 of {client}")
    for _ in range(ROUNDS):
        with transaction.atomic():
            customer = first.select_for_update().get()
            customer.data["locked"] = customer.data.get("locked", 0) + 1
            customer.save()
    assert first.get().data["locked"] == ROUNDS


def _iterate(client: int) -> None:
    """By cursors of the server: in a transaction, and outside, where Django has them WITH HOLD."""
    mine = Order.objects.filter(customer__name__endswith=f" of {client}").order_by("pk")
    with transaction.atomic():
        inside = sum(order.amount for order in mine.iterator(chunk_size=7))
    outside = 0
    for order in mine.iterator(chunk_size=7):
        outside += order.amount
        if not order.amount:
            Order.objects.filter(pk=order.pk).update(amount=0)
    assert inside == outside == ROUNDS * 145
