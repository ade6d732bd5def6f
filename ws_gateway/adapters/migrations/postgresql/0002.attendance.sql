-- depends: 0001.conversations

-- Who is connected to which gateway. Not logged: after a crash of PostgreSQL both tables are empty,
-- the gateways notice, and write them anew.
CREATE UNLOGGED TABLE gateways (
    seen_at timestamptz NOT NULL,
    hears boolean NOT NULL, -- whether its bus works
    id text COLLATE "C" PRIMARY KEY
);

-- `arrival` is the order in which connections came. Somebody whose last connection to a gateway is
-- gone is `leaving`: they may be back in a moment, and count as here until then.
CREATE UNLOGGED TABLE attendance (
    arrival bigint GENERATED ALWAYS AS IDENTITY,
    leaving boolean NOT NULL DEFAULT false,
    connection text COLLATE "C" PRIMARY KEY,
    gateway text COLLATE "C" NOT NULL,
    person text COLLATE "C" NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX attendance_of_person ON attendance (person);
CREATE INDEX attendance_of_gateway ON attendance (gateway);
