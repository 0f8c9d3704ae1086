"""Integrations with other pytest plugins: Allure, pytest-html."""
