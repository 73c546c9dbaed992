"""Runs any stdio MCP server as many isolated, seeded environments behind one endpoint."""
