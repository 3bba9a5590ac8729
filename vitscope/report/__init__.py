"""RECORDS → TEXT: tables for people, CSV and JSON for programs. Never imports torch."""
