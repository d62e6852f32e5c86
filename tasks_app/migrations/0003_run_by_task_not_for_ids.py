from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tasks_app", "0002_run_retry_of_index"),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="taskrun",
            name="run_by_task",
        ),
        migrations.AddIndex(
            model_name="taskrun",
            index=models.Index(condition=models.Q(("task__isnull", False)), fields=["task", "-id"], name="run_by_task"),
        ),
    ]
