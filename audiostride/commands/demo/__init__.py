"""The embedded demo: sounds with known modulations, learned and explained."""
