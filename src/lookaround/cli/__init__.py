"""Words to function calls: the `lookaround` command. Each command imports what it needs when it is called."""
