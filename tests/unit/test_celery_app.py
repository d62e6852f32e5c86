"""Whose Celery app it is, and which broker it says."""

from __future__ import annotations

import pytest
from celery import Celery
from django.core.exceptions import ImproperlyConfigured

from tasks_app.conf import TaskSettings
from workers_app.celery_app import broker_url, celery_app
from workers_app.checks import app_of_tasks

app = Celery("somebodys", broker="redis://first:6379/1;redis://second:6379/1", set_as_current=False)
prefixed = Celery("prefixed", broker="redis://first:6379/1", set_as_current=False)
prefixed.conf.broker_transport_options = {"global_keyprefix": "shop:"}


@pytest.fixture
def somebodys(settings):
    def use(name: str) -> None:
        settings.SIGNALBOX = {"workers": {"celery_app": name}}

    del settings.BROKER_URL
    use(f"{__name__}.app")
    return use


def test_the_app_is_the_one_that_is_named(somebodys):
    assert celery_app() is app


def test_messages_go_to_the_apps_first_broker_unless_a_setting_names_another(somebodys, settings):
    assert broker_url() == "redis://first:6379/1"
    settings.BROKER_URL = "amqp://third//"
    assert broker_url() == "amqp://third//"


def test_a_prefix_that_only_one_side_would_use_is_refused(somebodys):
    somebodys(f"{__name__}.prefixed")
    with pytest.raises(ImproperlyConfigured, match="global_keyprefix"):
        broker_url()


def test_a_prefix_is_refused_wherever_the_brokers_address_comes_from(somebodys, settings):
    settings.BROKER_URL = "redis://first:6379/1"
    assert app_of_tasks(None) == []
    somebodys(f"{__name__}.prefixed")
    with pytest.raises(ImproperlyConfigured, match="global_keyprefix"):
        broker_url()
    [found] = app_of_tasks(None)
    assert (found.id, "global_keyprefix" in found.msg) == ("signalbox.E008", True)


def test_without_keys_messages_are_signed_with_one_that_follows_from_the_secret_key(settings):
    settings.SECRET_KEY = "a" * 50
    [first] = TaskSettings().signing_keys.items()
    settings.SECRET_KEY = "b" * 50
    [second] = TaskSettings().signing_keys.items()
    assert first[0] == second[0] == TaskSettings().signing_key_id
    assert first[1] != second[1]
    assert "a" * 8 not in first[1]
