"""The protocol as a model that spin searches to its end: docs/order.md."""
