"""The web console's views and the admin site. Each action is one call into a service."""
