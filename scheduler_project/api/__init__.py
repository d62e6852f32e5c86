"""`/api/v1/`: one module a resource (serializer and views), each request one call into a service.

`errors` is the only place that knows HTTP status codes of errors; `paging` is the one way to page. Rules about values
live in `tasks_app.definitions`: serializers describe shapes and pass values on.
"""
