machine:
  network:
    hostname: {{ .Node.Host }}
