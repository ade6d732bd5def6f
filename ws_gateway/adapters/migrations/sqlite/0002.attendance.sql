-- depends: 0001.conversations

-- PostgreSQL keeps here who is connected to which gateway. A single gateway knows its own people.
