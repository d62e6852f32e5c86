from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("customer", models.CharField(max_length=100)),
                ("charges_tried", models.PositiveIntegerField(default=0)),
                ("paid_at", models.DateTimeField(null=True)),
                ("receipt", models.TextField(blank=True, default="")),
            ],
        ),
    ]
