"""The Celery application, dispatch by task name, the sweep."""
