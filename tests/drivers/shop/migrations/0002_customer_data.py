"""A column, and what is in it for those who are there already."""

from typing import Any, ClassVar

from django.db import migrations, models


def _fill(apps: Any, _editor: object) -> None:
    apps.get_model("shop", "Customer").objects.update(data={"migrated": True})


class Migration(migrations.Migration):
    """The second of two."""

    dependencies: ClassVar = [("shop", "0001_initial")]
    operations: ClassVar = [
        migrations.AddField("Customer", "data", models.JSONField(default=dict)),
        migrations.RunPython(_fill, migrations.RunPython.noop),
    ]
