"""Django's settings, made from `config`. Safe by default: no secret of its own, loopback only, no debug."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _

from dispatch.conf import DispatchSettings
from scheduler_project import databases
from scheduler_project.config import ROOT, broker_url, load, local_secret, section_values
from tasks_app.conf import TaskSettings
from tasks_app.sections import ConfigurationError
from workers_app.conf import WorkerSettings

try:
    CONFIG = load(os.environ)
except ConfigurationError as error:
    raise ImproperlyConfigured(str(error)) from None

BASE_DIR = ROOT
SECRET_KEY = CONFIG.secret_key or local_secret(CONFIG, "django")
DEBUG = CONFIG.debug
ALLOWED_HOSTS = list(CONFIG.allowed_hosts)

INSTALLED_APPS = [
    # Without autodiscovery: only a process that serves addresses needs the admin (see urls.py).
    "django.contrib.admin.apps.SimpleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "django_celery_beat",
    "csp",
    "django_htmx",
    "scheduler_project",
    "scheduler_project.access",
    "dispatch",
    "workers_app",
    "tasks_app",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "scheduler_project.console.compression.PageCompressionMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "scheduler_project.observability.RequestContextMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "scheduler_project.urls"
WSGI_APPLICATION = "scheduler_project.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "django.template.context_processors.i18n",
            ],
            "libraries": {"console": "scheduler_project.console.pages.tags"},
        },
    }
]

DATABASE_URL = CONFIG.database_url or f"sqlite:///{CONFIG.state_dir / 'signalbox.sqlite3'}"
DATABASES: dict[str, Any] = {"default": databases.from_url(DATABASE_URL, pool=CONFIG.database_pool)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
BROKER_URL = broker_url(CONFIG)

CACHES: dict[str, Any] = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": CONFIG.cache_url}
    if CONFIG.cache_url
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
LOGIN_URL = "console:login"
LOGIN_REDIRECT_URL = "console:overview"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("zh-hans", _("Simplified Chinese"))]
LOCALE_PATHS = [ROOT / "scheduler_project" / "locale"]
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

STATIC_URL = "/static/"
# Served from the packages themselves, so there is no collectstatic to forget.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

#: What a browser may load for our pages: nothing from elsewhere, nothing inline.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
}
CSRF_FAILURE_VIEW = "scheduler_project.console.pages.problems.csrf_failure"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if CONFIG.https:
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^livez$", r"^readyz$", r"^metrics$"]
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = 365 * 24 * 3600
    SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = True

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["scheduler_project.access.authentication.BearerAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["scheduler_project.access.permissions.NamedPermission"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["scheduler_project.api.parsing.BoundedJSONParser"],
    # OPTIONS says nothing that the OpenAPI document does not.
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_SCHEMA_CLASS": "scheduler_project.api.schema.Schema",
    "EXCEPTION_HANDLER": "scheduler_project.api.errors.problem_response",
    # Whose attempts to sign in are counted together. Unset, it would be whatever X-Forwarded-For a client makes up.
    "NUM_PROXIES": CONFIG.gateways,
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=10),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=1),
    "SIGNING_KEY": SECRET_KEY,
    "UPDATE_LAST_LOGIN": False,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Signalbox",
    "VERSION": "1",
    "DESCRIPTION": "Tasks, runs and workers.",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": False,
    "PREPROCESSING_HOOKS": ["scheduler_project.api.schema.without_slashes"],
    "ENUM_NAME_OVERRIDES": {
        "RunStatus": "tasks_app.states.RunStatus",
        "AttemptOutcome": "tasks_app.states.Outcome",
        "Executor": "tasks_app.models.Executor",
        "PoolReach": "workers_app.pools.Reach",
    },
}

_tasks = section_values(CONFIG, "tasks", TaskSettings)
_tasks.setdefault("signing_keys", {"default": CONFIG.signing_key or local_secret(CONFIG, "signing")})
_workers = section_values(CONFIG, "workers", WorkerSettings)
_modules = [*CONFIG.imports, *_workers.get("imports", ())]
_jobs = CONFIG.jobs_dir or ROOT / "jobs"
if _jobs.is_dir():
    # Each module of the jobs folder is a module of tasks: `jobs/reports.py` is imported as `jobs.reports`.
    sys.path.insert(0, str(_jobs.parent)) if str(_jobs.parent) not in sys.path else None
    _modules += [f"{_jobs.name}.{path.stem}" for path in sorted(_jobs.glob("*.py")) if path.stem.isidentifier()]
_workers.setdefault("celery_app", "scheduler_project.celery.app")
_workers["imports"] = tuple(dict.fromkeys(["scheduler_project.demo", *_modules]))
SIGNALBOX: dict[str, dict[str, Any]] = {
    "tasks": _tasks,
    "workers": _workers,
    "dispatch": section_values(CONFIG, "dispatch", DispatchSettings),
    "health": {"host": CONFIG.health_host, "port": CONFIG.health_port},
}

LOGGING_CONFIG = "scheduler_project.observability.configure_logging"
LOGGING = {"format": CONFIG.log_format, "level": CONFIG.log_level}

STATE_DIR: Path = CONFIG.state_dir
