"""Sources of snapshots: folders, HTTP and MQTT. At-least-once delivery into an idempotent store.

Nothing heavy is imported before it is used: `watch` loads the sources that it was given.
"""
