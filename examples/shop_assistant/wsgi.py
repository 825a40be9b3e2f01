"""The shop for a server: gunicorn --threads 16 examples.shop_assistant.wsgi."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "examples.shop_assistant.settings")
application = get_wsgi_application()
