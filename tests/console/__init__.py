"""The console in a browser: a site with something to see (`scenes`, `site`), and pictures of it (`screenshots`)."""
