"""Where the names of functions are known: in the Celery app of this process, and with the workers that are up."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from workers_app.celery_app import celery_app

logger = logging.getLogger(__name__)


def registered_functions() -> Iterable[str]:
    """Celery tasks of the modules that this installation imports, without Celery's own and the executors."""
    app = celery_app()
    try:
        app.loader.import_default_modules()
    except Exception:
        logger.exception("a module of tasks cannot be imported")
    app.finalize()
    return [name for name in app.tasks if not name.startswith(("celery.", "signalbox."))]


def advertised_functions() -> Iterable[str]:
    """Celery tasks that workers have said they know; their code may be elsewhere."""
    from workers_app.models import Worker

    return {name for functions in Worker.objects.values_list("functions", flat=True) for name in functions}
