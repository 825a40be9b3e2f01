"""Products in the admin."""

from django.contrib import admin

from examples.shop_assistant.catalogue.models import Product

admin.site.register(Product)
