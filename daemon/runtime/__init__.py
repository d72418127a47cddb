"""Clock, tasks, logs and other services of an asyncio program."""
