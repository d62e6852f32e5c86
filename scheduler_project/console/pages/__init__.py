"""The console's pages: rendered here, usable without JavaScript, refreshed in place with it.

A view reads what was asked, makes one call into a service or asks a query of an app below, and renders; what may be
done and why something is refused is decided there, and said here in the words of the API's errors. All state is in the
address. Preferences (theme, language) are cookies.

Pages are kept live by polling, not by streams: a stream holds one of the web process's few threads for as long as
somebody looks. What changes stands in elements that ask for themselves again (`data-live`), at ticks that console.js
gives: every three seconds while something is going on, more slowly otherwise, and never while the page is hidden, text
is selected or a menu is open. A list of runs keeps its rows where they are and says how many new ones there are. The
policy of `settings.CONTENT_SECURITY_POLICY` holds: nothing inline, nothing from elsewhere, no evaluated code.
"""
