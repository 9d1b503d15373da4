"""What PostgreSQL needs: connection options, lost connections, LISTEN/NOTIFY."""
