"""MQTT as a broker: a topic and a kept session for each channel, QoS 1, acknowledged by hand."""
