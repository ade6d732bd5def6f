"""The WebSocket gateway: holds people's connections, stores their messages, delivers them."""
