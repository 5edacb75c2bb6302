"""Measures what attacks cost a service, and what its good clients see meanwhile."""
