"""`manage.py perfkit`."""
