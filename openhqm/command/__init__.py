"""The console command ``openhqm``."""
