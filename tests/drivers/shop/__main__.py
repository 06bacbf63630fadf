"""Migrates, works in many threads, looks whether all of it is there."""

import sys
from concurrent.futures import ThreadPoolExecutor

import django
from django.conf import settings

CLIENTS = 15


def main() -> None:
    host, port, user, database = sys.argv[1:]
    place = {"HOST": host, "PORT": port, "USER": user, "NAME": database}
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", **place}},
        INSTALLED_APPS=["tests.drivers.shop.apps.ShopConfig"],
        USE_TZ=True,
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    call_command("makemigrations", check=True, dry_run=True)
    from django.db import connection

    from tests.drivers.shop.workload import work

    connection.close()
    with ThreadPoolExecutor(CLIENTS) as executor:
        list(executor.map(work, range(CLIENTS)))
    call_command("migrate", "shop", "zero", verbosity=0)


if __name__ == "__main__":
    main()
