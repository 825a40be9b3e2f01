"""Addresses of the shop; the dashboard is at /admin/perfkit/ without a line here."""

from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import path

from examples.shop_assistant.catalogue import views

urlpatterns = [
    path("", views.index, name="index"),
    path("products/<int:number>/", views.product, name="product"),
    path("ask/", views.ask, name="ask"),
    path("admin/", admin.site.urls),
    path("static/<path:path>", serve, {"insecure": True}),  # of the admin; your web server does this better
]
