"""What stands between the socket and the routes: limits, checks of origin, headers and times.

The two protocols work on connections, the others are ASGI middleware.
"""
