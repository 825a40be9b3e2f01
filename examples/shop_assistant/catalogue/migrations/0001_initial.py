"""The table of products, with three to begin with."""

from typing import Any

from django.db import migrations, models

PRODUCTS = (
    ("Kettle", "1.7 litres, steel, boils in four minutes, keeps warm for an hour.", 49),
    ("Teapot", "Glass, 1 litre, with a steel strainer; not for the stove.", 29),
    ("Cup", "Porcelain, 250 ml, may go into the dishwasher.", 9),
)


def fill(apps: Any, _schema_editor: Any) -> None:
    product = apps.get_model("catalogue", "Product")
    product.objects.bulk_create([product(name=name, facts=facts, price=price) for name, facts, price in PRODUCTS])


class Migration(migrations.Migration):
    """Create and fill the table."""

    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="Product",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=80)),
                ("facts", models.TextField()),
                ("price", models.DecimalField(decimal_places=2, max_digits=8)),
            ],
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
    )
